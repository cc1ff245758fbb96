"""BasicSR's own networks restore clips, train in this package's model, and take part in MBNet."""
import json

import pytest
import torch
from basicsr.archs import build_network
from basicsr.models import build_model
from conftest import TINY_NET
from torch import nn
from video_util import moving_clip, write_video

from basicsr_stvsr import load_network
from basicsr_stvsr.archs.basicsr_networks import SPECS, adapt
from basicsr_stvsr.archs.spec import NetSpec, spec_of
from basicsr_stvsr.inference.tiles import Tiling, split_into_tiles
from basicsr_stvsr.inference.windows import restore_clip
from basicsr_stvsr.io.video_reader import open_source
from stvsr.main import main

IMAGE = {'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': 1}
WINDOW = {'first_output': 2, 'pads_ends': True}
# Name in BasicSR -> smallest useful options, and what of the spec differs from {color: rgb, num_frames: 1}
NETWORKS = {
    'MSRResNet': ({'num_feat': 4, 'num_block': 1, 'upscale': 4}, {'scale': 4}),
    'EDSR': ({**IMAGE, 'upscale': 2}, {'scale': 2}),
    'RCAN': ({'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 16, 'num_group': 1, 'num_block': 1, 'upscale': 3,
              'rgb_mean': [0.4, 0.4, 0.4]}, {'scale': 3}),
    'RIDNet': ({'in_channels': 3, 'mid_channels': 16, 'out_channels': 3, 'num_block': 1, 'img_range': 1.0},
               {'scale': 1}),
    'ECBSR': ({'num_in_ch': 3, 'num_out_ch': 3, 'num_block': 1, 'num_channel': 4, 'with_idt': False,
               'act_type': 'prelu', 'scale': 2}, {'scale': 2}),
    'SwinIR': ({'img_size': 8, 'embed_dim': 8, 'depths': [2], 'num_heads': [2], 'window_size': 4, 'upscale': 2,
                'upsampler': 'pixelshuffledirect'}, {'scale': 2, 'size_multiple': 4}),
    'RRDBNet': ({**IMAGE, 'num_grow_ch': 2, 'scale': 2}, {'scale': 2, 'size_multiple': 2}),
    'SRVGGNetCompact': ({'num_feat': 4, 'num_conv': 1, 'upscale': 4}, {'scale': 4}),
    'EDVR': ({'num_feat': 8, 'num_frame': 5, 'deformable_groups': 2, 'num_extract_block': 1,
              'num_reconstruct_block': 1}, {'scale': 4, 'num_frames': 5, 'size_multiple': 4, **WINDOW}),
    'DUF': ({'scale': 2, 'num_layer': 16}, {'scale': 2, 'num_frames': 7, **WINDOW, 'first_output': 3}),
    'TOFlow': ({}, {'scale': 1, 'num_frames': 7, 'size_multiple': 16, **WINDOW, 'first_output': 3}),
    'BasicVSR': ({'num_feat': 4, 'num_block': 1}, {'scale': 4, 'num_frames': None, 'min_size': 33, 'min_frames': 2}),
    'IconVSR': ({'num_feat': 8, 'num_block': 1}, {
        'scale': 4, 'num_frames': None, 'size_multiple': 4, 'min_size': 33, 'min_frames': 5}),
    'BasicVSRPlusPlus': ({'mid_channels': 8, 'num_blocks': 1}, {
        'scale': 4, 'num_frames': None, 'min_size': 64, 'min_frames': 2}),
}
pytestmark = [pytest.mark.usefixtures('tiny_flow'),
              pytest.mark.filterwarnings('ignore:Deformable alignment module', 'ignore:torch.meshgrid')]


def build(name: str) -> nn.Module:
    """A network of BasicSR, always with the same weights, as BasicSR calls it."""
    torch.manual_seed(0)
    return build_network({'type': name, **NETWORKS[name][0]}).eval()


def model_options(network: dict, scale: int, **options) -> dict:
    return {
        'name': 'theirs', 'model_type': 'STVSRModel', 'scale': scale, 'num_gpu': 0, 'manual_seed': 0, 'dist': False,
        'rank': 0, 'world_size': 1, 'is_train': True, 'path': {}, 'network_g': network,
        'datasets': {'train': {}}, 'val': {},
        'train': {'optim_g': {'type': 'Adam', 'lr': 1e-3}, 'total_iter': 2, 'pixel_opt': {'type': 'L1Loss'},
                  'scheduler': {'type': 'MultiStepLR', 'milestones': [100]}}, **options}


# ---------------------------------------------------------------- every network

def test_all_networks_of_frames_are_known():
    """All of basicsr.archs but discriminators, parts, and networks for faces and for noise as input."""
    from basicsr.utils.registry import ARCH_REGISTRY
    others = {'DFDNet', 'HiFaceGAN', 'HiFaceGANDiscriminator', 'SpyNet', 'StyleGAN2Discriminator',
              'StyleGAN2Generator', 'UNetDiscriminatorSN', 'VGGFeatureExtractor', 'VGGStyleDiscriminator'}
    names = {entry.__name__ for _, entry in ARCH_REGISTRY if entry.__module__.startswith('basicsr.')}
    assert SPECS.keys() == NETWORKS.keys() == names - others


@pytest.mark.parametrize('name', NETWORKS)
def test_they_train_two_steps_and_restore_six_frames(name):
    options, expected = NETWORKS[name]
    model = build_model(model_options({'type': name, **options}, expected['scale']))
    net = model.net_g
    assert spec_of(net) == NetSpec(**{'num_frames': 1, 'color': 'rgb', **expected})
    assert net.state_dict().keys() == build(name).state_dict().keys()
    num, scale, side = net.spec.num_frames or net.spec.min_frames, net.spec.scale, max(16, net.spec.min_size + 3 & ~3)
    batch = {'lq': torch.rand(1, num, 3, side, side), 'gt': torch.rand(1, num, 3, scale * side, scale * side)}
    before = {key: value.clone() for key, value in net.state_dict().items()}
    for step in (1, 2):
        model.feed_data(batch)
        model.optimize_parameters(step)
    assert any(not torch.equal(before[key], value) for key, value in net.state_dict().items())
    lq = torch.rand(1, 6, 3, 17, 18)  # less than some take
    restored = restore_clip(net.eval(), lq)
    assert restored.shape == (1, 6, 3, 17 * scale, 18 * scale) and restored.std() > 0


@torch.no_grad()
@pytest.mark.parametrize('name', NETWORKS)
def test_frames_are_those_of_basicsr(name):
    """Of images each frame; of windows the middle one, which sees all neighbours; of clips all."""
    plain, net = build(name), adapt(build(name))
    spec, side = spec_of(net), max(16, spec_of(net).min_size + 3 & ~3)
    lq = torch.rand(2 if spec.num_frames else 1, 7, 3, side, side)
    clip = restore_clip(net, lq)
    if spec.num_frames == 1:
        expected = torch.stack([plain(frame) for frame in lq.unbind(1)], dim=1)
    elif spec.num_frames:
        clip, middle = clip[:, 3], spec.num_frames // 2
        expected = plain(lq[:, 3 - middle:4 + middle].contiguous())
        net(lq[:, 3 - middle:4 + middle])  # BasicSR's own call fails for a part of a clip
    else:
        expected = plain(lq)
    torch.testing.assert_close(clip, expected.clamp(0, 1), rtol=0, atol=1e-5)


@pytest.mark.parametrize('name', ['BasicVSR', 'IconVSR', 'BasicVSRPlusPlus'])
def test_scenes_of_one_frame_are_restored(name):
    net = adapt(build(name))
    lq = torch.rand(1, 7, 3, 20, 24)
    clip = restore_clip(net, lq, cuts=[1])
    torch.testing.assert_close(clip[:, :1], restore_clip(net, lq[:, :1]))
    torch.testing.assert_close(clip[:, 1:], restore_clip(net, lq[:, 1:]))


def test_a_clip_of_equal_frames_does_not_change_the_next():
    """BasicVSR++ keeps on taking clips for mirrored ones."""
    net, lq = adapt(build('BasicVSRPlusPlus')), torch.rand(1, 4, 3, 64, 64)
    first = restore_clip(net, lq)
    restore_clip(net, lq[:, :1].expand(-1, 4, -1, -1, -1))
    assert torch.equal(restore_clip(net, lq), first)


def test_no_tile_is_smaller_than_a_network_takes():
    tiles = split_into_tiles((64, 200), Tiling((2, 9), 0), 4, least=33)
    sizes = [(tile.rows.end - tile.rows.start, tile.columns.end - tile.columns.start) for tile in tiles]
    assert sizes == [(64, 40)] * 5


@pytest.mark.parametrize('num_channels, color', [(1, 'y'), (3, 'rgb')])
@pytest.mark.parametrize('name', ['RRDBNet', 'SRVGGNetCompact', 'ECBSR'])
def test_networks_of_one_channel_take_luma(name, num_channels, color):
    network = {'type': name, **NETWORKS[name][0], 'num_in_ch': num_channels, 'num_out_ch': num_channels}
    net = load_network(network, device='cpu')
    assert net.spec.color == color and restore_clip(net, torch.rand(1, 2, num_channels, 8, 8)).shape[2] == num_channels


@pytest.mark.parametrize(('name', 'change', 'batch', 'message'), [
    ('BasicVSR', {}, (5, 32), 'needs LR frames of at least 33x33, but these are 32x32: set gt_size in the data set to '
     'at least 132'),
    ('IconVSR', {}, (4, 64), 'needs windows of 5 LR frames, but a sample has 4; see num_frame'),
    ('EDVR', {'center_frame_idx': 0}, None, 'center_frame_idx must be the middle of num_frame 5, but is 0'),
    ('UNetDiscriminatorSN', {'num_in_ch': 3, 'num_feat': 4}, None,
     'does not state what it needs: describe it by arch_spec'),
])
def test_what_does_not_fit_is_refused(name, change, batch, message):
    network = {'type': name, **NETWORKS.get(name, ({},))[0], **change}
    with pytest.raises(ValueError, match=message):
        model = build_model(model_options(network, 4))
        num, side = batch
        model.feed_data({'lq': torch.rand(1, num, 3, side, side), 'gt': torch.rand(1, num, 3, 4 * side, 4 * side)})


# ---------------------------------------------------------------- networks of others

class Doubler(nn.Module):
    """Called like BasicSR's networks, and unknown here."""

    def __init__(self, kind: str = 'image'):
        super().__init__()
        self.kind, self.body = kind, nn.Conv2d(3, 12, 3, padding=1)

    def forward(self, x):
        assert x.dim() == (4 if self.kind == 'image' else 5) and min(x.shape[-2:]) >= 8
        frames = x[:, x.shape[1] // 2] if self.kind == 'window' else x.flatten(0, -4)
        restored = nn.functional.pixel_shuffle(self.body(frames), 2)
        return restored.unflatten(0, x.shape[:2]) if self.kind == 'clip' else restored


@pytest.mark.parametrize('arch_spec', [
    {'input': 'image'}, {'input': 'window', 'num_frame': 3}, {'input': 'clip', 'min_frames': 2}])
def test_arch_spec_describes_a_network(arch_spec):
    net = adapt(Doubler(arch_spec['input']), {'scale': 2, 'min_size': 8, **arch_spec})
    lq = torch.rand(1, 6, 3, 7, 9)
    expected = [nn.functional.pixel_shuffle(net.body(frame), 2)[..., :-1] for frame in lq.unbind(1)]
    restored = restore_clip(net, lq)
    assert restored.shape == (1, 6, 3, 14, 18)
    torch.testing.assert_close(restored[..., :10, :14], torch.stack(expected, 1)[..., :10, :14].clamp(0, 1))


@pytest.mark.parametrize(('net', 'arch_spec', 'message'), [
    (Doubler(), {'input': 'window', 'scale': 2, 'num_frame': 4}, 'arch_spec.num_frame must be odd'),
    (Doubler(), {'input': 'image', 'scale': 2, 'num_frame': 3}, 'arch_spec.num_frame goes with input window'),
    (Doubler(), {'input': 'picture', 'scale': 2}, 'arch_spec.input must be'),
    (load_network({'type': 'BicubicAverage'}, device='cpu'), {'input': 'image', 'scale': 4}, 'states what it needs'),
])
def test_a_wrong_arch_spec_is_refused(net, arch_spec, message):
    with pytest.raises(ValueError, match=message):
        adapt(net, arch_spec)


def test_other_networks_stay_as_they_are():
    net = nn.Conv2d(3, 3, 3)
    assert adapt(net) is net and not hasattr(net, 'spec')


# ---------------------------------------------------------------- released weights

@pytest.mark.parametrize('name', ['EDVR', 'RRDBNet', 'SRVGGNetCompact', 'BasicVSR'])
@pytest.mark.parametrize('layout', [('params',), ('params_ema',), ('params', 'params_ema'), ()])
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_weights_of_basicsr_load(name, layout, prefix, tmp_path):
    """As published: EDVR's and BasicVSR's with params, Real-ESRGAN's with params_ema, or of a DDP training."""
    torch.manual_seed(1)
    trained = build_network({'type': name, **NETWORKS[name][0]})
    state = {f'{prefix}{key}': value for key, value in trained.state_dict().items()}
    poor = {key: torch.zeros_like(value) for key, value in state.items()}
    torch.save({key: state if key == layout[-1] else poor for key in layout} if layout else state, tmp_path / 'net.pth')
    net = load_network({'type': name, **NETWORKS[name][0]}, tmp_path / 'net.pth', device='cpu')
    for key, value in trained.state_dict().items():
        assert torch.equal(net.state_dict()[key], value), key


# ---------------------------------------------------------------- in MBNet

@pytest.mark.parametrize(('name', 'change'), [
    ('MSRResNet', {}), ('RRDBNet', {'scale': 4}), ('EDVR', {}), ('BasicVSR', {}),
    pytest.param('IconVSR', {}, marks=pytest.mark.slow)])
def test_they_can_be_the_vsr_net_of_mbnet(name, change):
    network = {'type': name, **NETWORKS[name][0], **change}
    torch.manual_seed(0)
    net = build_network({**TINY_NET, 'vsr_net': network})
    alone = adapt(build_network(network))
    alone.load_state_dict(net.vsr_net.net.state_dict())
    side = max(16, spec_of(net).min_size + 3 & ~3)
    lq = torch.rand(1, 2, 3, side, side)
    frames = net(lq)
    assert frames.shape == (1, 3, 3, 4 * side, 4 * side)
    # Its convolution of the feedback starts at zero: the given frames are those of the network alone
    torch.testing.assert_close(frames[:, ::2].clamp(0, 1), restore_clip(alone, lq), rtol=0, atol=1e-5)
    frames.sum().backward()
    assert not [key for key, parameter in net.named_parameters() if parameter.grad is None]
    assert net.vsr_net.correct.weight.grad.abs().sum() > 0


def test_one_image_network_of_mbnet_restores_a_frame_once():
    net = build_network({**TINY_NET, 'num_iters': 1, 'feedback': 'none',
                         'vsr_net': {'type': 'MSRResNet', **NETWORKS['MSRResNet'][0]}}).eval()
    assert net.spec.sharing == 'windows'
    calls = []
    net.vsr_net.net.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))
    assert restore_clip(net, torch.rand(1, 4, 3, 16, 16)).shape[1] == 7 and calls == [2, 1, 1]


@pytest.mark.parametrize(('vsr_net', 'message'), [
    ({'type': 'MSRResNet', 'upscale': 2}, 'MSRResNet enlarges frames by 2, but MBNet by 4'),
    ({'type': 'SRVGGNetCompact', 'num_in_ch': 1, 'num_out_ch': 1}, 'must take RGB frames'),
    ({'type': 'UNetDiscriminatorSN', 'num_in_ch': 3, 'num_feat': 4}, 'does not state what it needs'),
])
def test_networks_that_do_not_suit_mbnet_are_refused(vsr_net, message):
    with pytest.raises(ValueError, match=message):
        build_network({**TINY_NET, 'vsr_net': vsr_net})


# ---------------------------------------------------------------- whole trainings

@pytest.mark.parametrize('network', [
    {'type': 'EDSR', **IMAGE, 'upscale': 4}, {'type': 'EDVR', **NETWORKS['EDVR'][0]},
])
def test_they_train_and_are_validated(train_here, clips, network):
    data = {'dataroot_gt': str(clips), 'temporal_scale': 1}
    folder = train_here({
        **{key: value for key, value in model_options(network, 4, path={}).items()
           if key not in ('dist', 'rank', 'world_size', 'is_train')},
        'datasets': {
            'train': {'name': 'clips', 'type': 'STVSRClipDataset', **data, 'num_frame': 5, 'gt_size': 32,
                      'num_worker_per_gpu': 0, 'batch_size_per_gpu': 1},
            'val': {'name': 'clips', 'type': 'STVSRTestDataset', **data, 'num_frame': 3}},
        'val': {'val_freq': 2, 'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}},
        'logger': {'print_freq': 1, 'save_checkpoint_freq': 2, 'use_tb_logger': False}})
    assert (folder / 'models' / 'net_g_2.pth').is_file() and 'psnr' in (folder / 'metrics.jsonl').read_text()


@pytest.mark.parametrize('network', [
    {'type': 'MSRResNet', 'num_feat': 8, 'num_block': 1}, {'type': 'EDVR', 'num_feat': 8, 'num_frame': 5},
    {'type': 'BasicVSR', 'num_feat': 8, 'num_block': 1}], ids=lambda network: network['type'])
def test_they_restore_a_video_file(tmp_path, network):
    net = build_network(dict(network))
    torch.save({'params': net.state_dict()}, tmp_path / 'net.pth')
    (tmp_path / 'net.yml').write_text(json.dumps({'name': 'a', 'scale': 4, 'network_g': network}))
    write_video(tmp_path / 'in.mkv', moving_clip(6, height=36, width=48))
    assert main(['restore', str(tmp_path / 'in.mkv'), str(tmp_path / 'out.mkv'), '--opt', str(tmp_path / 'net.yml'),
                 '--weights', str(tmp_path / 'net.pth'), '--device', 'cpu']) == 0
    with open_source(tmp_path / 'out.mkv') as source:
        assert [frame.image.shape for frame in source.frames()] == [(144, 192, 3)] * 6
