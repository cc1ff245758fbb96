"""Weights files of other tools: networks of single images, recognised by spandrel."""
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from basicsr.archs.rrdbnet_arch import RRDBNet
from basicsr.archs.srvgg_arch import SRVGGNetCompact
from run_util import run_fresh
from video_util import moving_clip, write_video

from basicsr_stvsr.io.video_reader import open_source
from stvsr.main import main

pytest.importorskip('spandrel')


def rrdb() -> torch.nn.Module:
    return RRDBNet(num_in_ch=3, num_out_ch=3, scale=4, num_feat=8, num_block=1, num_grow_ch=32)


def compact() -> torch.nn.Module:
    return SRVGGNetCompact(num_in_ch=3, num_out_ch=3, num_feat=16, num_conv=2, upscale=4, act_type='prelu')


@pytest.fixture
def video(tmp_path) -> Path:
    write_video(tmp_path / 'in.mkv', moving_clip(3, height=24, width=32), codec='ffv1', pix_fmt='bgr0')
    return tmp_path / 'in.mkv'


def frames_of(path: Path) -> list[np.ndarray]:
    with open_source(path) as source:
        return [frame.image for frame in source.frames()]


@pytest.mark.parametrize(('make', 'key'), [(rrdb, 'params_ema'), (compact, 'params')])  # as Real-ESRGAN's files are
def test_frames_equal_those_of_the_tool(video, tmp_path, make, key):
    """BasicSR's own network, frame by frame, and what the command writes."""
    net = make().eval()
    torch.save({key: net.state_dict()}, tmp_path / 'RealESRGAN.pth')
    output = tmp_path / 'out.mkv'
    assert main(['restore', str(video), str(output), '--model', str(tmp_path / 'RealESRGAN.pth'), '--codec', 'ffv1',
                 '--device', 'cpu', '--precision', 'fp32']) == 0
    for given, restored in zip(frames_of(video), frames_of(output), strict=True):
        with torch.no_grad():
            expected = net(torch.from_numpy(given.copy()).permute(2, 0, 1)[None] / 255)[0]
        expected = expected.clamp(0, 1).mul(255).permute(1, 2, 0).numpy()
        assert restored.shape == (96, 128, 3) and np.abs(restored - expected).max() <= 0.51


def test_together_with_interpolation(video, tmp_path):
    torch.save({'params': compact().state_dict()}, tmp_path / 'net.pth')
    command = ['restore', str(video), str(tmp_path / 'out.mp4'), '--model', str(tmp_path / 'net.pth')]
    assert main([*command, '--interpolate', 'mbnet-small', '--scale', '2', '--device', 'cpu']) == 0
    with open_source(tmp_path / 'out.mp4') as source:
        info = source.info
    assert (info.width, info.height, info.num_frames, info.rate) == (64, 48, 5, Fraction(50))


def test_info(tmp_path, capsys):
    torch.save({'params': compact().state_dict()}, tmp_path / 'net.pth')
    assert main(['info', str(tmp_path / 'net.pth')]) == 0
    told = capsys.readouterr().out
    assert 'RealESRGAN Compact' in told and 'not stated in the file' in told and '4x in space, 1x in time' in told


class Evil:
    def __reduce__(self):
        return os.mkdir, ('run',)


def test_no_code_of_a_file_runs(video, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save({'params': Evil()}, 'evil.pth')
    assert main(['restore', str(video), 'out.mkv', '--model', 'evil.pth', '--device', 'cpu']) == 2
    assert 'evil.pth' in capsys.readouterr().err and not Path('run').exists()


def test_files_that_are_no_such_network(video, tmp_path, capsys):
    torch.save({'params': {'weight': torch.zeros(3)}}, tmp_path / 'other.pth')
    for name, message in (('other.pth', 'spandrel does not recognise a network'), ('no.pth', 'does not exist')):
        assert main(['restore', str(video), str(tmp_path / 'out.mkv'), '--model', str(tmp_path / name)]) == 2
        assert message in (error := capsys.readouterr().err) and error.count('\n') == 1


def test_spandrel_is_imported_for_such_files_only(video, tmp_path):
    command = ['restore', str(video), str(tmp_path / 'out.mkv'), '--model', 'dis', '--device', 'cpu']
    code = ('import sys; from stvsr.main import main; code = main(sys.argv[1:]); '
            "print(code, 'spandrel' in sys.modules, 'torchvision' in sys.modules)")
    assert run_fresh('-c', code, *command).stdout.split()[-3:] == ['0', 'False', 'False']
