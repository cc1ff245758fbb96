"""BasicSR's own networks restore clips, and train in this package's model."""
import pytest
import torch
from basicsr.archs import build_network

from basicsr_stvsr import load_network
from basicsr_stvsr.archs.basicsr_networks import SPECS, adapt
from basicsr_stvsr.archs.spec import NetSpec, spec_of
from basicsr_stvsr.inference.windows import restore_clip

IMAGE_NETWORKS = {
    'MSRResNet': ({'num_feat': 4, 'num_block': 1, 'upscale': 4}, 4),
    'EDSR': ({'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': 1, 'upscale': 2}, 2),
    'RCAN': ({'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 16, 'num_group': 1, 'num_block': 1, 'upscale': 3,
              'rgb_mean': [0.4, 0.4, 0.4]}, 3),
    'RRDBNet': ({'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': 1, 'num_grow_ch': 2, 'scale': 2}, 2),
    'SRVGGNetCompact': ({'num_feat': 4, 'num_conv': 1, 'upscale': 4}, 4),
}


@torch.no_grad()
@pytest.mark.parametrize('name', IMAGE_NETWORKS)
def test_a_network_of_images_restores_each_frame(name):
    """As it is called by BasicSR, on the frames one by one; of odd sizes, too."""
    options, scale = IMAGE_NETWORKS[name]
    torch.manual_seed(0)
    plain = build_network({'type': name, **options}).eval()
    torch.manual_seed(0)
    net = load_network({'type': name, **options}, device='cpu')
    assert spec_of(net).scale == scale and net.state_dict().keys() == plain.state_dict().keys()
    lq = torch.rand(2, 3, 3, 12, 10)
    expected = torch.stack([plain(frame) for frame in lq.unbind(1)], dim=1).clamp(0, 1)
    torch.testing.assert_close(restore_clip(net, lq), expected, rtol=0, atol=1e-5)
    assert restore_clip(net, lq[..., :9]).shape == (2, 3, 3, 12 * scale, 9 * scale)


@torch.no_grad()
@pytest.mark.parametrize('name, options, spec', [
    ('BasicVSR', {'num_feat': 4, 'num_block': 1}, NetSpec(scale=4, num_frames=None, color='rgb')),
    ('DUF', {'scale': 2, 'num_layer': 16},
     NetSpec(scale=2, num_frames=7, first_output=3, pads_ends=True, color='rgb')),
    ('TOFlow', {}, NetSpec(scale=1, num_frames=7, first_output=3, pads_ends=True, size_multiple=16, color='rgb')),
])
def test_networks_of_clips(name, options, spec):
    torch.manual_seed(0)
    plain = build_network({'type': name, **options}).eval()
    torch.manual_seed(0)
    net = adapt(build_network({'type': name, **options})).eval()
    assert spec_of(net) == spec
    size = 64 if name == 'BasicVSR' else 16  # SpyNet halves it five times
    lq = torch.rand(1, 7, 3, size, size)
    clip, expected = restore_clip(net, lq), plain(lq).clamp(0, 1)
    assert clip.shape == (1, 7, 3, size * spec.scale, size * spec.scale)
    if spec.num_frames:
        clip = clip[:, 3]  # the middle one, of which the network sees all neighbours
    torch.testing.assert_close(clip, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize('num_channels, color', [(1, 'y'), (3, 'rgb')])
@pytest.mark.parametrize('network', [
    {'type': 'RRDBNet', 'num_feat': 4, 'num_block': 1, 'num_grow_ch': 2, 'scale': 2},
    {'type': 'SRVGGNetCompact', 'num_feat': 4, 'num_conv': 1},
])
def test_networks_of_one_channel_take_luma(network, num_channels, color):
    net = load_network({**network, 'num_in_ch': num_channels, 'num_out_ch': num_channels}, device='cpu')
    assert net.spec.color == color and restore_clip(net, torch.rand(1, 2, num_channels, 8, 8)).shape[2] == num_channels


def test_every_entry_is_a_network_of_basicsr():
    from basicsr.utils.registry import ARCH_REGISTRY
    names = {entry.__name__ for _, entry in ARCH_REGISTRY if entry.__module__.startswith('basicsr.')}
    assert SPECS.keys() <= names


def test_other_networks_stay_as_they_are():
    net = torch.nn.Conv2d(3, 3, 3)
    assert adapt(net) is net and not hasattr(net, 'spec')


@pytest.mark.parametrize('network, num_frame', [
    ({'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': 1, 'upscale': 4}, 1),
    pytest.param({'type': 'DUF', 'scale': 4, 'num_layer': 16}, 7, marks=pytest.mark.slow),
])
def test_they_train_and_are_validated(train_here, clips, network, num_frame):
    data = {'dataroot_gt': str(clips), 'temporal_scale': 1}
    folder = train_here({
        'name': 'theirs', 'model_type': 'STVSRModel', 'scale': 4, 'num_gpu': 0, 'manual_seed': 0,
        'datasets': {
            'train': {'name': 'clips', 'type': 'STVSRClipDataset', **data, 'num_frame': num_frame, 'gt_size': 32,
                      'interval_list': [1], 'num_worker_per_gpu': 0, 'batch_size_per_gpu': 1},
            'val': {'name': 'clips', 'type': 'STVSRTestDataset', **data, 'num_frame': 3}},
        'network_g': network, 'path': {},
        'train': {'ema_decay': 0.9, 'optim_g': {'type': 'Adam', 'lr': 1e-3}, 'total_iter': 2,
                  'scheduler': {'type': 'CosineAnnealingRestartLR', 'periods': [2], 'restart_weights': [1]},
                  'pixel_opt': {'type': 'L1Loss'}},
        'val': {'val_freq': 2, 'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}},
        'logger': {'print_freq': 1, 'save_checkpoint_freq': 2, 'use_tb_logger': False}})
    assert (folder / 'models' / 'net_g_2.pth').is_file() and 'psnr' in (folder / 'metrics.jsonl').read_text()
