"""Pictures of restored clips, for tensorboard and for the report of a training.

Shapes: images are (C, H, W), C = 1 or 3 (RGB), 0 to 1; flows are (2, H, W), x and y in pixels.
"""
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.utils import flow_to_image

WHITE = 255
MARGIN, TEXT_HEIGHT = 8, 20  # pixels around the legend, and of the text under its wheel


class Sample(NamedTuple):
    """A restored frame next to its input and its ground truth: uint8 (H, W, 3), BGR.

    Attributes:
        group: 'vsr', a given frame, or 'vfi', an interpolated one.
        lq: the input; for an interpolated frame, the input before it.
    """

    group: Literal['vsr', 'vfi']
    clip: str
    frame: str
    lq: np.ndarray
    result: np.ndarray
    gt: np.ndarray | None


def sample_numbers(first: int, num_frames: int, temporal_scale: int) -> list[int]:
    """Return the number of the frame in the middle of a clip and, if every second one is new, of the one before it.

    Args:
        first: number of the first restored frame.
        num_frames: number of restored frames.
    """
    middle = first + num_frames // 2
    return [number for number in range(middle - temporal_scale + 1, middle + 1) if number >= first]


def write_images(tb_logger: Any, tag: str, iteration: int | str, *, lq: Tensor, result: Tensor,
                 gt: Tensor | None = None, flow: Tensor | None = None) -> None:
    """Write a frame of a clip to tensorboard, as `<tag>/input`, `/result`, `/ground_truth` and `/flow`.

    Args:
        tb_logger: SummaryWriter; None: write nothing.
        tag: Such as 'val/vid4/calendar'; each tag has one slider over the iterations.
        lq: (C, H, W), enlarged to the size of the result by repeating pixels.
        result: (C, sH, sW); clamped to 0-1, NaN is black.
        gt: (C, sH, sW).
        flow: (2, h, w) of any size, in pixels of its grid; see `flow_picture`.

    Raises:
        ValueError: an image or the flow has another shape.
    """
    if tb_logger is None:
        return
    images = {'input': lq, 'result': result}
    if gt is not None:
        images['ground_truth'] = gt
    for name, image in images.items():
        if image.dim() != 3 or image.shape[0] not in (1, 3):
            raise ValueError(f'{name} must be an image (1 or 3, H, W), but is {tuple(image.shape)}')
    if gt is not None and gt.shape != result.shape:
        raise ValueError(f'ground_truth and result differ in shape: {tuple(gt.shape)}, {tuple(result.shape)}')
    height, width = result.shape[-2:]
    for name, image in images.items():
        image = image.detach().float().nan_to_num(0).clamp(0, 1).cpu()
        tb_logger.add_image(f'{tag}/{name}', enlarge(image, (height, width)), iteration)
    if flow is not None:
        tb_logger.add_image(f'{tag}/flow', flow_picture(flow, (height, width)), iteration)


def enlarge(image: Tensor, size: tuple[int, int]) -> Tensor:  # (C, h, w) -> (C, H, W)
    """Enlarge by repeating pixels, so that they remain visible; uint8 stays uint8."""
    return F.interpolate(image.unsqueeze(0), size=size, mode='nearest-exact')[0]


def flow_picture(flow: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Colour a flow by direction and length, and add the colour wheel next to it.

    The colours are those of Baker et al., "A Database and Evaluation Methodology for Optical Flow" (ICCV 2007): right
    is red, down yellow, left blue, up violet. No motion is white. Full saturation marks the longest vector of this
    flow; its length in pixels is written under the wheel, because the scale differs between iterations. Vectors that
    are not finite are black, and do not affect the scale.

    Args:
        flow: (2, h, w), x to the right and y down, pixels.
        size: (H, W) to which the coloured flow is enlarged; None: the size of the flow.

    Returns:
        (3, H', W') uint8, RGB, the legend to the right; H' is H or the height of the legend.

    Raises:
        ValueError: the flow has another shape.
    """
    if flow.dim() != 3 or flow.shape[0] != 2:
        raise ValueError(f'flow must be (2, H, W), but is {tuple(flow.shape)}')
    flow = flow.detach().float().cpu()
    is_finite = flow.isfinite().all(dim=0)
    flow = torch.where(is_finite, flow, 0)
    colors = flow_to_image(flow) * is_finite
    if size is not None:
        colors = enlarge(colors, size)
    legend = flow_legend(float(flow.norm(dim=0).max()), side=min(max(colors.shape[1] // 3, 64), 160))

    height = max(colors.shape[1], legend.shape[1])
    picture = torch.full((3, height, colors.shape[2] + legend.shape[2]), WHITE, dtype=torch.uint8)
    picture[:, :colors.shape[1], :colors.shape[2]] = colors
    picture[:, :legend.shape[1], colors.shape[2]:] = legend
    return picture


def flow_legend(max_length: float, side: int) -> Tensor:
    """Draw the wheel with a margin and the length at its rim in pixels: (3, side + 36, side + 16) uint8."""
    canvas = np.full((side + 2 * MARGIN + TEXT_HEIGHT, side + 2 * MARGIN, 3), WHITE, np.uint8)
    canvas[MARGIN:MARGIN + side, MARGIN:MARGIN + side] = flow_wheel(side).permute(1, 2, 0).numpy()
    text = f'{max_length:.3g} px'
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.45
    (width, _), _ = cv2.getTextSize(text, font, scale, 1)
    corner = ((canvas.shape[1] - width) // 2, canvas.shape[0] - MARGIN)
    cv2.putText(canvas, text, corner, font, scale, (0, 0, 0), 1, cv2.LINE_AA)
    return torch.from_numpy(canvas).permute(2, 0, 1)


def flow_wheel(side: int = 128) -> Tensor:
    """Draw the legend of `flow_picture`: each point has the colour of the motion from the centre to it.

    Returns:
        (3, side, side) uint8, RGB; white outside the circle.
    """
    axis = torch.linspace(-1, 1, side)
    y, x = torch.meshgrid(axis, axis, indexing='ij')
    wheel = torch.stack([x, y])
    is_inside = wheel.norm(dim=0) <= 1
    # Zero outside, so that the longest vector is the radius
    return torch.where(is_inside, flow_to_image(wheel * is_inside), WHITE)
