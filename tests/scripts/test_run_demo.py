"""What scripts/demo/run_demo.py does itself; the scripts that it calls have tests of their own."""
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage
import torch
from basicsr.metrics import calculate_niqe
from conftest import ROOT
from run_util import run
from skimage.metrics import peak_signal_noise_ratio

from basicsr_stvsr.config.loading import load_options, set_option
from basicsr_stvsr.io.frames import FrameReader
from basicsr_stvsr.io.opening import open_reader
from basicsr_stvsr.models.mbnet_model import MBNetTrainOptions
from basicsr_stvsr.models.stvsr_model import STVSRModel


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


class NoiseVideo(FrameReader):
    """A video of noise of any size and length."""

    def __init__(self, num_frames, height, width):
        super().__init__('noise.mp4')
        self.clips, self.size, self.length = ['noise'], (height, width), num_frames

    def num_frames(self, clip):
        return self.length

    def frame_name(self, clip, index):
        return f'{index:08d}'

    def _read(self, clip, index):
        return np.random.default_rng(index).integers(0, 256, (*self.size, 3), np.uint8)


@pytest.fixture
def small_limits(run_demo, monkeypatch):
    """As for videos a tenth as wide and high."""
    monkeypatch.setattr(run_demo, 'MIN_SHORT_SIDE', 12)
    monkeypatch.setattr(run_demo, 'MIN_LONG_SIDE', 20)
    monkeypatch.setattr(run_demo, 'MAX_PIXELS', 1.5e6)


def frame_names(folder):
    return {clip.name: sorted(int(frame.stem) for frame in clip.iterdir()) for clip in folder.iterdir()}


def test_the_last_fifth_of_a_scene_is_held_out(run_demo, scenes, tmp_path):
    run_demo.hold_out(scenes, tmp_path / 'clips')
    assert frame_names(tmp_path / 'clips/train') == {'scene_1': list(range(16)), 'scene_2': list(range(5))}
    assert frame_names(tmp_path / 'clips/test') == {'scene_1': list(range(16, 20))}


def test_a_video_without_enough_frames_is_refused(run_demo, scenes, tmp_path):
    shutil.rmtree(scenes / 'scene_1')
    with pytest.raises(SystemExit, match='a scene of at least 6 frames; .* the longest has 5'):
        run_demo.hold_out(scenes, tmp_path / 'clips')


def test_of_a_video_the_beginning_is_taken(run_demo, small_limits, tmp_path, monkeypatch):
    monkeypatch.setattr(run_demo, 'MAX_PIXELS', 30 * 16 * 20)
    video = NoiseVideo(num_frames=40, height=18, width=22)
    run_demo.copy_beginning(video, tmp_path / 'video')
    copy = open_reader(tmp_path / 'video')
    assert copy.num_frames('noise') == 30
    for index in (0, 29):  # cut to multiples of 4, not rescaled
        np.testing.assert_array_equal(copy.frame('noise', index), video.frame('noise', index)[:16, :20])


def test_of_a_huge_video_enough_frames_are_taken(run_demo, small_limits, tmp_path, capsys):
    video = NoiseVideo(num_frames=30, height=432, width=768)  # 4 frames of which are all that MAX_PIXELS lets through
    run_demo.copy_beginning(video, tmp_path / 'video')
    assert 'the first 30 of 30 frames, 768x432, reduced to 256x144' in capsys.readouterr().out
    copy = open_reader(tmp_path / 'video')
    assert copy.num_frames('noise') == 30 >= run_demo.MIN_FRAMES
    expected = video.frame('noise', 7).reshape(144, 3, 256, 3, 3).mean(axis=(1, 3))
    assert np.abs(copy.frame('noise', 7) - expected).max() <= 0.5


@pytest.mark.parametrize(('num_frames', 'height', 'width', 'message'), [
    (30, 120, 320, r'the frames of noise\.mp4 are 320x120; it needs at least 192x128 or 128x192'),
    (30, 131, 191, r'are 191x131; it needs at least 192x128'),
    (30, 191, 131, r'are 131x191; it needs at least 192x128'),
    (5, 128, 192, r'noise\.mp4 has 5 frames; it needs at least 6'),
], ids=['one side too small', 'lying', 'standing', 'too short'])
def test_a_video_too_small_for_the_demo_is_refused(run_demo, tmp_path, num_frames, height, width, message):
    with pytest.raises(SystemExit, match=message):
        run_demo.copy_beginning(NoiseVideo(num_frames, height, width), tmp_path / 'video')
    assert not (tmp_path / 'video').exists()


def test_the_smallest_video_suits_the_training_and_the_metrics(run_demo):
    assert load_options(str(ROOT / run_demo.TRAIN_OPTION))['datasets']['train']['gt_size'] == run_demo.MIN_SHORT_SIDE
    frame = NoiseVideo(1, run_demo.MIN_SHORT_SIDE, run_demo.MIN_LONG_SIDE).frame('noise', 0)
    assert np.isfinite(calculate_niqe(frame, crop_border=0))
    with pytest.raises(np.linalg.LinAlgError):  # what comes of a single block
        calculate_niqe(frame[:, :-1], crop_border=0)


def test_what_is_no_video_is_refused(run_demo, monkeypatch, tmp_path):
    monkeypatch.setattr(run_demo, 'DATA', tmp_path / 'data')
    (tmp_path / 'notes.mp4').write_text('not a video')
    with pytest.raises(SystemExit, match=r'The demo stopped: .*notes\.mp4'):
        run_demo.cut_video(tmp_path / 'notes.mp4')


def test_a_failing_script_ends_the_demo(run_demo, monkeypatch):
    monkeypatch.setattr(run_demo, 'start', lambda command: 3)
    with pytest.raises(SystemExit, match=r'basicsr/test\.py ended with code 3'):
        run_demo.run('basicsr/test.py', '-opt', 'some.yml')


def test_a_video_that_is_not_there_is_named_before_anything_is_removed(run_demo, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(run_demo, 'DATA', tmp_path)
    monkeypatch.setattr(sys, 'argv', ['run_demo.py', '--clip', 'no.mp4'])
    with pytest.raises(SystemExit):
        run_demo.main()
    assert 'no.mp4: no such file' in capsys.readouterr().err
    assert tmp_path.is_dir()


@pytest.mark.parametrize('folder', ['DATA', 'OUTPUT'])
@pytest.mark.parametrize('is_link', [False, True])
def test_a_video_that_the_demo_would_remove_is_refused(run_demo, monkeypatch, tmp_path, capsys, folder, is_link):
    for name in ('DATA', 'OUTPUT'):
        monkeypatch.setattr(run_demo, name, tmp_path / name)
        (tmp_path / name).mkdir()
    monkeypatch.setattr(run_demo, 'run', lambda *command: sys.exit('the demo has begun'))
    video = tmp_path / folder / 'my.mp4'
    (tmp_path / 'elsewhere.mp4' if is_link else video).write_text('precious')
    if is_link:
        video.symlink_to(tmp_path / 'elsewhere.mp4')
    monkeypatch.chdir(tmp_path / folder)  # so that the path as given names no folder
    monkeypatch.setattr(sys, 'argv', ['run_demo.py', '--clip', 'my.mp4'])
    with pytest.raises(SystemExit):
        run_demo.main()
    assert f'my.mp4: the demo replaces the contents of {tmp_path / folder}' in capsys.readouterr().err
    assert video.read_text() == 'precious'


def test_the_home_folder_may_be_written_as_a_tilde(run_demo, monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setattr(run_demo, 'DATA', tmp_path / 'data')
    (tmp_path / 'notes.mp4').write_text('not a video')
    monkeypatch.setattr(sys, 'argv', ['run_demo.py', '--clip', '~/notes.mp4'])
    with pytest.raises(SystemExit, match=re.escape(f'The demo stopped: {tmp_path}/notes.mp4')):
        run_demo.main()


def make(folder, *arguments, **variables):
    """Runs a target of the Makefile in a folder of empty files."""
    (folder / 'scripts').mkdir(exist_ok=True)
    for source in ('setup.py', 'pyproject.toml', 'constraints.txt', 'scripts/install_basicsr.py'):
        (folder / source).touch()
    environment = {name: value for name, value in os.environ.items() if not name.startswith('MAKE')}
    return subprocess.run(['make', '--makefile', ROOT / 'Makefile', *arguments], cwd=folder,
                          env=environment | variables, capture_output=True, text=True)


def write_script(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(['#!/bin/sh', *lines, '']))
    path.chmod(0o755)


@pytest.mark.skipif(shutil.which('make') is None, reason='no make')
@pytest.mark.parametrize('given_as', ['argument', 'environment'])
def test_make_hands_the_name_of_a_video_on_as_it_is(tmp_path, given_as):
    name = "Anna's \"first\" film.mp4"
    write_script(tmp_path / '.venv/bin/python', 'printf "%s\\n" "$@"')
    (tmp_path / '.venv/.installed').touch()
    command = ['--silent', '--old-file', '.venv/.installed', 'demo']
    result = make(tmp_path, *command, f'CLIP={name}') if given_as == 'argument' else make(tmp_path, *command, CLIP=name)
    assert result.stdout.splitlines() == ['scripts/demo/run_demo.py', '--clip', name]


@pytest.mark.skipif(shutil.which('make') is None, reason='no make')
@pytest.mark.parametrize(('failing', 'message'), [
    ('-m venv .venv', 'apt-get install python3-venv'),
    ('-c import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))',
     'python3.11" is not one; name it: make PYTHON=/path/to/python3 install'),
    ('-c import cv2', 'OpenCV lacks libraries of the system; on Debian: apt-get install libgl1 libglib2.0-0'),
])
def test_make_says_what_the_system_lacks(tmp_path, failing, message):
    python = tmp_path / 'python3.11'
    write_script(python, f'test "$*" != "{failing}" || exit 1',
                 'test "$*" != "-m venv .venv" || { mkdir -p .venv/bin && cp "$0" .venv/bin/python; }')
    result = make(tmp_path, '--silent', 'install', f'PYTHON={python}')
    assert result.returncode and result.stdout.splitlines()[-1].endswith(message)
    assert not (tmp_path / '.venv/.installed').exists()


@pytest.mark.parametrize('total_iter', [2, 250])
def test_any_number_of_iterations_can_be_asked_for(run_demo, monkeypatch, total_iter):
    commands = []
    monkeypatch.setattr(run_demo, 'run', lambda *command: commands.append(command))
    run_demo.train(total_iter)
    (_, _, option, flag, *assignments), = commands
    opt = load_options(str(ROOT / option))
    assert flag == '--force_yml'
    for assignment in assignments:
        set_option(opt, assignment)
    assert opt['train']['total_iter'] == total_iter

    parameter = torch.nn.Parameter(torch.zeros(1))
    model = STVSRModel.__new__(STVSRModel)
    model.opt, model.train_opt, model.schedulers = opt, MBNetTrainOptions.read(opt['train']), []
    model.optimizers = [torch.optim.Adam([parameter], lr=opt['train']['optim_g']['lr'])]
    model.setup_schedulers()
    for current_iter in range(1, total_iter + 1):
        model.optimizers[0].step()
        model.update_learning_rate(current_iter)
    # The last step is one before the end of the period, by which the learning rate has fallen to the lowest.
    assert model.get_current_learning_rate()[0] < 0.6 * opt['train']['optim_g']['lr']


def test_table(run_demo):
    scores = {
        'psnr': {'vsr': 27.123, 'vfi': 25.871, 'all': 26.5},
        'ssim': {'vsr': 0.81236, 'vfi': 0.7, 'all': 0.8},
        'niqe': {'vsr': 6.5, 'vfi': None, 'all': 6.5},  # what stands in the file for a mean of nothing
    }
    head, titles, row = run_demo.format_table({'bicubic': scores}).splitlines()
    assert head.index('VSR') < head.index('VFI')
    assert titles.split() == ['PSNR', 'SSIM', 'NIQE'] * 2
    assert row.split() == ['bicubic', '27.12', '0.8124', '6.50', '25.87', '0.7000', 'none']


def test_the_enlarged_part_is_where_the_baseline_is_worst(run_demo):
    truth = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    image = truth.copy()
    image[40:70, 20:60] ^= 16
    image[5, 5] ^= 255  # a single pixel counts less
    assert run_demo.worst_part(image, truth) == (40, 20)
    np.testing.assert_array_equal(run_demo.zoom(image, 40, 20)[1::3, 1::3], image[40:70, 20:60])


def test_a_command_runs_in_a_process_that_has_the_package(run_demo, tmp_path):
    """From the root of the checkout, and what it says at its end is its exit code."""
    script = tmp_path / 'script.py'
    script.write_text("import os, sys, helper\nprint(os.getcwd(), file=open(sys.argv[1], 'w'))\nsys.exit(7)\n")
    (tmp_path / 'helper.py').write_text('')
    assert run_demo.start([str(script), str(tmp_path / 'output')]) == 7
    assert (tmp_path / 'output').read_text() == f'{ROOT}\n'


def test_the_video_shows_what_was_written(run_demo, tmp_path):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]  # BGR
    frames = [np.full((64, 96, 3), colour, np.uint8) for colour in colours]
    run_demo.write_video(tmp_path / 'colours.mp4', frames)
    video = open_reader(tmp_path / 'colours.mp4')
    assert video.num_frames('colours') == 3 and video.frame_size('colours') == (64, 96)
    for index, colour in enumerate(colours):
        assert video.frame('colours', index).mean(axis=(0, 1)) == pytest.approx(colour, abs=12)


@pytest.mark.parametrize('num_frames', [3, 4, 5, 7, 8, 9, 60])
def test_the_picture_shows_a_given_frame_and_a_new_one(run_demo, num_frames):
    comparison = run_demo.Comparison.__new__(run_demo.Comparison)
    comparison.gt = NoiseVideo(num_frames, 48, 64)
    shown = []

    def views(clip, index):
        shown.append(index)
        truth = comparison.gt.frame(clip, index)
        return {run_demo.BASELINE: truth // 2, 'ground truth': truth}

    comparison.views = views
    assert comparison.picture('noise').shape == (4 * 48 + 2 * 20, 2 * 64, 3)
    vsr, vfi = shown
    assert vsr % 2 == 0 and vfi % 2 == 1
    assert 0 <= vfi < vsr <= run_demo.last_frame(comparison.gt, 'noise') < num_frames


@pytest.fixture
def checkout(run_demo, tmp_path, monkeypatch):
    """A copy of what the demo runs, in which it writes."""
    for folder in ('basicsr', 'options', 'scripts', 'basicsr_stvsr/weights'):
        if (ROOT / folder).is_dir():
            shutil.copytree(ROOT / folder, tmp_path / folder)
    monkeypatch.setattr(run_demo, 'ROOT', tmp_path)
    monkeypatch.setattr(run_demo, 'DATA', tmp_path / 'datasets/demo')
    monkeypatch.setattr(run_demo, 'OUTPUT', tmp_path / 'demo_output')
    return tmp_path


def test_a_video_becomes_clips(run_demo, checkout):
    photo = skimage.data.astronaut()[..., ::-1]
    pan = [np.ascontiguousarray(photo[2 * i:2 * i + 128, 4 * i:4 * i + 192]) for i in range(12)]
    run_demo.write_video(checkout / "Anna's film.mp4", pan)
    run_demo.cut_video(checkout / "Anna's film.mp4")

    clip, video = 'Anna_s_film_000', open_reader(checkout / "Anna's film.mp4")
    assert frame_names(run_demo.DATA / 'clips/train') == {clip: list(range(9))}
    assert frame_names(run_demo.DATA / 'clips/test') == {clip: [9, 10, 11]}
    for split, number in (('train', 0), ('train', 8), ('test', 9), ('test', 11)):
        frame = cv2.imread(str(run_demo.DATA / 'clips' / split / clip / f'{number:08d}.png'))
        np.testing.assert_array_equal(frame, video.frame("Anna's film", number))


def test_from_end_to_end(run_demo, checkout, monkeypatch, capfd):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    smaller = {
        'make_demo_clips.py': ['--num_frames', 3, '--height', 128, '--width', 192],
        'train.py': ['datasets:train:batch_size_per_gpu=1'],
    }
    if not list((ROOT / 'basicsr_stvsr/weights').glob('*.pth')):
        smaller['train.py'].append('path:pretrain_network_g=~')

    def run_forked(script, *args):
        """From the prepared process: the scripts' imports take longer than what they do here."""
        result = run(script, *args, *smaller.get(Path(script).name, ()), cwd=run_demo.ROOT)
        assert result.returncode == 0, result.stderr[-3000:]
        print(result.stdout)

    monkeypatch.setattr(run_demo, 'run', run_forked)
    monkeypatch.setattr(sys, 'argv', ['run_demo.py', '--total_iter', '2'])
    run_demo.main()

    output = capfd.readouterr().out
    truth = open_reader(checkout / 'datasets/demo/clips/test')
    frames = [(clip, index) for clip in truth.clips for index in range(3)]
    assert len(frames) == 12

    # The table says what another library computes from the frames that were written.
    restored = {}
    for method, name in (('bicubic + averaging', 'demo_test_bicubic_x4'), ('MBNet small', 'demo_test_MBNet_small_x4')):
        folder = checkout / 'results' / name / 'visualization/demo'
        psnr = np.empty((4, 3))
        for number, (clip, index) in enumerate(frames):
            restored[method] = cv2.imread(str(folder / clip / f'{index:08d}_{name}.png'))
            psnr.flat[number] = peak_signal_noise_ratio(truth.frame(clip, index), restored[method])
        row = re.search(rf'^{re.escape(method)} +(.+)$', output, re.MULTILINE)[1].split()
        assert [float(row[0]), float(row[3])] == pytest.approx([psnr[:, ::2].mean(), psnr[:, 1].mean()], abs=0.006)
    assert not np.array_equal(*restored.values())

    picture = cv2.imread(str(checkout / 'demo_output/side_by_side.png'))
    np.testing.assert_array_equal(picture[20:148, -192:], truth.frame(truth.clips[0], 2))
    video = open_reader(checkout / 'demo_output/side_by_side.mp4')
    assert video.num_frames('side_by_side') == 12
    assert video.frame_size('side_by_side') == (2 * (20 + 128), 2 * 192)
