"""Flicker, by hand and by command."""
import json

import cv2
import numpy as np
import pytest
from conftest import ROOT
from run_util import run

from basicsr_stvsr.metrics.flicker import flicker

pytestmark = pytest.mark.numeric


def test_by_hand():
    gt = np.array([0., 1, 3]).reshape(3, 1, 1)
    assert flicker(gt + 5, gt) == 0  # an error that stays
    assert flicker(np.array([0., 3, 3]).reshape(3, 1, 1), gt) == pytest.approx((2**2 + (-2)**2) / 2)
    assert flicker(np.zeros((2, 4, 4), np.uint8), np.stack([np.zeros((4, 4)), np.full((4, 4), 3)])) == 9
    with pytest.raises(ValueError, match=r'at least two frames, but got \(1, 2, 2\)'):
        flicker(np.zeros((1, 2, 2)), np.zeros((1, 2, 2)))


def test_command(tmp_path):
    """Frames 1 to 3 of five, as FISR leaves out the ends; grey levels 219 / 255 of which are luma."""
    for i, (true, made) in enumerate([(0, None), (10, 10), (10, 40), (10, 10), (0, None)]):
        for root, name, level, size in (('gt', f'im{i}', true, (9, 8, 3)), ('out', f'im{i}_test_x', made, (8, 8, 3))):
            (tmp_path / root / 'clip').mkdir(parents=True, exist_ok=True)
            if level is not None:
                cv2.imwrite(str(tmp_path / root / 'clip' / f'{name}.png'), np.full(size, level, np.uint8))
    script = ROOT / 'scripts' / 'measure_flicker.py'
    process = run(script, '--gt', tmp_path / 'gt', tmp_path / 'out')
    expected = (30 * 219 / 255)**2
    assert process.stdout.splitlines()[-1] == f'| {tmp_path / "out"} | {expected:.2f} | {expected:.2f} |'

    process = run(script, '--save', '--gt', tmp_path / 'gt', tmp_path / 'out')
    assert process.returncode == 1 and 'out.json does not exist' in process.stderr

    (tmp_path / 'out' / 'clip' / 'im2_test_x.png').unlink()
    process = run(script, '--gt', tmp_path / 'gt', tmp_path / 'out')
    assert process.returncode == 1 and 'Traceback' not in process.stderr
    assert 'has the frames [1, 3] of' in process.stderr


def test_command_saves_the_mean(tmp_path):
    """Beside the other scores of the test that saved the frames."""
    frames = tmp_path / 'test_x' / 'visualization' / 'vid4' / 'clip'
    for folder, level in ((tmp_path / 'gt' / 'clip', 0), (frames, 51)):
        folder.mkdir(parents=True)
        for i in range(2):
            cv2.imwrite(str(folder / f'im{i}.png'), np.full((8, 8, 3), i * level, np.uint8))
    result = tmp_path / 'test_x' / 'vid4.json'
    result.write_text('{"dataset": "vid4", "average": {"psnr": {"all": 20.5}}}')
    run(ROOT / 'scripts' / 'measure_flicker.py', '--save', '--gt', tmp_path / 'gt', frames.parent)
    average = json.loads(result.read_text())['average']
    assert average == {'psnr': {'all': 20.5}, 'flicker': {'all': pytest.approx((51 * 219 / 255)**2, rel=1e-3)}}
