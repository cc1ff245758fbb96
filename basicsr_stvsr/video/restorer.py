"""Restore a stream of frames with any network, handling colour, scene cuts and timestamps.

The engine relies only on the network's `NetSpec` (see `inference.windows`): windows, pairs or recurrence, luma or YUV,
with or without x2 in time. Memory does not depend on the length of the stream.
"""
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from typing import Any, Literal, NamedTuple, TypeVar, cast

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..archs.resize import upscale_bicubic
from ..archs.spec import spec_of
from ..data.lq_flow import flow_tensor
from ..flow import FlowEstimator, build_flow
from ..inference.precision import PRECISIONS, fastest_precision
from ..inference.scene_cuts import CONTEXT as CUT_CONTEXT
from ..inference.scene_cuts import THRESHOLD, mark_cuts
from ..inference.tiles import DEFAULT_OVERLAP, Tiles, Tiling, device_of
from ..inference.windows import Carry, StreamFrame, is_finite, restore_stream
from ..io.color_spaces import Color, convert_clip, levels_of, to_image
from ..io.frame_source import TimedFrame
from ..io.pixels import packed, planes_of
from ..io.transparency import laid_over
from ..io.video_info import VideoError

AT_CUT = ('previous', 'next')
Image = TypeVar('Image', np.ndarray, Tensor)
_ALMOST = 0.02  # alpha that differs less from 0 or 1 becomes it
_GREY = 128, 128, 128  # so that black and white things on transparent ground are seen
_WHITE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}


@dataclass(frozen=True)
class RestoreOptions:
    """Options for restoring frames.

    Attributes:
        tile: longest side of tiles, in pixels of the input; None: process whole frames.
        tile_overlap: pixels of context around each tile; tiles are blended over half of them.
        precision: of convolutions, 'fp32', 'bf16' or 'fp16'; or 'auto': bf16 if the device has instructions for it.
        detect_cuts: whether to detect scene cuts, and not interpolate or carry a state across them.
        cut_threshold: how much a change must stand out to count as a cut, see `scene_cuts.mark_cuts`.
        at_cut: frame to show halfway between two scenes, for networks that interpolate: repeat the 'previous' frame or
            show the 'next' one early.
        even: for such networks, whether to repeat the last frame, so that n frames become 2n instead of 2n - 1.
        only: for such networks, do one thing: 'space' leaves out interpolated frames. 'time' keeps the size: given
            frames stay unchanged, interpolated ones are reduced.
        size: width and height of the output, by bicubic resizing after the network; None: what the network makes, or
            that of the input with only='time'.

    Raises:
        ValueError: an option has an invalid value.
    """
    tile: int | None = None
    tile_overlap: int = DEFAULT_OVERLAP[0]
    precision: Literal['auto', 'fp32', 'bf16', 'fp16'] = 'fp32'
    detect_cuts: bool = True
    cut_threshold: float = THRESHOLD
    at_cut: Literal['previous', 'next'] = 'previous'
    even: bool = False
    only: Literal['space', 'time'] | None = None
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name, known in (('precision', ('auto', *PRECISIONS)), ('at_cut', AT_CUT)):
            if getattr(self, name) not in known:
                raise ValueError(f'{name} must be one of {", ".join(known)}, but is {getattr(self, name)!r}')
        if self.tile is not None and self.tile < 16:
            raise ValueError(f'tile must be at least 16 pixels, but is {self.tile}')
        if self.tile_overlap < 0:
            raise ValueError(f'tile_overlap must be at least 0, but is {self.tile_overlap}')

    def tiling(self, height: int, width: int) -> Tiling | None:
        """Return the tiling for frames of a given size; None: whole frames."""
        if self.tile is None:
            return None
        return Tiling((-(-height // self.tile), -(-width // self.tile)), self.tile_overlap, self.tile_overlap // 2)


class Restorer:
    """Restore streams of frames with one network.

    Args:
        net: a network with a `spec`, in evaluation mode, on its device.
        options: see `RestoreOptions`.
        flow: estimator for networks that need the flow between frames; default: OpenCV's DIS.

    Raises:
        ValueError: the network has no `spec`.
    """

    def __init__(self, net: nn.Module, options: RestoreOptions | None = None, flow: FlowEstimator | None = None):
        self.net, self.spec, self.options = net, spec_of(net), options or RestoreOptions()
        self.flow = flow or cast(FlowEstimator, build_flow({'type': 'DISFlow'})) if self.spec.needs_flow else None
        self.device = device_of(net) or torch.device('cpu')
        precision = self.options.precision
        self.dtype = PRECISIONS[fastest_precision(net, [self.device]) if precision == 'auto' else precision]
        # A network that processes single frames cannot cross a cut.
        self.minds_cuts = self.options.detect_cuts and (self.spec.recurrent or self.spec.num_frames != 1)

    @property
    def doubles(self) -> bool:
        """Whether there are twice as many frames in the output."""
        return self.spec.temporal_scale == 2 and self.options.only != 'space'

    @property
    def context(self) -> int:
        """Number of previous frames needed to restore a frame exactly, apart from a recurrent state."""
        return CUT_CONTEXT + (self.spec.num_frames or 1)

    def __call__(self, frames: Iterable[TimedFrame[Image]], *, carry: Carry | None = None, skip: int = 0,
                 last_duration: Fraction = Fraction(0)) -> Iterator[TimedFrame[Image]]:
        """Restore a stream.

        Args:
            frames: in display order, all of one size and type.
            carry: see `inference.restore_stream`.
            skip: do not yield this many leading frames, nor those interpolated between them, because an interrupted run
                already wrote them. The output continues exactly if these are `context` frames, or all previous ones.
            last_duration: duration in seconds of a frame with no frame before it to infer it from.

        Yields:
            the frames, s times as large, of the same type; and the interpolated frames halfway in time.

        Raises:
            VideoError: an output frame of the network is not finite.
        """
        scenes, only_space = self.scenes(frames), self.options.only == 'space'
        if self.spec.recurrent:
            scenes, skip = islice(scenes, skip, None), 0
        first = next(scenes, None)
        if first is None:
            return
        image, temporal_scale = first[0].image, self.spec.temporal_scale
        tiles = self.tiles(*size_of(image))
        passing: dict[int, _Passing] = {}  # data of frames in flight, needed when they come out
        last: tuple[int, Image] | None = None
        given = self.give(chain([first], scenes), passing)
        for number, output in restore_stream(tiles, given, complete=True, carry=carry, clamp=False):
            if only_space and number % temporal_scale:
                continue
            if not is_finite(output):
                when = clock(time_of(passing, number, temporal_scale))
                raise VideoError(f'{type(self.net).__name__} gives values that are not finite for the frame at {when}: '
                                 'its weights or this precision do not suit these frames')
            restored = self.finished(image, output, passing, number)
            is_gap = last and number == last[0] + 2 and temporal_scale == 2 and not only_space
            if last and is_gap and number > temporal_scale * skip:  # a cut
                repeated = last[1] if self.options.at_cut == 'previous' else restored
                yield TimedFrame(repeated, time_of(passing, number - 1, temporal_scale))
            if number >= temporal_scale * skip:
                yield TimedFrame(restored, time_of(passing, number, temporal_scale))
            last = number, restored
            for place in [place for place in passing if place < number // temporal_scale - 1]:
                del passing[place]
        if last and temporal_scale == 2 and self.options.even and not only_space and last[0] >= temporal_scale * skip:
            place = last[0] // 2
            time = passing[place].time
            duration = time - passing[place - 1].time if place else last_duration
            yield TimedFrame(last[1], time + duration / 2)

    def tiles(self, height: int, width: int) -> Tiles:
        """Wrap the network to process frames of a given size in tiles, as set by the options."""
        tiling = None if self.spec.whole_frames else self.options.tiling(height, width)
        return Tiles(self.net, tiling, dtype=self.dtype, may_halve=True)

    def scenes(self, frames: Iterable[TimedFrame[Image]]) -> Iterator[tuple[TimedFrame[Image], bool]]:
        """Yield each frame and whether a new scene begins with it."""
        if not self.minds_cuts:
            yield from ((frame, False) for frame in frames)
            return
        waiting: deque[TimedFrame[Image]] = deque()

        def seen() -> Iterator[np.ndarray]:
            for frame in frames:
                waiting.append(frame)
                yield bgr_bytes(frame.image)

        for _, is_cut in mark_cuts(seen(), threshold=self.options.cut_threshold):
            yield waiting.popleft(), is_cut

    def give(self, frames: Iterable[tuple[TimedFrame[Image], bool]], passing: dict[int, '_Passing']) -> (
            Iterator[StreamFrame]):
        """Convert frames to the network's input, with flow if needed.

        Alpha is a grey picture beside that of the colours, so the network treats both alike, and scenes are the same.
        """
        color: Color = self.spec.color or 'rgb'
        estimate, last = self.flow, list[np.ndarray]()
        for place, ((image, time), begins_scene) in enumerate(frames):
            pixels: Tensor = to_tensor(image, self.device)
            pictures = torch.stack([pixels[:3], *(alpha.expand(3, -1, -1) for alpha in pixels[3:])])
            flow = None
            if estimate is not None:
                seen = list(map(to_image, pictures))
                if last and not begins_scene:
                    flow = torch.cat([flow_tensor([estimate(one, other), estimate(other, one)])
                                      for one, other in zip(last, seen, strict=True)]).to(self.device)
                last = seen
            lq = convert_clip(pictures, 'rgb', 'yuv' if color == 'y' else color)
            passing[place] = _Passing(time, lq[0, 1:] if color == 'y' else None,
                                      image if self.options.only == 'time' else None)
            yield StreamFrame(lq[:, :1] if color == 'y' else lq, flow, begins_scene)

    def finished(self, image: Image, output: Tensor, passing: dict[int, '_Passing'], number: int) -> Image:
        """Return an output frame in its final size, of the type of `image`.

        Args:
            output: colours, and alpha if there is one, (1 or 2, C, H, W).
        """
        place, is_between = divmod(number, self.spec.temporal_scale)
        size, only_time = self.options.size, self.options.only == 'time'
        if only_time and not is_between and size is None:
            return passing[place].image
        if only_time and not is_between:
            rgb = to_tensor(passing[place].image, self.device)
        else:
            rgb = self.to_rgb(output[0], self.chroma(passing, number))
            rgb = torch.cat([rgb, self.to_alpha(output[1])]) if len(output) == 2 else rgb
        height, width = size_of(image)
        return like(image, resized(rgb, *(size or (width, height))) if size or only_time else rgb)

    def chroma(self, passing: dict[int, '_Passing'], number: int) -> Tensor | None:
        """Return U and V of an output frame for a luma-only network; None for others."""
        place, is_between = divmod(number, self.spec.temporal_scale)
        chroma = passing[place].chroma
        following = passing[place + 1].chroma if is_between else None
        return chroma if chroma is None or following is None else (chroma + following) / 2

    def to_rgb(self, restored: Tensor, chroma: Tensor | None) -> Tensor:
        """Convert network output (C, H, W) and low-resolution chroma (2, h, w), if any, to RGB (3, H, W)."""
        if chroma is not None:  # MATLAB-like, as the papers treat chroma for luma-only networks
            restored = torch.cat((restored.clamp(0, 1), upscale_bicubic(chroma, self.spec.scale)))
        elif self.spec.color == 'yuv':
            restored = restored.clamp(0, 1)
        else:
            return restored
        return convert_clip(restored, 'yuv', 'rgb')

    def to_alpha(self, restored: Tensor) -> Tensor:
        """Convert network output (C, H, W) for a grey picture to alpha (1, H, W)."""
        alpha = convert_clip(restored, self.spec.color or 'rgb', 'rgb').mean(dim=0, keepdim=True)
        # Networks do not give exactly black and white
        return alpha.where(alpha > _ALMOST, 0).where(alpha < 1 - _ALMOST, 1)


class _Passing(NamedTuple):
    time: Fraction
    chroma: Tensor | None  # (2, h, w), for luma-only networks
    image: Any  # the input frame, if it is also an output frame


def time_of(passing: Mapping[int, _Passing], number: int, temporal_scale: int) -> Fraction:
    """Return the time of an output frame: that of the input frame, or halfway between two."""
    place, is_between = divmod(number, temporal_scale)
    return (passing[place].time + passing[place + 1].time) / 2 if is_between else passing[place].time


def clock(time: Fraction) -> str:
    """Format seconds as h:mm:ss.mmm."""
    milliseconds = round(time * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f'{minutes // 60}:{minutes % 60:02d}:{milliseconds / 1000:06.3f}'


def size_of(image: np.ndarray | Tensor) -> tuple[int, int]:
    """Return height and width."""
    return tuple(image.shape[-2:] if isinstance(image, Tensor) else image.shape[:2])


def resized(rgb: Tensor, width: int, height: int) -> Tensor:
    """Resize an image (C, H, W) by bicubic interpolation, antialiased where it becomes smaller."""
    if rgb.shape[-2:] == (height, width):
        return rgb
    return F.interpolate(rgb[None].float(), (height, width), mode='bicubic', antialias=True)[0]


def to_tensor(image: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Convert an input frame to a float tensor (3, H, W), RGB, or (4, H, W) with alpha; 0-1."""
    if isinstance(image, Tensor):
        return image.to(device, torch.float32)
    white = np.float32(_WHITE[image.dtype])  # torch takes three times as long to divide bytes
    return torch.from_numpy(np.divide(planes_of(image), white, dtype=np.float32)).to(device)


def like(image: Image, rgb: Tensor) -> Image:
    """Clamp float RGB (3, H, W), or (4, H, W) with alpha, to 0-1, and match the type and memory layout of `image`."""
    if isinstance(image, Tensor):
        return rgb.clamp(0, 1).to(image)
    if image.dtype == np.uint8:
        levels = levels_of(rgb)
    else:  # torch supports few operations on uint16
        levels = rgb.clamp(0, 1).mul_(_WHITE[image.dtype]).round_().cpu().contiguous().numpy().astype(np.uint16)
    restored = levels.transpose(1, 2, 0)
    return packed(restored) if image.flags.c_contiguous else restored


def bgr_bytes(image: np.ndarray | Tensor) -> np.ndarray:
    """Convert an input frame to uint8 (H, W, 3), BGR, as OpenCV expects."""
    if isinstance(image, Tensor):
        return to_image(image)
    if image.shape[2] == 4:
        image = laid_over(_GREY, image)
    red, green, blue = planes_of(image)
    bgr = cv2.merge((blue, green, red))
    return bgr if bgr.dtype == np.uint8 else (bgr >> 8).astype(np.uint8)


def check_frames(frames: Iterable[Image]) -> Iterator[Image]:
    """Yield frames after checking that `restore` supports them.

    Raises:
        ValueError: a frame is unsupported, or differs from the first one in type or size.
    """
    first = None
    for number, frame in enumerate(frames):
        fits = (frame.ndim == 3 and frame.shape[0] == 3 and frame.is_floating_point() if isinstance(frame, Tensor) else
                isinstance(frame, np.ndarray) and frame.dtype in _WHITE and frame.ndim == 3 and frame.shape[2] == 3)
        seen = f'{frame.dtype} {tuple(frame.shape)}' if hasattr(frame, 'shape') else type(frame).__name__
        if not fits:
            raise ValueError('frames must be arrays (H, W, 3), RGB, uint8 or uint16, or tensors (3, H, W), float, 0-1, '
                             f'but frame {number} is {seen}')
        if first is None and isinstance(frame, Tensor) and float(frame.max()) > 1.5:  # filters may overshoot 1 a little
            raise ValueError(f'tensors must have values of 0-1, but frame {number} has a maximum of '
                             f'{float(frame.max()):g}')
        first = first or seen
        if seen != first:
            raise ValueError(f'frames must have the same size and type, but frame {number} is {seen} and the first is '
                             f'{first}')
        yield frame
