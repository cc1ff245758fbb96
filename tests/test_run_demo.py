"""What scripts/demo/run_demo.py does itself; the scripts that it calls have tests of their own."""
import importlib
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from conftest import ROOT

from basicsr_stvsr.data.frames import open_reader


@pytest.fixture
def run_demo(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'scripts/demo')
    return importlib.import_module('run_demo')


@pytest.fixture
def scenes(tmp_path):
    """Folders of 20, 5 and 2 frames of 18x22 noise."""
    rng = np.random.default_rng(0)
    for scene, num_frames in (('scene_1', 20), ('scene_2', 5), ('scene_3', 2)):
        (tmp_path / 'scenes' / scene).mkdir(parents=True)
        for index in range(num_frames):
            frame = rng.integers(0, 256, (18, 22, 3), np.uint8)
            cv2.imwrite(str(tmp_path / 'scenes' / scene / f'{index:08d}.png'), frame)
    return tmp_path / 'scenes'


def frame_names(folder):
    return {clip.name: sorted(int(frame.stem) for frame in clip.iterdir()) for clip in folder.iterdir()}


def test_the_last_fifth_of_a_scene_is_held_out(run_demo, scenes, tmp_path):
    run_demo.hold_out(scenes, tmp_path / 'clips')
    assert frame_names(tmp_path / 'clips/train') == {'scene_1': list(range(16)), 'scene_2': list(range(5))}
    assert frame_names(tmp_path / 'clips/test') == {'scene_1': list(range(16, 20))}


def test_a_video_without_enough_frames_is_refused(run_demo, scenes, tmp_path):
    shutil.rmtree(scenes / 'scene_1')
    with pytest.raises(SystemExit, match='a scene of at least 6 frames'):
        run_demo.hold_out(scenes, tmp_path / 'clips')


def test_of_a_video_the_beginning_is_taken(run_demo, scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(run_demo, 'MAX_PIXELS', 10 * 18 * 22)
    reader = open_reader(scenes / 'scene_1')
    run_demo.copy_beginning(reader, tmp_path / 'video')
    copy = open_reader(tmp_path / 'video')
    assert copy.num_frames('scene_1') == 10
    for index in range(10):  # cut to multiples of 4, not rescaled
        np.testing.assert_array_equal(copy.frame('scene_1', index), reader.frame('scene_1', index)[:16, :20])


def test_what_is_no_video_is_refused(run_demo, monkeypatch, tmp_path):
    monkeypatch.setattr(run_demo, 'DATA', tmp_path / 'data')
    (tmp_path / 'notes.mp4').write_text('not a video')
    with pytest.raises(SystemExit, match=r'The demo stopped: .*notes\.mp4'):
        run_demo.cut_video(tmp_path / 'notes.mp4')


def test_a_failing_script_ends_the_demo(run_demo, monkeypatch):
    monkeypatch.setattr(run_demo.subprocess, 'run', lambda command, cwd: subprocess.CompletedProcess(command, 3))
    with pytest.raises(SystemExit, match=r'basicsr/test\.py ended with code 3'):
        run_demo.run('basicsr/test.py', '-opt', 'some.yml')


def test_a_video_that_is_not_there_is_named_before_anything_is_removed(run_demo, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(run_demo, 'DATA', tmp_path)
    monkeypatch.setattr(sys, 'argv', ['run_demo.py', '--clip', 'no.mp4'])
    with pytest.raises(SystemExit):
        run_demo.main()
    assert 'no.mp4: no such file' in capsys.readouterr().err
    assert tmp_path.is_dir()


def test_table(run_demo):
    scores = {
        'psnr': {'vsr': 27.123, 'vfi': 25.871, 'all': 26.5},
        'ssim': {'vsr': 0.81236, 'vfi': 0.7, 'all': 0.8},
        'niqe': {'vsr': 6.5, 'vfi': 11.25, 'all': 8.0},
    }
    head, titles, row = run_demo.format_table({'bicubic': scores}).splitlines()
    assert head.index('VSR') < head.index('VFI')
    assert titles.split() == ['PSNR', 'SSIM', 'NIQE'] * 2
    assert row.split() == ['bicubic', '27.12', '0.8124', '6.50', '25.87', '0.7000', '11.25']


def test_the_enlarged_part_is_where_the_detail_is(run_demo):
    image = np.full((90, 120, 3), 128, np.uint8)
    image[40:70, 20:60] = np.random.default_rng(0).integers(0, 256, (30, 40, 1), np.uint8)
    top, left = run_demo.richest_corner(image)
    assert abs(top - 40) <= 1 and abs(left - 20) <= 1
    np.testing.assert_array_equal(run_demo.zoom(image, 40, 20)[1::3, 1::3], image[40:70, 20:60])


def test_the_video_shows_what_was_written(run_demo, tmp_path):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]  # BGR
    frames = [np.full((64, 96, 3), colour, np.uint8) for colour in colours]
    run_demo.write_video(tmp_path / 'colours.mp4', frames)
    video = open_reader(tmp_path / 'colours.mp4')
    assert video.num_frames('colours') == 3 and video.frame_size('colours') == (64, 96)
    for index, colour in enumerate(colours):
        assert video.frame('colours', index).mean(axis=(0, 1)) == pytest.approx(colour, abs=12)
