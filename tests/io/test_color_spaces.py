import cv2
import numpy as np
import pytest
import torch
from basicsr.utils import tensor2img
from basicsr.utils.color_util import bgr2ycbcr, rgb2ycbcr, ycbcr2bgr
from skimage.color import rgb2ycbcr as skimage_rgb2ycbcr
from skimage.color import ycbcr2rgb as skimage_ycbcr2rgb

from basicsr_stvsr.io.color_spaces import TO_RGB, TO_YUV, check_yuv, convert_clip, convert_frame, levels_of, to_image

# R, G, B -> Y, U, V of colour bars in 8 bits (ITU-R BT.601, studio swing)
BARS = {
    (255, 255, 255): (235, 128, 128), (0, 0, 0): (16, 128, 128), (255, 0, 0): (81, 90, 240), (0, 255, 0): (145, 54, 34),
    (0, 0, 255): (41, 240, 110), (255, 255, 0): (210, 16, 146), (0, 255, 255): (170, 166, 16),
    (255, 0, 255): (106, 202, 222),
}


@pytest.fixture
def frame():
    """uint8 BGR, all colours alike."""
    return np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)


def subsample_chroma(frame):
    """A YUV frame (V, U, Y) as 4:2:0 video has it: chroma of half the size, here shown at full size by repetition."""
    height, width = (side // 2 * 2 for side in frame.shape[:2])
    frame = frame[:height, :width].copy()
    chroma = cv2.resize(frame[..., :2], (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    frame[..., :2] = chroma.repeat(2, axis=0).repeat(2, axis=1)
    return frame


# Frames: uint8, B, G, R and V, U, Y


@pytest.mark.numeric
@pytest.mark.parametrize(('rgb', 'yuv'), BARS.items())
def test_colour_bars(rgb, yuv):
    frame = np.array([[rgb[::-1]]], np.uint8)
    converted = convert_frame(frame, 'rgb', 'yuv')
    assert converted.dtype == np.uint8 and tuple(converted[0, 0, ::-1]) == yuv
    assert np.abs(convert_frame(converted, 'yuv', 'rgb').astype(int) - frame).max() <= 2
    clip = torch.tensor(rgb).view(3, 1, 1) / 255
    assert (convert_clip(clip, 'rgb', 'yuv').flatten() * 255 - torch.tensor(yuv)).abs().max() < 0.51


@pytest.mark.numeric
def test_frames_equal_basicsr(frame):
    """Up to the rounding of what lies halfway, which float32 decides."""
    converted = convert_frame(frame, 'rgb', 'yuv')
    for expected in (bgr2ycbcr(frame), rgb2ycbcr(frame[..., ::-1].copy())):
        difference = np.abs(converted[..., ::-1].astype(int) - expected)
        assert difference.max() <= 1 and difference.mean() < 1e-3
    # BasicSR's inverse has rounded coefficients, and does not clip.
    difference = np.abs(convert_frame(converted, 'yuv', 'rgb') - ycbcr2bgr(converted[..., ::-1].copy()).astype(float))
    assert difference[(frame > 3).all(axis=2) & (frame < 252).all(axis=2)].max() <= 1


@pytest.mark.numeric
def test_frames_equal_clips(frame):
    clip = torch.from_numpy(frame[..., ::-1].transpose(2, 0, 1).copy()).double() / 255
    expected = (convert_clip(clip, 'rgb', 'yuv') * 255).permute(1, 2, 0).numpy()[..., ::-1]
    assert np.abs(convert_frame(frame, 'rgb', 'yuv') - expected).max() <= 0.5001


@pytest.mark.numeric
def test_frames_survive_a_round_trip(frame):
    """YUV has 220 levels of Y and 225 of U and V for 256 of RGB; blue, which weights U most, loses most.

    0.5 levels of Y and U each give (1.164 + 2.017) / 2 levels of blue, and rounding another half.
    """
    back = convert_frame(convert_frame(frame, 'rgb', 'yuv'), 'yuv', 'rgb')
    assert np.abs(back.astype(int) - frame).max() <= 2
    assert convert_frame(frame, 'yuv', 'yuv') is frame and convert_frame(frame, 'rgb', 'rgb') is frame


def test_frames_are_clipped():
    """G of Y 255, U 240, V 240 is 255 / 219 (255 - 16) - (0.392 + 0.813) (240 - 128) = 143; B and R are above 255."""
    assert convert_frame(np.array([[[240, 240, 255]]], np.uint8), 'yuv', 'rgb').tolist() == [[[255, 143, 255]]]
    assert convert_frame(np.array([[[128, 128, 0]]], np.uint8), 'yuv', 'rgb').tolist() == [[[0, 0, 0]]]


# Clips: float, R, G, B and Y, U, V, 0-1


@pytest.mark.numeric
@pytest.mark.parametrize('shape', [(3, 4, 5), (2, 3, 4, 5), (2, 7, 3, 4, 5)])
def test_clips_equal_skimage(shape):
    clip = torch.rand(shape, dtype=torch.float64)
    yuv = convert_clip(clip, 'rgb', 'yuv')
    assert yuv.shape == shape and yuv.dtype == clip.dtype
    np.testing.assert_allclose(yuv * 255, skimage_rgb2ycbcr(clip.numpy(), channel_axis=-3), atol=1e-9)
    np.testing.assert_allclose(
        convert_clip(clip, 'yuv', 'rgb'), skimage_ycbcr2rgb(clip.numpy() * 255, channel_axis=-3), atol=1e-9)


@pytest.mark.numeric
def test_clips_equal_basicsr(frame):
    """Its float images are float32, 0-1."""
    image = np.float32(frame[..., ::-1]) / 255
    clip = torch.from_numpy(image.transpose(2, 0, 1).copy())
    np.testing.assert_allclose(convert_clip(clip, 'rgb', 'yuv').permute(1, 2, 0), rgb2ycbcr(image), atol=1e-6)


@pytest.mark.numeric
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_clips_survive_a_round_trip(dtype):
    """Also what lies outside of 0-1: nothing is clipped."""
    clip = 3 * torch.rand(2, 3, 8, 9, dtype=dtype) - 1
    back = convert_clip(convert_clip(clip, 'rgb', 'yuv'), 'yuv', 'rgb')
    assert back.dtype == dtype
    torch.testing.assert_close(back, clip, atol=2e-6, rtol=0)
    for color in ('rgb', 'yuv'):
        assert convert_clip(clip, color, color) is clip


@pytest.mark.numeric
def test_clips_keep_gradients():
    """Those of Y are the weights of R, G and B."""
    clip = torch.rand(1, 3, 2, 2, requires_grad=True)
    convert_clip(clip, 'rgb', 'yuv')[:, 0].sum().backward()
    expected = torch.tensor([65.481, 128.553, 24.966]).view(3, 1, 1) / 255
    torch.testing.assert_close(clip.grad[0], expected.expand(3, 2, 2))


@pytest.mark.numeric
def test_matrices():
    """Grey has no chroma; of white Y is 219 levels above black; the inverse is the one that FISR's code states."""
    np.testing.assert_allclose(TO_YUV @ np.ones(3) * 255, [219, 0, 0], atol=1e-9)
    official = [[0.00456621, 0, 0.00625893], [0.00456621, -0.00153632, -0.00318811], [0.00456621, 0.00791071, 0]]
    np.testing.assert_allclose(TO_RGB, 255 * np.array(official), atol=4e-6)  # they round


# Y alone


@pytest.mark.parametrize(('rgb', 'yuv'), BARS.items())
def test_luma_of_colour_bars(rgb, yuv):
    frame = np.array([[rgb[::-1]] * 3] * 2, np.uint8)
    for color, colored in (('rgb', frame), ('yuv', convert_frame(frame, 'rgb', 'yuv'))):
        luma = convert_frame(colored, color, 'y')
        assert luma.shape == (2, 3, 1) and luma.dtype == np.uint8 and (luma == yuv[0]).all()
    clip = torch.tensor(rgb).view(1, 3, 1, 1) / 255
    assert convert_clip(clip, 'rgb', 'y').shape == (1, 1, 1, 1)
    assert abs(convert_clip(clip, 'rgb', 'y').item() * 255 - yuv[0]) < 0.51


@pytest.mark.numeric
def test_luma_equals_basicsr_and_skimage(frame):
    difference = np.abs(convert_frame(frame, 'rgb', 'y')[..., 0].astype(int) - bgr2ycbcr(frame, y_only=True))
    assert difference.max() <= 1 and difference.mean() < 1e-3  # halves, which float32 decides
    clip = torch.rand(2, 3, 8, 9, dtype=torch.float64)
    expected = skimage_rgb2ycbcr(clip.numpy(), channel_axis=1)[:, :1]
    np.testing.assert_allclose(convert_clip(clip, 'rgb', 'y') * 255, expected, atol=1e-9)


@pytest.mark.numeric
def test_luma_is_the_same_with_and_without_chroma(frame):
    yuv = convert_frame(np.tile(frame, (10, 10, 1)), 'rgb', 'yuv')
    luma = convert_frame(np.tile(frame, (10, 10, 1)), 'rgb', 'y')
    np.testing.assert_array_equal(luma, yuv[..., 2:])
    np.testing.assert_array_equal(convert_frame(yuv, 'yuv', 'y'), luma)
    assert luma.base is None  # it keeps no chroma in memory
    clip = torch.rand(2, 5, 3, 4, 6)
    assert torch.equal(convert_clip(clip, 'yuv', 'y'), clip[:, :, :1])
    assert torch.equal(convert_clip(clip, 'rgb', 'y'), convert_clip(clip, 'rgb', 'yuv')[:, :, :1])


@pytest.mark.numeric
def test_luma_alone_becomes_grey():
    """Black is 16 and white is 235; the middle, 125 or 126, is (125 - 16) 255 / 219 = 126.9 or 128.1."""
    frame = np.array([[[16], [125], [126], [235]]], np.uint8)
    assert convert_frame(frame, 'y', 'rgb').tolist() == [[[level] * 3 for level in (0, 127, 128, 255)]]
    assert convert_frame(frame, 'y', 'yuv').tolist() == [[[128, 128, level] for level in (16, 125, 126, 235)]]
    clip = torch.tensor([16, 125, 126, 235.0], dtype=torch.float64).view(1, 1, 2, 2) / 255
    rgb = convert_clip(clip, 'y', 'rgb')
    assert rgb.shape == (1, 3, 2, 2) and rgb.dtype == clip.dtype
    torch.testing.assert_close(rgb, ((clip * 255 - 16) / 219).expand(1, 3, 2, 2))
    yuv = convert_clip(clip, 'y', 'yuv')
    assert torch.equal(yuv[:, :1], clip) and (yuv[:, 1:] == 128 / 255).all()


@pytest.mark.numeric
@pytest.mark.parametrize('color', ['rgb', 'yuv'])
def test_luma_survives_a_round_trip(color):
    luma = np.arange(16, 236, dtype=np.uint8).reshape(10, 22, 1)
    np.testing.assert_array_equal(convert_frame(convert_frame(luma, 'y', color), color, 'y'), luma)
    clip = torch.rand(2, 1, 3, 4)
    torch.testing.assert_close(convert_clip(convert_clip(clip, 'y', color), color, 'y'), clip, atol=1e-6, rtol=0)
    assert convert_clip(clip, 'y', 'y') is clip and convert_frame(luma, 'y', 'y') is luma


@pytest.mark.parametrize(('source', 'channels'), [('rgb', 1), ('yuv', 4), ('y', 3), ('rgb', None)])
@pytest.mark.parametrize('target', ['rgb', 'yuv', 'y'])
def test_wrong_number_of_channels(source, target, channels):
    shape = (4, 5) if channels is None else (channels, 4, 5)
    with pytest.raises(ValueError, match=rf'expected a clip in {source}, .*, got \({", ".join(map(str, shape))}\)'):
        convert_clip(torch.rand(shape), source, target)
    shape = shape if channels is None else (4, 5, channels)
    with pytest.raises(ValueError, match=rf'expected a frame in {source}, .*, got \({", ".join(map(str, shape))}\)'):
        convert_frame(np.zeros(shape, np.uint8), source, target)


# Is it YUV?


@pytest.mark.parametrize('rgb', [
    np.zeros((20, 20, 3), np.uint8),  # black: its U and V would be far too small
    np.full((20, 20, 3), 255, np.uint8),
    np.full((20, 20, 3), (0, 0, 255), np.uint8),
    np.full((20, 20, 3), (230, 180, 150), np.uint8),  # a pale blue sky
])
def test_rgb_is_told_from_yuv(rgb):
    with pytest.raises(ValueError, match='does not look like YUV: 100% of its pixels are colours outside RGB'):
        check_yuv([rgb])
    check_yuv([convert_frame(rgb, 'rgb', 'yuv')])


def test_any_rgb_colour_is_yuv_when_converted(frame):
    check_yuv([convert_frame(frame, 'rgb', 'yuv')])
    with pytest.raises(ValueError, match='does not look like YUV'):
        check_yuv([frame])


@pytest.mark.parametrize(('num_wrong', 'is_yuv'), [(190, True), (210, False)])
def test_a_tenth_of_the_pixels_may_be_out_of_range(num_wrong, is_yuv):
    """Of all frames together: saturated edges take many pixels of one frame out, where chroma has half the size."""
    frame = np.full((25, 40, 3), 128, np.uint8)
    other = frame.copy()
    frame.reshape(-1, 3)[:num_wrong] = 0
    if is_yuv:
        check_yuv([frame, other])
    else:
        with pytest.raises(ValueError, match='10% of its pixels'):
            check_yuv([frame, other])


def test_saturated_text_in_video_is_yuv():
    """Thin red text on black, with chroma at half the size, as in the authors' 4:2:0 clips."""
    rgb = np.zeros((120, 320, 3), np.uint8)
    for row in range(20, 120, 20):
        cv2.putText(rgb, 'saturated text', (5, row), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 255), 1)
    yuv = subsample_chroma(convert_frame(rgb, 'rgb', 'yuv'))
    colours = TO_RGB @ (yuv[..., ::-1].reshape(-1, 3) - [16.0, 128, 128]).T
    assert (colours.min(axis=0) < -24).mean() > 0.01  # otherwise there is nothing to accept
    check_yuv([yuv])


@pytest.mark.real_clips
def test_real_frames(real_data):
    """The first frame of each clip is accepted as YUV, also as that of 4:2:0 video; eight of RGB are refused."""
    folders = sorted({path.parent for path in real_data.rglob('*.*') if path.suffix in ('.png', '.jpg', '.webp')})
    assert len(folders) > 50
    frames = []
    for folder in folders:
        frames.append(cv2.imread(str(min(
            path for path in folder.iterdir() if path.suffix in ('.png', '.jpg', '.webp')))))
        yuv = convert_frame(frames[-1], 'rgb', 'yuv')
        check_yuv([yuv])
        check_yuv([subsample_chroma(yuv)])
    for start in range(0, len(frames), 8):
        with pytest.raises(ValueError, match='does not look like YUV'):
            check_yuv(frames[start:start + 8])


# ---------------------------------------------------------------- to 8 bits

def test_levels_are_those_of_basicsr():
    """Halves too, which are rounded to the even level, and the neighbours of halves."""
    halves = (torch.arange(255) + 0.5) / 255
    values = torch.cat((halves, halves.nextafter(torch.tensor(0.0)), halves.nextafter(torch.tensor(1.0)),
                        torch.arange(256) / 255, torch.rand(5, generator=torch.Generator().manual_seed(0))))
    frame = values.view(3, 1, -1)[:, :, torch.randperm(values.numel() // 3)]
    assert np.array_equal(to_image(frame), tensor2img(frame))
    assert np.array_equal(levels_of(frame)[::-1].transpose(1, 2, 0), tensor2img(frame))


def test_images_are_cut_to_the_range():
    frame = torch.tensor([-0.7, 0.0, 1.3]).view(3, 1, 1)
    assert to_image(frame).tolist() == [[[255, 0, 0]]]  # B, G, R


def test_levels_of_a_view_in_half_precision():
    frame = torch.rand(5, 4, 3, generator=torch.Generator().manual_seed(0)).permute(2, 0, 1)
    assert np.array_equal(levels_of(frame.half()), (frame.half().float() * 255).round().byte().numpy())
