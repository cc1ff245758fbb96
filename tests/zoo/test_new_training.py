"""`stvsr init`: option files for a user's clips, which train at once."""
import cv2
import numpy as np
import pytest
import torch
from video_util import moving_clip, write_video

from basicsr_stvsr.config.check import check_options
from basicsr_stvsr.config.loading import load_options
from basicsr_stvsr.io.frames import FolderReader
from basicsr_stvsr.io.lmdb_files import clip_frames, write_lmdb
from basicsr_stvsr.train import train_pipeline
from basicsr_stvsr.zoo.new_training import RECIPES
from stvsr.main import main
from stvsr.training_parser import SYSTEMS


def write_clips(folder, clips: dict[str, tuple[int, int, int]]):
    """Clips of frames of noise: name -> (frames, height, width)."""
    for name, (number, *size) in clips.items():
        (folder / name).mkdir(parents=True)
        for i in range(number):
            frame = cv2.GaussianBlur(np.random.default_rng(i).uniform(0, 255, (*size, 3)), (0, 0), 3)
            cv2.imwrite(str(folder / name / f'{i:08d}.png'), frame)
    return folder


def test_every_system_has_a_recipe():
    assert tuple(RECIPES) == SYSTEMS


@pytest.mark.parametrize('system', SYSTEMS)
def test_what_init_writes_trains(system, tmp_path, capsys):
    data = write_clips(tmp_path / 'clips', {name: (9 if system == 'fisr' else 6, 64, 72) for name in 'abc'})
    assert main(['init', system, '--data', str(data), '--output', str(tmp_path / 'my.yml')]) == 0
    printed = capsys.readouterr().out
    assert '2 clips for training, 1 for validation' in printed and 'patches of 64 pixels' in printed
    assert (tmp_path / 'my_train.txt').read_text() == 'a\nc\n' and (tmp_path / 'my_val.txt').read_text() == 'b\n'
    train_pipeline(str(tmp_path), [
        '-opt', str(tmp_path / 'my.yml'), '--check', '--force_yml', 'datasets:train:batch_size_per_gpu=1',
        'datasets:train:num_worker_per_gpu=0', 'num_gpu=0'])
    printed = capsys.readouterr().out
    assert 'first step  l_' in printed and "clip 'b' of val" in printed
    assert not (tmp_path / 'experiments').exists()


@pytest.mark.parametrize('kind', ['lmdb', 'videos', 'video'])
def test_lmdb_and_videos(kind, tmp_path, capsys):
    data = tmp_path / 'data'
    if kind == 'lmdb':
        reader, data = FolderReader(write_clips(data, {name: (5, 40, 48) for name in 'ab'})), tmp_path / 'data.lmdb'
        write_lmdb(data, [frame for name in reader.clips for frame in clip_frames(reader, name)])
    else:
        data.mkdir()
        for name in 'ab':
            write_video(data / f'{name}.mp4', moving_clip(5, height=40, width=48))
        data = data / 'a.mp4' if kind == 'video' else data
    assert main(['init', 'mbnet', '--data', str(data), '--output', str(tmp_path / 'my.yml'), '--from', 'scratch']) == 0
    opt = check_options(load_options(str(tmp_path / 'my.yml')), is_train=True)
    assert opt['datasets']['train']['dataroot_gt'] == str(data) and opt['path'].get('pretrain_network_g') is None
    assert opt['datasets']['train']['gt_size'] == 32 and opt['train']['optim_g']['lr'] == 1e-3
    assert ('There is only one clip' in capsys.readouterr().out) == (kind == 'video')
    assert (tmp_path / 'my_val.txt').read_text() == ('a\n' if kind == 'video' else 'b\n')


def test_clips_that_are_too_short_or_too_small_are_left_out(tmp_path, capsys):
    clips = {f'{i:02d}': (3, 100, 90) for i in range(30)} | {'short': (2, 100, 90), 'small': (3, 100, 30)}
    data = write_clips(tmp_path / 'clips', clips)
    assert main(['init', 'mbnet', '--data', str(data), '--output', str(tmp_path / 'my.yml')]) == 0
    assert capsys.readouterr().out.splitlines()[:3] == [
        f'{tmp_path / "my.yml"}: 27 clips for training, 3 for validation, windows of 3 frames, patches of 80 pixels',
        'left out short: 2 frames, but a window has 3',
        'left out small: a side of 30 pixels, but a patch has at least 32']
    assert (tmp_path / 'my_val.txt').read_text() == '05\n15\n25\n'
    assert not {'short', 'small', '05'} & set((tmp_path / 'my_train.txt').read_text().split())


@pytest.mark.parametrize(('clips', 'arguments', 'message'), [
    ({'a': (2, 40, 40)}, [], "none of 1 clips is long and large enough to train on; the first, 'a', has 2 frames"),
    ({'my clip': (3, 40, 40)}, [], "the name of the clip 'my clip' has white space"),
    ({'a': (3, 40, 40)}, ['--from', 'no.pth'], '--from no.pth: no such file; expected small-weights, scratch or a'),
    ({'a': (3, 40, 40)}, ['--output', 'there.yml'], 'there.yml exists; use --overwrite'),
])
def test_what_cannot_be_done_is_said(clips, arguments, message, tmp_path, monkeypatch, capsys):
    data = write_clips(tmp_path / 'clips', clips)
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'there.yml').write_text('name: mine')
    assert main(['init', 'mbnet', '--data', str(data), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ['clips', 'there.yml']


def test_a_checkpoint_is_where_it_starts(tmp_path):
    data = write_clips(tmp_path / 'clips', {'a': (3, 40, 40)})
    torch.save({'params': {}}, tmp_path / 'net.pth')
    assert main(['init', 'mbnet', '--data', str(data), '--output', str(tmp_path / 'my.yml'), '--from',
                 str(tmp_path / 'net.pth')]) == 0
    assert load_options(str(tmp_path / 'my.yml'))['path']['pretrain_network_g'] == str(tmp_path / 'net.pth')
