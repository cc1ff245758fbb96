"""Upscaling that matches MATLAB's bicubic and TensorFlow 1's bilinear interpolation.

The package uses this bicubic to resize. To sample along a flow or a camera's path, it uses those of PyTorch and OpenCV,
whose kernel is a little sharper (a = -0.75).

The functions work on whole batches, on any device, with gradients, and export to ONNX. BasicSR's `imresize` gives the
same as MATLAB's, but takes one image at a time, on a CPU, in ten times the time. `data.degradations.bicubic` downscales
with the same kernel, in numpy and with sums in float64, so that a crop gets the same bits as the whole frame.
"""
import torch
from torch import Tensor
from torch.nn import functional as F

from .arch_util import at_least_float32, total

REACH = 2  # input pixels on each side that contribute to an output pixel


def keys_cubic(distance: float) -> float:
    """Evaluate Keys' kernel with a = -0.5, as in MATLAB."""
    x = abs(distance)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def legacy_bilinear(x: Tensor, scale: int) -> Tensor:  # (B, C, H, W) -> (B, C, sH, sW)
    """Resize like TensorFlow 1's bilinear resize by an integer factor.

    Pixel i is mapped to pixel s i, and the last one is repeated. So the image shifts by (s - 1) / 2 output pixels.
    """
    h, w = x.shape[-2:]
    padded = F.pad(x, (0, 1, 0, 1), mode='replicate')
    larger = F.interpolate(padded, (scale * h + 1, scale * w + 1), mode='bilinear', align_corners=True)
    return larger[..., :-1, :-1]


def upscale_bicubic(x: Tensor, scale: int) -> Tensor:  # (..., H, W) -> (..., sH, sW)
    """Upscale like MATLAB's `imresize(x, scale, 'bicubic')`, by an integer factor.

    Frames are mirrored at the border, including the border pixel. The result is computed in float32 at least, even
    under autocast, and returned in the dtype of `x`.
    """
    enlarged = at_least_float32(x)
    for dim in (-2, -1):
        enlarged = _upscale_along(enlarged, scale, dim)
    return enlarged.to(x.dtype)


def _upscale_along(x: Tensor, scale: int, dim: int) -> Tensor:
    length = x.shape[dim]
    places = torch.arange(-REACH, length + REACH, device=x.device)
    places = torch.maximum(places, -1 - places)  # mirrored, without remainder, which ONNX's exporter lacks here
    padded = x.index_select(dim, torch.minimum(places, 2 * length - 1 - places).clamp(min=0))  # 0: for a single pixel
    neighbours = [padded.narrow(dim, start, length) for start in range(2 * REACH + 1)]
    phases = []
    for phase in range(scale):  # offset of each of the s new pixels from the centre of the old one
        offset = (phase + 0.5) / scale - 0.5
        taps = [keys_cubic(offset - step) for step in range(-REACH, REACH + 1)]
        phases.append(total(tap * neighbour for tap, neighbour in zip(taps, neighbours, strict=True) if tap))
    return torch.stack(phases, dim % x.dim() + 1).flatten(dim % x.dim(), dim % x.dim() + 1)
