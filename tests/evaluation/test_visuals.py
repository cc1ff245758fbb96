"""Pictures of clips and flows in tensorboard."""
import math

import cv2
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from basicsr_stvsr.evaluation.visuals import flow_picture, flow_wheel, write_images


def read_image(events: EventAccumulator, tag: str) -> np.ndarray:
    (image,) = events.Images(tag)
    return cv2.imdecode(np.frombuffer(image.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def test_a_clip_in_tensorboard(tmp_path):
    tb_logger = SummaryWriter(str(tmp_path))
    lq = torch.tensor([[0.0, 1.0], [0.4, 0.6]]).expand(3, 2, 2)
    result = torch.linspace(-1, 2, 64).reshape(1, 8, 8).expand(3, 8, 8).clone()
    result[:, 0, 0] = math.nan
    flow = torch.zeros(2, 2, 2)
    flow[0] = 3
    write_images(tb_logger, 'val/vid4', 1, lq=lq, result=result, gt=torch.ones(3, 8, 8), flow=flow)
    tb_logger.close()

    events = EventAccumulator(str(tmp_path))
    events.Reload()
    names = 'flow', 'ground_truth', 'input', 'result'
    assert sorted(events.Tags()['images']) == [f'val/vid4/{name}' for name in names]
    shown = read_image(events, 'val/vid4/input')
    assert shown.shape == (8, 8, 3)  # each pixel four by four
    assert (shown[:4, :4] == 0).all() and (shown[:4, 4:] == 255).all()
    assert (shown[4:, :4] == 102).all() and (shown[4:, 4:] == 153).all()
    shown = read_image(events, 'val/vid4/result')
    assert (shown[:2] == 0).all() and (shown[6:] == 255).all() and 0 < shown[3, 4, 0] < 255
    assert (read_image(events, 'val/vid4/ground_truth') == 255).all()
    assert (read_image(events, 'val/vid4/flow')[:8, :8] == (255, 0, 0)).all()  # right is red


@pytest.mark.parametrize('shapes, message', [
    ({'lq': (1, 3, 2, 2), 'result': (3, 8, 8)}, r'input must be an image \(1 or 3, H, W\), but is \(1, 3, 2, 2\)'),
    ({'lq': (3, 2, 2), 'result': (3, 8, 8), 'gt': (3, 8, 4)}, r'differ in shape: \(3, 8, 4\), \(3, 8, 8\)'),
    ({'lq': (3, 2, 2), 'result': (3, 8, 8), 'flow': (2, 2, 8, 8)}, r'flow must be \(2, H, W\), but is \(2, 2, 8, 8\)'),
])
def test_other_shapes_are_refused(tmp_path, shapes, message):
    with SummaryWriter(str(tmp_path)) as tb_logger, pytest.raises(ValueError, match=message):
        write_images(tb_logger, 'val', 1, **{name: torch.zeros(shape) for name, shape in shapes.items()})


# By hand from the circle of 55 colours in computeColor.m of the Middlebury benchmark: 15 red to yellow, 6 to green,
# 4 to cyan, 11 to blue, 13 to magenta, 6 to red; a motion by the angle atan2(-y, -x) = a pi has the colour
# (a + 1) / 2 * 54.
@pytest.mark.numeric
@pytest.mark.parametrize('motion, color', [
    ((1, 0), (255, 0, 0)),  # 0: red
    ((0, 1), (255, 229, 0)),  # 13.5: between (255, 221, 0) and (255, 238, 0)
    ((-1, 0), (0, 209, 255)),  # 27, the third of cyan to blue: 255 - floor(255 * 2 / 11)
    ((0, -1), (88, 0, 255)),  # 40.5, between the fifth and sixth of blue to magenta: 78 and 98
])
def test_directions_have_the_standard_colors(motion, color):
    flow = torch.tensor(motion, dtype=torch.float).reshape(2, 1, 1) * torch.tensor([4.0, 2.0, 0.0])
    picture = flow_picture(flow)
    full, half, none = picture[:, 0, :3].T.tolist()
    assert full == pytest.approx(color, abs=1) and none == [255, 255, 255]
    assert half == pytest.approx([(255 + value) / 2 for value in color], abs=1)  # half the length is half as full
    # The wheel shows the same colour at the end of the same motion.
    wheel = flow_wheel(101)
    x, y = (50 + 49 * component for component in motion)
    assert wheel[:, y, x].tolist() == pytest.approx(color, abs=8)
    assert wheel[:, 50, 50].tolist() == pytest.approx([255, 255, 255], abs=1)
    assert wheel[:, 0, 0].tolist() == [255, 255, 255]  # outside


def test_unknown_motion_is_black_and_does_not_scale():
    flow = torch.zeros(2, 1, 4)
    flow[0] = torch.tensor([2.0, 1.0, math.inf, math.nan])
    colors = flow_picture(flow)[:, 0, :4].T.tolist()
    assert colors[0] == [255, 0, 0] and colors[2:] == [[0, 0, 0]] * 2


@pytest.mark.numeric
def test_the_legend_tells_the_length():
    short, long = (flow_picture(torch.full((2, 8, 8), length), (240, 320)) for length in (1.0, 20.0))
    assert short.shape[1] == 240 and short.shape[2] == 320 + 80 + 16
    assert torch.equal(short[:, :, :320], long[:, :, :320])
    differ = (short != long).any(dim=0).nonzero()
    assert differ[:, 0].min() >= 88 and differ[:, 0].max() < 116 and differ[:, 1].min() >= 320  # the text alone
