"""How frames of a clip become scores: here, in other processes, and by metrics that see more than one frame."""
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_metric
from conftest import ROOT

from basicsr_stvsr.evaluation.clip_scores import FramePair, Scorer
from basicsr_stvsr.metrics.temporal_metric import calculate_tof
from basicsr_stvsr.metrics.vmaf_metric import calculate_vmaf, unusable

FRAMES = {
    'psnr': {'type': 'calculate_psnr', 'crop_border': 2}, 'ssim': {'type': 'calculate_ssim', 'crop_border': 0},
    'float': {'type': 'calculate_float_psnr', 'better': 'higher'}}
NIQE = {'niqe': {'type': 'calculate_niqe', 'crop_border': 0, 'better': 'lower'}}
ORDERED = {'tof': {'type': 'calculate_tof', 'better': 'lower'}}
needs_vmaf = pytest.mark.skipif(unusable({}) is not None, reason=str(unusable({})))


def pairs(count: int = 4, size: int = 96) -> list[FramePair]:
    """Smooth frames, each with noise."""
    gt = torch.nn.functional.interpolate(torch.rand(count, 3, size // 8, size // 8), scale_factor=8, mode='bicubic')
    gt = gt.clamp(0, 1)
    return [FramePair((frame + 0.05 * torch.randn_like(frame)).clamp(0, 1), frame, 'rgb') for frame in gt]


def scores(metrics: dict, clip: list[FramePair], num_worker: int = 0, *, has_truth: bool = True) -> dict:
    scorer = Scorer(metrics, num_worker)
    try:
        with scorer.clip(has_truth=has_truth) as running:
            for number, pair in enumerate(clip):
                running.add(number, pair)
            return running.result()
    finally:
        scorer.close()


@pytest.mark.numeric
def test_basicsr_gives_the_same():
    clip, metrics = pairs(2, 256), FRAMES | NIQE
    del metrics['float']
    found = scores(metrics, clip)
    for name, values in found.items():
        expected = []
        for number, pair in enumerate(clip):
            images = {'img': pair.image} if name == 'niqe' else {'img': pair.image, 'img2': pair.gt_image}
            options = {key: value for key, value in metrics[name].items() if key != 'better'}
            expected.append((number, calculate_metric(images, options)))
        assert values == [(number, pytest.approx(value, abs=1e-6)) for number, value in expected]


def test_other_processes_give_the_same():
    clip = pairs()
    assert scores(FRAMES | ORDERED, clip, 2) == scores(FRAMES | ORDERED, clip)


def test_what_sees_the_frame_before():
    clip = pairs(3)
    found = scores(ORDERED, clip)['tof']
    assert found == [(number, calculate_tof(clip[number].image, clip[number].gt_image, clip[number - 1].image,
                                            clip[number - 1].gt_image)) for number in (1, 2)]
    clip[1].gt = None  # neither this frame nor the next one can be compared
    assert scores(ORDERED, clip)['tof'] == []


def test_without_truth():
    clip = [FramePair(pair.frame, None, 'rgb') for pair in pairs(2)]
    found = scores(FRAMES | NIQE | ORDERED, clip, has_truth=False)
    assert list(found) == ['niqe'] and len(found['niqe']) == 2


@pytest.mark.numeric
@pytest.mark.parametrize('num_worker', [0, 1])
def test_errors_come_out(num_worker):
    clip = pairs(2)
    clip[1] = FramePair(clip[1].frame, clip[1].gt[:, 8:], 'rgb')
    with pytest.raises(ValueError, match=r'Image shapes are different: \(96, 96, 3\), \(88, 96, 3\)'):
        scores({'psnr': FRAMES['psnr']}, clip, num_worker)


@pytest.mark.numeric
@pytest.mark.slow
def test_processes_end_when_this_one_is_killed(tmp_path):
    """The scoring processes of one that is killed, and cannot close them, end by themselves."""
    script = tmp_path / 'killed.py'
    script.write_text(f"""
import os, signal, sys, torch
sys.path.insert(0, {str(ROOT)!r})
import basicsr_stvsr
from basicsr_stvsr.evaluation.clip_scores import FramePair, Scorer

if __name__ == '__main__':
    with Scorer({{'psnr': {FRAMES['psnr']}}}, 1).clip(has_truth=True) as clip:
        clip.add(0, FramePair(torch.zeros(3, 16, 16), torch.ones(3, 16, 16), 'rgb'))
        clip.result()
        print(*clip._pool._processes, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
""")
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    pid = int(process.stdout.readline())  # the pipe itself stays open for as long as the worker lives
    assert process.wait() == -signal.SIGKILL
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail(f'process {pid} goes on')


# ---------------------------------------------------------------- VMAF

@needs_vmaf
def test_vmaf_of_ffmpeg():
    """Equal frames have nearly 100, blurred ones much less; by frames that come one after the other."""
    truth = [pair.gt for pair in pairs(4)]
    equal = [FramePair(gt, gt, 'rgb') for gt in truth]
    blurred = [FramePair(torch.nn.functional.avg_pool2d(gt, 15, 1, 7), gt, 'rgb') for gt in truth]
    metrics = {'vmaf': {'type': 'calculate_vmaf'}} | FRAMES
    same, soft = scores(metrics, equal)['vmaf'], scores(metrics, blurred)['vmaf']
    assert [number for number, _ in same] == [0, 1, 2, 3]
    assert np.mean([value for _, value in same]) > 95 > 60 > np.mean([value for _, value in soft])


@pytest.mark.numeric
@needs_vmaf
def test_vmaf_equals_a_call_of_ffmpeg(tmp_path):
    """Frames written as files, and compared by FFmpeg as its documentation has it."""
    import json

    import cv2

    from basicsr_stvsr.metrics.vmaf_metric import ffmpeg

    clip = [(pair.image[:95], pair.gt_image[:95]) for pair in pairs(3)]
    for number, images in enumerate(clip):
        for name, image in zip('ab', images, strict=True):
            cv2.imwrite(str(tmp_path / f'{name}{number}.png'), image)
    convert = 'scale=out_color_matrix=bt601:out_range=limited,format=yuv444p'
    subprocess.run([ffmpeg(), '-v', 'error', '-i', 'a%d.png', '-i', 'b%d.png', '-lavfi',
                    f'[0]{convert}[a];[1]{convert}[b];[a][b]libvmaf=log_fmt=json:log_path=log', '-f', 'null', '-'],
                   cwd=tmp_path, check=True)
    expected = [frame['metrics']['vmaf'] for frame in json.loads((tmp_path / 'log').read_text())['frames']]
    assert calculate_vmaf(iter(clip)) == pytest.approx(expected, abs=1e-3)


@needs_vmaf
def test_vmaf_refuses():
    (img, gt), = ((pair.image, pair.gt_image) for pair in pairs(1))
    assert calculate_vmaf([]) == []
    with pytest.raises(ValueError, match='could not load libvmaf model with version: vmaf_v9'):
        calculate_vmaf([(img, gt)], model='vmaf_v9')
    with pytest.raises(ValueError, match='needs frames of the same size, but one is 88x96 and the first 96x96'):
        calculate_vmaf([(img, gt), (img[8:], gt[8:])])
    with pytest.raises(ValueError, match=r'same shape \(H, W, 3\), uint8'):
        scores({'vmaf': {'type': 'calculate_vmaf'}}, [FramePair(torch.rand(3, 64, 64), torch.rand(3, 64, 72), 'rgb')])
