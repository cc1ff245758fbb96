"""What a network needs and what it gives: all that the code which runs networks knows about them.

Shapes: B clips, T frames in, U frames out, H x W pixels of the LR grid, s = scale.
"""
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor, nn

Overlap = Literal['first', 'last', 'middle', 'mean']
SpecColor = Literal['rgb', 'y', 'yuv']
Sharing = Literal['nothing', 'features', 'windows']
State = tuple[Tensor, ...]  # a NamedTuple of tensors, whose height and width are whole multiples of the frame's
METHOD_OF_SHARING = {'features': 'features', 'windows': 'next_window'}


@dataclass(frozen=True, kw_only=True)
class NetSpec:
    """The contract of a network, which every network has as its attribute `spec`.

    A network is called with a window, (B, T, C, H, W), 0-1, and returns (B, U, C, sH, sW). Frames are numbered in
    steps of half a frame where it doubles the frame rate.

    Attributes:
        scale: how many times larger frames become.
        num_frames: frames of a window, T; None: any number.
        temporal_scale: 1, or 2 where it makes the frame between two.
        size_multiple: H and W must be multiples of it.
        color: colour space of frames; None: any.
        first_output: number of the first frame that a window gives. As many are missing at its end.
        pads_ends: whether the first and the last frame of a clip are repeated, so that none is missing.
        overlap: which copy of a frame that several windows make is used: the 'first', the 'last', the one nearest the
            'middle' of its window, or their 'mean'.
        needs_flow: whether it takes what its method `inputs(lq, flow)` makes, with the flow between the frames.
        needs_float32: whether bfloat16 changes its frames too much (less than 50 dB of PSNR between both).
        sharing: what windows share: 'nothing'; 'features', what the method `features(frame)` makes of each frame, of
            which the network takes a list in place of a window; or 'windows', by the method
            `next_window(lq, state) -> (frames, state)`, which uses what the window before made of common frames.
        state: of a recurrent network, the class of what a frame leaves to the next one. It restores clips by the
            method `step(frame, state) -> (frame, state)`.

    Raises:
        ValueError: a value that does not fit.
    """
    scale: int
    num_frames: int | None
    temporal_scale: int = 1
    size_multiple: int = 1
    color: SpecColor | None = None
    first_output: int = 0
    pads_ends: bool = False
    overlap: Overlap = 'first'
    needs_flow: bool = False
    needs_float32: bool = False
    sharing: Sharing = 'nothing'
    state: type[State] | None = None

    def __post_init__(self):
        for name, least in (('scale', 1), ('num_frames', 1), ('size_multiple', 1), ('first_output', 0)):
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
            raise ValueError(f'a window of {self.num_frames} frames gives none, as first_output {self.first_output} '
                             'are missing at both ends')
        if self.recurrent and (self.needs_flow or self.sharing != 'nothing' or self.temporal_scale != 1):
            raise ValueError('a recurrent network (state) takes one frame after the other, without flow, sharing or '
                             'temporal_scale 2')

    @property
    def recurrent(self) -> bool:
        return self.state is not None

    @property
    def num_channels(self) -> int:
        return 1 if self.color == 'y' else 3

    @property
    def first_of_clip(self) -> int:
        """Number of the first frame that comes out of a clip. As many are missing at its end."""
        return 0 if self.pads_ends else self.first_output

    def padding(self, *, complete: bool = False) -> int:
        """How often the first and the last frame of a clip are repeated.

        Args:
            complete: so that no frame is missing, also of networks that leave out those at the ends.
        """
        if self.pads_ends:  # until they are the middle one of a window
            return (self.num_frames or 1) // 2
        return -(-self.first_output // self.temporal_scale) if complete else 0

    def length_of_window(self, num_frames: int) -> int:
        """How many frames a window of so many gives."""
        return self.temporal_scale * (num_frames - 1) + 1 - 2 * self.first_output

    def length_of_clip(self, num_frames: int) -> int:
        """How many frames a clip of so many becomes."""
        return self.temporal_scale * (num_frames - 1) + 1 - 2 * self.first_of_clip


def spec_of(net: nn.Module) -> NetSpec:
    """Return the contract of a network.

    Raises:
        ValueError: it has none, or lacks a method that its contract speaks of.
    """
    spec = getattr(net, 'spec', None)
    if not isinstance(spec, NetSpec):
        raise ValueError(f'{type(net).__name__} does not state what it needs: set its attribute spec to a '
                         'basicsr_stvsr.archs.spec.NetSpec, see docs/videos.md')
    needed = {'inputs': spec.needs_flow, 'step': spec.recurrent,
              **{method: spec.sharing == sharing for sharing, method in METHOD_OF_SHARING.items()}}
    for method, is_needed in needed.items():
        if is_needed and not hasattr(net, method):
            raise ValueError(f'{type(net).__name__} has no method {method}, which its spec speaks of')
    return spec


def check_color(net: nn.Module, color: str) -> None:
    """Raises ValueError where a network takes clips of another colour space."""
    expected = spec_of(net).color
    if expected not in (None, color):
        raise ValueError(f'{type(net).__name__} takes {expected} clips, but this one is {color}; set color: {expected} '
                         'of the data set, which converts')
