import math

import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_metric
from basicsr.metrics.psnr_ssim import calculate_psnr, calculate_ssim
from basicsr.utils.registry import METRIC_REGISTRY
from conftest import score_of

from basicsr_stvsr.evaluation.clip_scores import FramePair, needs_reference
from basicsr_stvsr.metrics.float_metric import calculate_float_psnr, calculate_float_ssim

pytestmark = pytest.mark.numeric

METRICS = (calculate_float_psnr, calculate_float_ssim)
C1, C2 = 1e-4, 9e-4  # (0.01 L)^2 and (0.03 L)^2 of the data range L = 1

both = pytest.mark.parametrize('metric', METRICS)


@pytest.fixture
def frames():
    """Luminance of weak texture, and the same with noise."""
    rng = np.random.default_rng(0)
    gt = rng.uniform(0.4, 0.6, (23, 31, 1))
    return gt + rng.uniform(-0.1, 0.1, gt.shape), gt


def flat(level, shape=(7, 7, 1)):
    return np.full(shape, float(level))


@both
def test_registered_as_metrics_with_ground_truth(metric, frames):
    name = metric.__name__
    assert METRIC_REGISTRY.get(name) is metric and needs_reference(name) and metric.float_color == 'y'
    assert calculate_metric(dict(zip(('img', 'img2'), frames, strict=True)), {'type': name}) == metric(*frames)


# PSNR

@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_psnr_of_known_offsets(dtype):
    """10 log10(1 / mse): an offset of 0.1 is 20 dB; in half of the pixels, the mse is a half."""
    gt = flat(0.5, (4, 6, 1)).astype(dtype)
    result = gt + dtype(0.1)
    assert calculate_float_psnr(result, gt) == pytest.approx(20, abs=1e-5)
    result[:2] = gt[:2]
    assert calculate_float_psnr(result, gt) == pytest.approx(20 + 10 * math.log10(2), abs=1e-5)


def test_psnr_is_of_frames_before_rounding():
    """An error of a tenth of a level is far below what rounding would leave or add: 20 log10(2550) dB."""
    assert calculate_float_psnr(flat(100.1 / 255), flat(100 / 255)) == pytest.approx(20 * math.log10(2550))


def test_results_beyond_the_range_count_in_full():
    assert calculate_float_psnr(flat(1.2), flat(1)) == pytest.approx(20 * math.log10(5))


def test_psnr_of_equal_frames(frames, recwarn):
    assert calculate_float_psnr(frames[0], frames[0]) == math.inf
    assert not recwarn.list


# SSIM

@pytest.mark.parametrize(('a', 'b'), [(0.4, 0.5), (0, 1), (16 / 255, 17 / 255)])
def test_ssim_of_flat_frames(a, b):
    """Without variance only the means count."""
    expected = (2 * a * b + C1) / (a**2 + b**2 + C1)
    assert calculate_float_ssim(flat(a), flat(b)) == pytest.approx(expected, abs=1e-9)


def test_ssim_of_a_window_by_hand():
    """24 of 49 pixels 0.75 among 0.26s, mean 0.5; the result is the negative, 0.25 and 0.74, of the same mean.

    Deviations are 0.25 and -0.24; the variance of the sample (24 * 0.25^2 + 25 * 0.24^2) / 48 = 0.06125, and the
    covariance that with a minus. Of the population, by 49, both would be 0.06.
    """
    gt = np.full(49, 0.26)
    gt[:24] = 0.75
    expected = (-2 * 0.06125 + C2) / (2 * 0.06125 + C2)  # the means are equal, so that the first factor is 1
    score = calculate_float_ssim(1 - gt.reshape(7, 7, 1), gt.reshape(7, 7, 1))
    assert score == pytest.approx(expected, abs=1e-9)
    assert score != pytest.approx((-0.12 + C2) / (0.12 + C2), abs=1e-5)


def test_ssim_equals_loops_over_windows(frames):
    """The mean over all windows of 7x7 pixels that lie within the frame, with numpy's covariance of samples."""
    x, y = (np.lib.stride_tricks.sliding_window_view(frame[..., 0], (7, 7)).reshape(-1, 49) for frame in frames)
    covariances = np.array([np.cov(a, b) for a, b in zip(x, y, strict=True)])
    mean_x, mean_y = x.mean(axis=1), y.mean(axis=1)
    scores = ((2 * mean_x * mean_y + C1) * (2 * covariances[:, 0, 1] + C2)
              / ((mean_x**2 + mean_y**2 + C1) * (covariances[:, 0, 0] + covariances[:, 1, 1] + C2)))
    assert calculate_float_ssim(*frames) == pytest.approx(scores.mean(), abs=1e-9)
    assert 0.5 < scores.mean() < 0.9


def test_ssim_of_equal_frames(frames):
    assert calculate_float_ssim(frames[0], frames[0]) == 1


# Both

@both
def test_border_does_not_count(metric, frames):
    expected = metric(*(frame[3:-3, 3:-3] for frame in frames))
    broken = frames[0].copy()
    broken[:3] = broken[-3:] = broken[:, :3] = broken[:, -3:] = 0
    assert metric(broken, frames[1], crop_border=3) == expected
    assert metric(broken, frames[1]) < expected


@both
def test_a_result_that_is_not_a_number_has_no_score(metric, frames):
    result = frames[0].copy()
    result[9, 9] = np.nan
    assert math.isnan(metric(result, frames[1]))


def test_uint8_frames_are_rgb_whose_luminance_is_not_rounded():
    """By MATLAB's rgb2ycbcr, black is 16, and pure blue, green and red are 24.966, 128.553 and 65.481 above it."""
    black = np.zeros((7, 7, 3), np.uint8)
    for channel, above in enumerate((24.966, 128.553, 65.481)):  # B, G, R
        colored = black.copy()
        colored[..., channel] = 255
        assert calculate_float_psnr(colored, black) == pytest.approx(-20 * math.log10(above / 255), abs=1e-4)
        y, y2 = (16 + above) / 255, 16 / 255
        assert calculate_float_ssim(colored, black) == pytest.approx((2 * y * y2 + C1) / (y**2 + y2**2 + C1), abs=1e-5)


def test_beside_those_of_basicsr():
    """On rounded frames PSNR is the same; SSIM differs, because its windows are Gaussian."""
    rng = np.random.default_rng(2)
    gt = rng.integers(0, 256, (24, 30, 3))
    result = (gt + rng.integers(-30, 31, gt.shape)).clip(0, 255)
    frames = result.astype(np.uint8), gt.astype(np.uint8)
    theirs = dict(crop_border=2, test_y_channel=True)
    assert calculate_float_psnr(*frames, crop_border=2) == pytest.approx(calculate_psnr(*frames, **theirs), abs=1e-4)
    assert abs(calculate_float_ssim(*frames, crop_border=2) - calculate_ssim(*frames, **theirs)) > 1e-3


@pytest.mark.parametrize('color', ['y', 'rgb'])
def test_a_validation_hands_over_luminance_as_it_is(color):
    """Luminance frames, and white frames of luminance 235; one is darker by less than half a level."""
    level = {'y': 235 / 255, 'rgb': 1.}[color]
    gt = torch.full((1 if color == 'y' else 3, 8, 9), level)
    pair = FramePair(gt - 0.2 / 255, gt, color)
    expected = -20 * math.log10(0.2 / 255 * (1 if color == 'y' else 219 / 255))
    assert score_of(pair, {'type': 'calculate_float_psnr', 'crop_border': 1}) == pytest.approx(expected, abs=1e-2)


@both
@pytest.mark.parametrize(('img', 'img2'), [
    (np.zeros((8, 8, 1)), np.zeros((8, 9, 1))),
    (np.zeros((8, 8)), np.zeros((8, 8))),
    (np.zeros((8, 8, 3)), np.zeros((8, 8, 3))),
    (np.zeros((8, 8, 1), np.uint8), np.zeros((8, 8, 1), np.uint8)),
    (np.zeros((8, 8, 1)), np.zeros((8, 8, 1), np.uint8)),
    (np.zeros((8, 8, 1), np.float16), np.zeros((8, 8, 1), np.float16)),
])
def test_frames_of_other_shapes_or_types(metric, img, img2):
    with pytest.raises(ValueError, match=rf'{metric.__name__} needs two frames .*, but they are \(8, .* of .* and \(8'):
        metric(img, img2)


@both
@pytest.mark.parametrize('level', [-0.01, 1.01, 100., np.nan])
def test_ground_truth_beyond_its_range(metric, level):
    message = f'{metric.__name__} needs luminance of 0-1, but the ground truth has {level:g} to {level:g}'
    with pytest.raises(ValueError, match=message):
        metric(flat(0.5), flat(level))


@both
@pytest.mark.parametrize('border', [-1, 4])
def test_borders_that_leave_nothing(metric, border):
    with pytest.raises(ValueError, match=f'{metric.__name__} cannot crop a border of {border} pixels from .* 8x9'):
        metric(flat(0, (8, 9, 1)), flat(0, (8, 9, 1)), crop_border=border)


def test_ssim_of_less_than_a_window():
    frame = flat(0, (10, 12, 1))
    assert calculate_float_ssim(frame, frame, crop_border=1) == 1
    with pytest.raises(ValueError, match='at least 7x7 pixels within the border, but they are 6x8'):
        calculate_float_ssim(frame, frame, crop_border=2)
