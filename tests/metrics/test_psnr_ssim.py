"""PSNR and SSIM that replace BasicSR's must give the same numbers."""
import math

import cv2
import numpy as np
import pytest
from basicsr.metrics import psnr_ssim as theirs

from basicsr_stvsr.metrics import psnr_ssim as ours

pytestmark = pytest.mark.numeric


def images(shape: tuple[int, ...] = (40, 53, 3)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    gt = cv2.GaussianBlur(rng.integers(0, 256, shape).astype(np.uint8), (0, 0), 1.5)
    return np.clip(gt.astype(int) + rng.integers(-12, 13, gt.shape), 0, 255).astype(np.uint8), gt


@pytest.mark.parametrize('name', ['calculate_psnr', 'calculate_ssim'])
@pytest.mark.parametrize('options', [
    {'crop_border': 0}, {'crop_border': 4}, {'crop_border': 0, 'test_y_channel': True},
    {'crop_border': 3, 'test_y_channel': True}])
def test_equal_to_basicsr(name, options):
    pair = images()
    assert getattr(ours, name)(*pair, **options) == pytest.approx(getattr(theirs, name)(*pair, **options), abs=1e-9)
    planes = [image.transpose(2, 0, 1) for image in pair]
    assert getattr(ours, name)(*planes, **options, input_order='CHW') == pytest.approx(
        getattr(theirs, name)(*pair, **options), abs=1e-9)


@pytest.mark.parametrize('name', ['calculate_psnr', 'calculate_ssim'])
def test_grey_and_float_images(name):
    grey = images((30, 41))
    for pair in (grey, [image.astype(np.float32) / 3 for image in images()]):
        assert getattr(ours, name)(*pair, 2) == pytest.approx(getattr(theirs, name)(*pair, 2), abs=1e-6)


@pytest.mark.parametrize('height', [11, 74, 75, 84, 139])
def test_strips_join_without_a_seam(height):
    """Images are taken 64 rows at a time."""
    img, gt = images((height, 23, 3))
    expected = theirs.calculate_ssim(img, gt, crop_border=0)
    assert ours.calculate_ssim(img, gt, crop_border=0) == pytest.approx(expected, abs=1e-12)


def test_by_hand():
    black, grey = np.zeros((12, 12, 3), np.uint8), np.full((12, 12, 3), 51, np.uint8)
    assert ours.calculate_psnr(black, grey, 0) == pytest.approx(20 * math.log10(5))
    assert ours.calculate_psnr(grey, grey, 0) == math.inf and ours.calculate_ssim(grey, grey, 0) == 1
    c1 = (0.01 * 255)**2
    assert ours.calculate_ssim(black, grey, 0) == pytest.approx(c1 / (51**2 + c1))  # no variance: luminance alone


@pytest.mark.parametrize('name', ['calculate_psnr', 'calculate_ssim'])
def test_refused(name):
    metric, (img, gt) = getattr(ours, name), images()
    with pytest.raises(ValueError, match=r'Image shapes are different: \(40, 53, 3\), \(40, 52, 3\)'):
        metric(img, gt[:, 1:], 0)
    with pytest.raises(ValueError, match='cannot crop a border of 20 pixels from images of 40x53'):
        metric(img, gt, 20)


def test_ssim_needs_a_window():
    with pytest.raises(ValueError, match='at least 11x11 pixels within the border, but they are 10x23'):
        ours.calculate_ssim(*images(), 15)
