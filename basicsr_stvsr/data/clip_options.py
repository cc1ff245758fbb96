"""Options of the data sets of clips, `datasets.<name>` in an option file."""
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import ValidationError

from ..config import Count, DatasetOptions, Flow, Positive
from ..config.block import Block, nearest, problem, refuse, refuse_field, shown
from ..io.color import Color, StoredColor
from .clip_areas import ClipArea
from .degradations import DegradationBlock
from .motion_blur import LONGEST_EXPOSURE

FrameSize = Annotated[list[Positive], Field(min_length=2, max_length=2)]


def check_exposure(exposure: float | list[float]) -> float | list[float]:
    lowest, highest = exposure if isinstance(exposure, list) else (exposure, exposure)
    if not 0 < lowest <= highest <= LONGEST_EXPOSURE:
        raise refuse(f'must be > 0 and <= {LONGEST_EXPOSURE}, or [lowest, highest] of such, but is {shown(exposure)}')
    return exposure


def check_odd(number: int) -> int:
    if number % 2 == 0:
        raise refuse(f'must be odd, so that the sharp frame is the middle one, but is {number}')
    return number


class MotionBlurOptions(Block):
    """`datasets.<name>.motion_blur`: LR frames are made of ground truth that is blurred as a longer exposure would."""

    exposure: Annotated[
        float | Annotated[list[float], Field(min_length=2, max_length=2)], AfterValidator(check_exposure)] = 0.5
    """How long the shutter is open, as a share of the time from one frame to the next; or [lowest, highest], drawn for
    every sample, in tests by the name of the clip. A camera reaches 1; up to 2 is for clips that move little."""
    num_frame: Annotated[Positive, AfterValidator(check_odd)] = 7
    """Of how many sub-frames a blurred frame is the mean; odd."""

    def draw_exposure(self, uniform: Callable[[float, float], float]) -> float:
        """The exposure of a sample; `uniform` draws a number between two others."""
        return uniform(*self.exposure) if isinstance(self.exposure, list) else self.exposure


class ClipFiles(Block):
    """Clips: where they are."""

    dataroot_gt: str | Path | None = None
    """Clips as a folder, an LMDB, a video file or a folder of videos, raw ones (.yuv) included."""
    dataroot_lq: str | Path | None = None
    """The same for the LR clips; default: LR frames are made from dataroot_gt, cut to a multiple of scale."""
    dataroot_blurred: str | Path | None = None
    """Blurred versions of the clips of dataroot_gt, of the same size, of which LR frames are made in its place."""
    frame_size: FrameSize | None = None
    """[height, width] of .yuv files, those of dataroot_gt or, without it, of dataroot_lq; default: what their names
    tell, such as foreman_176x144.yuv (width first) or foreman_qcif.yuv."""
    meta_info_file: str | Path | None = None
    """A text file with a clip name at the start of each line; default: every clip."""
    clips: str | None = None
    """A pattern such as '00001/*' that the names of the clips must match; default: every clip."""
    stored_color: StoredColor = 'rgb'
    """That of the files; an image of YUV has Y, U, V where others have R, G, B. Of .yuv files it is yuv in any case."""


class ClipTrainFiles(ClipFiles):
    """Clips for training: where they are, and which windows are taken of them."""

    dataroot_gt: str | Path
    """Clips as a folder, an LMDB, a video file or a folder of videos, raw ones (.yuv) included."""
    dataroot_lq: str | Path | None = None
    """The same for the LR clips, at the full frame rate; default: LR frames are made from dataroot_gt."""
    dataroot_lq_sharp: str | Path | None = None
    """Sharp versions of the LR clips, at the full frame rate, for networks that learn to deblur: the sample has them
    as lq_sharp."""
    dataroot_flow: str | Path | None = None
    """Precomputed flows to the frames between the LR frames, a folder or an LMDB (docs/datasets.md); needs
    interval_list [1] and temporal_scale 2."""
    reduce: Positive = 1
    """Factor by which all frames are reduced first, by the mean of reduce x reduce pixels, so that their compression is
    not learned; flows of dataroot_flow are reduced with them. gt_size counts pixels after that."""
    interval_list: list[Positive] = Field([1], min_length=1)
    """Steps between the frames of a window; each gives its own windows."""
    frame_stride: Positive = 1
    """Frames from the start of one window to the start of the next."""
    clip_weights: dict[str, Annotated[float, Field(ge=0)]] = {}
    """Pattern of clip names -> how often their windows come, relative to 1; the first pattern that matches counts."""


class StillsFiles(Block):
    """Stills: photographs, and the motion that is made of them."""

    stills: str | Path
    """A folder of photographs, and of folders of them: one sample each. Cutouts of others pass in front."""
    max_motion: float = Field(24, ge=0)
    """No point moves by more HR pixels a frame; slow motion is more frequent than fast one."""
    max_layers: Count = 3
    """Largest number of cutouts in front of the photograph; each moves on its own."""
    min_reduce: float = Field(1, ge=1)
    """Smallest factor by which photographs are reduced, which hides their compression and noise. Their shorter side
    must be at least gt_size times min_reduce."""
    max_reduce: float = Field(2, ge=1)
    """Largest such factor, as far as photographs are large enough; each sample draws one."""
    exact_flow: bool = True
    """Whether samples have the exact flow to the frames between the LR frames, as with dataroot_flow; only with
    temporal_scale 2."""

    def has_flow(self, temporal_scale: int) -> bool:
        """Whether samples have the flow to the frames between two LR frames."""
        return self.exact_flow and temporal_scale == 2

    @model_validator(mode='after')
    def check_reduce(self) -> Self:
        if self.max_reduce < self.min_reduce:
            raise refuse_field('max_reduce', f'must be at least min_reduce {self.min_reduce:g}, but is '
                               f'{self.max_reduce:g}')
        return self


class SampleOptions(DatasetOptions):
    """Samples of clips: what the data sets of this package share."""

    degradation: DegradationBlock | None = None
    """How LR frames are made: {type: bicubic}, MATLAB's; {type: gaussian, sigma, kernel_size, border, rounding},
    blurred and sampled; {type: blur_bicubic, sigma, kernel_size, border}, blurred and made smaller by bicubic; {type:
    video, blur, resize, noise, codec, margin}, at random as real footage is, for color rgb; default: bicubic."""
    motion_blur: MotionBlurOptions | None = None
    """{exposure, num_frame}: LR frames are made of ground truth that is blurred before, as the mean of num_frame
    sub-frames, interpolated along optical flow, over an exposure of this share of the time from one frame to the next,
    0.5 and 7 by default; exposure may be [lowest, highest]. Default: of ground truth as it is."""
    temporal_scale: Literal[1, 2] = 2
    """2 gives every second LR frame, 1 gives all of them."""
    color: Color = 'rgb'
    """Colour space of the samples, the network's: rgb; yuv, 8 bits of BT.601 studio swing; or y, the first plane of yuv
    alone, of which LR frames are made."""
    flow_opt: Flow | None = None
    """Where the flow between the LR frames comes from, for networks that need it: an estimator such as {type: DISFlow},
    or files, {type: FlowFiles, root: ...}."""

    @model_validator(mode='after')
    def check_blur(self) -> Self:
        if self.motion_blur and self.color != 'rgb':
            raise refuse_field('motion_blur', f'needs color rgb, of which the light is known, but that is {self.color}')
        if (self.degradation or {}).get('type') == 'video' and self.color != 'rgb':
            raise refuse_field('degradation', f'of type video needs color rgb, but that is {self.color}')
        return self

    @model_validator(mode='after')
    def check_flow(self) -> Self:
        if self.flow_opt and self.temporal_scale != 2:
            raise refuse_field('flow_opt', f'needs temporal_scale 2, but that is {self.temporal_scale}')
        if self.flow_opt and self.color == 'y':
            raise refuse_field('flow_opt', "needs frames with colours, but color is 'y'")
        return self


class TrainSampleOptions(SampleOptions):
    """Samples for training: random crops of windows of frames."""

    lq_sharp: bool = False
    """Whether samples have sharp LR frames as lq_sharp without files of them: made of ground truth by MATLAB's
    bicubic."""
    num_frame: Positive = 3
    """Frames of a window, T; odd where temporal_scale is 2."""
    gt_size: Positive | None = None
    """Side of the GT crop, a multiple of scale; default: the whole frame."""
    crop_stride: Positive | None = None
    """Crops begin at multiples of so many GT pixels, which is a multiple of scale; default: scale, any LR pixel."""
    random_reverse: bool = False
    """Whether half of the windows are played backwards."""
    use_hflip: bool = False
    """Whether half of the windows are mirrored, as BasicSR's `augment` does."""
    use_rot: bool = False
    """Whether windows are also flipped upside down and turned by 90 degrees, each half of the time."""
    flow_strides: list[Literal[1, 2]] = Field([1], min_length=1)
    """Between which LR frames flow_opt gives the flow: 1, neighbours; 2, every second one and the next such, which the
    training of FISR needs too."""
    flow_margin: Count = 32
    """LR pixels around a crop that an estimator of flow_opt sees as well: of what moves in from outside, a crop alone
    shows no counterpart, as it does in tests, where frames are whole. FISR's authors estimated on crops: 0."""
    blur_margin: Count = 32
    """HR pixels around a crop on which motion_blur estimates its flow as well, for the same reason."""
    cache: bool = False
    """Whether decoded frames, and LR frames made of them, stay in memory, in each worker by itself; for small sets. All
    workers of a process may take half of the main memory. What motion_blur and a degradation of type video make is made
    anew each time."""

    @property
    def optional_keys(self) -> set[str]:
        """The keys of a sample that depend on where it comes from."""
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
            raise refuse_field('crop_stride', f'is {self.crop_stride}, but without gt_size nothing is cropped')
        if self.crop_stride and self.crop_stride % self.scale:
            raise refuse_field('crop_stride', f'must be a multiple of scale {self.scale}, but is {self.crop_stride}')
        return self


class ClipOptions(SampleOptions, ClipFiles):
    """`datasets.<name>` of clips: where they are, and what samples are made of them."""

    @model_validator(mode='after')
    def check_lq(self) -> Self:
        ways = [name for name in ('dataroot_lq', 'dataroot_blurred', 'motion_blur') if getattr(self, name)]
        if len(ways) > 1:
            raise refuse_field(ways[1], f'cannot stand beside {ways[0]}: LR frames come from one of them')
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
            raise refuse_field('lq_sharp', 'cannot stand beside dataroot_lq_sharp: sharp LR frames come from one of '
                               'them')
        if self.dataroot_flow and (self.interval_list != [1] or self.temporal_scale != 2):
            raise refuse_field('dataroot_flow', 'needs interval_list [1] and temporal_scale 2, but they are '
                               f'{self.interval_list} and {self.temporal_scale}')
        return self


class StillsOptions(TrainSampleOptions, StillsFiles):
    """`datasets.<name>` of type STVSRStillsDataset: clips of known motion, made of photographs, for training."""

    @property
    def optional_keys(self) -> set[str]:
        return super().optional_keys | ({'flow'} if self.has_flow(self.temporal_scale) else set())

    @model_validator(mode='after')
    def check_size(self) -> Self:
        if not self.gt_size:
            raise refuse_field('gt_size', 'is missing: the size in which photographs are drawn')
        if self.crop_stride:
            raise refuse_field('crop_stride', f'is {self.crop_stride}, but stills are drawn at the size of the crop')
        return self


class Source(Block):
    """Source: one of the roots of a mixed data set."""

    weight: float = Field(1, gt=0)
    """Share of the samples that come from this source, relative to the other weights, whatever its number of
    windows."""


class ClipSource(Source, ClipTrainFiles):
    """`datasets.<name>.sources` with `dataroot_gt`: clips, as `STVSRClipDataset` has them."""


class StillsSource(Source, StillsFiles):
    """`datasets.<name>.sources` with `stills`: photographs, as `STVSRStillsDataset` has them."""


def read_source(options: Any) -> Any:
    """A source, read by the class that its root asks for."""
    if not isinstance(options, dict):
        return options
    kinds = {'dataroot_gt': ClipSource, 'stills': StillsSource}
    roots = [name for name in kinds if options.get(name) is not None]
    if len(roots) != 1:
        near = next(filter(None, (nearest(key, kinds) for key in options if key not in kinds)), '')
        raise refuse('must name one root, clips by dataroot_gt or photographs by stills, but has '
                     f'{" and ".join(roots) or "neither"}. {near}'.rstrip())
    return kinds[roots[0]].model_validate(options)


class MixedOptions(TrainSampleOptions):
    """`datasets.<name>` of type STVSRMixedDataset: samples of several roots, each with its weight, for training."""

    sources: list[Annotated[ClipSource | StillsSource, BeforeValidator(read_source)]] = Field(min_length=1)
    """The roots: {dataroot_gt, weight, ...} with what belongs to clips alone, or {stills, weight, ...} with the options
    of synthetic motion (docs/datasets.md)."""

    @property
    def optional_keys(self) -> set[str]:
        return self.of_source(0).optional_keys  # the same for all sources, see check_sources

    def of_source(self, number: int) -> ClipTrainOptions | StillsOptions:
        """The options that a source would have as a data set by itself."""
        source = self.sources[number]
        values = {name: getattr(self, name) for name in TrainSampleOptions.model_fields}
        values |= {name: getattr(source, name) for name in type(source).model_fields if name != 'weight'}
        if isinstance(source, StillsSource):
            return StillsOptions.model_validate(values | {'crop_stride': None})
        # Files of sharp LR frames go before those that are made.
        return ClipTrainOptions.model_validate(values | {'lq_sharp': self.lq_sharp and not source.dataroot_lq_sharp})

    @model_validator(mode='after')
    def check_sources(self) -> Self:
        if not self.gt_size:
            raise refuse_field('gt_size', 'is missing: samples of all sources must have one size')
        problems, keys = [], []
        for number, source in enumerate(self.sources):
            try:
                keys.append(self.of_source(number).optional_keys)
            except ValidationError as error:
                for details in error.errors(include_url=False):
                    place, text = details['loc'], details['ctx']['text']
                    if place[0] not in type(source).model_fields:  # a common option that does not fit this source
                        place, text = (), f': {place[0]} {text}'
                    problems.append(problem(text, 'sources', number, *place))
        if problems:
            raise ValidationError.from_exception_data(type(self).__name__, problems)
        for key, ways in _WAYS.items():
            having = [number for number, those in enumerate(keys) if key in those]
            if 0 < len(having) < len(keys):
                lacking = next(number for number in range(len(keys)) if number not in having)
                raise refuse_field('sources', f'must give the same keys, but {key!r} comes from [{having[0]}] and not '
                                   f'from [{lacking}]; set {ways}')
        return self


# Key of a sample that some sources may have and others not -> how to give it in all of them, or in none.
_WAYS = {
    'flow': 'dataroot_flow of every source of clips, or of none and exact_flow: false of stills',
    'lq_sharp': 'lq_sharp: true, for those without dataroot_lq_sharp',
}


class ClipTestOptions(ClipOptions):
    """`datasets.<name>` of type STVSRTestDataset: whole clips, for validation and testing."""

    num_frame: Positive | None = None
    """Use the first frames only, as many as give at most this many output frames; default: all."""
    gt_start: Literal[0, 1] | None = None
    """1: ground truth begins with the frame between the first two LR frames and ends with that between the last two, as
    that of FISR's authors; 0: with the first LR frame; default: what the numbers of frames say, 0 where both fit."""
    clip_areas: dict[str, ClipArea] = {}
    """Pattern of clip names -> the part of these clips of dataroot_gt that is used before anything else is done:
    {rows: [first, last], columns: [first, last], frames: [first, last]}, counted from 1, the last one included, as
    MATLAB does; what is not named is used whole, and the first pattern that matches counts. Not with dataroot_lq or
    dataroot_blurred."""
    lq_size_multiple: Positive = 1
    """LR frames, and GT with them, are cut at the right and the bottom to a multiple of so many pixels."""

    @model_validator(mode='after')
    def check_data(self) -> Self:
        if self.dataroot_gt is None and self.dataroot_lq is None:
            raise refuse_field('dataroot_gt', 'is missing, and dataroot_lq too; one of them is needed')
        for name in ('dataroot_lq', 'dataroot_blurred'):
            if self.clip_areas and getattr(self, name):
                raise refuse_field('clip_areas', f'cannot stand beside {name}: the areas are those of dataroot_gt, of '
                                   'which LR frames are then made')
        return self
