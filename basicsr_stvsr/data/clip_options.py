"""Options of the data sets of clips, `datasets.<name>` in an option file."""
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import ValidationError

from ..config import Count, DatasetOptions, Flow, Positive
from ..config.block import Block, Problem, nearest, problem, refuse, refuse_field, shown
from ..io.color_spaces import Color, StoredColor
from .clip_areas import ClipArea
from .degradations import DegradationBlock
from .motion_blur import LONGEST_EXPOSURE

FrameSize = Annotated[list[Positive], Field(min_length=2, max_length=2)]


def check_exposure(exposure: float | list[float]) -> float | list[float]:
    lowest, highest = exposure if isinstance(exposure, list) else (exposure, exposure)
    if not 0 < lowest <= highest <= LONGEST_EXPOSURE:
        raise refuse(f'must be > 0 and <= {LONGEST_EXPOSURE}, or a range [lowest, highest] within these limits, but is '
                     f'{shown(exposure)}')
    return exposure


def check_odd(number: int) -> int:
    if number % 2 == 0:
        raise refuse(f'must be odd, so that the sharp frame is the middle one, but is {number}')
    return number


class MotionBlurOptions(Block):
    """`datasets.<name>.motion_blur`: make LR frames with synthetic motion blur, as from a longer exposure."""

    exposure: Annotated[
        float | Annotated[list[float], Field(min_length=2, max_length=2)], AfterValidator(check_exposure)] = 0.5
    """Exposure time as a share of the frame interval, or [lowest, highest] to draw from: per sample in training, by the
    name of the clip in tests. A real camera reaches 1; use up to 2 for clips with little motion."""
    num_frame: Annotated[Positive, AfterValidator(check_odd)] = 7
    """Number of sub-frames to average for a blurred frame; odd."""

    def draw_exposure(self, uniform: Callable[[float, float], float]) -> float:
        """Return the exposure of a sample; `uniform` draws a number between two others."""
        return uniform(*self.exposure) if isinstance(self.exposure, list) else self.exposure


class ClipFiles(Block):
    """Clips: where to find them."""

    dataroot_gt: str | Path | None = None
    """Clips as a folder, an LMDB, a video file or a folder of videos, raw ones (.yuv) included."""
    dataroot_lq: str | Path | None = None
    """LR clips, in the same forms as dataroot_gt; default: made from dataroot_gt, cropped to a multiple of scale."""
    dataroot_blurred: str | Path | None = None
    """Blurred clips of the same size as dataroot_gt. LR frames are made from them instead."""
    frame_size: FrameSize | None = None
    """[height, width] of the .yuv files in dataroot_gt or, without it, dataroot_lq. Default: from their names, such as
    foreman_176x144.yuv (width first) or foreman_qcif.yuv."""
    meta_info_file: str | Path | None = None
    """Text file with a clip name at the start of each line; default: all clips."""
    clips: str | None = None
    """Pattern that the names of the clips must match, such as '00001/*'; default: all clips."""
    stored_color: StoredColor = 'rgb'
    """Colour space of the files. yuv images hold Y, U, V in place of R, G, B. .yuv files are always yuv."""


class ClipTrainFiles(ClipFiles):
    """Clips for training: where to find them, and which windows to use."""

    dataroot_gt: str | Path
    """Clips as a folder, an LMDB, a video file or a folder of videos, raw ones (.yuv) included."""
    dataroot_lq: str | Path | None = None
    """LR clips, in the same forms as dataroot_gt, at the full frame rate; default: make LR frames from dataroot_gt."""
    dataroot_lq_sharp: str | Path | None = None
    """Sharp versions of the LR clips, at the full frame rate, for networks that learn to deblur. Samples hold them as
    lq_sharp."""
    dataroot_flow: str | Path | None = None
    """Precomputed flows to the frames between the LR frames: a folder or an LMDB (docs/datasets.md). Needs
    interval_list [1] and temporal_scale 2."""
    reduce: Positive = 1
    """Factor by which to shrink all frames first, averaging reduce x reduce pixels, so that the network does not learn
    their compression artefacts. Flows of dataroot_flow shrink too. gt_size counts pixels after that."""
    interval_list: list[Positive] = Field([1], min_length=1)
    """Temporal strides within a window, in frames; each stride adds windows."""
    frame_stride: Positive = 1
    """Stride between the starts of two windows, in frames."""
    clip_weights: dict[str, Annotated[float, Field(ge=0)]] = {}
    """Pattern of clip names -> how often to use their windows, relative to 1. The first match applies."""


class StillsFiles(Block):
    """Stills: photographs, and the synthetic motion to give them."""

    stills: str | Path
    """Folder of photographs, searched with its subfolders. Each photograph gives one sample, with cutouts of others
    moving in front."""
    max_motion: float = Field(24, ge=0)
    """Largest motion of any point, in HR pixels per frame. Slow motion is drawn more often than fast motion."""
    max_layers: Count = 3
    """Largest number of cutouts in front of the photograph. Each moves independently."""
    min_reduce: float = Field(1, ge=1)
    """Smallest factor by which to shrink photographs, to hide their compression and noise. Their shorter side must be
    at least gt_size times min_reduce."""
    max_reduce: float = Field(2, ge=1)
    """Largest such factor, as far as the size of the photograph allows. Each sample draws one."""
    exact_flow: bool = True
    """Whether samples hold the exact flow to the frames between the LR frames, as with dataroot_flow. Applies only to
    temporal_scale 2."""

    def has_flow(self, temporal_scale: int) -> bool:
        """Return whether samples hold the flow to the frames between two LR frames."""
        return self.exact_flow and temporal_scale == 2

    @model_validator(mode='after')
    def check_reduce(self) -> Self:
        if self.max_reduce < self.min_reduce:
            raise refuse_field('max_reduce', f'must be at least min_reduce {self.min_reduce:g}, but is '
                               f'{self.max_reduce:g}')
        return self


class SampleOptions(DatasetOptions):
    """Samples of clips: options that the data sets of this package share."""

    degradation: DegradationBlock | None = None
    """How to make LR frames. {type: bicubic}: MATLAB's bicubic, the default; {type: gaussian, sigma, kernel_size,
    border, rounding}: blur and subsample; {type: blur_bicubic, sigma, kernel_size, border}: blur, then bicubic; {type:
    video, blur, resize, noise, codec, margin}: random degradations of real footage, for color rgb."""
    motion_blur: MotionBlurOptions | None = None
    """{exposure, num_frame}: make LR frames from blurred ground truth. A blurred frame averages num_frame sub-frames,
    interpolated along optical flow, over the exposure: a share of the frame interval, or a range [lowest, highest].
    Defaults: exposure 0.5, num_frame 7. Without this option nothing is blurred."""
    temporal_scale: Literal[1, 2] = 2
    """2: samples hold every second LR frame; 1: all of them."""
    color: Color = 'rgb'
    """Colour space of the samples: rgb; yuv, 8 bits of BT.601 studio swing; or y, the luma plane of yuv alone, from
    which LR frames are made. Must fit the network."""
    flow_opt: Flow | None = None
    """Source of the flow between LR frames, for networks that need it: an estimator such as {type: DISFlow}, or files,
    {type: FlowFiles, root: ...}."""

    @model_validator(mode='after')
    def check_blur(self) -> Self:
        if self.motion_blur and self.color != 'rgb':
            raise refuse_field('motion_blur', f'needs color rgb, to convert values to light, but color is {self.color}')
        if (self.degradation or {}).get('type') == 'video' and self.color != 'rgb':
            raise refuse_field('degradation', f'of type video needs color rgb, but color is {self.color}')
        return self

    @model_validator(mode='after')
    def check_flow(self) -> Self:
        if self.flow_opt and self.temporal_scale != 2:
            raise refuse_field('flow_opt', f'needs temporal_scale 2, but temporal_scale is {self.temporal_scale}')
        if self.flow_opt and self.color == 'y':
            raise refuse_field('flow_opt', "needs colour frames, but color is 'y'")
        return self


class TrainSampleOptions(SampleOptions):
    """Samples for training: random crops of windows of frames."""

    lq_sharp: bool = False
    """Whether samples hold sharp LR frames as lq_sharp, made from ground truth with MATLAB's bicubic. Use
    dataroot_lq_sharp for files."""
    num_frame: Positive = 3
    """Frames in a window, T; odd with temporal_scale 2."""
    gt_size: Positive | None = None
    """Side length of the GT crop, a multiple of scale; default: the whole frame."""
    crop_stride: Positive | None = None
    """Grid of the crop positions in GT pixels, a multiple of scale; default: scale, so that crops start at any LR
    pixel."""
    random_reverse: bool = False
    """Whether to play half of the windows backwards."""
    use_hflip: bool = False
    """Whether to mirror half of the windows, as BasicSR's `augment` does."""
    use_rot: bool = False
    """Whether to also flip windows upside down and turn them by 90 degrees, each half of the time."""
    flow_strides: list[Literal[1, 2]] = Field([1], min_length=1)
    """Pairs of LR frames for which flow_opt gives the flow. 1: neighbours; 2: every second frame and the next such.
    Training FISR needs both."""
    flow_margin: Count = 32
    """Extra LR pixels around a crop for the flow estimator of flow_opt. They show what moves in from outside, as the
    whole frames of a test do. FISR's authors estimated flow on crops: 0."""
    blur_margin: Count = 32
    """Extra HR pixels around a crop on which motion_blur estimates its flow, for the same reason."""
    cache: bool = False
    """Whether each worker keeps decoded frames, and LR frames made from them, in memory; for small data sets. The
    workers of a process may use half of the main memory together. Results of motion_blur and of degradation type video
    are not kept."""

    @property
    def optional_keys(self) -> set[str]:
        """Keys that samples hold only with some options."""
        return {'lq_sharp'} if self.lq_sharp else set()

    @model_validator(mode='after')
    def check_window(self) -> Self:
        if (self.num_frame - 1) % self.temporal_scale:
            raise refuse_field('num_frame', f'must be odd with temporal_scale 2, but is {self.num_frame}')
        if self.flow_opt and 2 in self.flow_strides and (self.num_frame % 4 != 1 or self.num_frame < 5):
            raise refuse_field('num_frame', f'must be 5, 9, 13, ... with flow_strides 2, but is {self.num_frame}')
        if self.gt_size and self.gt_size % self.scale:
            raise refuse_field('gt_size', f'must be a multiple of scale {self.scale}, but is {self.gt_size}')
        if self.crop_stride and not self.gt_size:
            raise refuse_field('crop_stride', f'is {self.crop_stride}, but has an effect only with gt_size, which is '
                                              'missing')
        if self.crop_stride and self.crop_stride % self.scale:
            raise refuse_field('crop_stride', f'must be a multiple of scale {self.scale}, but is {self.crop_stride}')
        return self


class ClipOptions(SampleOptions, ClipFiles):
    """`datasets.<name>` of clips: where to find them, and how to make samples."""

    @model_validator(mode='after')
    def check_lq(self) -> Self:
        ways = [name for name in ('dataroot_lq', 'dataroot_blurred', 'motion_blur') if getattr(self, name)]
        if len(ways) > 1:
            raise refuse_field(ways[1], f'cannot be combined with {ways[0]}: LR frames come from one of them')
        return self


class ClipTrainOptions(TrainSampleOptions, ClipTrainFiles, ClipOptions):
    """`datasets.<name>` of type STVSRClipDataset: random crops of windows of consecutive frames, for training."""

    @property
    def optional_keys(self) -> set[str]:
        files = {'lq_sharp': self.dataroot_lq_sharp, 'flow': self.dataroot_flow}
        return super().optional_keys | {key for key, path in files.items() if path}

    @model_validator(mode='after')
    def check_files(self) -> Self:
        if self.lq_sharp and self.dataroot_lq_sharp:
            raise refuse_field('lq_sharp', 'cannot be combined with dataroot_lq_sharp: sharp LR frames come from one '
                               'of them')
        if self.dataroot_flow and (self.interval_list != [1] or self.temporal_scale != 2):
            raise refuse_field('dataroot_flow', 'needs interval_list [1] and temporal_scale 2, but their values are '
                               f'{self.interval_list} and {self.temporal_scale}')
        return self


class StillsOptions(TrainSampleOptions, StillsFiles):
    """`datasets.<name>` of type STVSRStillsDataset: clips of known motion, made from photographs, for training."""

    @property
    def optional_keys(self) -> set[str]:
        return super().optional_keys | ({'flow'} if self.has_flow(self.temporal_scale) else set())

    @model_validator(mode='after')
    def check_size(self) -> Self:
        if not self.gt_size:
            raise refuse_field('gt_size', 'is missing: it sets the size of the frames made from photographs')
        if self.crop_stride:
            raise refuse_field('crop_stride', f'is {self.crop_stride}, but frames made from photographs have the size '
                                              'of the crop already; remove it')
        return self


class Source(Block):
    """Source: one of the roots of a mixed data set."""

    weight: float = Field(1, gt=0)
    """Share of the samples from this source, relative to the other weights. The number of its windows does not
    matter."""


class ClipSource(Source, ClipTrainFiles):
    """`datasets.<name>.sources` with `dataroot_gt`: clips, as in `STVSRClipDataset`."""


class StillsSource(Source, StillsFiles):
    """`datasets.<name>.sources` with `stills`: photographs, as in `STVSRStillsDataset`."""


def read_source(options: Any) -> Any:
    """Read a source by the class that its root selects."""
    if not isinstance(options, dict):
        return options
    kinds: dict[str, type[Source]] = {'dataroot_gt': ClipSource, 'stills': StillsSource}
    roots = [name for name in kinds if options.get(name) is not None]
    if len(roots) != 1:
        near = next(filter(None, (nearest(key, kinds) for key in options if key not in kinds)), '')
        raise refuse('must have one root, either dataroot_gt (clips) or stills (photographs), but has '
                     f'{" and ".join(roots) or "neither"}. {near}'.rstrip())
    return kinds[roots[0]].model_validate(options)


class MixedOptions(TrainSampleOptions):
    """`datasets.<name>` of type STVSRMixedDataset: samples of several weighted sources, for training."""

    sources: list[Annotated[ClipSource | StillsSource, BeforeValidator(read_source)]] = Field(min_length=1)
    """The roots: {dataroot_gt, weight, ...} with options of clips, or {stills, weight, ...} with options of synthetic
    motion (docs/datasets.md)."""

    @property
    def optional_keys(self) -> set[str]:
        return self.of_source(0).optional_keys  # equal for all sources, see check_sources

    def of_source(self, number: int) -> ClipTrainOptions | StillsOptions:
        """Return the options of a source as those of a separate data set."""
        source = self.sources[number]
        values = {name: getattr(self, name) for name in TrainSampleOptions.model_fields}
        values |= {name: getattr(source, name) for name in type(source).model_fields if name != 'weight'}
        if isinstance(source, StillsSource):
            return StillsOptions.model_validate(values | {'crop_stride': None})
        # Files of sharp LR frames take precedence over generated ones.
        return ClipTrainOptions.model_validate(values | {'lq_sharp': self.lq_sharp and not source.dataroot_lq_sharp})

    @model_validator(mode='after')
    def check_sources(self) -> Self:
        if not self.gt_size:
            raise refuse_field('gt_size', 'is missing: samples of all sources must have the same size')
        problems: list[Problem] = []
        keys = []
        for number, source in enumerate(self.sources):
            try:
                keys.append(self.of_source(number).optional_keys)
            except ValidationError as error:
                for details in error.errors(include_url=False):
                    place, text = details['loc'], details['ctx']['text']
                    if place[0] not in type(source).model_fields:  # a common option that does not fit this source
                        text, place = f': {place[0]} {text}', ()
                    problems.append(problem(text, 'sources', number, *place))
        if problems:
            raise ValidationError.from_exception_data(type(self).__name__, problems)
        for key, ways in _WAYS.items():
            having = [number for number, those in enumerate(keys) if key in those]
            if 0 < len(having) < len(keys):
                lacking = next(number for number in range(len(keys)) if number not in having)
                raise refuse_field('sources', f'must all provide the same keys, but {key!r} comes from [{having[0]}] '
                                   f'and not from [{lacking}]; set {ways}')
        return self


# Key that only some sources may have -> how to give it in all of them, or in none.
_WAYS = {
    'flow': 'dataroot_flow in every source of clips; or in none, and exact_flow: false in stills',
    'lq_sharp': 'lq_sharp: true in those without dataroot_lq_sharp',
}


class ClipTestOptions(ClipOptions):
    """`datasets.<name>` of type STVSRTestDataset: whole clips, for validation and testing."""

    num_frame: Positive | None = None
    """Use only the first frames, enough for at most this many output frames; default: all."""
    gt_start: Literal[0, 1] | None = None
    """First frame of the ground truth. 0: the first LR frame; 1: the frame between the first two LR frames, up to the
    frame between the last two, as in the files of FISR's authors. Default: derived from the numbers of frames; 0 if
    both fit."""
    clip_areas: dict[str, ClipArea] = {}
    """Pattern of clip names -> part of these clips of dataroot_gt to use, cut out first: {rows: [first, last], columns:
    [first, last], frames: [first, last]}. Numbers start at 1 and include the last, as in MATLAB. Omitted keys use
    everything; the first match applies. Not with dataroot_lq or dataroot_blurred."""
    lq_size_multiple: Positive = 1
    """Crop LR frames, and GT with them, at the right and bottom to a multiple of this many pixels."""

    @model_validator(mode='after')
    def check_data(self) -> Self:
        if self.dataroot_gt is None and self.dataroot_lq is None:
            raise refuse_field('dataroot_gt', 'is missing, and so is dataroot_lq; set one of them')
        for name in ('dataroot_lq', 'dataroot_blurred'):
            if self.clip_areas and getattr(self, name):
                raise refuse_field('clip_areas', f'cannot be combined with {name}: it crops dataroot_gt, and LR frames '
                                   'are made from the crops')
        return self
