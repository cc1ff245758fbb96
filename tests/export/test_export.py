"""Networks in ONNX: onnxruntime is to make of a file what the network makes, at sizes it was not written for."""
import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from basicsr.archs import build_network
from conftest import ROOT, TINY_NET
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad

from basicsr_stvsr import __version__
from basicsr_stvsr.archs.arch_util import upsample, warp
from basicsr_stvsr.archs.pacnet_arch import PACConvTranspose2d, pac_conv2d, pac_kernel
from basicsr_stvsr.archs.pwcnet_arch import cost_volume
from basicsr_stvsr.archs.spec import NetSpec
from basicsr_stvsr.export import onnx_export as export
from basicsr_stvsr.export.onnx_export import CheckError, ExportError, export_network
from basicsr_stvsr.zoo.table import WEIGHTS, ZOO, load_network
from stvsr.main import main

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')

takes_long = pytest.mark.slow
# Those that are many operations take a minute to trace; what is special about them, toys below have, too.
NETWORKS = [
    pytest.param({'type': 'BicubicAverage', 'scale': 2}, id='BicubicAverage', marks=pytest.mark.slow),
    pytest.param({'type': 'FSTRN', 'num_feat': 8, 'num_frb': 1}, id='FSTRN', marks=takes_long),
    pytest.param({'type': 'VSRResNet', 'num_feat': 4, 'num_block': 1, 'add_center': True}, id='VSRResNet',
                 marks=takes_long),
    pytest.param({'type': 'HOFFR', 'num_feat': 8, 'num_block': 1, 'num_rcab': 1, 'reduction': 4, 'num_flow_feat': 4},
                 id='HOFFR', marks=takes_long),
    pytest.param({'type': 'FISRNet', 'num_feat': 4, 'residual': True}, id='FISRNet', marks=takes_long),
    pytest.param(TINY_NET, id='MBNet', marks=takes_long),
    pytest.param(TINY_NET | {'flow_net': {'type': 'PWCNet'}}, id='MBNet-PWCNet', marks=takes_long),
    pytest.param(TINY_NET | {
        'vsr_net': {'type': 'RBPN', 'base_filter': 8, 'num_feat': 16, 'num_resblock': 1}, 'vfi_feature': 'resnet',
        'context_net': {'type': 'ContextResNet', 'num_feat': 16}, 'vfi_net': {'type': 'UNet', 'channels': [4, 4, 4]},
    }, id='MBNet-RBPN-UNet-ContextResNet', marks=takes_long),
    pytest.param({'type': 'MSRResNet', 'num_feat': 4, 'num_block': 1}, id='MSRResNet of BasicSR', marks=takes_long),
]


# ---------------------------------------------------------------- toys

class Toy(nn.Module):
    """Enlarges the frames of a window."""

    spec = NetSpec(scale=2, num_frames=1, color='rgb')

    def __init__(self, change: Callable[[Tensor], Tensor] = lambda frame: frame):
        super().__init__()
        self.change = change

    def forward(self, lq: Tensor) -> Tensor:
        return upsample(self.change(lq[:, 0]), 2).unsqueeze(1)


class AdaptiveToy(Toy):
    """Pixel-adaptive convolution as in MBNet: of a frame, and to a larger one."""

    def __init__(self):
        super().__init__()
        self.up = PACConvTranspose2d(3, 3, kernel_size=5, stride=2)
        self.weight = nn.Parameter(torch.randn(3, 3, 3, 3) / 5)

    def forward(self, lq: Tensor) -> Tensor:
        frame = pac_conv2d(lq[:, 0], pac_kernel(lq[:, 0], 3), self.weight)
        return self.up(frame, upsample(lq[:, 0], 2)).unsqueeze(1)


class MatchingToy(Toy):
    """Compares frames with each other, as PWC-Net does, on a coarser grid."""

    spec = NetSpec(scale=2, num_frames=2, size_multiple=2, color='rgb')

    def forward(self, lq: Tensor) -> Tensor:
        first, second = (avg_pool2d(frame, 2) for frame in lq.unbind(1))
        return upsample(lq[:, 0], 2).unsqueeze(1) + upsample(cost_volume(first, second, 1)[:, ::3], 4).unsqueeze(1)


class WindowToy(MatchingToy):
    """Sees windows as wide as the frame."""

    def forward(self, lq: Tensor) -> Tensor:
        padded = pad(avg_pool2d(lq[:, 0], 2), (1, 1, 0, 0))
        return upsample(padded.unfold(3, padded.shape[-1] - 2, 1).mean(dim=3), 4).unsqueeze(1)


class FlowToy(Toy):
    """The frame between two, along the flow between them, as FISR takes it."""

    spec = NetSpec(scale=2, temporal_scale=2, num_frames=2, first_output=1, needs_flow=True, size_multiple=4,
                   color='yuv')

    def inputs(self, lq: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        return lq, warp(lq[:, 0], flow[:, 0, 1] / 2)

    def forward(self, lq: Tensor, warped: Tensor) -> Tensor:
        return upsample((lq[:, 1] + warped) / 2, 2).unsqueeze(1)


class ToyState(NamedTuple):
    lq: Tensor
    hr: Tensor


class RecurrentToy(Toy):
    """Carries along what it has made, as HOFFR does, by a 'flow' that is the difference of two frames."""

    spec = NetSpec(scale=2, num_frames=None, size_multiple=2, color='rgb', state=ToyState)
    init_state = 'zeros'

    def step(self, frame: Tensor, state: ToyState | None) -> tuple[Tensor, ToyState]:
        if state is None:
            state = ToyState(frame, torch.zeros_like(upsample(frame, 2)))
        flow = upsample((frame - state.lq)[:, :2], 2) * 4
        hr = (upsample(frame, 2) + warp(state.hr, flow)) / 2
        return hr, ToyState(frame, hr)


class TwoFaced(Toy):
    """Is another network when it is traced."""

    def forward(self, lq: Tensor) -> Tensor:
        return super().forward(lq) + (1e-3 if torch.compiler.is_exporting() else 0)


# ---------------------------------------------------------------- what comes out

def build(network: dict[str, Any]) -> nn.Module:
    """Random weights, of layers too that start at zero."""
    net = load_network(network, None)
    for parameter in net.parameters():
        if not parameter.any():
            parameter.normal_(std=0.1)
    return net


def run_clip(path: Path, net: nn.Module, lq: Tensor, flow: Tensor | None) -> Tensor:
    """What onnxruntime makes of a window, or of a clip frame by frame, as docs/export.md says."""
    session = onnxruntime.InferenceSession(str(path))
    if not net.spec.recurrent:
        given = {'lq': lq.numpy()} | ({'flow': flow.numpy()} if flow is not None else {})
        return torch.from_numpy(session.run(['hr'], given)[0])
    b, _, c, h, w = lq.shape
    frames, state_lq, state_hr = [], lq[:, 0].numpy(), torch.zeros(b, c, net.spec.scale * h, net.spec.scale * w).numpy()
    for frame in lq.unbind(1):
        given = {'lq': frame.numpy(), 'state_lq': state_lq, 'state_hr': state_hr}
        hr, state_lq, state_hr = session.run(['hr', 'next_lq', 'next_hr'], given)
        frames.append(torch.from_numpy(hr))
    return torch.stack(frames, dim=1)


@torch.no_grad()
def restored(net: nn.Module, lq: Tensor, flow: Tensor | None) -> Tensor:
    """What the network itself makes of it."""
    if not net.spec.recurrent:
        return net(*(net.inputs(lq, flow) if flow is not None else (lq,)))
    state, frames = None, []
    for frame in lq.unbind(1):
        hr, state = net.step(frame, state)
        frames.append(hr)
    return torch.stack(frames, dim=1)


def assert_same_on_three_sizes(path: Path, net: nn.Module) -> None:
    multiple, channels = net.spec.size_multiple, net.spec.num_channels
    num_frames = 3 if net.spec.recurrent else net.spec.num_frames
    units = -(-9 // multiple)
    for batch, rows, columns in ((1, units, units + 2), (3, units + 1, units), (2, units + 4, units + 1)):
        size = multiple * rows, multiple * columns
        lq = torch.rand(batch, num_frames, channels, *size)
        flow = torch.randn(batch, num_frames - 1, 2, 2, *size) if net.spec.needs_flow else None
        truth = restored(net, lq, flow)
        assert truth.std() > 0.01
        torch.testing.assert_close(run_clip(path, net, lq, flow), truth, rtol=0, atol=1e-4)


@pytest.mark.numeric
@pytest.mark.parametrize('network', NETWORKS)
def test_networks(network, tmp_path):
    net = build(network)
    checked = export_network(net, tmp_path / 'net.onnx', name='tiny')
    assert len({(each.height, each.width) for each in checked}) == 3
    assert max(each.largest for each in checked) < 1e-4
    assert_same_on_three_sizes(tmp_path / 'net.onnx', net)


@takes_long
def test_basicsrs_deformable_convolution_is_refused_with_the_reason(tmp_path):
    net = load_network({'type': 'EDVR', 'num_feat': 8, 'num_frame': 3, 'deformable_groups': 1, 'num_extract_block': 1,
                        'num_reconstruct_block': 1}, None)
    with pytest.raises(ExportError, match=r"EDVR cannot be exported: arch_util.py.*if offset_absmean > 50"):
        export_network(net, tmp_path / 'net.onnx', name='tiny')


class Exported(NamedTuple):
    net: nn.Module
    path: Path
    weights: Path


@pytest.fixture(scope='module')
def exported(tmp_path_factory) -> Callable[[type[Toy]], Exported]:
    """The file of a toy, which takes seconds to write, once for all tests."""
    @cache
    def export_toy(toy: type[Toy]) -> Exported:
        folder = tmp_path_factory.mktemp(toy.__name__)
        weights = folder / 'net.pth'
        weights.write_bytes(b'weights')
        made = Exported(toy().requires_grad_(False), folder / 'net.onnx', weights)
        export_network(made.net, made.path, name='my-toy', weights=weights)
        return made
    return export_toy


@pytest.mark.numeric
@pytest.mark.parametrize('toy', [AdaptiveToy, FlowToy, MatchingToy, RecurrentToy])
def test_toys(toy, exported):
    net, path, _ = exported(toy)
    assert_same_on_three_sizes(path, net)
    assert sorted(each.name for each in path.parent.iterdir()) == ['net.onnx', 'net.pth']


# ---------------------------------------------------------------- metadata of a file

def axes_of(values: Any) -> dict[str, list[str | int]]:
    return {value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
            for value in values}


def test_inputs_and_outputs_have_names(exported):
    graph = onnx.load(exported(RecurrentToy).path).graph
    small, large = ['batch', 3, 'height', 'width'], ['batch', 3, '2*height', '2*width']
    assert axes_of(graph.input) == {'lq': small, 'state_lq': small, 'state_hr': large}
    assert axes_of(graph.output) == {'hr': large, 'next_lq': small, 'next_hr': large}
    graph = onnx.load(exported(FlowToy).path).graph
    assert axes_of(graph.input) == {
        'lq': ['batch', 2, 3, 'height', 'width'], 'flow': ['batch', 1, 2, 2, 'height', 'width']}
    assert axes_of(graph.output) == {'hr': ['batch', 1, 3, '2*height', '2*width']}


def metadata(path: Path) -> dict[str, str]:
    return onnxruntime.InferenceSession(str(path)).get_modelmeta().custom_metadata_map


def test_metadata(exported, tmp_path):
    assert metadata(exported(FlowToy).path) == {
        'name': 'my-toy', 'network': 'FlowToy', 'scale': '2', 'temporal_scale': '2', 'num_frames': '2',
        'size_multiple': '4', 'color': 'yuv', 'first_output': '1', 'pads_ends': 'false', 'overlap': 'first',
        'recurrent': 'false', 'weights_sha256': hashlib.sha256(b'weights').hexdigest(),
        'basicsr_stvsr_version': __version__}
    facts = metadata(exported(RecurrentToy).path)
    assert (facts['recurrent'], facts['num_frames'], facts['init_state']) == ('true', '1', 'zeros')
    export_network(Toy(), tmp_path / 'net.onnx', name='toy')
    assert metadata(tmp_path / 'net.onnx')['weights_sha256'] == 'none'


def test_nothing_of_this_machine_is_told(exported):
    """The exporter notes for each operation by which line of which file it was made."""
    content = exported(AdaptiveToy).path.read_bytes()
    assert str(ROOT).encode() not in content and b'.py' not in content


# ---------------------------------------------------------------- what cannot be

def fixed_size(frame: Tensor) -> Tensor:
    return frame + torch.zeros(int(frame.shape[-2]), 1)


@pytest.mark.parametrize('net, reason', [
    (build_network({'type': 'BicubicDIS'}), r"BicubicDIS .*: color_spaces\.py, line \d+, 'planes = "),
    (Toy(lambda frame: frame + torch.linalg.qr(frame)[0].mean()), r'Toy cannot be exported: .*lacks .*aten\.linalg_qr'),
    (Toy(fixed_size), 'Toy cannot be exported: it only works with some frame sizes: .*rows'),
    (WindowToy(), r'WindowToy cannot be exported: the operation aten\.unfold: a window as large as'),
], ids=['leaves torch', 'not in ONNX', 'fixed size', 'wrongly written'])
def test_what_onnx_cannot_hold(net, reason, tmp_path):
    with pytest.raises(ExportError, match=reason) as error:
        export_network(net.requires_grad_(False), tmp_path / 'net.onnx', name='toy')
    assert '\n' not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_whole_clips_are_refused(tmp_path):
    net = Toy()
    net.spec = NetSpec(scale=2, num_frames=None)
    with pytest.raises(ExportError, match='Toy cannot be exported: it processes clips of any length at once'):
        export_network(net, tmp_path / 'net.onnx', name='toy')


def test_a_file_that_makes_something_else_is_not_written(tmp_path):
    (tmp_path / 'old.onnx').write_text('mine')
    for name in ('new.onnx', 'old.onnx'):
        with pytest.raises(CheckError, match=r'TwoFaced: for 1 x 16x17, .* differ by 0\.001, more than 0\.0001'):
            export_network(TwoFaced(), tmp_path / name, name='toy', overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ['old.onnx']
    assert (tmp_path / 'old.onnx').read_text() == 'mine'
    assert len(export_network(Toy(), tmp_path / 'old.onnx', name='toy', overwrite=True)) == 3
    assert onnx.load(tmp_path / 'old.onnx').graph.input[0].name == 'lq'


# ---------------------------------------------------------------- packages

@pytest.fixture
def without(monkeypatch) -> Callable[[str], None]:
    """Hides a package."""
    def hide(name: str) -> None:
        find = export.find_spec
        monkeypatch.setattr(export, 'find_spec', lambda wanted: None if wanted == name else find(wanted))
    return hide


def test_without_onnxscript_nothing_is_begun(without, tmp_path):
    without('onnxscript')
    with pytest.raises(ValueError, match=r"onnxscript cannot be found: pip install 'basicsr_stvsr\[onnx\]'"):
        export_network(Toy(), tmp_path / 'net.onnx', name='toy')


def test_without_onnxruntime_it_is_not_checked(without, tmp_path):
    without('onnxruntime')
    assert export_network(Toy(), tmp_path / 'net.onnx', name='toy') is None
    assert (tmp_path / 'net.onnx').is_file()


# ---------------------------------------------------------------- the command

@pytest.fixture
def tiny(tmp_path) -> list[str]:
    """The options of a network that is exported in seconds."""
    network = {'type': 'MSRResNet', 'num_feat': 4, 'num_block': 1, 'upscale': 2}
    (tmp_path / 'net.yml').write_text(json.dumps({'network_g': network}))  # JSON is YAML
    torch.save({'params': build_network(network).state_dict()}, tmp_path / 'net.pth')
    return ['--opt', str(tmp_path / 'net.yml'), '--weights', str(tmp_path / 'net.pth')]


def test_command(tiny, tmp_path, capsys, without):
    output = tmp_path / 'net.onnx'
    assert main(['export', str(output), *tiny]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(':')[0] for line in lines] == ['1 x 16x17', '2 x 17x16', '1 x 19x18', str(output)]
    assert all(float(line.split()[-1]) < 1e-4 for line in lines[:3])
    facts = {entry.key: entry.value for entry in onnx.load(output).metadata_props}
    assert facts['weights_sha256'] == hashlib.sha256((tmp_path / 'net.pth').read_bytes()).hexdigest()
    assert main(['export', str(output), *tiny]) == 2
    assert 'net.onnx: already exists; --overwrite replaces it' in capsys.readouterr().err
    without('onnxruntime')
    assert main(['export', str(output), *tiny, '--overwrite']) == 0
    assert 'was not checked: onnxruntime is not installed' in capsys.readouterr().err


def test_command_tells_what_cannot_be_exported(tmp_path, capsys):
    (tmp_path / 'net.yml').write_text('network_g: {type: BicubicDIS}')
    assert main(['export', str(tmp_path / 'net.onnx'), '--opt', str(tmp_path / 'net.yml')]) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: BicubicDIS cannot be exported: color_spaces.py, line')
    assert error.count('\n') == 1  # no page of graph, which torch logs
    assert not (tmp_path / 'net.onnx').exists()


def test_command_tells_of_a_failed_check(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export, 'TOLERANCE', -1.0)
    assert main(['export', str(tmp_path / 'net.onnx'), *tiny]) == 1
    assert 'error: MSRResNet: for 1 x 16x17, onnxruntime and torch differ by' in capsys.readouterr().err
    assert not list(tmp_path.glob('*.onnx*'))


@takes_long
def test_command_takes_models_of_the_zoo(tmp_path):
    assert main(['export', str(tmp_path / 'net.onnx'), '--model', 'adaptive-gan-small']) == 0
    facts = {entry.key: entry.value for entry in onnx.load(tmp_path / 'net.onnx').metadata_props}
    assert facts['name'] == 'adaptive-gan-small'
    assert facts['weights_sha256'] == hashlib.sha256((WEIGHTS / ZOO[facts['name']].weights).read_bytes()).hexdigest()
