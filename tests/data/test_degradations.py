import cv2
import numpy as np
import pytest
from basicsr.utils.matlab_functions import imresize

from basicsr_stvsr.data.degradations import (
    bicubic,
    build_degradation,
    gaussian,
    linear_light_average,
    mod_crop,
)

pytestmark = pytest.mark.numeric

OPTIONS = [None, {'type': 'gaussian', 'sigma': 2.0, 'kernel_size': 15, 'rounding': 'floor', 'border': 'replicate'},
           {'type': 'blur_bicubic'}, {'type': 'blur_bicubic', 'kernel_size': 9, 'border': 'reflect'}]


def psnr(frame: np.ndarray, reference: np.ndarray) -> float:
    error = np.mean((frame.astype(np.float64) - reference)**2)
    return float('inf') if error == 0 else 10 * np.log10(255**2 / error)


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (96, 120, 3), dtype=np.uint8)


@pytest.fixture(params=range(3))
def calendar(request, real_data):
    """A ground-truth frame of Vid4 and a function that loads the same frame of a folder of LR references."""

    def load(folder):
        return cv2.imread(str(real_data / 'eval' / folder / f'{request.param:08d}.webp'))

    return load('vid4/calendar'), lambda name: load(f'lr_refs/{name}')


@pytest.mark.real_clips
def test_bicubic_equals_matlab_bit_for_bit(calendar):
    frame, reference = calendar
    np.testing.assert_array_equal(bicubic(4)(frame), reference('tdan_calendar_BI'))


def test_scale_1_keeps_frames(noise):
    np.testing.assert_array_equal(bicubic(1)(noise), noise)


@pytest.mark.real_clips
@pytest.mark.parametrize('name, floor_psnr, params', [
    ('duf_L_input', 57, dict(sigma=1.6, border='replicate', rounding='floor')),
    ('duf_L_input', 90, dict(sigma=1.6, kernel_size=9, border='replicate', rounding='floor')),
    ('tecogan_calendar', 58, dict(sigma=1.5, border='reflect', rounding='round')),
])
def test_gaussian_near_published_frames(calendar, name, floor_psnr, params):
    frame, reference = calendar
    assert psnr(gaussian(4, **params)(frame), reference(name)) >= floor_psnr


@pytest.mark.parametrize('scale', [2, 3, 4])
def test_bicubic_agrees_with_basicsr(noise, scale):
    ours = bicubic(scale)(noise).astype(int)
    exact = imresize(noise / 255, 1 / scale).clip(0, 1) * 255
    assert np.abs(ours - exact).max() < 0.5 + 1e-3  # BasicSR computes in float32


def test_gaussian_agrees_with_opencv(noise):
    blurred = cv2.GaussianBlur(noise.astype(np.float64), (13, 13), 1.6, borderType=cv2.BORDER_REFLECT_101)
    np.testing.assert_array_equal(gaussian(3)(noise), np.floor(blurred[::3, ::3] + 0.5))


@pytest.mark.parametrize('scale', [2, 3, 4])
@pytest.mark.parametrize(('options', 'border'), [
    ({}, cv2.BORDER_REPLICATE),
    ({'sigma': 1.2, 'kernel_size': 7, 'border': 'reflect'}, cv2.BORDER_REFLECT_101),
])
def test_blur_and_bicubic_agree_with_opencv_and_basicsr(noise, scale, options, border):
    """MATLAB's imfilter(frame, fspecial('gaussian', 5, 2), 'replicate') of a frame in floats, then its imresize."""
    size, sigma = options.get('kernel_size', 5), options.get('sigma', 2)
    blurred = cv2.GaussianBlur(noise / 255, (size, size), sigma, borderType=border)
    exact = imresize(blurred, 1 / scale).clip(0, 1) * 255
    ours = build_degradation({'type': 'blur_bicubic', **options}, scale)(noise)
    assert np.abs(ours - exact).max() < 0.5 + 1e-3  # BasicSR computes in float32


def test_blurred_frame_is_not_rounded(noise):
    """Were it, a third of the values would come out one level off here: 0.29 levels of error before the bicubic."""
    blurred = gaussian(1, sigma=2, kernel_size=5, border='replicate')(noise)
    rounded_between = bicubic(2)(blurred).astype(int)
    difference = np.abs(build_degradation({'type': 'blur_bicubic'}, 2)(noise) - rounded_between)
    assert difference.max() == 1 and difference.mean() > 0.05


def test_degradations_take_planes_apart(noise):
    """One channel or three, it comes out alike: networks of luma see the frames that those of colour see."""
    for opt in OPTIONS:
        degrade = build_degradation(opt, 4)
        luma = degrade(noise[..., 1:2])
        assert luma.shape == (24, 30, 1)
        np.testing.assert_array_equal(luma, degrade(noise)[..., 1:2])


@pytest.mark.parametrize('opt', OPTIONS)
@pytest.mark.parametrize('scale', [2, 3, 4])
def test_constant_frame_stays(opt, scale):
    out = build_degradation(opt, scale)(np.full((24, 36), 77, np.uint8))
    assert out.shape == (24 // scale, 36 // scale) and (out == 77).all()


def test_linear_ramp_is_sampled_between_pixels():
    # Both filters keep a linear function. Bicubic x4 takes it in the middle of four pixels, 4k + 1.5 (halves go up);
    # the Gaussian at 4k. Columns near the border see the mirrored ramp.
    ramp = np.tile(np.arange(96, dtype=np.uint8), (8, 1))
    k = np.arange(3, 21)
    assert (bicubic(4)(ramp)[:, 3:21] == 4 * k + 2).all()
    assert (gaussian(4)(ramp)[:, 3:21] == 4 * k).all()
    assert (build_degradation({'type': 'blur_bicubic'}, 4)(ramp)[:, 3:21] == 4 * k + 2).all()


@pytest.mark.parametrize('opt', OPTIONS)
@pytest.mark.parametrize('scale', [2, 3, 4])
def test_crop_with_margin_equals_crop_of_degraded(noise, opt, scale):
    degrade = build_degradation(opt, scale)
    margin, (top, left, size) = degrade.margin, (24, 36, 24)
    extended = noise[top - margin:top + size + margin, left - margin:left + size + margin]
    cut = slice(margin // scale, (margin + size) // scale)
    expected = degrade(noise)[top // scale:(top + size) // scale, left // scale:(left + size) // scale]
    np.testing.assert_array_equal(degrade(extended)[cut, cut], expected)


@pytest.mark.parametrize('opt', OPTIONS)
def test_crop_at_the_border_needs_no_margin_there(noise, opt):
    degrade = build_degradation(opt, 4)
    extended = noise[:24 + degrade.margin, 120 - 24 - degrade.margin:]
    np.testing.assert_array_equal(degrade(extended)[:6, -6:], degrade(noise)[:6, -6:])


def test_margin_by_hand():
    assert [build_degradation(None, scale).margin for scale in (2, 3, 4)] == [4, 6, 8]
    assert [build_degradation({'type': 'gaussian'}, scale).margin for scale in (2, 3, 4)] == [6, 6, 8]
    # Bicubic needs 3, 4 and 6 pixels, the blur two more, or four with nine taps
    assert [build_degradation({'type': 'blur_bicubic'}, scale).margin for scale in (2, 3, 4)] == [6, 6, 8]
    long = {'type': 'blur_bicubic', 'kernel_size': 9}
    assert [build_degradation(long, scale).margin for scale in (2, 3, 4)] == [8, 9, 12]


@pytest.mark.parametrize('opt, message', [
    ({'type': 'lanczos'}, r"'lanczos'.*bicubic.*gaussian"),
    ({'sigma': 1.6}, r'degradation.type must be the name .*, but is ~.*bicubic'),
    ({'type': 'gaussian', 'sigmaa': 1.6}, r'degradation.sigmaa is not an option .* Did you mean sigma'),
    ({'type': 'bicubic', 'sigma': 1.6}, 'sigma'),
    ({'type': 'gaussian', 'sigma': -1}, 'sigma.*-1'),
    ({'type': 'gaussian', 'kernel_size': 12}, 'kernel_size.*12'),
    ({'type': 'gaussian', 'rounding': 'ceil'}, "rounding.*'ceil'"),
    ({'type': 'gaussian', 'border': 'wrap'}, "border.*'wrap'"),
    ({'type': 'blur_bicubic', 'kernel_size': 4}, 'kernel_size.*4'),
    ({'type': 'blur_bicubic', 'border': 'wrap'}, "border.*'wrap'"),
    ({'type': 'blur_bicubic', 'rounding': 'floor'}, 'degradation.rounding is not an option'),
])
def test_wrong_options(opt, message):
    with pytest.raises(ValueError, match=message):
        build_degradation(opt, 4)


def test_size_must_be_a_multiple(noise):
    with pytest.raises(ValueError, match='96x119.*scale 4'):
        bicubic(4)(noise[:, :119])
    assert bicubic(4)(mod_crop(noise[:, :119], 4)).shape == (24, 29, 3)


def test_float_frame_is_refused(noise):
    with pytest.raises(ValueError, match='uint8.*float64'):
        bicubic(4)(noise / 255)


def test_average_is_in_linear_light():
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    assert (linear_light_average([black, white]) == 188).all()  # the well-known middle grey; 128 would be wrong
    # 1.055 * (2/3)^(1/2.4) - 0.055 = 0.8360; * 255 = 213.2
    assert (linear_light_average([white, black, white]) == 213).all()
    # Near black the curve is a straight line: levels 2 and 6 average to 4.
    assert (linear_light_average([np.full((1, 1), 2, np.uint8), np.full((1, 1), 6, np.uint8)]) == 4).all()


def test_average_of_equal_frames_is_the_frame():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(linear_light_average([levels] * 5), levels)


def test_average_refuses_unequal_frames():
    with pytest.raises(ValueError, match=r'\(2, 2\).*\(2, 3\)'):
        linear_light_average([np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8)])
