"""Scenes of exactly known motion: photographs of scikit-image along camera paths, by bicubic interpolation in float.

`basicsr_stvsr.data.synthetic` has the paths, and the faster drawing of `STVSRStillsDataset`.
"""
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import skimage.data
import torch
from torch.nn.functional import grid_sample

from basicsr_stvsr.data.synthetic import (
    SUPERSAMPLING,
    CameraPath,
    Cutout,
    apply_affine,
    largest_scale,
    pixel_grid,
    random_motion,
    random_passage,
    random_view,
)


@dataclass(frozen=True)
class Layer:
    """A photograph in a scene, or a cutout of it, that moves along its own camera path."""

    photo: str
    path: CameraPath
    cutout: Cutout | None = None

    @cached_property
    def _image(self) -> torch.Tensor:
        """The photograph in grid_sample's layout: (1, 3, H, W), 0-255."""
        return torch.from_numpy(load_photo(self.photo).astype(np.float32)).permute(2, 0, 1)[None]

    def alpha(self, t: float, points: np.ndarray, height: int, width: int) -> np.ndarray:
        """Return the opacity (...), 0-1, at frame points (2, ...)."""
        if self.cutout is None:
            return np.ones(points.shape[1:])
        return self.cutout.alpha(apply_affine(self.path.frame_to_photo(t, height, width), points))

    def colour(self, t: float, points: np.ndarray, height: int, width: int) -> np.ndarray:
        """Return the colour (3, N), BGR, 0-255, at frame points (2, N). Outside the photograph it is mirrored."""
        size = np.array(self._image.shape[:1:-1])[:, None]  # x, y
        grid = 2 * apply_affine(self.path.frame_to_photo(t, height, width), points) / (size - 1) - 1
        grid = torch.from_numpy(grid.T.astype(np.float32))[None, None]
        colour = grid_sample(self._image, grid, mode='bicubic', padding_mode='reflection', align_corners=True)
        return colour[0, :, 0].numpy()


@cache
def load_photo(name: str) -> np.ndarray:
    """Load a photograph of the scikit-image wheel, by its function in `skimage.data`: uint8 (H, W, 3), BGR."""
    image = getattr(skimage.data, name)()
    if isinstance(image, tuple):  # a stereo pair: left, right, disparity
        image = image[0]
    if image.ndim == 2:
        image = np.stack([image] * 3, axis=-1)
    return image[..., ::-1]


def render(layers: Sequence[Layer], t: float, height: int, width: int) -> np.ndarray:
    """Render the frame of a scene at time t.

    Args:
        layers: the scene from back to front. The first layer fills the frame and ignores its cutout.
        t: time in frames.
        height, width: size of the frame in pixels.

    Returns:
        uint8 (height, width, 3), BGR.
    """
    points = pixel_grid(height, width, per_pixel=SUPERSAMPLING)
    background, *occluders = layers
    frame = background.colour(t, points.reshape(2, -1), height, width).reshape(3, *points.shape[1:])
    for layer in occluders:
        alpha = layer.alpha(t, points, height, width)
        seen = alpha > 0
        frame[:, seen] += alpha[seen] * (layer.colour(t, points[:, seen], height, width) - frame[:, seen])
    frame = frame.reshape(3, height, SUPERSAMPLING, width, SUPERSAMPLING).mean(axis=(2, 4))
    return frame.round().clip(0, 255).astype(np.uint8).transpose(1, 2, 0)


def random_background(
    rng: np.random.Generator, photo: str, motion: str, speed: float, num_frames: int, height: int, width: int
) -> Layer:
    """Return a layer whose camera stays inside the photograph for `num_frames` frames; see `random_motion`.

    Raises:
        ValueError: the photograph is too small, even enlarged 1.5 times.
    """
    path = random_motion(rng, motion, speed, height, width)
    photo_size = load_photo(photo).shape[:2]
    limit = largest_scale(path, photo_size, num_frames, height, width)
    if limit < 2 / 3:
        raise ValueError(
            f'photograph {photo!r} is too small ({photo_size[1]}x{photo_size[0]}) for {num_frames} frames of '
            f'{width}x{height} at {speed:.1f} pixels a frame'
        )
    scale = rng.uniform(min(1.0, limit), min(1.6, limit))
    return Layer(photo, random_view(rng, path, scale, photo_size, num_frames, height, width))


def random_occluder(
    rng: np.random.Generator, photo: str, cutout: Cutout, motion: str, speed: float, num_frames: int, height: int,
    width: int,
) -> Layer:
    """Return a cutout about half as high as the frame, near the middle of the frame halfway through the clip."""
    scale = float(cutout.radius / (height * rng.uniform(0.2, 0.3)))
    path = random_motion(rng, motion, speed, height, width, scale=scale)
    return Layer(photo, random_passage(rng, path, cutout, num_frames, height, width, places=(0.3, 0.7)), cutout)
