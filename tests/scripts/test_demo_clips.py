"""Clips of known motion: the stated flow is what other people's tools measure on the rendered frames."""
import json
import math

import cv2
import numpy as np
import pytest
import torch
from run_util import succeed
from scenes import Layer, load_photo, random_background, random_occluder, render
from skimage.registration import phase_cross_correlation

from basicsr_stvsr.archs.arch_util import warp
from basicsr_stvsr.data.synthetic import MOTIONS, CameraPath, Cutout, pixel_grid, random_motion

HEIGHT, WIDTH = 96, 160
HELMET = Cutout((390, 445), 100)


def psnr(img: np.ndarray, img2: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((img - img2) ** 2)))


@pytest.mark.numeric
@pytest.mark.parametrize(('path', 'expected'), [
    # The camera moves by (5, -2) photograph pixels, two of which make a frame pixel.
    (CameraPath((100, 100), velocity=(5, -2), scale=2), (2.5, -1.0)),
    # Half as many photograph pixels per frame pixel: what was 4 right and 2 down of the middle moves twice as far out.
    (CameraPath((100, 100), zoom=math.log(2)), (-2.0, -1.0)),
    # A quarter turn from x towards y: (4, 2) of the second frame shows what was at (-2, 4).
    (CameraPath((100, 100), rotation=math.pi / 2), (-6.0, 2.0)),
], ids=['pan', 'zoom', 'rotation'])
def test_flow_by_hand(path, expected):
    flow = path.flow(0, 1, 9, 13)  # the middle is pixel (6, 4)
    assert flow[:, 4 + 2, 6 + 4] == pytest.approx(expected, abs=1e-6)


@pytest.mark.numeric
@pytest.mark.parametrize('motion', MOTIONS)
def test_flow_warps_one_frame_onto_another(motion):
    rng = np.random.default_rng(0)
    scene = [
        random_background(rng, 'coffee', motion, 4.0, 9, HEIGHT, WIDTH),
        random_occluder(rng, 'astronaut', HELMET, 'combined', 3.0, 9, HEIGHT, WIDTH),
    ]
    source, target = (render(scene, t, HEIGHT, WIDTH).astype(np.float32) for t in (3, 5))
    flow = scene[0].path.flow(3, 5, HEIGHT, WIDTH)
    x, y = pixel_grid(HEIGHT, WIDTH).astype(np.float32) + flow

    # Where the occluder, or what lies outside, is in neither frame; shrunk by the reach of the interpolation.
    grid = pixel_grid(HEIGHT, WIDTH)
    hidden = [(scene[1].alpha(t, grid, HEIGHT, WIDTH) > 0).astype(np.float32) for t in (3, 5)]
    visible = (cv2.remap(hidden[0], x, y, cv2.INTER_LINEAR, borderValue=1) + hidden[1]) == 0
    visible = cv2.erode(visible.astype(np.uint8), np.ones((9, 9)), borderValue=0) > 0
    assert visible.mean() > 0.2

    by_opencv = cv2.remap(source, x, y, cv2.INTER_LANCZOS4)
    assert psnr(by_opencv[visible], target[visible]) > 35

    def by_us(flow):  # bilinear: softer
        image = torch.from_numpy(source).permute(2, 0, 1)[None]
        return warp(image, torch.from_numpy(flow)[None])[0].permute(1, 2, 0).numpy()

    assert psnr(by_us(flow)[visible], target[visible]) > 31
    assert psnr(by_us(-flow)[visible], target[visible]) < 25


@pytest.mark.numeric
@pytest.mark.parametrize('velocity', [(1.3, 0.0), (-2.25, 0.6), (4.4, -3.1)])
def test_phase_correlation_measures_the_pan(velocity):
    layer = Layer('gravel', CameraPath((250, 250), velocity=velocity))
    window = np.outer(np.hanning(HEIGHT), np.hanning(WIDTH))
    frames = [window * (render([layer], t, HEIGHT, WIDTH)[..., 1] - 128.0) for t in (0, 1)]
    # skimage gives the shift (y, x) that brings the second image onto the first: the content moved against the camera.
    (dy, dx), *_ = phase_cross_correlation(*frames, upsample_factor=50)
    assert (dx, dy) == pytest.approx(velocity, abs=0.1)


@pytest.mark.numeric
def test_the_occluder_moves_on_its_own():
    background = Layer('brick', CameraPath((250, 250), velocity=(3, 0)))
    occluder = Layer('astronaut', CameraPath((390, 445), velocity=(0, 8), scale=4.0), HELMET)
    mask = [occluder.alpha(t, pixel_grid(HEIGHT, WIDTH), HEIGHT, WIDTH) for t in (0, 5)]
    y, x = (np.mean(np.nonzero(mask[1] > 0.5), axis=1) - np.mean(np.nonzero(mask[0] > 0.5), axis=1))
    assert (x, y) == pytest.approx((0, -10), abs=0.1)  # 5 frames at 8 / 4 pixels, against the camera

    frame = render([background, occluder], 0, HEIGHT, WIDTH)
    alone = render([background], 0, HEIGHT, WIDTH)
    np.testing.assert_array_equal(frame[mask[0] == 0][::50], alone[mask[0] == 0][::50])
    assert psnr(frame[mask[0] == 1].astype(float), alone[mask[0] == 1]) < 15


@pytest.mark.numeric
@pytest.mark.parametrize('motion', MOTIONS)
@pytest.mark.parametrize('speed', [2.0, 5.5])
def test_random_paths_keep_to_the_photograph_and_to_the_speed(motion, speed):
    rng = np.random.default_rng(1)
    path = random_background(rng, 'cat', motion, speed, 9, 192, 320).path
    (left, top), (right, bottom) = path.footprint(9, 192, 320)
    height, width = load_photo('cat').shape[:2]
    assert left >= 0 and top >= 0 and right <= width - 1 and bottom <= height - 1
    assert np.linalg.norm(path.flow(0, 1, 192, 320), axis=0).mean() == pytest.approx(speed, rel=0.05)


def test_a_photograph_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match=r"'coins' is too small \(384x303\).*9 frames of 960x540"):
        random_background(np.random.default_rng(0), 'coins', 'pan', 4.0, 9, 540, 960)


def test_a_seed_fixes_the_motion():
    paths = [random_motion(np.random.default_rng(seed), 'combined', 3.0, HEIGHT, WIDTH) for seed in (5, 5, 6)]
    assert paths[0] == paths[1] != paths[2]


def test_the_script_writes_what_its_motion_file_says(tmp_path):
    succeed('scripts/demo/make_demo_clips.py', '--output', tmp_path, '--num_frames', 3, '--height', 48, '--width', 64)

    motion = json.loads((tmp_path / 'motion.json').read_text())
    assert sorted(motion) == sorted(f'{clip.parent.name}/{clip.name}' for clip in tmp_path.glob('*/*') if clip.is_dir())
    photos = {
        split: {layer['photo'] for clip, layers in motion.items() if clip.startswith(split) for layer in layers}
        for split in ('train', 'test')
    }
    assert len(photos['train']) > 5 and len(photos['test']) > 3 and not photos['train'] & photos['test']

    clip = 'test/astronaut_pan_cat'
    scene = [
        Layer(layer['photo'], CameraPath(**layer['path']), layer['cutout'] and Cutout(**layer['cutout']))
        for layer in motion[clip]
    ]
    for index in range(3):
        written = cv2.imread(str(tmp_path / clip / f'{index:08d}.png'))
        np.testing.assert_array_equal(written, render(scene, index, 48, 64))
