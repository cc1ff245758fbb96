"""The random degradation of footage: each step by hand or by another library, codecs, data sets that use it."""
import io
import math
import multiprocessing
import os
import random
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
import scipy.ndimage
import torch
from av.video.reformatter import Interpolation
from torch.utils.data import DataLoader

from basicsr_stvsr.data.clip_dataset import STVSRClipDataset, STVSRTestDataset
from basicsr_stvsr.data.degradations import build_degradation
from basicsr_stvsr.data.lq_frames import GroundTruth, VideoDegraded, Window
from basicsr_stvsr.data.sample_order import SeededDataset, SeededIndex
from basicsr_stvsr.data.video_degradation import VideoDegradation
from basicsr_stvsr.io import codecs
from basicsr_stvsr.io.codecs import compress

pytestmark = pytest.mark.numeric

SCALE = 4
# Steps that change nothing
SHARP = {'blur': {'sigma': 0}}
QUIET = {'noise': {'gaussian': 0, 'poisson': 0}}
RAW = {'codec': {'names': ['none']}}
AREA = {'resize': {'methods': ['area']}}
ALL_CODECS = {'codec': {'names': ['h264', 'h265', 'mpeg4', 'mpeg2']}}


def degradation(*parts: dict, scale: int = SCALE) -> VideoDegradation:
    options = {'type': 'video'}
    for part in parts:
        options |= part
    return build_degradation(options, scale)


def clip(num_frames: int, height: int, width: int) -> list[np.ndarray]:
    """A smooth grey texture that moves by (1, 2) pixels a frame."""
    noise = np.random.default_rng(0).uniform(0, 255, (height + 2 * num_frames, width + 2 * num_frames))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    texture = ((smooth - smooth.mean()) / smooth.std() * 45 + 128).clip(0, 255).astype(np.uint8)
    return [np.dstack([texture[2 * i:2 * i + height, i:i + width]] * 3) for i in range(num_frames)]


def psnr(frames: list[np.ndarray], reference: list[np.ndarray]) -> float:
    return 10 * math.log10(255**2 / np.mean((np.stack(frames).astype(float) - np.stack(reference))**2))


# ---------------------------------------------------------------- blur, resizing, noise

def test_with_all_off_blocks_are_averaged():
    frames = list(np.random.default_rng(0).integers(0, 256, (3, 24, 40, 3), dtype=np.uint8))
    for frame, low in zip(frames, degradation(SHARP, QUIET, RAW, AREA)(frames, seed=1), strict=True):
        mean = frame.reshape(6, 4, 10, 4, 3).astype(int).sum(axis=(1, 3)) / 16
        np.testing.assert_array_equal(low, np.floor(mean + 0.5))


@pytest.mark.parametrize('method, flag', [('bilinear', cv2.INTER_LINEAR), ('bicubic', cv2.INTER_CUBIC)])
def test_resizing_by_way_of_a_size_between(method, flag):
    frame = clip(1, 48, 80)[0]
    options = {'resize': {'methods': [method], 'intermediate': 0.5}}
    low, = degradation(SHARP, QUIET, RAW, options)([frame], seed=0)
    between = cv2.resize(frame.astype(np.float32), (40, 24), interpolation=flag)
    expected = cv2.resize(between, (20, 12), interpolation=flag)
    np.testing.assert_array_equal(low, np.floor(expected + 0.5).clip(0, 255))


@pytest.mark.parametrize('sigma', [0.7, 1.6, 3])
def test_isotropic_blur_is_scipys(sigma):
    frame = np.random.default_rng(0).integers(0, 256, (41, 60, 3), dtype=np.uint8)
    low, = degradation({'blur': {'sigma': sigma, 'anisotropic': 0}}, QUIET, RAW, AREA, scale=1)([frame], seed=0)
    expected = scipy.ndimage.gaussian_filter(frame.astype(float), (sigma, sigma, 0), mode='mirror')
    assert np.abs(low - expected).max() <= 0.51


def test_anisotropic_blur_by_the_moments_of_an_impulse():
    """The covariance of a point's image: the two sigmas, turned by the angle."""
    blurred = degradation({'blur': {'sigma': [1, 4], 'anisotropic': 1}}, QUIET, RAW, AREA, scale=1)
    point = np.zeros((65, 65, 3), np.uint8)
    point[28:37, 28:37] = 255  # a square of 9x9 has the variance (9**2 - 1) / 12
    for seed in range(4):
        drawn = blurred.draw(np.random.default_rng(seed))
        image = blurred([point], seed)[0][..., 0].astype(float)
        y, x = np.mgrid[-32:33, -32:33]
        covariance = [[(image * a * b).sum() / image.sum() for a in (x, y)] for b in (x, y)]
        turn = np.array([[math.cos(drawn.angle), -math.sin(drawn.angle)],
                         [math.sin(drawn.angle), math.cos(drawn.angle)]])
        expected = turn @ np.diag(np.square(drawn.sigmas)) @ turn.T + np.eye(2) * 80 / 12
        assert drawn.sigmas[0] != drawn.sigmas[1]
        np.testing.assert_allclose(covariance, expected, rtol=0.06, atol=0.3)


@pytest.mark.parametrize('options, level, expected', [
    ({'gaussian': 6, 'poisson': 0, 'grey': 0}, 128, 6),
    ({'gaussian': 0, 'poisson': 0.5, 'grey': 0}, 128, 8),
    ({'gaussian': 0, 'poisson': 0.5, 'grey': 0}, 32, 4),
    ({'gaussian': 3, 'poisson': 0.125, 'grey': 1}, 128, 5),
])
def test_noise_has_the_asked_strength_and_is_fresh_in_every_frame(options, level, expected):
    frames = [np.full((400, 400, 3), level, np.uint8)] * 4
    noise = np.stack(degradation(SHARP, {'noise': options}, RAW, AREA)(frames, seed=3)) - float(level)
    for each in noise:  # rounding adds 1/12 to the variance
        assert each.std() == pytest.approx(math.hypot(expected, math.sqrt(1 / 12)), rel=0.03)
        assert abs(each.mean()) < 0.2
    assert abs(np.corrcoef(noise.reshape(4, -1)) - np.eye(4)).max() < 0.03
    assert np.corrcoef(noise.reshape(-1, 3).T)[0, 1] == pytest.approx(options['grey'], abs=0.02)


def test_a_clip_has_one_strength_and_clips_differ():
    frames = [np.full((200, 200, 3), 128, np.uint8)] * 3
    noisy = degradation(SHARP, {'noise': {'gaussian': [2, 20], 'poisson': 0}}, RAW, AREA)
    deviations = np.array([[low.std() for low in noisy(frames, seed)] for seed in range(6)])
    assert (np.ptp(deviations, axis=1) < 0.05 * deviations.mean(axis=1)).all()
    assert np.ptp(deviations.mean(axis=1)) > 4


# ---------------------------------------------------------------- codecs

def by_hand(frames: list[np.ndarray], encoder: str, decoder: str, options: dict[str, str]) -> list[np.ndarray]:
    """Of even size, by another way: a stream in a container, not bare packets."""
    exact = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
    buffer = io.BytesIO()
    with av.open(buffer, 'w', format='nut') as container:
        stream = container.add_stream(encoder, rate=Fraction(25))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.thread_count, stream.options = 'yuv420p', 1, options
        for frame in frames:
            image = av.VideoFrame.from_ndarray(frame, format='bgr24')
            container.mux(stream.encode(image.reformat(format='yuv420p', interpolation=exact)))
        container.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer) as container:
        assert container.streams.video[0].codec_context.name == decoder
        return [frame.reformat(format='bgr24', interpolation=exact).to_ndarray() for frame in container.decode(video=0)]


@pytest.mark.parametrize('name, quality, encoder, decoder, options', [
    ('h264', 25, 'libx264', 'h264', {'crf': '25', 'preset': 'medium'}),
    ('h265', 28, 'libx265', 'hevc', {'crf': '28', 'preset': 'medium', 'x265-params': 'log-level=error'}),
    ('mpeg4', 5, 'mpeg4', 'mpeg4', {'qmin': '5', 'qmax': '5'}),
    ('mpeg2', 5, 'mpeg2video', 'mpeg2video', {'qmin': '5', 'qmax': '5'}),
])
def test_equals_a_video_file_in_memory(name, quality, encoder, decoder, options):
    frames = clip(5, 64, 96)
    reference = by_hand(frames, encoder, decoder, options)
    assert len(reference) == 5 and 25 < psnr(reference, frames) < 45
    np.testing.assert_array_equal(compress(frames, name, quality), reference)


@pytest.mark.parametrize('name, qualities', [
    ('h264', (15, 25, 35)), ('h265', (15, 25, 35)), ('mpeg4', (2, 6, 18)), ('mpeg2', (2, 6, 18))])
@pytest.mark.parametrize('size', [(40, 64), (67, 101), (24, 24), (5, 7), (1, 1)])
def test_sizes_stay_and_quality_falls(name, qualities, size):
    frames = clip(3, *size)
    made = [compress(frames, name, quality) for quality in qualities]
    assert all(frame.shape == (*size, 3) and frame.dtype == np.uint8 for each in made for frame in each)
    scores = [psnr(each, frames) for each in made if not np.array_equal(each, frames)]
    if min(size) >= 24:
        assert len(scores) == 3 and scores[0] > scores[1] + 1 > scores[2] + 2
    assert min(scores, default=99) > 18


def test_frames_keep_their_order():
    """Encoders reorder frames; each of these is brighter than the one before."""
    frames = [np.full((32, 48, 3), 20 + 20 * i, np.uint8) for i in range(9)]
    for name in ('h264', 'h265', 'mpeg4', 'mpeg2'):
        means = [frame.mean() for frame in compress(frames, name, 20)]
        np.testing.assert_allclose(means, [20 + 20 * i for i in range(9)], atol=6)


def test_no_thread_is_left_behind():
    if not os.path.isdir('/proc/self/task'):
        pytest.skip('counts threads as Linux shows them')
    before = len(os.listdir('/proc/self/task'))
    for name in ('h264', 'h265', 'mpeg4', 'mpeg2'):
        compress(clip(3, 40, 64), name, 20)
    assert len(os.listdir('/proc/self/task')) == before


def test_missing_codec(monkeypatch):
    monkeypatch.setitem(codecs._CODECS, 'h265', codecs._CODECS['h265']._replace(encoder='libx266'))
    message = r'PyAV .* was built without h265 \(encoder libx266\); it has h264, mpeg4, mpeg2$'
    with pytest.raises(ValueError, match=message):
        degradation()
    degradation({'codec': {'names': ['h264', 'none']}})


# ---------------------------------------------------------------- options

@pytest.mark.parametrize('options, message', [
    ({'blurr': {}}, r'^degradation\.blurr is not an option .*Did you mean blur\?'),
    ({'blur': {'sigmma': 1}}, r'^degradation\.blur\.sigmma is not an option .*Did you mean sigma\?'),
    ({'blur': {'sigma': [3, 1]}}, r'^degradation\.blur\.sigma must be >= 0 and <= 20, or a range \[lowest, highest\]'),
    ({'noise': {'gaussian': 'much'}}, r"^degradation\.noise\.gaussian must be a number or a list, but is 'much'"),
    ({'codec': {'names': ['vp9']}}, r"^degradation\.codec\.names\[0\] must be one of h264, h265, mpeg4, .*'vp9'"),
    ({'codec': {'h264_crf': 60}}, r'^degradation\.codec\.h264_crf must be >= 0 and <= 51'),
    ({'codec': {'mpeg4_qscale': 0}}, r'^degradation\.codec\.mpeg4_qscale must be >= 1 and <= 31'),
    ({'resize': {'methods': []}}, r'^degradation\.resize\.methods must be a list of at least 1'),
])
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        degradation(options)


@pytest.mark.parametrize('frames, message', [
    ([np.zeros((8, 10, 3), np.uint8)], '8x10 is not a multiple of scale 4'),
    ([np.zeros((8, 8, 1), np.uint8)], r'needs uint8 frames \(h, w, 3\) of one size'),
    ([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 12, 3), np.uint8)], 'of one size'),
])
def test_frames_that_do_not_fit(frames, message):
    with pytest.raises(ValueError, match=message):
        degradation()(frames, seed=0)


# ---------------------------------------------------------------- data sets

@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    """Two clips of five frames, 104x136."""
    root = tmp_path_factory.mktemp('clips')
    for name, first in (('a', 0), ('b', 5)):
        (root / name).mkdir()
        for i, frame in enumerate(clip(10, 104, 136)[first:first + 5]):
            cv2.imwrite(str(root / name / f'{i}.png'), frame)
    return root


def train_set(root, **changes) -> STVSRClipDataset:
    return STVSRClipDataset({
        'name': 'clips', 'phase': 'train', 'scale': SCALE, 'dataroot_gt': root, 'gt_size': 64, 'num_frame': 3,
        'batch_size_per_gpu': 1, 'num_worker_per_gpu': 0, 'use_hflip': True, 'random_reverse': True,
        'degradation': {'type': 'video', **ALL_CODECS}, **changes})


def validation_set(root, **changes) -> STVSRTestDataset:
    return STVSRTestDataset({
        'name': 'clips', 'phase': 'val', 'scale': SCALE, 'dataroot_gt': root,
        'degradation': {'type': 'video', **ALL_CODECS}, **changes})


@pytest.mark.parametrize('cache', [False, True])
def test_the_same_seeds_give_the_same_samples_in_workers(clips, cache):
    """Also where HR frames are cached, and where forked processes encode that find OpenCV and encoders in use."""
    dataset = SeededDataset(train_set(clips, cache=cache))
    indices = [SeededIndex(k % 6, seed) for k, seed in enumerate((7, 8, 9, 7, 10, 8, 7))]
    own = [dataset[index] for index in indices]
    context = 'fork' if 'fork' in multiprocessing.get_all_start_methods() else None
    loader = DataLoader(dataset, sampler=indices, batch_size=None, num_workers=2, multiprocessing_context=context,
                        timeout=60)
    for ours, theirs in zip(own, loader, strict=True):
        assert ours['key'] == theirs['key'] and torch.equal(ours['lq'], theirs['lq'])
    # one window, drawn again: as before with the same seed, otherwise another one
    assert torch.equal(dataset[SeededIndex(0, 7)]['lq'], own[0]['lq'])
    assert not torch.equal(dataset[SeededIndex(0, 11)]['lq'], own[0]['lq'])


def test_tests_follow_from_the_name_of_the_clip(clips):
    first, again = validation_set(clips), validation_set(clips)
    for index in range(2):
        random.random()  # what training draws does not matter
        assert torch.equal(first[index]['lq'], again[index]['lq'])
        assert first[index]['lq'].shape == (3, 3, 26, 34)
    shorter = validation_set(clips, clips='b')
    assert torch.equal(shorter[0]['lq'], first[1]['lq'])


def test_a_window_played_backwards_is_encoded_forwards(clips):
    frames = dict(enumerate(clip(5, 96, 128)))
    source = VideoDegraded(GroundTruth(), degradation(ALL_CODECS))
    forward, backward = (
        source.read(Window('a', frames, random.Random(3).uniform), numbers, (0, 0, 24, 32))
        for numbers in (range(0, 5, 2), range(4, -1, -2)))
    np.testing.assert_array_equal(forward, backward[::-1])


def test_crops_without_codec_and_noise_are_those_of_the_whole_frame():
    frames = dict(enumerate(clip(3, 256, 320)))
    source = VideoDegraded(GroundTruth(), degradation({'blur': {'sigma': 2.5}}, QUIET, RAW))
    whole, cropped = (source.read(Window('a', frames, random.Random(1).uniform), range(3), crop)
                      for crop in ((0, 0, 64, 80), (21, 33, 45, 57)))
    # Filters of OpenCV add in another order where the frame has another size
    assert max(np.abs(one.astype(int) - all_[21:45, 33:57]).max()
               for one, all_ in zip(cropped, whole, strict=True)) <= 1


@pytest.mark.parametrize('name', ['mpeg4', 'mpeg2'])
def test_blocks_of_a_crop_are_those_of_the_whole_frame(name):
    """A keyframe of fixed quantiser comes out alike, block for block; frames that are predicted do not quite."""
    frames = dict(enumerate(clip(3, 256, 320)))
    degrade = degradation(SHARP, QUIET, AREA, {'codec': {'names': [name], f'{name}_qscale': 10}})
    assert degrade.padded((21, 40, 45, 64), (64, 80)) == (0, 16, 61, 80)
    source = VideoDegraded(GroundTruth(), degrade)
    whole, cropped = (source.read(Window('a', frames, random.Random(1).uniform), range(3), crop)
                      for crop in ((0, 0, 64, 80), (21, 40, 45, 64)))
    np.testing.assert_array_equal(cropped[0], whole[0][21:45, 40:64])
    assert psnr(cropped, [frame[21:45, 40:64] for frame in whole]) > 35


@pytest.mark.parametrize('changes', [
    {}, {'motion_blur': {'exposure': 1.0, 'num_frame': 3}}, {'lq_sharp': True},
    {'dataroot_blurred': 'clips'}, {'dataroot_blurred': 'clips', 'cache': True}])
def test_it_goes_with_other_options(clips, changes):
    dataset = train_set(clips, **{key: clips if value == 'clips' else value for key, value in changes.items()})
    item = SeededDataset(dataset)[SeededIndex(1, 5)]
    assert item['lq'].shape == (2, 3, 16, 16) and item['gt'].shape == (3, 3, 64, 64)
    near = torch.nn.functional.avg_pool2d(item['gt'][::2], SCALE)
    assert 0.001 < (item['lq'] - near).square().mean().sqrt() < 0.2


@pytest.mark.parametrize('color', ['y', 'yuv'])
def test_other_colours_are_refused(clips, color):
    message = rf'datasets\.val\.degradation of type video needs color rgb, but color is {color}'
    with pytest.raises(ValueError, match=message):
        validation_set(clips, color=color)
