"""Options of the data sets of clips, `datasets.<name>` in an option file."""
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from ..color import Color, StoredColor
from ..schema import Count, DatasetOptions, Flow, Positive
from ..schema.block import Block, refuse, refuse_field, shown
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


class ClipOptions(DatasetOptions):
    """`datasets.<name>` of this package: what both data sets share."""

    dataroot_gt: str | Path | None = None
    """Clips as a folder, an LMDB, a video file or a folder of videos, raw ones (.yuv) included."""
    dataroot_lq: str | Path | None = None
    """The same for the LR clips; default: LR frames are made from dataroot_gt, cut to a multiple of scale."""
    dataroot_blurred: str | Path | None = None
    """Blurred versions of the clips of dataroot_gt, of the same size, of which LR frames are made in its place."""
    frame_size: FrameSize | None = None
    """[height, width] of .yuv files, those of dataroot_gt or, without it, of dataroot_lq; default: what their names
    tell, such as foreman_176x144.yuv (width first) or foreman_qcif.yuv."""
    degradation: DegradationBlock | None = None
    """How they are made: {type: bicubic}, MATLAB's; {type: gaussian, sigma, kernel_size, border, rounding}, blurred and
    sampled; {type: blur_bicubic, sigma, kernel_size, border}, blurred and made smaller by bicubic; default: bicubic."""
    motion_blur: MotionBlurOptions | None = None
    """{exposure, num_frame}: LR frames are made of ground truth that is blurred before, as the mean of num_frame
    sub-frames, interpolated along optical flow, over an exposure of this share of the time from one frame to the next,
    0.5 and 7 by default; exposure may be [lowest, highest]. Default: of ground truth as it is."""
    meta_info_file: str | Path | None = None
    """A text file with a clip name at the start of each line; default: every clip."""
    clips: str | None = None
    """A pattern such as '00001/*' that the names of the clips must match; default: every clip."""
    temporal_scale: Literal[1, 2] = 2
    """2 gives every second LR frame, 1 gives all of them."""
    color: Color = 'rgb'
    """Colour space of the samples, the network's: rgb; yuv, 8 bits of BT.601 studio swing; or y, the first plane of yuv
    alone, of which LR frames are made."""
    stored_color: StoredColor = 'rgb'
    """That of the files; an image of YUV has Y, U, V where others have R, G, B. Of .yuv files it is yuv in any case."""
    flow_opt: Flow | None = None
    """Where the flow between the LR frames comes from, for networks that need it: an estimator such as {type: DISFlow},
    or files, {type: FlowFiles, root: ...}."""

    @model_validator(mode='after')
    def check_lq(self) -> Self:
        ways = [name for name in ('dataroot_lq', 'dataroot_blurred', 'motion_blur') if getattr(self, name)]
        if len(ways) > 1:
            raise refuse_field(ways[1], f'cannot stand beside {ways[0]}: LR frames come from one of them')
        if self.motion_blur and self.color != 'rgb':
            raise refuse_field('motion_blur', f'needs color rgb, of which the light is known, but that is {self.color}')
        return self

    @model_validator(mode='after')
    def check_flow(self) -> Self:
        if self.flow_opt and self.temporal_scale != 2:
            raise refuse_field('flow_opt', f'needs temporal_scale 2, but that is {self.temporal_scale}')
        if self.flow_opt and self.color == 'y':
            raise refuse_field('flow_opt', "needs frames with colours, but color is 'y'")
        return self


class ClipTrainOptions(ClipOptions):
    """`datasets.<name>` of type STVSRClipDataset: random crops of windows of consecutive frames, for training."""

    dataroot_gt: str | Path
    """Clips as a folder, an LMDB, a video file or a folder of videos, raw ones (.yuv) included."""
    dataroot_lq: str | Path | None = None
    """The same for the LR clips, at the full frame rate; default: LR frames are made from dataroot_gt."""
    dataroot_lq_sharp: str | Path | None = None
    """Sharp versions of the LR clips, at the full frame rate, for networks that learn to deblur: the sample has them
    as lq_sharp."""
    lq_sharp: bool = False
    """The same without files: made of dataroot_gt by MATLAB's bicubic."""
    num_frame: Positive = 3
    """Frames of a window, T; odd where temporal_scale is 2."""
    interval_list: list[Positive] = Field([1], min_length=1)
    """Steps between the frames of a window; each gives its own windows."""
    frame_stride: Positive = 1
    """Windows begin at every so many frames, from the first on."""
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
    clip_weights: dict[str, Annotated[float, Field(ge=0)]] = {}
    """Pattern of clip names -> how often their windows come, relative to 1; the first pattern that matches counts."""
    cache: bool = False
    """Whether decoded frames, and LR frames made of them, stay in memory, in each worker by itself; for small sets. All
    workers of a process may take half of the main memory. What motion_blur makes is made anew each time."""
    dataroot_flow: str | Path | None = None
    """Precomputed flows to the frames between the LR frames, a folder or an LMDB (docs/datasets.md); needs
    interval_list [1] and temporal_scale 2."""

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
        if self.lq_sharp and self.dataroot_lq_sharp:
            raise refuse_field('lq_sharp', 'cannot stand beside dataroot_lq_sharp: sharp LR frames come from one of '
                               'them')
        if self.dataroot_flow and (self.interval_list != [1] or self.temporal_scale != 2):
            raise refuse_field('dataroot_flow', 'needs interval_list [1] and temporal_scale 2, but they are '
                               f'{self.interval_list} and {self.temporal_scale}')
        return self


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
