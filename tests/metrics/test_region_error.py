import math

import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_metric
from basicsr.utils.registry import METRIC_REGISTRY
from conftest import score_of

from basicsr_stvsr.evaluation.clip_scores import FramePair, needs_reference
from basicsr_stvsr.metrics.region_metric import calculate_region_error

pytestmark = pytest.mark.numeric

# A step from 0.2 to 0.8 between columns 5 and 6. Of a window of 5 columns with one behind the step, the variance is
# 1/5 * 4/5 * 0.6^2 = 0.0576, with two of them 2/5 * 3/5 * 0.6^2 = 0.0864; theta = 500: 28.8 and 43.2.
NEAR, AT = 28.8 / 29.8, 43.2 / 44.2
W = np.array([0, 0, 0, 0, NEAR, AT, AT, NEAR, 0, 0, 0, 0])


@pytest.fixture
def gt():
    frame = np.full((8, 12, 1), 0.2)
    frame[:, 6:] = 0.8
    return frame


def levels(gt, errors):
    """The frame with errors in levels of 0-255, by column."""
    return gt + np.reshape(errors, (1, -1, 1)) / 255


def both(*args, **options):
    return [calculate_region_error(*args, region=region, **options) for region in ('flat', 'edge')]


def test_registered_as_a_metric_with_ground_truth(gt):
    name = 'calculate_region_error'
    assert METRIC_REGISTRY.get(name) is calculate_region_error and needs_reference(name)
    assert calculate_region_error.float_color == 'y'
    score = calculate_metric({'img': levels(gt, 3), 'img2': gt}, {'type': name, 'region': 'edge'})
    assert score == calculate_region_error(levels(gt, 3), gt, region='edge')


def test_an_error_on_the_edge_by_hand(gt):
    """Of 10 levels, and in the column left of the step: 100 times the share of its weight."""
    result = levels(gt, 10 * (np.arange(12) == 5))
    expected = [100 * (1 - AT) / (12 - 2 * NEAR - 2 * AT), 100 * AT / (2 * NEAR + 2 * AT)]
    assert both(result, gt) == pytest.approx(expected)


def test_an_error_far_from_the_edge_by_hand(gt):
    result = levels(gt, -10 * (np.arange(12) == 1))
    assert both(result, gt) == pytest.approx([100 / (12 - 2 * NEAR - 2 * AT), 0], abs=1e-9)


def test_an_error_of_all_pixels_is_the_same_in_both(gt):
    assert both(levels(gt, 7), gt) == pytest.approx([49, 49])


def test_both_together_are_the_mean_squared_error(gt):
    rng = np.random.default_rng(0)
    error = rng.uniform(-20, 20, gt.shape)
    flat, edge = both(gt + error / 255, gt)
    assert (flat * (1 - W).mean() + edge * W.mean()) == pytest.approx(np.square(error).mean())
    assert flat != pytest.approx(edge)


def test_edges_are_those_of_the_ground_truth(gt):
    """What the result has there, or whether it has edges elsewhere, does not change the weights."""
    blurred = np.full_like(gt, 0.5)
    assert both(blurred, gt) == pytest.approx([(0.3 * 255)**2] * 2)
    assert math.isnan(both(gt, blurred)[1])


def test_options_of_the_activity(gt):
    """theta 50 at a window of 3: a third of it behind the step, 2/9 * 0.36 = 0.08, 4 / 5; in the two next columns."""
    result = levels(gt, 10 * (np.arange(12) == 5))
    assert both(result, gt, theta=50, window=3) == pytest.approx([100 * 0.2 / (12 - 2 * 0.8), 50])


def test_pixels_within_the_border_see_what_is_beyond_it():
    """A step at column 10 of 12: of columns 3 to 8, which a border of 3 leaves, the last one is near it."""
    gt = np.full((16, 12, 1), 0.2)
    gt[:, 10:] = 0.8
    result = levels(gt, 10 * (np.arange(12) == 8))
    assert both(result, gt, crop_border=3) == pytest.approx([100 * (1 - NEAR) / (6 - NEAR), 100])


@pytest.mark.parametrize('level', [0, 0.1, 1 / 3, 235 / 255, 1])
def test_a_frame_of_one_colour_has_no_edges(level):
    gt = np.full((9, 9, 1), float(level))
    flat, edge = both(levels(gt, 5), gt)
    assert flat == pytest.approx(25) and math.isnan(edge)


def test_a_result_that_is_not_a_number_has_no_score(gt):
    result = gt.copy()
    result[0, 0] = np.nan
    assert all(map(math.isnan, both(result, gt)))


def test_uint8_frames_are_rgb():
    """Grey of 255 levels spans 219 of luminance: an error of 10 counts as one of 10 * 219 / 255."""
    gt = np.full((8, 12, 3), 100, np.uint8)
    gt[:, 6:] = 200
    assert both(gt + np.uint8(10), gt) == pytest.approx([(2190 / 255)**2] * 2, rel=1e-3)


@pytest.mark.parametrize('region', ['flat', 'edge'])
def test_a_validation_scores_by_it(gt, region):
    frame, true = (torch.from_numpy(image).permute(2, 0, 1) for image in (levels(gt, np.arange(12)), gt))
    options = {'type': 'calculate_region_error', 'region': region}
    expected = calculate_region_error(levels(gt, np.arange(12)), gt, region=region)
    assert score_of(FramePair(frame, true, 'y'), {**options, 'better': 'lower'}) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(('options', 'message'), [
    ({'region': 'edges'}, "region must be 'flat' or 'edge', but is 'edges'"),
    ({'window': 4}, 'window must be an odd number of pixels from 3 on, but is 4'),
    ({'window': 17}, 'window of 17 takes frames larger than 8 x 8'),
    ({'theta': 0}, 'theta must be a number above 0, but is 0'),
    ({'crop_border': 4}, 'cannot crop a border of 4 pixels from frames of 8x12'),
])
def test_options_that_make_no_sense(gt, options, message):
    with pytest.raises(ValueError, match=message):
        calculate_region_error(gt, gt, **{'region': 'flat', **options})


def test_frames_of_other_shapes(gt):
    with pytest.raises(ValueError, match=r'calculate_region_error needs two frames .*\(8, 12, 1\) .* and \(7, 12, 1\)'):
        calculate_region_error(gt, gt[1:], region='flat')
