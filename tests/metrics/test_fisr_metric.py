import math

import numpy as np
import pytest
from basicsr.metrics import calculate_metric
from basicsr.metrics.psnr_ssim import calculate_ssim
from basicsr.utils.registry import METRIC_REGISTRY

from basicsr_stvsr.evaluation.clip_scores import needs_reference
from basicsr_stvsr.metrics.fisr_metric import calculate_fisr_psnr, calculate_fisr_ssim

pytestmark = pytest.mark.numeric

METRICS = (calculate_fisr_psnr, calculate_fisr_ssim)
C1, C2 = 6.5025, 58.5225  # (0.01 * 255)^2 and (0.03 * 255)^2


@pytest.fixture
def frames():
    """A YUV frame of weak texture and the same with noise, as levels of 0-255; sides are no multiples of 7."""
    rng = np.random.default_rng(0)
    levels = rng.integers(100, 131, (31, 45, 3))
    return levels, levels + rng.integers(-8, 9, levels.shape)


def flat(level, shape=(7, 7, 3)):
    return np.full(shape, level / 255)


@pytest.mark.parametrize('metric', METRICS)
def test_registered_as_metrics_with_ground_truth(metric, frames):
    name = metric.__name__
    assert METRIC_REGISTRY.get(name) is metric and needs_reference(name) and metric.float_color == 'yuv'
    img, img2 = (frame / 255 for frame in frames)
    assert calculate_metric({'img': img, 'img2': img2}, {'type': name}) == metric(img, img2)


# PSNR


def test_psnr_of_known_offsets():
    """10 log10(1 / mse): an offset of 0.1 is 20 dB; in one plane of three, the mse is a third."""
    gt = np.full((4, 6, 3), 0.5)
    assert calculate_fisr_psnr(gt + 0.1, gt) == pytest.approx(20)
    for plane in range(3):
        result = gt.copy()
        result[..., plane] -= 0.1
        assert calculate_fisr_psnr(result, gt) == pytest.approx(20 + 10 * math.log10(3))


def test_psnr_has_one_mse_over_the_planes():
    """Offsets 0.1, 0 and 0 beside the mean of three PSNRs, which would be infinite; and 0.3, 0.2, 0.1."""
    gt = np.full((2, 2, 3), 0.5, np.float32)
    expected = -10 * math.log10((0.09 + 0.04 + 0.01) / 3)
    assert calculate_fisr_psnr(gt + np.float32([0.3, -0.2, 0.1]), gt) == pytest.approx(expected, abs=1e-5)


def test_psnr_is_of_the_output_before_rounding():
    """An error of a tenth of a level is far below what rounding would leave or add: 20 log10(2550) dB."""
    gt = flat(100)
    assert calculate_fisr_psnr(gt + 0.1 / 255, gt) == pytest.approx(20 * math.log10(2550))


def test_psnr_of_equal_frames(frames):
    assert calculate_fisr_psnr(frames[0] / 255, frames[0] / 255) == math.inf
    assert calculate_fisr_psnr(frames[0].astype(np.uint8), frames[0].astype(np.uint8)) == math.inf


# SSIM


@pytest.mark.parametrize(('a', 'b'), [(100, 110), (0, 255), (16, 17), (200, 40)])
def test_ssim_of_flat_frames(a, b):
    """Without variance only the means count."""
    expected = (2 * a * b + C1) / (a**2 + b**2 + C1)
    assert calculate_fisr_ssim(flat(a), flat(b)) == pytest.approx(expected, abs=1e-12)


def test_ssim_of_a_tile_by_hand():
    """One plane of one tile: 24 of 49 pixels 140 among 91s, mean 115; its opposite in the other frame; the rest equal.

    sum = 24 * 140 + 25 * 91 = 5635 = 49 * 115; the deviations are 25 and -24, so that the population variance is
    (24 * 25^2 + 25 * 24^2) / 49 = 600. The opposite, 90 and 139, has the same mean and variance, the covariance -600.
    """
    gt = np.full((49, 3), 60.0)
    gt[:, 1] = 91
    gt[:24, 1] = 140
    result = gt.copy()
    result[:, 1] = 230 - gt[:, 1]
    expected = (-1200 + C2) / (1200 + C2)  # the means are equal, so that the first factor is 1
    score = calculate_fisr_ssim(result.reshape(7, 7, 3) / 255, gt.reshape(7, 7, 3) / 255)
    assert score == pytest.approx((1 + expected + 1) / 3, abs=1e-12)


def ssim_by_loops(a, b):
    """Of levels 0-255, tile by tile and plane by plane, with numpy's variance and covariance of populations."""
    scores = []
    for top in range(0, a.shape[0] - 6, 7):
        for left in range(0, a.shape[1] - 6, 7):
            for plane in range(3):
                x, y = (frame[top:top + 7, left:left + 7, plane].astype(float).ravel() for frame in (a, b))
                covariance = np.cov(x, y, ddof=0)[0, 1]
                scores.append((2 * x.mean() * y.mean() + C1) * (2 * covariance + C2)
                              / (x.mean()**2 + y.mean()**2 + C1) / (np.var(x) + np.var(y) + C2))
    return np.mean(scores)


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_ssim_equals_loops_over_tiles(frames, dtype):
    a, b = frames
    score = calculate_fisr_ssim((a / 255).astype(dtype), (b / 255).astype(dtype))
    assert score == pytest.approx(ssim_by_loops(a, b), abs=1e-12)
    assert 0.7 < score < 0.95


@pytest.mark.filterwarnings('ignore:Image.Image.getdata is deprecated:DeprecationWarning')  # SSIM-PIL calls it
@pytest.mark.parametrize('size', [(7, 7), (31, 45), (20, 14)])
def test_ssim_equals_the_library_of_the_official_code(size):
    ssim_pil = pytest.importorskip('SSIM_PIL')
    image = pytest.importorskip('PIL.Image')
    rng = np.random.default_rng(1)
    result, gt = rng.random((2, *size, 3))
    result = gt + 0.3 * (result - 0.5)
    cut = [image.fromarray((255 * frame.clip(0, 1)).astype(np.uint8), 'RGB') for frame in (result, gt)]
    expected = ssim_pil.compare_ssim(*cut, GPU=False)
    assert calculate_fisr_ssim(result, gt) == pytest.approx(expected, abs=1e-12)


def test_ssim_cuts_and_does_not_round():
    """Just below a level counts as the level below: of 101 - 0.0001 stays 100, which rounding would make 101."""
    below, level = flat(101 - 1e-4), flat(101)
    assert calculate_fisr_ssim(below, flat(100)) == 1
    assert calculate_fisr_ssim(below, level) == pytest.approx((2 * 100 * 101 + C1) / (100**2 + 101**2 + C1), abs=1e-12)
    assert calculate_fisr_ssim(below, level) < 1


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_ssim_keeps_all_256_levels(dtype):
    """A level divided by 255 and multiplied again must not fall below itself."""
    levels = np.arange(256)
    frame = np.broadcast_to((levels.astype(dtype) / 255)[:, None, None, None], (256, 7, 7, 3)).reshape(-1, 7, 3)
    assert calculate_fisr_ssim(frame + dtype(1e-4), frame) == 1


def test_ssim_of_equal_frames(frames):
    assert calculate_fisr_ssim(frames[0] / 255, frames[0] / 255) == 1


def test_ssim_drops_what_is_left_of_tiles(frames):
    """At the right and the bottom: frames of 31 x 45 have tiles up to 28 x 42."""
    gt = frames[0] / 255
    result = gt.copy()
    result[28:] = result[:, 42:] = 0
    assert calculate_fisr_ssim(result, gt) == 1
    result[27, 41] = 0
    assert calculate_fisr_ssim(result, gt) < 1


def test_ssim_is_not_the_gaussian_one():
    """A step between two tiles is in neither of them; Gaussian windows see it, and that the other frame lacks it."""
    gt = np.full((21, 28, 3), 100, np.uint8)
    result = gt.copy()
    result[:, :14] = 110
    expected = ((2 * 100 * 110 + C1) / (100**2 + 110**2 + C1) + 1) / 2
    assert calculate_fisr_ssim(result / 255, gt / 255) == pytest.approx(expected, abs=1e-12)
    assert calculate_ssim(result, gt, crop_border=0) < expected - 0.05


# Both


@pytest.mark.parametrize('metric', METRICS)
def test_uint8_frames_are_rgb(metric):
    """White, black and pure blue in B, G, R; by MATLAB's rgb2ycbcr (235, 128, 128), (16, 128, 128), (41, 240, 110)."""
    yuv = {(255, 255, 255): (235, 128, 128), (0, 0, 0): (16, 128, 128), (255, 0, 0): (41, 240, 110)}
    for bgr, other in ((x, y) for x in yuv for y in yuv if x != y):
        frames = [np.full((7, 7, 3), color, np.uint8) for color in (bgr, other)]
        expected = metric(*(np.full((7, 7, 3), yuv[color]) / 255 for color in (bgr, other)))
        assert metric(*frames) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize('metric', METRICS)
def test_results_are_clipped_as_the_protocol_does(metric):
    gt = np.full((7, 7, 3), 0.95)
    result = gt + np.array([0.5, 0.02, -2])
    assert metric(result, gt) == metric(result.clip(0, 1), gt)


@pytest.mark.parametrize('metric', METRICS)
def test_a_result_that_is_not_a_number_has_no_score(metric, frames):
    gt = frames[0] / 255
    result = gt.copy()
    result[3, 3, 1] = np.nan
    assert math.isnan(metric(result, gt))


@pytest.mark.parametrize('metric', METRICS)
@pytest.mark.parametrize(('img', 'img2', 'message'), [
    (np.zeros((8, 8, 3)), np.zeros((8, 9, 3)), r'the same shape .* but they are \(8, 8, 3\) and \(8, 9, 3\)'),
    (np.zeros((8, 8)), np.zeros((8, 8)), r'shape \(H, W, 3\), but they are \(8, 8\)'),
    (np.zeros((3, 8, 8)), np.zeros((3, 8, 8)), r'shape \(H, W, 3\), but they are \(3, 8, 8\)'),
    (np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3)), 'both uint8 .* but they are uint8 and float64'),
    (np.zeros((8, 8, 3), int), np.zeros((8, 8, 3), int), 'both uint8 .* but they are int64 and int64'),
    (np.zeros((8, 8, 3), np.float16), np.zeros((8, 8, 3)), 'float32 or float64 .* but they are float16 and float64'),
    (np.zeros((8, 8, 3)), np.full((8, 8, 3), 235.0), '0-1, but the ground truth has 235 to 235'),
    (np.zeros((8, 8, 3)), np.full((8, 8, 3), np.nan), '0-1, but the ground truth has nan to nan'),
])
def test_bad_frames(metric, img, img2, message):
    with pytest.raises(ValueError, match=message):
        metric(img, img2)


def test_ssim_of_frames_smaller_than_a_tile():
    with pytest.raises(ValueError, match=r'at least 7x7 pixels, but they are 6x9 \(h x w\)'):
        calculate_fisr_ssim(np.zeros((6, 9, 3)), np.zeros((6, 9, 3)))
