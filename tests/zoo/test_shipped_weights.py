"""Weights in the package, and files of weights that are damaged, or something else."""
import hashlib
import os
import shutil
from collections.abc import Sequence

import pytest
import torch
from basicsr.archs import build_network
from basicsr.data import build_dataset
from conftest import ROOT

from basicsr_stvsr.archs.weight_files import check_hash, load_weights, read_state_dict
from basicsr_stvsr.config.loading import load_options
from basicsr_stvsr.inference.windows import restore_clip
from basicsr_stvsr.zoo.table import load_network

WEIGHTS = sorted((ROOT / 'basicsr_stvsr' / 'weights').glob('*.pth'))
# Each with the option file that tests it
TESTS = [load_options(str(path)) for path in sorted((ROOT / 'options').glob('test_*_small.yml'))]
OPTIONS = [(ROOT / opt['path']['pretrain_network_g'], opt) for opt in TESTS]


def shipped(arch: str) -> torch.nn.Module:
    """Return a network of a model that ships with the package."""
    path, opt = next((path, opt) for path, opt in OPTIONS if opt['network_g']['type'] == arch)
    return load_network(opt['network_g'], path)


def test_there_are_weights():
    assert WEIGHTS


def test_options_of_the_package() -> None:
    assert {path for path, _ in OPTIONS} == set(WEIGHTS)


@pytest.mark.parametrize('path, opt', OPTIONS, ids=lambda value: getattr(value, 'name', ''))
def test_weights_of_the_package(path, opt):
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.stem.endswith(f'-{digest[:8]}')
    assert path.stat().st_size < 4e6
    weights = torch.load(path, weights_only=True)['params']
    assert all(tensor.dtype == torch.float16 and tensor.isfinite().all() for tensor in weights.values())
    net = build_network(opt['network_g'])
    net.load_state_dict(weights)
    card = (path.parent / 'README.md').read_text()
    assert f'\n## {path.name}\n' in card and 'research' in card


def test_the_demo_names_weights_that_are_there():
    opt = load_options(str(ROOT / 'options/demo/train_mbnet_small.yml'))
    assert (ROOT / opt['path']['pretrain_network_g']) in WEIGHTS


@pytest.mark.numeric
@pytest.mark.real_clips
def test_fisr_small_beats_bicubic_and_averaging(real_data):
    """Five frames of a clip of Vid4, x2 and x2, PSNR over Y, U and V: given frames and new ones."""
    net = shipped('FISRNet')
    clip = build_dataset({
        'name': 'vid4', 'type': 'STVSRTestDataset', 'phase': 'test', 'scale': 2, 'color': 'yuv', 'num_frame': 5,
        'dataroot_gt': str(real_data / 'eval' / 'vid4'), 'clips': 'city', 'flow_opt': {'type': 'DISFlow'}})[0]
    bicubic = build_network({'type': 'BicubicAverage', 'scale': 2, 'first_output': 1})
    lq, flow = clip['lq'][None], clip['lq_flow'][None]
    for number, gain in ((0, 1.0), (1, 0.5), (2, 1.0)):  # dB
        true = clip['gt'][number + 1]
        psnr = [-10 * torch.log10((restore_clip(each, lq, flow=flow)[0, number] - true).square().mean())
                for each in (net, bicubic)]
        assert psnr[0] > psnr[1] + gain


@pytest.mark.numeric
@pytest.mark.real_clips
@pytest.mark.parametrize('arch, gain', [('FSTRN', 1.0), ('VSRResNet', 0.3)])  # dB; the latter is of a GAN
def test_networks_of_luma_are_sharper_and_nearer_than_bicubic(real_data, arch, gain):
    """A part of a frame of Vid4, x4: PSNR, and how much of the true frame's detail there is."""
    net = shipped(arch)
    clip = build_dataset({
        'name': 'vid4', 'type': 'STVSRTestDataset', 'phase': 'test', 'scale': 4, 'color': 'y', 'num_frame': 5,
        'temporal_scale': 1, 'dataroot_gt': str(real_data / 'eval' / 'vid4'), 'clips': 'walk'})[0]
    lq, true = clip['lq'][None, ..., 40:100, 40:130], clip['gt'][2, ..., 160:400, 160:520]
    bicubic = build_network({'type': 'BicubicAverage', 'scale': 4, 'temporal_scale': 1})
    frames = [restore_clip(each, lq)[0, 2] for each in (net, bicubic)]
    psnr = [-10 * torch.log10((frame - true).square().mean()) for frame in frames]
    detail = [frame.diff(dim=-1).square().mean() / true.diff(dim=-1).square().mean() for frame in frames]
    assert psnr[0] > psnr[1] + gain
    assert detail[1] + 0.1 < detail[0] < 1


@pytest.mark.numeric
@pytest.mark.real_clips
def test_hoffr_small_begins_afresh_at_a_cut(real_data):
    """Three frames of DragonBaby, a cut before the last: PSNR of the picture between black bars."""
    net = shipped('HOFFR')
    clip = build_dataset({
        'name': 'cuts', 'type': 'STVSRTestDataset', 'phase': 'test', 'scale': 4, 'temporal_scale': 1, 'num_frame': 10,
        'dataroot_gt': str(real_data / 'eval' / 'scene_cuts'), 'clips': 'DragonBaby'})[0]
    lq, true = clip['lq'][None, 7:], clip['gt'][7:, :, 40:320]
    bicubic = build_network({'type': 'BicubicAverage', 'scale': 4, 'temporal_scale': 1})

    def psnr(each: torch.nn.Module, cuts: Sequence[int] = ()) -> list[float]:
        frames = restore_clip(each, lq, cuts=cuts)[0, :, :, 40:320]
        return (-10 * torch.log10((frames - true).square().mean(dim=(1, 2, 3)))).tolist()

    through, afresh = psnr(net), psnr(net, cuts=[2])
    assert afresh[:2] == through[:2]
    assert afresh[2] > through[2] + 0.3  # dB
    assert all(ours > theirs for ours, theirs in zip(afresh, psnr(bicubic), strict=True))


def test_damaged_weights_are_refused(tmp_path):
    path = shutil.copy(WEIGHTS[0], tmp_path)
    with open(path, 'r+b') as file:
        file.seek(1000)
        file.write(b'x')
    with pytest.raises(ValueError, match='is damaged or was changed: its sha256 begins with'):
        check_hash(path)


@pytest.mark.parametrize('content, seen', [
    (b'', 'is empty'),
    (b'\n<!DOCTYPE html>\n<html><body>404</body></html>', 'is a web page'),
    (b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n', 'is a pointer of Git LFS'),
    (b'GIF89a', "is no PyTorch file: it begins with b'GIF89a'"),
])
def test_what_is_no_weights_file_is_told(tmp_path, content, seen):
    path = tmp_path / 'net.pth'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f'net.pth {seen}.*; expected the weights of MBNet$'):
        read_state_dict(path, what='MBNet')


def test_a_truncated_weights_file_is_told(tmp_path):
    path = tmp_path / 'net.pth'
    torch.save({'params': {'w': torch.ones(1000)}}, path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match='net.pth is cut off after 2,000 bytes: its end is missing; expected the weig'):
        read_state_dict(path, what='MBNet')


def test_code_in_a_weights_file_does_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'trapped'),)

    torch.save({'params': {'w': Trap()}}, tmp_path / 'net.pth')
    with pytest.raises(ValueError, match='is a PyTorch file that is damaged, or holds more than tensors'):
        read_state_dict(tmp_path / 'net.pth', what='MBNet')
    assert not (tmp_path / 'trapped').exists()
    torch.save({'epoch': 3, 'model': torch.nn.Linear(1, 1).state_dict()}, tmp_path / 'net.pth')
    with pytest.raises(ValueError, match='holds no tensors by name, but a block of epoch, model; expected'):
        read_state_dict(tmp_path / 'net.pth', what='MBNet')


def test_weights_that_fit_in_part(log):
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    state = {'0.weight': torch.full((3, 2), 7.0), '1.weight': torch.zeros(2, 2), 'other': torch.zeros(1)}
    wrong = ("net.pth does not hold the weights of Net, 4 tensors: 2 missing \\(first: 0.bias\\); 1 unknown "
             '\\(first: other\\); 1 of another shape \\(first: 1.weight \\(2, 2\\), expected \\(1, 3\\)\\)')
    with pytest.raises(ValueError, match=wrong):
        load_weights(net, state, path='net.pth', what='Net')
    assert not (net[0].weight == 7).any()
    load_weights(net, state, path='net.pth', what='Net', strict=False)
    assert (net[0].weight == 7).all() and 'fits Net in 1 of 4 tensors: 2 missing' in log.text
    with pytest.raises(ValueError, match='does not hold the weights of Net'):  # another network altogether
        load_weights(net, {'other': torch.zeros(1)}, path='net.pth', what='Net', strict=False)
