"""The files of a data set of clips: folders, LMDBs or videos of ground truth and of LR frames, in pairs."""
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from ..io.color_spaces import Color
from ..io.frames import FrameReader
from ..io.opening import open_color_reader
from .clip_options import ClipOptions
from .degradations import Degradation
from .hints import hint
from .lq_frames import CropSource, GroundTruth, MotionBlurred, PairedReader, Stored, degraded
from .train_samples import SampleDataset
from .video_degradation import VideoDegradation

# Check that each path must pass.
_PATHS: dict[str, Callable[[Path], bool]] = {
    'dataroot_gt': Path.exists, 'dataroot_lq': Path.exists, 'dataroot_blurred': Path.exists,
    'dataroot_lq_sharp': Path.exists, 'meta_info_file': Path.is_file, 'dataroot_flow': Path.is_dir
}


def first_match(clip: str, patterns: Iterable[str]) -> str | None:
    """Return the clip's own name, brackets included, or else the first pattern that it matches."""
    return clip if clip in patterns else next((pattern for pattern in patterns if fnmatchcase(clip, pattern)), None)


def unmatched(option: str, patterns: Iterable[str], clips: Sequence[str]) -> ValueError:
    some = ', '.join(map(repr, clips[:3])) + (', ...' if len(clips) > 3 else '')
    return ValueError(f'{option}: no clip matches {sorted(patterns)}; clips are {some}')


class ClipFiles(SampleDataset):
    """Base of data sets of clips in files: opens readers, and pairs GT and LR clips.

    Attributes:
        gt_reader, lq_reader, lq_sharp_reader, blurred_reader: None where the options name no such data.
        clips: names of the clips, those of the ground truth where there is one.
    """

    options: type[ClipOptions]
    settings: ClipOptions
    degradation: Degradation | VideoDegradation | None  # None where LR frames are stored
    gt_reader: FrameReader | None = None
    lq_reader: FrameReader | None = None
    lq_sharp_reader: PairedReader | None = None
    blurred_reader: PairedReader | None = None

    def __init__(self, opt: dict[str, Any]):
        super().__init__(opt)
        self._check_paths()
        names = self._names_in_meta_info()
        if self.settings.dataroot_gt:
            reader = self.gt_reader = self._open('dataroot_gt', names, self.settings.frame_size)
        else:
            reader = self.lq_reader = self._open('dataroot_lq', names, self.settings.frame_size)
        self.clips = self._filtered(reader.clips)
        if self.gt_reader:
            self.lq_reader = self._open_paired('dataroot_lq', self.gt_reader, names, self.scale)
            self.lq_sharp_reader = self._open_paired('dataroot_lq_sharp', self.gt_reader, names, self.scale)
            self.blurred_reader = self._open_paired('dataroot_blurred', self.gt_reader, names, 1)
        readers = self.lq_reader, self.lq_sharp_reader, self.blurred_reader
        self._paired = [reader for reader in readers if isinstance(reader, PairedReader)]

    @property
    def _read_color(self) -> Color:
        """Colour space in which frames are read and degraded."""
        return self.color

    def _open(self, option: str, clips: Sequence[str] | None, frame_size: Sequence[int] | None) -> FrameReader:
        try:
            return open_color_reader(
                self._path(option), self.settings.stored_color, self._read_color, clips=clips,
                frame_size=(frame_size[0], frame_size[1]) if frame_size else None)
        except ValueError as error:
            raise ValueError(f'{self._where}: stored_color: {error}') from None

    def _path(self, option: str) -> Path:
        return Path(getattr(self.settings, option)).expanduser()

    def _check_paths(self) -> None:
        """Raise one FileNotFoundError for all missing paths."""
        missing = [option for option, is_there in _PATHS.items()
                   if getattr(self.settings, option, None) and not is_there(self._path(option))]
        if missing:
            gt = self._path('dataroot_gt') if self.settings.dataroot_gt else None
            raise FileNotFoundError('\n'.join(
                f'{self._where}: {option} does not exist: {self._path(option)}'
                f'{hint(option, self._path(option), gt, self.scale)}'
                for option in missing))

    def _names_in_meta_info(self) -> list[str] | None:
        if not self.settings.meta_info_file:
            return None
        path = self._path('meta_info_file')
        # Lines in BasicSR's format: clip name, number of frames, shape.
        names = [line.split()[0] for line in path.read_text().splitlines() if line.strip()]
        if len(set(names)) < len(names):
            twice = Counter(names).most_common(1)[0][0]
            raise ValueError(f'{self._where}: meta_info_file {path} lists the clip {twice!r} more than once')
        return self._filtered(names)

    def _filtered(self, names: Sequence[str]) -> list[str]:
        pattern = self.settings.clips
        kept = [name for name in names if not pattern or fnmatchcase(name, pattern)]
        if not kept:
            raise ValueError(f'{self._where}: clips: {pattern!r} matches none of {len(names)} clips (the first is '
                             f'{names[0]!r})' if names else f'{self._where}: no clips')
        return kept

    def _open_paired(self, option: str, gt: FrameReader, clips: Sequence[str] | None, ratio: int
                     ) -> PairedReader | None:
        """Open another version of the ground truth, `ratio` times smaller; return None where the options name none."""
        if not getattr(self.settings, option, None):
            return None
        reader = self._open(option, clips, None)
        with self._name_in_errors():
            return PairedReader(reader, gt, self.clips, ratio=ratio, option=option)

    def _open_lq_crops(self, blur_margin: int) -> CropSource:
        """Return the source of LR frames."""
        if self.settings.motion_blur:
            assert self.degradation is not None  # motion_blur excludes dataroot_lq
            return degraded(MotionBlurred(self.settings.motion_blur, blur_margin), self.degradation)
        return self._crops_of(self.blurred_reader or self._input_reader, self.degradation)

    @property
    def _input_reader(self) -> FrameReader:
        """Stored LR frames, or else the ground truth that they are made from."""
        reader = self.lq_reader or self.gt_reader
        assert reader is not None  # the options name one of them
        return reader

    def _crops_of(self, reader: FrameReader, degradation: Degradation | VideoDegradation | None) -> CropSource:
        """Return a source of LR frames: stored in a reader, or made from its HR frames."""
        if degradation is None:
            return Stored(reader)
        return degraded(GroundTruth() if reader is self.gt_reader else Stored(reader), degradation)

    def _read_gt(self, clip: str, numbers: range) -> dict[int, np.ndarray]:
        """Read ground truth by number.

        With motion_blur, also read the previous and the next frame where the clip has them.
        """
        if self.gt_reader is None:
            return {}
        numbers = numbers[::-1] if numbers.step < 0 else numbers  # videos are decoded forward
        wanted: Sequence[int] = numbers
        if self.settings.motion_blur:
            around = (numbers[0] - numbers.step, *numbers, numbers[-1] + numbers.step)
            wanted = [number for number in around if 0 <= number < self.gt_reader.num_frames(clip)]
        return {number: self.gt_reader.frame(clip, number) for number in wanted}

    def _lq_size(self, clip: str) -> tuple[int, int]:
        """Return height and width of a clip's LR frames."""
        if self.gt_reader is None:
            return self._input_reader.frame_size(clip)
        height, width = self.gt_reader.frame_size(clip)
        return height // self.scale, width // self.scale

    def _lq_names(self, clip: str, indices: Sequence[int]) -> list[str]:
        """Return the names of LR frames. Frames that are not stored have the names of their GT frames."""
        return [self._input_reader.frame_name(clip, i) for i in indices]

    def _read_lq_flows(self, clip: str, indices: Sequence[int], size: tuple[int, int]) -> list[np.ndarray]:
        """Read stored flows between LR frames, by the names of these in their files."""
        assert self.lq_flow is not None
        stored_name = self.lq_reader.stored_name[clip] if isinstance(self.lq_reader, PairedReader) else clip
        return self.lq_flow.read(stored_name, self._lq_names(clip, indices), size)

    def _check_sizes(self, clip: str) -> None:
        with self._name_in_errors():
            for reader in self._paired:
                reader.check_size(clip)
