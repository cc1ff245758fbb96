"""Scores by frame, of result files written by hand."""
import json
import runpy
import sys

import cv2
import pytest
from conftest import ROOT
from run_util import run


def write(path, model, frames):
    path.write_text(json.dumps({'dataset': 'a', 'model': model, 'average': {}, 'clips': {}, 'frames': frames}))


def test_means_over_clips_that_all_files_have(tmp_path):
    write(tmp_path / 'base.json', 'bicubic', {
        'city': {'psnr': [[0, 20.0], [1, 22.0], [2, None]]}, 'walk': {'psnr': [[0, 30.0], [1, 30.0]]}})
    write(tmp_path / 'net.json', 'net', {
        'city': {'psnr': [[0, 21.0], [1, 24.5], [2, 25.0]]}, 'walk': {'psnr': [[0, 30.0]]}})
    done = run('scripts/plot_frame_scores.py', tmp_path / 'base.json', tmp_path / 'net.json', '--output',
               tmp_path / 'frames.png')
    assert done.stdout.splitlines() == [
        '| frame | bicubic | net |', '|---|---|---|',
        '| 0 | 25.000 | 25.500 (+0.500) |',  # of both clips
        '| 1 | 22.000 | 24.500 (+2.500) |']  # of the one that both files have
    assert cv2.imread(str(tmp_path / 'frames.png')).shape[1] == 990


def test_files_that_are_refused(tmp_path, monkeypatch, capsys):
    write(tmp_path / 'a.json', 'a', {'city': {'psnr': [[0, 20.0]]}})
    write(tmp_path / 'b.json', 'b', {'walk': {'psnr': [[0, 20.0]]}})
    (tmp_path / 'c.json').write_text('[]')
    (tmp_path / 'e.json').write_text('{"frames": []}')
    for arguments, message in (
            (['a.json', '--metric', 'ssim'], 'a.json has no ssim, only psnr'),
            (['a.json', 'b.json'], 'no frame of a clip in common'),
            (['c.json'], 'c.json is not a results/<name>/<data set>.json'),
            (['e.json'], 'e.json is not a results/<name>/<data set>.json'),
            (['d.json'], 'No such file')):
        words = [str(tmp_path / word) if word.endswith('.json') else word for word in arguments]
        monkeypatch.setattr(sys, 'argv', ['plot_frame_scores.py', *words])
        with pytest.raises(SystemExit) as exit_info:
            runpy.run_path(str(ROOT / 'scripts/plot_frame_scores.py'), run_name='__main__')
        assert exit_info.value.code == 1 and message in capsys.readouterr().err
