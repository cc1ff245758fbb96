"""Describe networks and videos, as values and as text."""
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ..archs.spec import NetSpec, spec_of
from ..inference.tiles import Tiles, device_of
from ..inference.windows import frames_of_clip, restore_windows
from ..io.frame_source import Source

MEASURED_SIZE = 64, 64  # frame size for counting multiplications
Facts = dict[str, Any]  # JSON values


def facts_of_model(net: nn.Module, name: str, weights: str | None) -> Facts:
    """Return what a network is, and what it requires.

    Args:
        net: a network with a `spec`; on the meta device, counting takes no time.
        name: name of the network.
        weights: name of its weights file, if any.

    Raises:
        ValueError: the network has no `spec`.
    """
    spec = spec_of(net)
    h, w = MEASURED_SIZE
    given = measured_frames(spec)
    device = device_of(net) or torch.device('cpu')
    lq = torch.zeros(1, given, spec.num_channels, h, w, device=device)
    flow = torch.zeros(1, given - 1, 2, 2, h, w, device=device) if spec.needs_flow else None
    with FlopCounter() as counter:  # type: ignore[no-untyped-call]  # torch's __init__ has no types
        next(restore_windows(Tiles(net), frames_of_clip(lq, flow)))
    return {
        'model': name,
        'network': type(net).__name__,
        'weights': weights,
        'parameters': sum(parameter.numel() for parameter in net.parameters()),
        'gmacs': counter.total / 2e9,
        'gmacs_of': {'frames': given, 'width': w, 'height': h},
        'scale': spec.scale,
        'temporal_scale': spec.temporal_scale,
        'window': None if spec.recurrent else spec.num_frames or 'any',
        'color': spec.color or 'rgb',
        'needs_flow': spec.needs_flow}


class FlopCounter(TorchDispatchMode):
    """Count floating-point operations by torch's formulas.

    torch's FlopCounterMode counts the same, but takes apart every operator without a formula, such as an activation,
    which takes most of its time.

    Attributes:
        total: operations so far; a multiplication with its addition is two.
    """

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func.overloadpacket):
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


def measured_frames(spec: NetSpec) -> int:
    """Return the number of frames for counting multiplications: one window, or two if the network takes any number."""
    return 1 if spec.recurrent else spec.num_frames or 2


def describe_model(facts: Mapping[str, Any]) -> dict[str, str]:
    """Format the facts of a model as text."""
    measured, window = facts['gmacs_of'], facts['window']
    return {
        'model': facts['model'],
        'network': facts['network'],
        'weights': facts['weights'] or 'none',
        'parameters': f'{facts["parameters"]:,}',
        'GMACs': f'{facts["gmacs"]:.1f}, {measured["frames"]} given frame{"s" * (measured["frames"] > 1)} of '
                 f'{measured["width"]}x{measured["height"]}',
        'scale': f'{facts["scale"]}x in space, {facts["temporal_scale"]}x in time',
        'takes': {None: 'frame after frame, with a state', 'any': 'any number of frames at a time'}.get(
            window, f'{window} frames at a time'),
        'colours': {'y': 'luma; colours are enlarged by bicubic', 'yuv': 'YUV'}.get(facts['color'], 'RGB'),
        'flow': 'OpenCV DIS, of its input' if facts['needs_flow'] else 'none, or its own'}


def facts_of_video(source: Source) -> Facts:
    """Return the facts of a video file or a folder of frames; None where the source does not state a value."""
    info = source.info
    return {
        'file': str(info.path),
        'width': info.width,
        'height': info.height,
        'frames': info.num_frames or None,
        'rate': str(info.rate) if info.rate else None,  # exact, such as 24000/1001
        'variable_rate': info.is_variable,
        'duration': float(info.duration) if info.duration else None,
        'format': info.format,
        'codec': info.codec,
        'pixel_format': info.pix_fmt,
        'bits': info.bits,
        'alpha': info.has_alpha,
        'matrix': info.color.matrix,
        'full_range': info.color.full_range,
        'rotation': info.rotation,
        'interlaced': info.interlaced,
        'stream': info.stream,
        'other_streams': [{'number': other.index, 'type': other.type, 'codec': other.codec, 'language': other.language}
                          for other in info.streams]}


def describe_video(facts: Mapping[str, Any]) -> dict[str, str]:
    """Format the facts of a video as text."""
    unknown = 'not stated'
    rate = f'{float(Fraction(facts["rate"])):.6g} a second' if facts['rate'] else f'rate {unknown}'
    streams = [' '.join(filter(None, map(str, stream.values()))) for stream in facts['other_streams']]
    return {
        'file': facts['file'],
        'frames': f'{facts["frames"] or f"number {unknown}"}, {facts["width"]}x{facts["height"]}, {rate}'
                  + (' on average, variable' if facts['variable_rate'] else ''),
        'duration': f'{facts["duration"]:.3f} s' if facts['duration'] else unknown,
        'stored as': f'{facts["format"]}: {facts["codec"]}, {facts["pixel_format"]}',
        'colours': f'{facts["bits"]} bits, {facts["matrix"]}, {"full" if facts["full_range"] else "limited"} range',
        'transparent pixels': 'yes' if facts['alpha'] else 'no',
        'rotation': f'{facts["rotation"]} degrees',
        'interlaced': 'yes; --deinterlace' if facts['interlaced'] else 'no',
        'other streams': ', '.join(streams) or 'none'}
