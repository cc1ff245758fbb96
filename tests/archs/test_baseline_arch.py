"""The baseline that follows motion: known motion, no motion, colour spaces, and the figure that is quoted for it."""
import cv2
import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from basicsr_stvsr.archs.baseline_arch import BicubicAverage, BicubicDIS
from basicsr_stvsr.data.degradations import bicubic
from basicsr_stvsr.io.color_spaces import convert_clip, to_image

pytestmark = pytest.mark.numeric


def scene(height: int, width: int) -> np.ndarray:
    """A smooth texture, float (height, width, 3), 0-1."""
    smooth = cv2.GaussianBlur(np.random.default_rng(0).uniform(0, 1, (height, width, 3)), (0, 0), 2)
    return ((smooth - smooth.mean()) / smooth.std() * 0.15 + 0.5).clip(0, 1)


@pytest.fixture
def moving() -> torch.Tensor:
    """Three frames, (3, 3, 96, 128), of which each is 3 pixels further right and 2 further down than the last."""
    texture = scene(120, 160)
    frames = [texture[12 - 2 * i:108 - 2 * i, 16 - 3 * i:144 - 3 * i] for i in range(3)]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float().mul(255).round().div(255)


def quality(frame: torch.Tensor, truth: torch.Tensor) -> float:
    """PSNR without the border, where what comes in is seen in one frame only."""
    return peak_signal_noise_ratio(*(each.numpy()[..., 12:-12, 12:-12] for each in (truth, frame)), data_range=1)


@pytest.mark.parametrize('color', ['rgb', 'yuv', 'y'])
def test_a_translation_is_followed(moving, color):
    first, truth, second = convert_clip(moving, 'rgb', color).unsqueeze(1)
    along_flow = quality(BicubicDIS(color=color).frame_between(first, second), truth)
    assert along_flow > 45 and along_flow > quality(BicubicAverage().frame_between(first, second), truth) + 15


def test_the_first_frame_moves_half_way(moving):
    """The direction of the flow and its sign: with the two frames swapped, the same frame lies between them."""
    first, _, second = moving.unsqueeze(1)
    net = BicubicDIS()
    torch.testing.assert_close(net.estimate(first, second)[0, :, 48, 64], torch.tensor([6.0, 4.0]), atol=0.2, rtol=0)
    assert quality(net.frame_between(first, second), net.frame_between(second, first)) > 50


def test_equal_frames_stay():
    lq = torch.from_numpy(scene(12, 20)).permute(2, 0, 1).float().expand(1, 3, 3, 12, 20)
    frames = BicubicDIS()(lq)[0]
    assert len(frames) == 5
    for frame in frames:
        torch.testing.assert_close(frame, BicubicAverage(temporal_scale=1)(lq)[0, 0], atol=1e-4, rtol=0)


@pytest.mark.parametrize('changes, message', [
    ({'color': 'bgr'}, "color must be one of rgb, yuv, y, but got 'bgr'"),
    ({'preset': 'slow'}, "preset must be one of ultrafast, fast, medium, fine, got 'slow'"),
    ({'temporal_scale': 3}, 'temporal_scale must be 1 or 2, but got 3'),
])
def test_arguments_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message):
        BicubicDIS(**changes)


@pytest.mark.real_clips
def test_quoted_figure(real_data):
    """22 triplets of UCF101, the smallest set: PSNR of new frames, RGB of 8 bits, from a separate program."""
    scores = []
    for clip in sorted((real_data / 'eval/ucf101_triplets').iterdir()):
        first, truth, second = (cv2.imread(str(path)) for path in sorted(clip.iterdir()))
        height, width = (side // 4 * 4 for side in truth.shape[:2])
        lq = [bicubic(4)(frame[:height, :width])[..., ::-1] / np.float32(255) for frame in (first, second)]
        frames = BicubicDIS()(torch.from_numpy(np.stack(lq)).permute(0, 3, 1, 2)[None])[0]
        scores.append(peak_signal_noise_ratio(truth[:height, :width], to_image(frames[1])))
    assert np.mean(scores) == pytest.approx(26.09, abs=0.01)
