"""Metrics of what changes from frame to frame: known motion, and numbers by hand."""
import cv2
import numpy as np
import pytest

from basicsr_stvsr.evaluation.clip_scores import needs_order, needs_reference
from basicsr_stvsr.metrics.temporal_metric import (
    calculate_temporal_difference,
    calculate_tof,
    calculate_warp_error,
    visible,
    warped,
)

pytestmark = pytest.mark.numeric

METRICS = [calculate_tof, calculate_warp_error, calculate_temporal_difference]


def texture(height: int = 120, width: int = 160) -> np.ndarray:
    """Smooth noise, which flow estimators follow."""
    noise = np.random.default_rng(3).integers(0, 256, (height // 4, width // 4, 3)).astype(np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def moving(speed: float, number: int = 1) -> np.ndarray:
    """Return a frame of a clip that moves to the right by `speed` pixels per frame."""
    shift = np.float32([[1, 0, speed * number], [0, 1, 0]])
    return cv2.warpAffine(texture(), shift, (160, 120), borderMode=cv2.BORDER_REPLICATE)[16:-16, 24:-24]


@pytest.mark.parametrize('metric', METRICS)
def test_what_it_needs(metric):
    assert needs_reference(metric.__name__) and needs_order(metric.__name__)


def test_tof_of_known_motion():
    """The result moves by 1 pixel a frame, the truth by 3: 2 pixels between them; and nothing between equals."""
    clip = moving(1, 0), moving(1, 1), moving(3, 0), moving(3, 1)
    last, this, last_gt, gt = clip
    assert calculate_tof(this, gt, last, last_gt, crop_border=4) == pytest.approx(2, abs=0.15)
    assert calculate_tof(gt, gt, last_gt, last_gt) == 0


def test_tof_is_tecogans():
    """As its evaluation (metrics.py) writes it: grey frames, Farneback, the mean length of the difference."""
    rng = np.random.default_rng(0)
    last, this, last_gt, gt = (cv2.GaussianBlur(rng.integers(0, 256, (40, 56, 3)).astype(np.uint8), (0, 0), 2)
                               for _ in range(4))
    grey = [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in (last_gt, gt, last, this)]
    target = cv2.calcOpticalFlowFarneback(grey[0], grey[1], None, 0.5, 3, 15, 3, 5, 1.2, 0)
    output = cv2.calcOpticalFlowFarneback(grey[2], grey[3], None, 0.5, 3, 15, 3, 5, 1.2, 0)
    difference = np.sqrt(np.sum((target - output)**2, axis=-1)).mean()
    assert calculate_tof(this, gt, last, last_gt) == pytest.approx(difference, rel=1e-6)


def test_warp_error_follows_the_motion():
    """Frames that move as the truth does have hardly any error; a level that jumps by 10 has (10 / 255)^2."""
    last, this = moving(3, 0), moving(3, 1)
    steady = calculate_warp_error(this, this, last, last)
    assert steady < 3e-4
    assert calculate_warp_error(np.minimum(this, 245) + 10, this, np.minimum(last, 245), last) == pytest.approx(
        (10 / 255)**2, rel=0.1)
    still = calculate_warp_error(last, this, last, last)  # a result that stands while the truth moves
    assert still > 20 * steady


def test_what_is_hidden_does_not_count():
    """By hand: a flow back that is opposite is consistent; one that is not, or comes from outside, is not."""
    flow, back = np.zeros((6, 8, 2), np.float32), np.zeros((6, 8, 2), np.float32)
    flow[..., 0], back[..., 0] = 2, -2
    seen = visible(flow, back)
    assert seen[:, :6].all() and not seen[:, 6:].any()  # columns 6 and 7 would come from 8 and 9
    back[2, 4] = 0  # what (2, 2) was: it stayed there, hidden by what moves: |flow + back|^2 = 4 > 0.01 (4 + 0) + 0.5
    assert not visible(flow, back)[2, 2] and visible(flow, back)[1, 2]
    flow[3:] = 0  # an edge of motion: the change of 1 a pixel, squared, is more than 0.01 * 4 + 0.002
    back[3:] = 0
    assert not visible(flow, back)[2:4, :6].any() and visible(flow, back)[0, :6].all()


def test_warped_by_hand():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    flow = np.zeros((3, 4, 2), np.float32)
    flow[..., 0], flow[..., 1] = 0.5, 1
    expected = np.array([[4.5, 5.5, 6.5, 7], [8.5, 9.5, 10.5, 11], [8.5, 9.5, 10.5, 11]])
    np.testing.assert_allclose(warped(image, flow), expected, atol=1e-5)


def test_temporal_difference_by_hand():
    """An error that stays does not count; one of +2 that turns to -1 changes by -3."""
    last_gt, gt = (np.full((4, 5, 3), level, np.uint8) for level in (100, 120))
    assert calculate_temporal_difference(gt + 2, gt, last_gt + 2, last_gt) == 0
    assert calculate_temporal_difference(gt - 1, gt, last_gt + 2, last_gt) == 9
    framed = np.full((4, 5, 3), 90, np.uint8)
    framed[1:-1, 1:-1] = last_gt[1:-1, 1:-1]
    assert calculate_temporal_difference(gt, gt, framed, last_gt, crop_border=1) == 0


@pytest.mark.parametrize('metric', METRICS[:2])
def test_refused(metric):
    last, this = moving(1, 0), moving(1, 1)
    with pytest.raises(ValueError, match=rf'{metric.__name__} needs frames of the same shape \(H, W, 3\), uint8'):
        metric(this, this[1:], last, last)
    with pytest.raises(ValueError, match='uint8'):
        metric(this / 255, this, last, last)
    with pytest.raises(ValueError, match='cannot crop a border of 60 pixels from frames of 88x112'):
        metric(this, this, last, last, crop_border=60)
