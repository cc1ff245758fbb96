"""The requirements and outputs of a network; code that runs networks relies only on these.

Shapes: B clips, T frames in, U frames out, H x W pixels of the LR grid, s = scale.
"""
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

from torch import Tensor, nn

Overlap = Literal['first', 'last', 'middle', 'mean']
SpecColor = Literal['rgb', 'y', 'yuv']
Sharing = Literal['nothing', 'features', 'windows']
State = tuple[Tensor, ...]  # a NamedTuple of tensors; height and width are integer multiples of the frame's
METHOD_OF_SHARING = {'features': 'features', 'windows': 'next_window'}


@dataclass(frozen=True, kw_only=True)
class NetSpec:
    """The contract of a network, available as the attribute `spec` of every network.

    A network is called with a window, (B, T, C, H, W), 0-1, and returns (B, U, C, sH, sW). If it doubles the frame
    rate, frames are numbered in steps of half a frame.

    Attributes:
        scale: upscaling factor.
        num_frames: frames of a window, T; None: any number.
        temporal_scale: 1, or 2 if the network interpolates the frame between two.
        size_multiple: H and W must be multiples of it.
        min_size: smallest H and W.
        min_frames: smallest number of frames, if num_frames is None.
        color: colour space of frames; None: any.
        first_output: number of the first output frame of a window. As many are missing at its end.
        pads_ends: whether the first and the last frame of a clip are repeated, so that no output is missing.
        overlap: which copy to use of a frame that several windows restore: the 'first', the 'last', the one nearest the
            'middle' of its window, or their 'mean'.
        needs_flow: whether the network needs the flow between frames; its inputs are then the result of its method
            `inputs(lq, flow)`.
        needs_float32: whether bfloat16 changes its frames too much (less than 50 dB of PSNR between both).
        whole_frames: whether frames are never split into tiles, as motion may be larger than a tile.
        sharing: what windows share. 'nothing'; 'features', the results of the method `features(frame)`: the
            network then also takes a list of these instead of a window; or 'windows', through the method
            `next_window(lq, state) -> (frames, state)`, which reuses results of the previous window for common frames.
        state: for a recurrent network, the class of the state between frames. The network restores clips by the method
            `step(frame, state) -> (frame, state)`.

    Raises:
        ValueError: a value is invalid.
    """
    scale: int
    num_frames: int | None
    temporal_scale: int = 1
    size_multiple: int = 1
    min_size: int = 1
    min_frames: int = 1
    color: SpecColor | None = None
    first_output: int = 0
    pads_ends: bool = False
    overlap: Overlap = 'first'
    needs_flow: bool = False
    needs_float32: bool = False
    whole_frames: bool = False
    sharing: Sharing = 'nothing'
    state: type[State] | None = None

    def __post_init__(self) -> None:
        for name, least in (('scale', 1), ('num_frames', 1), ('size_multiple', 1), ('min_size', 1), ('min_frames', 1),
                            ('first_output', 0)):
            value = getattr(self, name)
            if value is None and name == 'num_frames':
                continue
            if not isinstance(value, int) or value < least:
                raise ValueError(f'{name} must be a whole number of at least {least}, but is {value!r}')
        for name, known in (('temporal_scale', (1, 2)), ('color', (None, *get_args(SpecColor))),
                            ('overlap', get_args(Overlap)), ('sharing', get_args(Sharing))):
            if getattr(self, name) not in known:
                raise ValueError(f'{name} must be one of {", ".join(map(str, known))}, but is {getattr(self, name)!r}')
        if self.num_frames and self.length_of_window(self.num_frames) < 1:
            raise ValueError(f'a window of {self.num_frames} frames gives no output, as first_output '
                             f'{self.first_output} are missing at both ends')
        if self.recurrent and (self.needs_flow or self.sharing != 'nothing' or self.temporal_scale != 1):
            raise ValueError('a recurrent network (state) takes one frame after the other, without flow, sharing or '
                             'temporal_scale 2')

    @property
    def recurrent(self) -> bool:
        return self.state is not None

    def state_of(self, tensors: Iterable[Tensor]) -> State:
        """Return the state of a recurrent network that consists of these tensors."""
        assert self.state is not None
        return self.state(*tensors)

    @property
    def num_channels(self) -> int:
        return 1 if self.color == 'y' else 3

    @property
    def first_of_clip(self) -> int:
        """Number of the first output frame of a clip. As many are missing at its end."""
        return 0 if self.pads_ends else self.first_output

    def padding(self, *, complete: bool = False) -> int:
        """Return how often the first and the last frame of a clip are repeated.

        Args:
            complete: repeat them until no output frame is missing, even for networks that leave out frames at the ends.
        """
        if self.pads_ends:  # until they are the middle one of a window
            return (self.num_frames or 1) // 2
        return -(-self.first_output // self.temporal_scale) if complete else 0

    def length_of_window(self, num_frames: int) -> int:
        """Return the number of output frames for a window of `num_frames`."""
        return self.temporal_scale * (num_frames - 1) + 1 - 2 * self.first_output

    def length_of_clip(self, num_frames: int) -> int:
        """Return the number of output frames for a clip of `num_frames`."""
        return self.temporal_scale * (num_frames - 1) + 1 - 2 * self.first_of_clip


class Network(Protocol):
    """The methods of a network; its `spec` says which of them it has, see `NetSpec`."""

    spec: NetSpec

    def __call__(self, *inputs: Any) -> Any:
        """Restore a window: (B, T, C, H, W), or the result of `inputs` or of `features` -> (B, U, C, sH, sW)."""

    def inputs(self, lq: Tensor, flow: Tensor) -> tuple[Tensor, ...]:
        """Return the inputs for a window and the flow between its frames; with `needs_flow`.

        Args:
            lq: (B, T, C, H, W), 0-1.
            flow: (B, T - 1, 2, 2, H, W), LR pixels: for each pair of neighbours a, b, flow_ab and flow_ba.

        Returns:
            tensors (B, ..., H, W), so that tiles can be cut out of them.
        """

    def features(self, frame: Tensor) -> Any:
        """Return what depends on one frame alone, (B, C, H, W); with sharing 'features'."""

    def next_window(self, lq: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Restore the next window of a clip; with sharing 'windows'. The state is None at the start of a scene."""

    def step(self, frame: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Restore the next frame, (B, C, H, W); with `state`. The state is None at the start of a scene."""


@dataclass(frozen=True, kw_only=True)
class PartSpec:
    """The contract of a part of MBNet, available as its attribute `part_spec`.

    Attributes:
        size_multiple: the height and width of its input must be multiples of it.
        min_size: smallest height and width of its input.
        feature_channels: channels of the feature that a VSR net or context net returns; 0: the part returns none.
        joint: whether a VSR net needs both frames of a pair at once; otherwise it also accepts a single frame.

    Raises:
        ValueError: a value is invalid.
    """
    size_multiple: int = 1
    min_size: int = 1
    feature_channels: int = 0
    joint: bool = True

    def __post_init__(self) -> None:
        for name, least in (('size_multiple', 1), ('min_size', 1), ('feature_channels', 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f'{name} must be a whole number of at least {least}, but is {value!r}')


def part_spec_of(part: nn.Module) -> PartSpec:
    """Return the contract of a part of MBNet; raise ValueError if it has none."""
    spec = getattr(part, 'part_spec', None)
    if not isinstance(spec, PartSpec):
        raise ValueError(f'{type(part).__name__} does not state what it needs: set its attribute part_spec to a '
                         'basicsr_stvsr.archs.spec.PartSpec, see docs/own_network.md')
    return spec


def spec_of(net: nn.Module) -> NetSpec:
    """Return the contract of a network.

    Raises:
        ValueError: it has none, or lacks a method that its contract requires.
    """
    spec = getattr(net, 'spec', None)
    if not isinstance(spec, NetSpec):
        raise ValueError(f'{type(net).__name__} does not state what it needs: describe it by arch_spec in the option '
                         'file, see docs/basicsr.md, or set its attribute spec to a basicsr_stvsr.archs.spec.NetSpec')
    needed = {'inputs': spec.needs_flow, 'step': spec.recurrent,
              **{method: spec.sharing == sharing for sharing, method in METHOD_OF_SHARING.items()}}
    for method, is_needed in needed.items():
        if is_needed and not hasattr(net, method):
            raise ValueError(f'{type(net).__name__} has no method {method}, which its spec requires')
    return spec


def check_color(net: nn.Module, color: str) -> None:
    """Raise ValueError if a network takes clips of another colour space."""
    expected = spec_of(net).color
    if expected not in (None, color):
        raise ValueError(f'{type(net).__name__} takes {expected} clips, but this one is {color}; set color: {expected} '
                         'in the data set, which converts')
