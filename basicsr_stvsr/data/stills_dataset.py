"""Training clips of known motion, made from photographs on the fly."""
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from basicsr.utils.registry import DATASET_REGISTRY

from ..io.color_spaces import convert_frame
from ..io.derived_frames import CachedReader
from ..io.frames import FrameReader
from ..io.photographs import PhotoReader
from .clip_options import StillsOptions
from .crops import Crop
from .degradations import Degradation, bicubic, build_degradation
from .items import TrainSample
from .lq_frames import GroundTruth, MotionBlurred, Window, degraded
from .synthetic import (
    MOTIONS,
    CameraPath,
    Sheet,
    cut_sheet,
    draw,
    flow_of_scene,
    largest_scale,
    random_cutout,
    random_motion,
    random_passage,
    random_view,
)
from .train_samples import TrainSamples, check_cache, seed_worker
from .video_degradation import VideoDegradation

_RADII = (0.05, 0.3)  # radii of cutouts, relative to gt_size


@DATASET_REGISTRY.register()
class STVSRStillsDataset(TrainSamples):
    """Windows of photographs under a moving camera, with cutouts of other photographs in front; see `synthetic`.

    Each photograph is one index, as background. Everything else is drawn for each sample: the visible part, its scale,
    pan, zoom and rotation, and the cutouts, from any photographs of the folder.

    `flow` is exact. Where a pixel is hidden or outside the frame in the previous or next frame, `flow` is still the
    motion of the surface in the intermediate frame; see `flow_of_scene`.

    Args:
        opt: see `StillsOptions`.

    Raises:
        FileNotFoundError: there is no folder `stills`.
        FrameReadError: the folder holds no photograph, or a damaged one.
        ValueError: an unknown or impossible option, or photographs that are too small.
    """

    options = StillsOptions
    settings: StillsOptions
    photos: FrameReader
    degradation: Degradation | VideoDegradation

    def __init__(self, opt: dict[str, Any]):
        super().__init__(opt)
        assert self.settings.gt_size is not None  # `StillsOptions` needs it
        self.gt_size = self.settings.gt_size
        if self.lq_flow and self.lq_flow.is_stored:
            raise ValueError(f'{self._where}: flow_opt must be an estimator, such as {{type: DISFlow}}: clips made '
                             'from photographs have no flow files')
        folder = Path(self.settings.stills).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(f'{self._where}: stills does not exist or is not a folder: {folder}')
        self.photos = PhotoReader(folder)
        self._check_photo_sizes()
        if self.settings.cache:
            check_cache(self.cache_bytes(), self.settings.num_worker_per_gpu, self._where)
            self.photos = CachedReader(self.photos)

        self.degradation = build_degradation(self.settings.degradation, self.scale)
        blur = self.settings.motion_blur
        sharp_or_blurred = MotionBlurred(blur, self.settings.blur_margin) if blur else GroundTruth()
        self._lq_crops = degraded(sharp_or_blurred, self.degradation)
        self._lq_sharp_crops = degraded(GroundTruth(), bicubic(self.scale)) if self.settings.lq_sharp else None
        self._margin = self._find_margin()
        self._size = self.gt_size + 2 * self._margin * self.scale  # of the rendered frames

    def __len__(self) -> int:
        return len(self.photos.clips)

    def __getitem__(self, index: int) -> TrainSample:
        """Return a training sample, see `TrainSamples`; its key is the name of the background photograph."""
        seed_worker()
        num_more = 1 if self.settings.motion_blur else 0  # the frames before and after the window
        num_frames = self.settings.num_frame + 2 * num_more
        indices = range(num_more, num_more + self.settings.num_frame)
        if self.settings.random_reverse and random.random() < 0.5:
            indices = indices[::-1]

        name = self.photos.clips[index]
        scene = self._draw_scene(np.random.default_rng(random.getrandbits(64)), name, num_frames)
        drawn = [draw(scene, t, self._size, self._size) for t in range(num_frames)]
        frames = {t: convert_frame(frame, 'rgb', self.color) for t, (frame, _) in enumerate(drawn)}
        flows = []
        if 'flow' in self.settings.optional_keys:
            flows = [flow_of_scene(scene, drawn[between][1], neighbour, between).transpose(1, 2, 0)
                     for before, between, after in zip(indices[::2], indices[1::2], indices[2::2], strict=False)
                     for neighbour in (before, after)]
        return self._make_sample(
            Window(name, frames, random.uniform), indices, self._crop(), (self._size // self.scale,) * 2, flows=flows,
            key=name)

    def cache_bytes(self) -> float:
        """Return the bytes of the decoded photographs."""
        return sum(3 * math.prod(self.photos.frame_size(name)) for name in self.photos.clips)

    def _crop(self) -> Crop:
        """Return the crop, in LR pixels of the rendered frames."""
        first, last = self._margin, self._margin + self.gt_size // self.scale
        return first, first, last, last

    def _find_margin(self) -> int:
        """Return the LR pixels that frames need around the crop, so that no sample sees their border."""
        margin = self.degradation.margin
        if isinstance(self.degradation, VideoDegradation):  # its margin is in LR pixels
            margin *= self.scale
        if self.settings.lq_sharp:
            margin = max(margin, bicubic(self.scale).margin)
        if self.settings.motion_blur:
            margin += self.settings.blur_margin
        if self.lq_flow:
            margin += self.settings.flow_margin * self.scale
        return math.ceil(margin / self.scale)

    def _check_photo_sizes(self) -> None:
        needed = math.ceil(self.gt_size * self.settings.min_reduce)
        small = [name for name in self.photos.clips if min(self.photos.frame_size(name)) < needed]
        if small:
            height, width = self.photos.frame_size(small[0])
            raise ValueError(
                f'{self._where}: {len(small)} of {len(self)} photographs have a side below {needed} pixels (gt_size '
                f'{self.gt_size} times min_reduce {self.settings.min_reduce:g}); the first is '
                f'{self.photos.path / small[0]}, {height}x{width} (h x w)')

    # ---------------------------------------------------------------- random scenes

    def _draw_scene(self, rng: np.random.Generator, name: str, num_frames: int) -> list[Sheet]:
        """Draw a scene: the photograph of this name, with cutouts in front of it."""
        num_cutouts = int(rng.integers(self.settings.max_layers + 1))
        return [self._background(rng, name, num_frames), *(self._cutout(rng, num_frames) for _ in range(num_cutouts))]

    def _background(self, rng: np.random.Generator, name: str, num_frames: int) -> Sheet:
        photo, clip = self.photos.frame(name, 0), (num_frames, self._size, self._size)
        path = self._path(rng, num_frames)
        lowest = self.settings.min_reduce
        highest = np.clip(largest_scale(path, photo.shape[:2], *clip), lowest, self.settings.max_reduce)
        path = random_view(rng, path, rng.uniform(lowest, highest), photo.shape[:2], *clip)
        return cut_sheet(photo, path, *clip)

    def _cutout(self, rng: np.random.Generator, num_frames: int) -> Sheet:
        """Cut out a part of any photograph, turned at random. It is inside the frame halfway through the clip."""
        photo = self.photos.frame(self.photos.clips[rng.integers(len(self))], 0)
        clip = num_frames, self._size, self._size
        scale = rng.uniform(self.settings.min_reduce, self.settings.max_reduce)
        cutout = random_cutout(rng, photo.shape[:2], scale * self.gt_size * rng.uniform(*_RADII))
        path = self._path(rng, num_frames, scale=scale, angle=rng.uniform(-math.pi, math.pi))
        return cut_sheet(photo, random_passage(rng, path, cutout, *clip, places=(0, 1)), *clip, cutout)

    def _path(self, rng: np.random.Generator, num_frames: int, *, scale: float = 1.0, angle: float = 0.0) -> CameraPath:
        """Draw a motion that reaches its scale and angle halfway through the clip. Slow ones are more frequent."""
        motion = rng.choice(list(MOTIONS))
        speed = self.settings.max_motion * rng.uniform()**2
        path = random_motion(rng, motion, speed, self._size, self._size, scale=scale)
        path = replace(path, moment=(num_frames - 1) / 2, angle=angle)
        return path.at_most(self.settings.max_motion, num_frames, self._size, self._size)
