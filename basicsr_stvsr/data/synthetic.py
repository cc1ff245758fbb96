"""Clips whose motion is known exactly: photographs seen through a moving camera.

Every frame is rendered straight from a photograph, along the closed-form map of its instant, so that neither errors nor
blur add up over a clip and the flow between any two instants is known to rounding.

Points are arrays (2, ...), x then y, in pixels; whole numbers are pixel centres. Times are in frames and need not be
whole.
"""
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
import skimage.data
import torch
from torch.nn.functional import grid_sample

SUPERSAMPLING = 2  # points per output pixel and axis; enough up to two photograph pixels per frame pixel


def _apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Maps points (2, ...) by an affine 3x3 matrix."""
    return np.tensordot(matrix[:2, :2], points, axes=1) + matrix[:2, 2].reshape(2, *[1] * (points.ndim - 1))


def pixel_grid(height: int, width: int, *, per_pixel: int = 1) -> np.ndarray:
    """Points (2, height * per_pixel, width * per_pixel) spread evenly over the pixels of a frame."""
    y, x = ((np.arange(size * per_pixel) + 0.5) / per_pixel - 0.5 for size in (height, width))
    return np.stack(np.meshgrid(x, y))


@dataclass(frozen=True)
class CameraPath:
    """A camera above a flat photograph: pan, zoom and rotation as functions of time.

    At time t, the frame point at `offset` from the middle of the frame shows the photograph at

        centre + t * velocity + scale * exp(-t * zoom) * R(t * rotation) @ offset

    Attributes:
        centre: photograph point in the middle of the frame at t = 0.
        velocity: photograph pixels (x, y) that the camera moves a frame; what it sees moves the opposite way.
        scale: photograph pixels per frame pixel at t = 0.
        zoom: growth of the magnification a frame, as an exponent; positive comes closer.
        rotation: radians a frame, from the x axis towards the y axis.
    """

    centre: tuple[float, float]
    velocity: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    zoom: float = 0.0
    rotation: float = 0.0

    def frame_to_photo(self, t: float, height: int, width: int) -> np.ndarray:
        """The affine map (3, 3) from frame points at time t to photograph points."""
        angle = t * self.rotation
        scale = self.scale * math.exp(-t * self.zoom)
        linear = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        middle = np.array([(width - 1) / 2, (height - 1) / 2])
        matrix = np.eye(3)
        matrix[:2, :2] = linear
        matrix[:2, 2] = np.asarray(self.centre) + t * np.asarray(self.velocity) - linear @ middle
        return matrix

    def flow(self, source: float, target: float, height: int, width: int) -> np.ndarray:
        """The flow that warps the frame at time `source` onto the frame at time `target`.

        Returns:
            float32 (2, height, width), x then y, in frame pixels, on the target's grid: the target's pixel at `p` shows
            what the source shows at `p + flow`.
        """
        grid = pixel_grid(height, width)
        to_photo = self.frame_to_photo(target, height, width)
        to_source = np.linalg.inv(self.frame_to_photo(source, height, width)) @ to_photo
        return (_apply(to_source, grid) - grid).astype(np.float32)

    def footprint(self, num_frames: int, height: int, width: int) -> np.ndarray:
        """The smallest and the largest photograph point (2, 2) that frames 0 .. num_frames - 1 show."""
        corners = np.array([[0, width - 1, 0, width - 1], [0, 0, height - 1, height - 1]])
        seen = [_apply(self.frame_to_photo(t, height, width), corners) for t in range(num_frames)]
        return np.stack([np.min(seen, axis=(0, 2)), np.max(seen, axis=(0, 2))])


@dataclass(frozen=True)
class Cutout:
    """A round, slightly wavy region of a photograph: `centre` and `radius` in photograph pixels, with a soft edge."""

    centre: tuple[float, float]
    radius: float
    waviness: float = 0.06

    def alpha(self, points: np.ndarray) -> np.ndarray:
        """Opacity (...), 0-1, at photograph points (2, ...)."""
        x, y = points[0] - self.centre[0], points[1] - self.centre[1]
        outline = self.radius * (1 + self.waviness * np.sin(3 * np.arctan2(y, x) + self.radius))
        edge = 0.03 * self.radius
        return np.clip((outline - np.hypot(x, y)) / edge + 0.5, 0, 1)


@dataclass(frozen=True)
class Layer:
    """One photograph in a scene, moving as its own camera path says; all of it, or what `cutout` leaves."""

    photo: str
    path: CameraPath
    cutout: Cutout | None = None

    @cached_property
    def _image(self) -> torch.Tensor:
        """The photograph as grid_sample takes it: (1, 3, H, W), 0-255."""
        return torch.from_numpy(load_photo(self.photo).astype(np.float32)).permute(2, 0, 1)[None]

    def alpha(self, t: float, points: np.ndarray, height: int, width: int) -> np.ndarray:
        """Opacity (...), 0-1, at frame points (2, ...)."""
        if self.cutout is None:
            return np.ones(points.shape[1:])
        return self.cutout.alpha(_apply(self.path.frame_to_photo(t, height, width), points))

    def colour(self, t: float, points: np.ndarray, height: int, width: int) -> np.ndarray:
        """Colour (3, N), BGR, 0-255, at frame points (2, N); outside the photograph its mirror image."""
        size = np.array(self._image.shape[:1:-1])[:, None]  # x, y
        grid = 2 * _apply(self.path.frame_to_photo(t, height, width), points) / (size - 1) - 1
        grid = torch.from_numpy(grid.T.astype(np.float32))[None, None]
        colour = grid_sample(self._image, grid, mode='bicubic', padding_mode='reflection', align_corners=True)
        return colour[0, :, 0].numpy()


@cache
def load_photo(name: str) -> np.ndarray:
    """A photograph out of the scikit-image wheel, by its function's name in `skimage.data`: uint8 (H, W, 3), BGR."""
    image = getattr(skimage.data, name)()
    if isinstance(image, tuple):  # a stereo pair: left, right, disparity
        image = image[0]
    if image.ndim == 2:
        image = np.stack([image] * 3, axis=-1)
    return image[..., ::-1]


def render(layers: Sequence[Layer], t: float, height: int, width: int) -> np.ndarray:
    """The frame of a scene at time t.

    Args:
        layers: the scene from back to front; the first one fills the frame, whether it has a cutout or not.
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


# How much pan, zoom and rotation contribute to each kind of camera motion.
MOTIONS = {'pan': (1.0, 0.0, 0.0), 'zoom': (0.3, 1.0, 0.0), 'rotation': (0.3, 0.0, 1.0), 'combined': (0.7, 0.7, 0.7)}


def random_motion(
    rng: np.random.Generator, motion: str, speed: float, height: int, width: int, *, scale: float = 1.0
) -> CameraPath:
    """A path around the photograph's origin, of a kind in MOTIONS, that moves `speed` pixels a frame on average."""
    pan, zoom, rotation = MOTIONS[motion]
    heading = rng.uniform(0, 2 * math.pi)
    zoom_sign, rotation_sign = rng.choice([-1, 1], size=2)
    # A corner-to-middle distance turns radians, and growth, into pixels at the corners; half of it is about the mean.
    mean_distance = math.hypot(height, width) / 4
    path = CameraPath(
        centre=(0.0, 0.0),
        velocity=(scale * pan * math.cos(heading), scale * pan * math.sin(heading)),
        scale=scale,
        zoom=float(zoom_sign * zoom / mean_distance),
        rotation=float(rotation_sign * rotation / mean_distance),
    )
    factor = speed / np.linalg.norm(path.flow(0, 1, height, width), axis=0).mean()
    return replace(
        path,
        velocity=(float(factor * path.velocity[0]), float(factor * path.velocity[1])),
        zoom=float(factor * path.zoom),
        rotation=float(factor * path.rotation),
    )


def random_background(
    rng: np.random.Generator, photo: str, motion: str, speed: float, num_frames: int, height: int, width: int
) -> Layer:
    """A layer whose camera stays inside the photograph for `num_frames` frames; see `random_motion`.

    Raises:
        ValueError: the photograph is too small for that, even enlarged 1.5 times.
    """
    path = random_motion(rng, motion, speed, height, width)
    photo_size = np.array(load_photo(photo).shape[1::-1])
    lowest, highest = path.footprint(num_frames, height, width)
    largest_scale = float(((photo_size - 1) / (highest - lowest)).min())
    if largest_scale < 2 / 3:
        raise ValueError(
            f'photograph {photo!r} is too small ({photo_size[0]}x{photo_size[1]}) for {num_frames} frames of '
            f'{width}x{height} at {speed:.1f} pixels a frame'
        )
    scale = rng.uniform(min(1.0, largest_scale), min(1.6, largest_scale))
    # The whole footprint grows with the scale when the velocity does.
    centre = rng.uniform(-scale * lowest, photo_size - 1 - scale * highest)
    velocity = (scale * path.velocity[0], scale * path.velocity[1])
    return Layer(photo, replace(path, centre=tuple(map(float, centre)), velocity=velocity, scale=float(scale)))


def random_occluder(
    rng: np.random.Generator, photo: str, cutout: Cutout, motion: str, speed: float, num_frames: int, height: int,
    width: int,
) -> Layer:
    """A cutout about half as high as the frame that is near its middle halfway through the clip."""
    scale = float(cutout.radius / (height * rng.uniform(0.2, 0.3)))
    path = random_motion(rng, motion, speed, height, width, scale=scale)
    half_time = (num_frames - 1) / 2
    place = np.array([width, height]) * rng.uniform(0.3, 0.7, size=2)
    centre = np.asarray(cutout.centre) - _apply(path.frame_to_photo(half_time, height, width), place)
    return Layer(photo, replace(path, centre=tuple(map(float, centre))), cutout)
