"""The command `stvsr`, as it is typed."""
import errno
import json
import os
import re
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.archs import build_network
from basicsr.utils.registry import ARCH_REGISTRY
from conftest import ROOT
from run_util import run
from video_util import moving_clip, packets_of, write_film, write_video

from basicsr_stvsr.archs.spec import NetSpec
from basicsr_stvsr.cli.model import devices_of
from basicsr_stvsr.cli.progress import ProgressBar
from basicsr_stvsr.config.loading import load_options
from basicsr_stvsr.io.video_reader import open_source
from basicsr_stvsr.video import speed
from basicsr_stvsr.zoo.info import facts_of_model
from basicsr_stvsr.zoo.table import WEIGHTS, ZOO, build, load, outline
from stvsr.main import main

FILM = Fraction(24000, 1001)


@pytest.fixture(scope='module')
def video(tmp_path_factory) -> Path:
    """5 frames of 32 x 48, 23.976 a second."""
    path = tmp_path_factory.mktemp('video') / 'in.mp4'
    write_video(path, moving_clip(5, height=32, width=48), rate=FILM)
    return path


def read(path: Path) -> tuple[list[np.ndarray], list[Fraction]]:
    with open_source(path) as source:
        frames = list(source.frames())
    return [frame.image for frame in frames], [frame.time for frame in frames]


@pytest.mark.parametrize('name', ZOO)
def test_models_of_the_zoo_restore_videos(video, tmp_path, capsys, name):
    """Larger and as often as they say, and near to what they were given."""
    output = tmp_path / 'out.mp4'
    assert main(['restore', str(video), str(output), '--model', name, '--crf', '1', '--json', '--device', 'cpu']) == 0
    spec = load(name).spec
    given, times = read(video)
    frames, new_times = read(output)
    assert len(frames) == spec.temporal_scale * 4 + 1 and frames[0].shape == (32 * spec.scale, 48 * spec.scale, 3)
    assert new_times[::spec.temporal_scale] == times
    for small, large in zip(given, frames[::spec.temporal_scale], strict=True):
        s = spec.scale
        shrunk = large.reshape(32, s, 48, s, 3).mean(axis=(1, 3))
        assert np.abs(shrunk - small).mean() < 4
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    done = lines.pop()
    assert (done['state'], done['frames'], done['width']) == ('done', len(frames), frames[0].shape[1])
    assert [line['frames'] for line in lines] == list(range(1, len(frames) + 1))
    assert lines[-1] == {'output': str(output), 'state': 'running', 'frames': len(frames), 'total': len(frames),
                         'time': float(new_times[-1]), 'remaining': 0.0}


def test_a_page_compares_input_and_output(video, tmp_path, capsys):
    """Of a part, at a rate that has no whole ratio to that of the input."""
    output = tmp_path / 'out.mp4'
    command = ['restore', str(video), str(output), '--model', 'dis', '--fps', '30', '--start', '0.05', '--compare']
    assert main([*command, '--device', 'cpu']) == 0
    page = tmp_path / 'out.mp4.html'
    assert capsys.readouterr().err.splitlines()[-1].endswith(f'; comparison: {page}')
    data = json.loads(re.search(r'id="data">(.*)</script>', page.read_text())[1])
    assert data['labels'] == ['in.mp4', 'out.mp4'] and data['size'] == [48, 32]
    assert len(data['times']) == len(read(output)[0]) and data['shown'][0]['held'] == [False, False]
    # The page is refused before any work
    assert main([*command, '--size', '100x100', '--overwrite', '--device', 'cpu']) == 2
    assert 'expected the same proportions' in capsys.readouterr().err
    output.unlink()
    assert main([*command, '--device', 'cpu']) == 2
    assert f'{page}: already exists' in capsys.readouterr().err


def test_sound_and_subtitles_are_copied(tmp_path):
    film, output = tmp_path / 'film.mp4', tmp_path / 'out.mp4'
    write_film(film, num_frames=24)
    assert main(['restore', str(film), str(output), '--model', 'adaptive-gan-small', '--device', 'cpu']) == 0
    given, copied = packets_of(film), packets_of(output)
    others = [number for number in given if number != 0]
    assert len(others) >= 3 and len(copied[0]) == len(given[0]) == 24
    for number in others:
        assert [data for _, data in copied[number]] == [data for _, data in given[number]]


@pytest.fixture
def tiny(tmp_path) -> list[str]:
    """The options of a small network that takes no time."""
    options = tmp_path / 'net.yml'
    network = {'type': 'VSRResNet', 'num_feat': 4, 'num_block': 1, 'scale': 2, 'add_center': True}
    torch.save({'params': build_network(network).state_dict()}, tmp_path / 'net.pth')
    options.write_text(json.dumps({'network_g': network}))  # JSON is YAML
    return ['--opt', str(options), '--weights', str(tmp_path / 'net.pth'), '--device', 'cpu']


def test_folders_become_folders(tmp_path, tiny):
    """Without a word about a codec; and between options, as one types."""
    (tmp_path / 'in').mkdir()
    for number, image in enumerate(moving_clip(3, height=8, width=12)):
        cv2.imwrite(str(tmp_path / 'in' / f'{number}.png'), image[..., ::-1])
    command = ['restore', str(tmp_path / 'in'), *tiny, f'{tmp_path / "out"}/']
    assert main(command) == 0
    names = sorted(path.name for path in (tmp_path / 'out').iterdir())
    assert names == ['0.png', '1.png', '2.png']  # as in the input
    assert main(command) == 2  # is there already
    assert main([*command, '--overwrite']) == 0


def test_the_default_model_and_names_of_codecs_that_people_know(video, tmp_path, capsys):
    output = tmp_path / 'out.mp4'
    assert main(['restore', str(video), str(output), '--codec', 'hevc', '--device', 'cpu']) == 0
    assert 'weights of mbnet-small: for research only' in capsys.readouterr().err
    with open_source(output) as source:
        assert (source.info.codec, source.info.width, source.info.rate) == ('hevc', 4 * 48, 2 * FILM)


def test_a_preview_beside_its_input(tmp_path, tiny, capsys):
    """From 0.5 s on, for half a second; the flash at 1 s is at 0.5 s of the preview, and so is the beep."""
    film, output, both = (tmp_path / name for name in ('film.mp4', 'out.mp4', 'both.mp4'))
    write_film(film, rate=Fraction(24), num_frames=48, flash=24)
    part = ['--start', '0:00.5', '--duration', '1', '--compare-clip', str(both)]
    assert main(['restore', str(film), str(output), *tiny, *part]) == 0
    told = capsys.readouterr().err
    assert f'{output}: 24 frames, 128x96, 24 a second; ' in told and ' frames a second' in told
    frames, times = read(output)
    assert times == [Fraction(number, 24) for number in range(24)]
    assert [number for number, frame in enumerate(frames) if frame.mean() > 120] == [12]
    half = Fraction(1, 2)
    given = [(time - half, data) for time, data in packets_of(film)[1] if half <= time < half + 1]
    sound = packets_of(output)[1]
    assert [data for _, data in sound] == [data for _, data in given]
    assert max(abs(time - expected) for (time, _), (expected, _) in zip(sound, given, strict=True)) <= Fraction(1, 1000)
    shown, _ = read(both)
    assert shown[0].shape == (96, 256, 3) and len(shown) == 24
    assert shown[12][:, :128].mean() > 200 and shown[11][:, :128].mean() < 40
    assert main(['restore', str(film), str(tmp_path / 'late.mp4'), *tiny, '--start', '9']) == 2
    assert 'no frame from 9 s on' in capsys.readouterr().err


def test_a_dry_run(tmp_path, tiny, capsys):
    film, output = tmp_path / 'film.mp4', tmp_path / 'out.mov'
    write_film(film, rate=Fraction(24), num_frames=24)
    command = ['restore', str(film), str(output), *tiny, '--dry-run']
    assert main(command) == 0
    told = capsys.readouterr().out
    assert '24 frames, 64x48, 24 a second' in told and 'out.mov: 24 frames, 128x96, 24 a second, x264' in told
    assert 'audio 1 (aac), audio 2 (ac3)' in told and ' are free' in told
    assert main([*command, '--json']) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts['seconds'] == pytest.approx(24 / facts['frames_per_second'])
    assert sorted(path.name for path in tmp_path.iterdir()) == ['film.mp4', 'net.pth', 'net.yml']


def test_size_and_rate(video, tmp_path):
    """Interpolation alone, and before a network that enlarges; 5 frames of 32 x 48."""
    both = ['--model', 'fstrn-small', '--interpolate', 'dis', '--height', '64', '--fps', '50']
    for options, size, count, rate in ((['--model', 'dis'], (48, 32), 9, 2 * FILM), (both, (96, 64), 10, 50),
                                       (['--space-only', '--scale', '2'], (96, 64), 5, FILM)):
        output = tmp_path / 'out.mp4'
        assert main(['restore', str(video), str(output), *options, '--device', 'cpu', '--overwrite']) == 0
        with open_source(output) as source:
            info = source.info
            assert ((info.width, info.height), info.num_frames, info.rate) == (size, count, rate)


def test_what_is_there_is_not_replaced(video, tmp_path, tiny, capsys):
    output = tmp_path / 'out.mkv'
    output.write_text('mine')
    assert main(['restore', str(video), str(output), *tiny]) == 2
    assert 'out.mkv: already exists; --overwrite replaces it' in capsys.readouterr().err
    assert output.read_text() == 'mine'
    assert main(['restore', str(video), str(output), *tiny, '--overwrite']) == 0
    assert len(read(output)[0]) == 5
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'folder' / 'mine.txt').write_text('mine')
    assert main(['restore', str(video), str(tmp_path / 'folder'), *tiny, '--overwrite']) == 2
    assert 'folder: holds other files than frames (mine.txt)' in capsys.readouterr().err
    assert (tmp_path / 'folder' / 'mine.txt').read_text() == 'mine'


@pytest.mark.parametrize('num_processes', [1, pytest.param(2, marks=pytest.mark.slow)])
def test_many_videos(video, tmp_path, tiny, capsys, num_processes):
    """Skip finished videos, report one that fails, and restore the others; one process works on each."""
    films = [tmp_path / 'films' / f'{name}.mp4' for name in 'abcdef']
    films[0].parent.mkdir()
    for path in films:
        path.write_bytes(video.read_bytes())
    films[2].write_text('no video')
    output = tmp_path / 'out'
    output.mkdir()
    (output / 'b.mkv').write_text('finished')
    (tmp_path / 'list.txt').write_text('\n'.join(map(str, films)) + '\n\n')
    command = ['restore', f'@{tmp_path / "list.txt"}', '--into', str(output), '--suffix', '.mkv', *tiny, '--json']
    if num_processes == 1:
        assert main(command) == 1
        told, error = capsys.readouterr()
    else:
        done = run('-m', 'torch.distributed.run', f'--nproc-per-node={num_processes}', '--master-port=29541', '-m',
                   'basicsr_stvsr', *command)
        assert done.returncode == 1, done.stderr
        told, error = done.stdout, done.stderr
    assert f'{films[2]} -> {output / "c.mkv"}: {films[2]}: not a readable video' in error
    assert '1 of 6 failed' in error
    ends = [json.loads(line) for line in told.splitlines() if 'running' not in line]
    states = sorted((Path(end['output']).name, end['state']) for end in ends)
    assert states == [('a.mkv', 'done'), ('b.mkv', 'skipped'), ('c.mkv', 'failed'), ('d.mkv', 'done'),
                      ('e.mkv', 'done'), ('f.mkv', 'done')]
    assert sorted(path.name for path in output.iterdir()) == [f'{name}.mkv' for name in 'abdef']
    assert (output / 'b.mkv').read_text() == 'finished' and len(read(output / 'f.mkv')[0]) == 5


def test_a_folder_of_videos(video, tmp_path, tiny, capsys):
    """All of its videos, without hidden ones; with a plan before, which leaves nothing, and with clips to compare."""
    folder, output, clips = tmp_path / 'videos', tmp_path / 'new' / 'out', tmp_path / 'both'
    (folder / '@eaDir').mkdir(parents=True)
    for name in ('v2.mp4', 'v10.MP4', '._v2.mp4', 'Thumbs.db', 'notes.txt', '@eaDir/v2.mp4'):
        (folder / name).write_bytes(video.read_bytes())
    command = ['restore', str(folder), '--into', str(output), '--compare-clip', str(clips), *tiny]
    assert main([*command, '--dry-run', '--json']) == 0
    plans = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(plan['output']['path']).name for plan in plans] == ['v2.mp4', 'v10.mp4']
    assert not output.parent.exists() and not clips.exists()
    assert main(command) == 0
    assert sorted(path.name for path in output.iterdir()) == ['v10.mp4', 'v2.mp4']
    assert len(read(output / 'v2.mp4')[0]) == 5
    assert sorted(path.name for path in clips.iterdir()) == ['v10.mp4', 'v2.mp4']
    (folder / 'notes.txt').rename(folder / 'cover.jpg')
    capsys.readouterr()
    assert main(command) == 2
    assert f'{folder}: holds videos (v10.MP4) and images (cover.jpg)' in capsys.readouterr().err
    (folder / 'cover.jpg').unlink()
    assert main(['restore', str(folder), str(tmp_path / 'out.mp4'), *tiny]) == 2
    assert f'{folder}: expected images, found videos (v2.mp4); restore all of them with --into' in (
        capsys.readouterr().err)
    assert main([*command[:5], str(output), '--suffix', '.mp4', *tiny]) == 2
    assert 'is also an output; expected another folder than --into' in capsys.readouterr().err


def test_inputs_are_not_their_own_outputs(video, tmp_path, tiny, capsys):
    (tmp_path / 'in.mp4').write_bytes(video.read_bytes())
    assert main(['restore', str(tmp_path / 'in.mp4'), '--into', str(tmp_path), *tiny]) == 2
    assert f'{tmp_path / "in.mp4"}: is the source itself' in capsys.readouterr().err
    (tmp_path / 'frames').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'frames')
    assert main(['restore', str(video), str(tmp_path / 'link'), *tiny]) == 2
    assert 'link: is a link' in capsys.readouterr().err


def test_a_network_needs_weights(video, tmp_path, tiny, capsys):
    """Those of `--weights`, or those that the option file names; interpolation has none."""
    output = str(tmp_path / 'out.mkv')
    assert main(['restore', str(video), output, *tiny[:2]]) == 2
    assert 'names no weights for VSRResNet; give them with --weights' in capsys.readouterr().err
    bicubic = tmp_path / 'bicubic.yml'
    bicubic.write_text('network_g: {type: BicubicAverage, scale: 2, temporal_scale: 1}')
    assert main(['restore', str(video), output, '--opt', str(bicubic), '--device', 'cpu']) == 0


@pytest.mark.parametrize('network, message', [
    ('{type: Nope}', "type 'Nope' is not in ARCH_REGISTRY"),
    ('{type: VSRResNet, num_feats: 3}', "unexpected keyword argument 'num_feats'"),
    ('{type: RRDBNet, num_in_ch: 3, num_out_ch: 3}', 'names no weights for RRDBNet'),
    ('{type: VGGStyleDiscriminator, num_in_ch: 3, num_feat: 4}', 'VGGStyleDiscriminator does not state what it needs'),
])
def test_networks_that_are_refused(video, tmp_path, capsys, network, message):
    options = tmp_path / 'net.yml'
    weights = []
    if 'VGG' in network:
        net = build_network({'type': 'VGGStyleDiscriminator', 'num_in_ch': 3, 'num_feat': 4})
        torch.save({'params': net.state_dict()}, tmp_path / 'net.pth')
        weights = ['--weights', str(tmp_path / 'net.pth')]
    options.write_text(f'network_g: {network}')
    command = ['restore', str(video), str(tmp_path / 'out.mkv'), '--opt', str(options), '--json', '--device', 'cpu']
    assert main([*command, *weights]) == 2
    told = capsys.readouterr()
    assert message in told.err and told.err.count('\n') == 1
    assert all(json.loads(line)['state'] == 'refused' for line in told.out.splitlines())


def test_two_videos_of_one_name_are_refused(video, tmp_path, tiny, capsys):
    (tmp_path / 'other').mkdir()
    other = tmp_path / 'other' / video.name
    assert main(['restore', str(video), str(other), '--into', str(tmp_path / 'out'), *tiny]) == 2
    assert f'{video} and {other} would both be restored to {tmp_path / "out" / "in.mp4"}' in capsys.readouterr().err


def test_an_option_file_and_weights(video, tmp_path):
    options = tmp_path / 'net.yml'
    options.write_text('network_g: {type: VSRResNet, num_feat: 4, num_block: 1, scale: 2}')
    command = ['restore', str(video), str(tmp_path / 'out.mkv'), '--opt', str(options), '--device', 'cpu']
    net = build_network({'type': 'VSRResNet', 'num_feat': 4, 'num_block': 1, 'scale': 2})
    torch.save({'params': net.state_dict()}, tmp_path / 'net.pth')
    assert main([*command, '--weights', str(tmp_path / 'net.pth'), '--codec', 'ffv1']) == 0
    assert read(tmp_path / 'out.mkv')[0][0].shape == (64, 96, 3)


@pytest.mark.parametrize('arguments, message', [
    (['in.mp4', 'out.mp4', '--model', 'mbnet'], "no model 'mbnet', expected one of mbnet-small, fisr-small"),
    (['in.mp4', 'out.xyz', '--model', 'fstrn-small'], 'out.xyz'),
    (['in.mp4', 'in.mp4', '--model', 'fstrn-small'], 'in.mp4'),
    (['text.mp4', 'out.mp4', '--model', 'fstrn-small'], 'text.mp4'),
    (['nothing.mp4', 'out.mp4', '--model', 'fstrn-small'], 'nothing.mp4'),
    (['in.mp4', 'out.mp4', '--model', 'fstrn-small', '--tile', '3'], 'tile must be at least 16 pixels, but is 3'),
    (['in.mp4', 'out.mp4', '--model', 'fstrn-small', '--codec', 'mpeg5'], "unknown codec 'mpeg5', expected one of x"),
    (['in.mp4', 'out.mp4', '--opt', 'no.yml'], 'no.yml'),
    (['in.mp4', 'out.mp4', '--model', 'fstrn-small', '--weights', 'a.pth'], '--weights goes with --opt'),
    (['in.mp4', 'out.mp4', '--model', 'fstrn-small', '--suffix', '.mkv'], '--suffix goes with --into'),
    (['in.mp4', '--into', 'new', '--model', 'fstrn-small', '--suffix', 'mkv'], "as suffix, but got 'mkv'"),
    (['in.mp4', '--into', 'new', '--model', 'mbnet'], "no model 'mbnet', expected"),
    (['in.mp4', '.', '--model', 'fstrn-small', '--codec', 'png'], '.: is not the name of an output'),
    (['in.mp4', 'out.mp4', '--model', 'fstrn-small', '--time-only'], 'FSTRN does not interpolate frames'),
    (['in.mp4', 'out.mp4', '--interpolate', 'fstrn-small'], 'FSTRN does not interpolate frames'),
    (['in.mp4', 'out.mp4', '--scale', '-1'], 'scale must be above 0, but is -1'),
    (['in.mp4', '--model', 'fstrn-small'], 'expected an input and an output, or inputs and --into FOLDER, but got 1'),
    (['in.mp4', 'out.mp4', '--model', 'fstrn-small', '--device', 'cuda:77'], '--device cuda:77: there is no such GPU'),
    (['in.mp4', 'out.mp4', '--model', 'fstrn-small', '--device', 'gpu'], '--device gpu: expected auto, cpu, cuda'),
    (['in.mp4', 'out.mp4', '--model', 'fstrn-small', '--device', 'meta'], '--device meta: expected auto, cpu, cuda'),
    pytest.param(['in.mp4', 'out.mp4', '--model', 'fstrn-small', '--device', 'mps'], '--device mps: torch finds no',
                 marks=pytest.mark.skipif(torch.backends.mps.is_available(), reason='a Mac')),
    (['in.mp4', 'out.mp4', '--model', 'hoffr-small', '--device', 'cpu,cpu'], 'HOFFR is recurrent, so it runs on one'),
])
def test_what_is_refused(video, tmp_path, monkeypatch, capsys, arguments, message):
    """In one line, with exit code 2, before anything is written."""
    monkeypatch.chdir(tmp_path)
    Path('in.mp4').write_bytes(video.read_bytes())
    Path('text.mp4').write_text('no video')
    assert main(['restore', '--device', 'cpu', *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ') and message in error and error.count('\n') == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ['in.mp4', 'text.mp4']


def test_the_gpu_of_a_mac_can_be_named(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: True)
    assert devices_of('mps') == ['mps']
    assert devices_of('auto') in (['cpu'], ['cuda:0'])  # some layers of the networks lack a kernel there


def test_a_damaged_video_ends_with_exit_code_1(tmp_path, capsys):
    path = tmp_path / 'film.mkv'
    write_video(path, moving_clip(30), codec='ffv1', pix_fmt='bgr0', rate=FILM)
    path.write_bytes(path.read_bytes()[:path.stat().st_size * 3 // 4])
    command = ['restore', str(path), str(tmp_path / 'out.mp4'), '--model', 'adaptive-gan-small', '--device', 'cpu']
    assert main(command) == 1
    assert 'are kept in' in capsys.readouterr().err and not (tmp_path / 'out.mp4').exists()


@pytest.mark.parametrize('name', ZOO)
def test_info_of_a_model(capsys, name):
    assert main(['info', name, '--json']) == 0
    facts = json.loads(capsys.readouterr().out)
    net = load(name)
    spec = net.spec
    assert facts['parameters'] == sum(parameter.numel() for parameter in net.parameters())
    assert (facts['scale'], facts['temporal_scale']) == (spec.scale, spec.temporal_scale)
    assert main(['info', name]) == 0
    text = capsys.readouterr().out
    assert f'{facts["parameters"]:,}' in text and f'{spec.scale}x in space, {spec.temporal_scale}x in time' in text
    assert main(['info']) == 0
    assert name in capsys.readouterr().out


def test_info_of_an_option_file(capsys, tmp_path):
    """With the number of parameters that the paper's network has."""
    assert main(['info', str(ROOT / 'options' / 'train_hoffr_reds.yml'), '--json']) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts['network'], facts['parameters'], facts['window']) == ('HOFFR', 3_543_242, None)
    (tmp_path / 'empty.yml').write_text('name: nothing')
    assert main(['info', str(tmp_path / 'empty.yml')]) == 2
    assert 'empty.yml has no network_g' in capsys.readouterr().err


def test_info_with_the_speed(video, tmp_path, capsys, monkeypatch):
    """Of whole frames where they are quick, else by the area of small ones; videos have none."""
    options = tmp_path / 'net.yml'
    options.write_text('network_g: {type: VSRResNet, num_feat: 4, num_block: 1, scale: 2}')
    monkeypatch.setattr(speed, 'SIZE', (48, 64))
    monkeypatch.setattr(speed, 'TRIAL_SIZE', (24, 32))
    assert main(['info', str(options), '--speed', '--json']) == 0
    found = json.loads(capsys.readouterr().out)['speed']
    assert found['measured_at'] == {'width': 64, 'height': 48} and found['frames_per_second'] > 0
    monkeypatch.setattr(speed, 'LONGEST_RUN', 0)
    assert main(['info', str(options), '--speed']) == 0
    assert 'for frames of 64x48, estimated from 32x24 (' in capsys.readouterr().out
    assert main(['info', str(video), '--speed']) == 2
    assert '--speed is for models' in capsys.readouterr().err


class Sleeping(torch.nn.Module):
    """Counts its windows, by which the test sets the clock."""

    spec = NetSpec(scale=2, temporal_scale=2, num_frames=3, color='rgb')

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, lq):
        self.calls += 1
        return torch.nn.functional.interpolate(lq[0], scale_factor=2)[None].repeat_interleave(2, 1)[:, :5]


def test_speed_counts_the_windows_of_a_frame(monkeypatch):
    net = Sleeping()
    monkeypatch.setattr(speed.time, 'perf_counter', lambda: 10.0 * net.calls)
    restorer = speed.Restorer(net, speed.RestoreOptions(detect_cuts=False))
    assert speed.seconds_per_frame(restorer, 16, 24) == 10
    monkeypatch.setattr(speed, 'SIZE', (32, 24))
    monkeypatch.setattr(speed, 'TRIAL_SIZE', (16, 24))
    assert speed.measure_speed(net) == speed.Speed(2 / 20, 16, 24)  # twice the area, two frames for each


@pytest.mark.parametrize('name', ZOO)
def test_outlines_count_as_the_networks_do(name):
    network = ZOO[name].network
    assert facts_of_model(outline(network), name, None) == facts_of_model(build(network), name, None)


def test_info_of_a_video(video, capsys):
    assert main(['info', str(video)]) == 0
    text = capsys.readouterr().out
    assert main(['info', str(video), '--json']) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts['frames'], facts['rate'], facts['width'], facts['bits']) == (5, '24000/1001', 48, 8)
    assert '5, 48x32, 23.976 a second' in text and '8 bits, bt601, limited range' in text
    assert main(['info', 'nothing']) == 2
    assert 'neither a file, nor one of the models mbnet-small' in capsys.readouterr().err


def test_compare(video, tmp_path, capsys):
    assert main(['compare', str(video), str(video), '--output', str(tmp_path / 'page.html')]) == 0
    assert 'equal' in capsys.readouterr().out and '<canvas' in (tmp_path / 'page.html').read_text()


@ARCH_REGISTRY.register()
class Enlarging(torch.nn.Module):
    """One convolution of each frame: what little the compiler takes long for."""

    spec = NetSpec(scale=2, num_frames=1, color='rgb')

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(3, 12, 3, padding=1)

    def forward(self, lq):
        return lq[:, :1].repeat_interleave(2, -1).repeat_interleave(2, -2) + torch.nn.functional.pixel_shuffle(
            self.conv(lq[:, 0]), 2)[:, None]


@pytest.mark.parametrize('options, tolerance', [
    (['--precision', 'bf16'], 4), (['--precision', 'fp16'], 1), (['--no-channels-last'], 1), (['--compile'], 1)])
def test_ways_to_compute_make_no_difference(video, tmp_path, capsys, monkeypatch, options, tolerance):
    """But for the few bits that bfloat16 has, of 8: 4 levels of 255."""
    torch.save(Enlarging().state_dict(), tmp_path / 'net.pth')
    (tmp_path / 'net.yml').write_text(
        f'network_g: {{type: Enlarging}}\npath: {{pretrain_network_g: {tmp_path}/net.pth}}')
    command = ['restore', str(video), '--opt', str(tmp_path / 'net.yml'), '--device', 'cpu', '--codec', 'ffv1']
    if '--precision' not in options:
        command += ['--precision', 'fp32']
    seen = []
    forward = Enlarging.forward

    def spy(net, lq):
        seen.append((torch.compiler.is_compiling(), torch.is_autocast_enabled('cpu'),
                     net.conv.weight.is_contiguous(memory_format=torch.channels_last)))
        return forward(net, lq)

    assert main([*command, str(tmp_path / 'plain.mkv')]) == 0
    monkeypatch.setattr(Enlarging, 'forward', spy)
    assert main([*command, str(tmp_path / 'other.mkv'), *options]) == 0
    if '--compile' in options and '--compile is off' in capsys.readouterr().err:
        pytest.skip('there is no compiler')
    assert seen[-1] == ('--compile' in options, '--precision' in options, '--no-channels-last' not in options)
    plain, other = (np.array(read(tmp_path / name)[0], int) for name in ('plain.mkv', 'other.mkv'))
    assert np.ptp(plain) > 0 and np.abs(plain - other).max() <= tolerance


@pytest.fixture
def long_video(tmp_path, tiny) -> tuple[list[str], Path]:
    """The command that restores a video of more than a segment, and its output; and `whole.mkv`, what it gives."""
    path, output = tmp_path / 'in.mkv', tmp_path / 'out.mkv'
    write_video(path, moving_clip(275, height=16, width=24), codec='ffv1', pix_fmt='bgr0')
    options = [*tiny, '--codec', 'ffv1', '--json']
    assert main(['restore', str(path), str(tmp_path / 'whole.mkv'), *options]) == 0
    return ['restore', str(path), str(output), *options], output


def check_resume(command: list[str], output: Path) -> None:
    """The first segment is not written once more, and the result is what it would have been."""
    (segment,) = output.with_name('out.mkv.parts').glob('000000.*')
    first = segment.read_bytes()
    os.link(segment, output.with_name('first'))
    assert main([*command, '--resume']) == 0
    assert output.with_name('first').read_bytes() == first and len(first) > 10_000
    frames, times = read(output)
    expected, expected_times = read(output.with_name('whole.mkv'))
    assert times == expected_times
    np.testing.assert_array_equal(frames, expected)


@pytest.mark.usefixtures('heard_hangup')
@pytest.mark.parametrize('number', [
    signal.SIGINT, signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_an_interrupt_and_resume(long_video, monkeypatch, capsys, number):
    command, output = long_video
    original, handlers = ProgressBar.__call__, {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP)}

    def interrupt(bar, progress):
        original(bar, progress)
        if progress.frames == 252:
            signal.raise_signal(number)

    monkeypatch.setattr(ProgressBar, '__call__', interrupt)
    assert main(command) == 130 and not output.exists()
    monkeypatch.undo()
    for changed, handler in handlers.items():
        signal.signal(changed, handler)
    kept, error = output.with_name('out.mkv.parts') / 'until_now.mkv', capsys.readouterr().err
    assert f'interrupted; frames up to 0:00:10.040 are kept in {kept}; go on with --resume' in error
    assert len(read(kept)[0]) == 252
    check_resume(command, output)


def test_who_reads_progress_may_leave(long_video, monkeypatch, capsys):
    """Such as `| head`: the final message names the kept frames anyway."""
    command, output = long_video

    def broken(bar, state, **fields):
        if fields.get('frames', 20) >= 20:
            raise BrokenPipeError(errno.EPIPE, 'Broken pipe')

    monkeypatch.setattr(ProgressBar, '_print', broken)
    assert main(command) == 1
    assert 'Broken pipe' in (error := capsys.readouterr().err) and 'until_now.mkv' in error and not output.exists()


def test_a_kill_and_resume(long_video, capsys):
    """Not with other weights."""
    command, output = long_video
    process = subprocess.Popen([sys.executable, '-m', 'basicsr_stvsr', *command], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if json.loads(line)['frames'] == 252:
            process.kill()
            break
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL and not output.exists()
    weights = Path(command[command.index('--weights') + 1])
    before = weights.read_bytes()
    torch.save({name: value + 0.01 for name, value in torch.load(weights)['params'].items()}, weights)
    capsys.readouterr()
    assert main([*command, '--resume']) in (1, 2)
    assert 'holds work with other settings: model differ' in capsys.readouterr().out
    weights.write_bytes(before)
    check_resume(command, output)


def test_train_and_test_take_the_options_of_basicsr(tmp_path):
    for command in ('train', 'test'):
        failed = run('-m', 'basicsr_stvsr', command, '-opt', tmp_path / 'no.yml')
        assert failed.returncode == 2 and 'no.yml does not exist' in failed.stderr


@pytest.mark.parametrize('command', ['restore', 'info', 'compare', 'zoo', 'train', 'test', 'init', 'options'])
def test_every_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, '--help'])
    assert end.value.code == 0 and f'example:\n  stvsr {command} ' in capsys.readouterr().out


def test_help():
    shown = run('-m', 'basicsr_stvsr', 'restore', '--help')
    assert shown.returncode == 0 and 'stvsr restore in.mp4 out.mp4\n' in shown.stdout
    assert run('-m', 'basicsr_stvsr').returncode == 2


def test_the_zoo_is_what_option_files_test():
    """Each network with the weights of an option file, and all weights that are in the package."""
    tested = {}
    for path in (ROOT / 'options').glob('test_*_small.yml'):
        opt = load_options(str(path))
        tested[Path(opt['path']['pretrain_network_g']).name] = opt['network_g']
    assert {entry.weights: dict(entry.network) for entry in ZOO.values()} == tested
    assert {entry.weights for entry in ZOO.values()} == {path.name for path in WEIGHTS.glob('*.pth')}


def test_the_licence_of_weights_is_printed(video, tmp_path, capsys):
    assert main(['restore', str(video), str(tmp_path / 'out.mp4'), '--model', 'fisr-small', '--device', 'cpu']) == 0
    line = 'for research only: the footage belongs to third parties, whose terms cover research'
    assert capsys.readouterr().err.count(f'weights of fisr-small: {line}') == 1
    for command in (['info', 'fisr-small'], ['zoo', 'info', 'fisr-small'], ['zoo', 'list']):
        assert main(command) == 0
        assert line in capsys.readouterr().out
