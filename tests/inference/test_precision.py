"""Precision and memory layout that are chosen for a device; frames in bfloat16 beside those in float32."""
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from basicsr_stvsr import restore
from basicsr_stvsr.archs.spec import NetSpec
from basicsr_stvsr.inference import precision
from basicsr_stvsr.inference.precision import computes_bf16, fastest_precision, onednn_may_use_bf16
from basicsr_stvsr.video.restorer import RestoreOptions, Restorer
from basicsr_stvsr.zoo.table import ZOO, load

LEAST_PSNR = 50  # dB, of frames in bfloat16 against those in float32


def real_frames(folder: Path, num_frame: int = 4) -> list[torch.Tensor]:
    """The first frames of a clip at a quarter of their size, at most 64 x 96, (3, H, W), RGB, 0-1.

    Smaller where the CPU emulates bfloat16, which takes eight times as long.
    """
    height, width = (64, 96) if computes_bf16('cpu') else (32, 48)
    frames = []
    for path in sorted(folder.iterdir())[:num_frame]:
        image = cv2.imread(str(path))
        image = cv2.resize(image, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)[:height, :width, ::-1]
        frames.append(torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32) / 255))
    return frames


@pytest.mark.parametrize('clip', ['vid4/calendar', 'vid4/walk'])
@pytest.mark.parametrize('name', ZOO)
def test_bfloat16_changes_frames_of_shipped_weights_little(name, clip, real_data):
    """Or else the network states that it needs float32."""
    if clip == 'vid4/walk' and not computes_bf16('cpu'):
        pytest.skip('this CPU emulates bfloat16, which takes long: one clip will do')
    net = load(name)
    if net.spec.needs_float32:
        pytest.skip(f'{name} stays in float32')
    frames = real_frames(real_data / 'eval' / clip)
    half, single = (torch.stack(list(restore(frames, net, options=RestoreOptions(precision=each))))
                    for each in ('bf16', 'fp32'))
    worst = (half - single).square().mean((1, 2, 3)).max()
    assert worst > 0 and float(-10 * torch.log10(worst)) > LEAST_PSNR


@pytest.mark.parametrize('variable', ['ONEDNN_MAX_CPU_ISA', 'DNNL_MAX_CPU_ISA'])
@pytest.mark.parametrize('isa, may', [
    ('', True), ('ALL', True), ('AVX512_CORE_BF16', True), ('AVX512_CORE_AMX', True),
    ('SSE41', False), ('avx2', False), ('AVX512_CORE', False), ('AVX512_CORE_VNNI', False)])
def test_a_limit_of_onednn_counts(monkeypatch, variable, isa, may):
    for name in ('ONEDNN_MAX_CPU_ISA', 'DNNL_MAX_CPU_ISA'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, isa)
    assert onednn_may_use_bf16() == may


@pytest.mark.skipif(not Path('/proc/cpuinfo').exists(), reason='only Linux lists what its CPUs can do')
def test_this_cpu(monkeypatch):
    """As the kernel lists it."""
    monkeypatch.delenv('ONEDNN_MAX_CPU_ISA', raising=False)
    monkeypatch.delenv('DNNL_MAX_CPU_ISA', raising=False)
    flags = set(Path('/proc/cpuinfo').read_text().split())
    assert computes_bf16('cpu') == bool(flags & {'avx512_bf16', 'amx_bf16'})


@pytest.mark.parametrize('capability, native', [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_gpus(monkeypatch, capability, native):
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: capability)
    assert computes_bf16('cuda:0') == native
    assert not computes_bf16('mps')


class Shift(nn.Conv2d):
    """A network of one convolution."""

    spec = NetSpec(scale=1, num_frames=1)

    def __init__(self):
        super().__init__(3, 3, 3, padding=1)

    def forward(self, lq):
        return super().forward(lq[:, 0])[:, None]


def test_auto_asks_the_network_and_all_devices(monkeypatch):
    net = Shift()
    monkeypatch.setattr(precision, 'computes_bf16', lambda device: str(device) == 'cpu')
    assert fastest_precision(net, ['cpu']) == 'bf16'
    assert fastest_precision(net, ['cpu', 'cuda:0']) == 'fp32'
    assert Restorer(net, RestoreOptions(precision='auto')).dtype == torch.bfloat16
    net.spec = replace(net.spec, needs_float32=True)
    assert fastest_precision(net, ['cpu']) == 'fp32'
    assert Restorer(net, RestoreOptions(precision='auto')).dtype is None
    assert Restorer(net).dtype is None
