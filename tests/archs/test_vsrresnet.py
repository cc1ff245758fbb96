"""VSRResNet and its discriminator: sizes of the source's description, layers by hand, MATLAB's bicubic."""
import re

import cv2
import numpy as np
import pytest
import torch
from basicsr.archs import build_network
from basicsr.utils.matlab_functions import imresize
from conftest import ROOT, write_texture
from torch.nn import functional as F

from basicsr_stvsr.archs.resize import upscale_bicubic
from basicsr_stvsr.archs.spec import NetSpec
from basicsr_stvsr.archs.vsrresnet_arch import ResBlock, VSRResDiscriminator, VSRResNet
from basicsr_stvsr.inference.tiles import Tiling
from basicsr_stvsr.inference.windows import restore_clip

pytestmark = pytest.mark.numeric


def number_of_parameters(net: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def small_net(**options) -> VSRResNet:
    return VSRResNet(**{'scale': 2, 'num_feat': 4, 'num_block': 2, **options}).eval()


# ---------------------------------------------------------------- bicubic

@pytest.mark.parametrize('scale', [2, 3, 4])
@pytest.mark.parametrize('size', [(9, 14), (4, 5), (3, 2)])
def test_bicubic_is_matlabs(scale, size):
    """BasicSR's imresize is MATLAB's; odd sizes, and frames that are hardly larger than the kernel."""
    clip = torch.rand(2, 3, 1, *size)
    enlarged = upscale_bicubic(clip, scale)
    assert enlarged.shape == (2, 3, 1, scale * size[0], scale * size[1])
    for ours, frame in zip(enlarged.flatten(0, 1), clip.flatten(0, 1), strict=True):
        torch.testing.assert_close(ours, imresize(frame, scale), rtol=0, atol=1e-5)


def test_bicubic_by_hand():
    """When a step edge is doubled, new pixels at distances 1/4, 3/4, 5/4 and 7/4 have the weights of Keys' cubic."""
    step = torch.tensor([0., 0, 0, 1, 1, 1]).expand(1, 1, 6, 6)
    row = upscale_bicubic(step, 2)[0, 0, 5]
    k = {1: 0.8671875, 3: 0.2265625, 5: -0.0703125, 7: -0.0234375}  # (1.5 x^3 - 2.5 x^2 + 1, ...) at x = n / 4
    assert sum(k.values()) == 1
    expected = [0, 0, 0, k[7], k[5], k[3] + k[7], 1 - k[3] - k[7], 1 - k[5], 1 - k[7], 1, 1, 1]
    torch.testing.assert_close(row, torch.tensor(expected), rtol=0, atol=1e-6)


def test_bicubic_stays_exact_under_autocast():
    clip = torch.rand(1, 5, 1, 6, 7)
    exact = upscale_bicubic(clip.double(), 4)
    with torch.autocast('cpu', torch.bfloat16):
        torch.testing.assert_close(upscale_bicubic(clip, 4).double(), exact, rtol=0, atol=1e-6)
    assert upscale_bicubic(clip.bfloat16(), 4).dtype == torch.bfloat16


def test_bicubic_has_gradients():
    assert torch.autograd.gradcheck(
        lambda x: upscale_bicubic(x, 3), torch.rand(1, 3, 4, dtype=torch.double, requires_grad=True))


# ---------------------------------------------------------------- generator

@pytest.mark.parametrize(('options', 'expected'), [
    (dict(num_in_ch=1), 1_293_441),
    (dict(num_in_ch=1, first_conv='separate'), 1_296_001),
    (dict(num_in_ch=1, first_conv='early'), 1_111_361),
    (dict(num_in_ch=3), 1_295_747),
    (dict(num_in_ch=3, first_conv='separate'), 1_302_915),
    (dict(num_in_ch=3, first_conv='early'), 1_118_275),
])
@pytest.mark.parametrize('block_relu', ['after_sum', 'before_sum'])
@pytest.mark.parametrize('scale', [2, 3, 4])
def test_number_of_parameters(options, expected, block_relu, scale):
    with torch.device('meta'):
        net = VSRResNet(scale=scale, block_relu=block_relu, **options)
    assert number_of_parameters(net) == expected


@torch.no_grad()
@pytest.mark.parametrize('scale', [2, 3, 4])
@pytest.mark.parametrize(('num_in_ch', 'color'), [(1, 'y'), (3, 'rgb')])
def test_the_default_network_by_its_layers(scale, num_in_ch, color):
    """Enlarge, 3x3 + ReLU of each frame, fuse, blocks of ReLU(x + conv(ReLU(conv x))), 3x3: nothing else."""
    net = small_net(scale=scale, num_in_ch=num_in_ch)
    lq = torch.rand(2, 5, num_in_ch, 6, 7)
    w = net.state_dict()

    def conv(x, name):
        return F.conv2d(x, w[f'{name}.weight'], w[f'{name}.bias'], padding=1)

    frames = [torch.stack([imresize(frame, scale) for frame in lq[:, t]]) for t in range(5)]
    x = conv(torch.cat([conv(frame, 'first.conv').relu() for frame in frames], dim=1), 'first.fusion').relu()
    for block in ('blocks.0', 'blocks.1'):
        x = (x + conv(conv(x, f'{block}.conv1').relu(), f'{block}.conv2')).relu()
    output = net(lq)
    assert output.shape == (2, 1, num_in_ch, 6 * scale, 7 * scale)
    torch.testing.assert_close(output[:, 0], conv(x, 'last'), rtol=1e-4, atol=1e-6)
    assert net.spec == NetSpec(scale=scale, num_frames=5, first_output=2, pads_ends=True, color=color,
                               sharing='features')


@torch.no_grad()
def test_where_the_last_relu_of_a_block_stands():
    """A block that only takes away: after the sum x - 2 becomes no less than 0, before it nothing is left to add."""
    x = torch.tensor([1., 3.]).view(1, 1, 1, 2)
    for relu, expected in (('after_sum', [0, 1]), ('before_sum', [1, 3])):
        block = ResBlock(1, relu)
        for layer in (block.conv1, block.conv2):
            layer.weight.zero_()
            layer.bias.zero_()
        block.conv2.bias.fill_(-2)
        assert block(x).flatten().tolist() == expected


@torch.no_grad()
def test_ways_to_join_frames():
    """The shared convolution sees frames alike; five separate ones with its weights do the same, and else do not."""
    frames = torch.rand(1, 5, 1, 4, 5)
    shared, separate = small_net(), small_net(first_conv='separate')
    weights = shared.state_dict()
    for i in range(5):
        for kind in ('weight', 'bias'):
            weights[f'first.convs.{i}.{kind}'] = weights[f'first.conv.{kind}']
    separate.load_state_dict({name: weights[name] for name in separate.state_dict()})
    torch.testing.assert_close(shared(frames), separate(frames), rtol=1e-4, atol=1e-6)
    separate.first.convs[3].weight.mul_(-1)
    assert not torch.allclose(shared(frames), separate(frames), atol=1e-4)

    early = small_net(first_conv='early')
    x = F.conv2d(upscale_bicubic(frames, 2)[:, :, 0], early.first.fusion.weight, early.first.fusion.bias, padding=1)
    torch.testing.assert_close(early.first(upscale_bicubic(frames, 2).unbind(1)), x.relu())


@torch.no_grad()
@pytest.mark.parametrize('first_conv', ['shared', 'separate', 'early'])
def test_every_frame_counts(first_conv):
    net = small_net(first_conv=first_conv, num_feat=8)
    lq = torch.rand(1, 5, 1, 6, 6)
    output = net(lq)
    for t in range(5):
        changed = lq.clone()
        changed[:, t] += 1
        assert (net(changed) - output).abs().max() > 1e-4


@torch.no_grad()
def test_add_center_begins_with_bicubic():
    net = small_net(scale=3, add_center=True)
    lq = torch.rand(1, 5, 1, 6, 7)
    torch.testing.assert_close(net(lq)[0, 0], imresize(lq[0, 2], 3), rtol=0, atol=1e-5)


def test_checkpoint_changes_nothing():
    plain, saving = small_net(), small_net(checkpoint=True)
    saving.load_state_dict(plain.state_dict())
    lq = torch.rand(1, 5, 1, 6, 7)
    for net in (plain, saving):
        net.train()(lq).square().mean().backward()
    for ours, theirs in zip(saving.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@torch.no_grad()
@pytest.mark.parametrize('num_frames', [1, 3, 5, 7])
def test_a_clip_of_any_length(num_frames):
    """Every frame is the middle one of five, of which those beyond the ends are the first and the last again."""
    net = small_net(add_center=True)
    net.last.weight.normal_(std=0.05)
    clip = torch.rand(1, num_frames, 1, 6, 7)
    padded = torch.cat([clip[:, :1]] * 2 + [clip] + [clip[:, -1:]] * 2, dim=1)
    expected = torch.cat([net(padded[:, t:t + 5]) for t in range(num_frames)], dim=1).clamp(0, 1)
    torch.testing.assert_close(restore_clip(net, clip), expected)


@torch.no_grad()
def test_tiles_with_enough_overlap_change_nothing():
    """A pixel sees 2 LR pixels by the bicubic, 1 + 1 + 2 * 2 + 1 HR pixels by the convolutions; 6 LR in all at x2."""
    net = small_net()
    clip = torch.rand(1, 5, 1, 24, 26)
    whole = restore_clip(net, clip)
    torch.testing.assert_close(restore_clip(net, clip, tiling=Tiling((2, 2), 6)), whole, rtol=0, atol=1e-6)
    assert (restore_clip(net, clip, tiling=Tiling((2, 2), 0)) - whole).abs().max() > 1e-4


@pytest.mark.parametrize(('options', 'message'), [
    (dict(scale=1), 'scale must be one of 2, 3, 4, but is 1'),
    (dict(scale=8), 'scale must be one of 2, 3, 4, but is 8'),
    (dict(num_in_ch=2), 'num_in_ch must be one of 1, 3, but is 2'),
    (dict(first_conv='late'), "first_conv must be one of shared, separate, early, but is 'late'"),
    (dict(block_relu='none'), "block_relu must be one of after_sum, before_sum, but is 'none'"),
])
def test_options_that_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        VSRResNet(**options)


@pytest.mark.parametrize('shape', [(1, 4, 1, 8, 8), (1, 5, 3, 8, 8), (1, 5, 8, 8)])
def test_inputs_that_are_refused(shape):
    with pytest.raises(ValueError, match=r'five frames of 1 channels \(y\), \(B, 5, 1, H, W\), but got \(1, '):
        small_net()(torch.rand(shape))


# ---------------------------------------------------------------- discriminator

@pytest.mark.parametrize(('patch_size', 'expected'), [(36, 376_961), (64, 386_945)])
def test_number_of_parameters_of_the_discriminator(patch_size, expected):
    assert number_of_parameters(VSRResDiscriminator(patch_size=patch_size)) == expected


@torch.no_grad()
@pytest.mark.parametrize('patch_size', [36, 66])
@pytest.mark.parametrize('num_in_ch', [1, 3])
def test_the_discriminator_by_its_layers(patch_size, num_in_ch):
    """Strided 3x3, batch norm by the batch's own statistics, leaky ReLU of slope 0.2; flatten; one linear layer."""
    net = build_network({'type': 'VSRResDiscriminator', 'num_feat': 4, 'patch_size': patch_size,
                         'num_in_ch': num_in_ch}).train()
    frames = torch.rand(3, num_in_ch, patch_size, patch_size)
    w, x = net.state_dict(), frames
    for i in range(3):
        x = F.conv2d(x, w[f'body.{i}.0.weight'], w[f'body.{i}.0.bias'], stride=2, padding=1)
        mean, var = x.mean(dim=(0, 2, 3), keepdim=True), x.var(dim=(0, 2, 3), keepdim=True, correction=0)
        x = (x - mean) / (var + 1e-5).sqrt()
        x = torch.where(x > 0, x, 0.2 * x)
    assert x.shape[1:] == (16, -(-patch_size // 8), -(-patch_size // 8))
    score = x.flatten(1) @ w['score.weight'].T + w['score.bias']
    torch.testing.assert_close(net(frames), score, rtol=1e-3, atol=1e-4)


def test_the_discriminator_learns_to_tell_frames_apart():
    """Noise from flat frames, in a few steps, by the loss that it is trained with."""
    net = VSRResDiscriminator(num_feat=4, patch_size=16)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    labels = torch.tensor([1.] * 8 + [0.] * 8).view(-1, 1)
    for _ in range(15):
        frames = torch.cat([torch.rand(8, 1, 16, 16), torch.rand(8, 1, 1, 1).expand(-1, -1, 16, 16)])
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(net(frames), labels).backward()
        optimizer.step()
    assert ((net(frames) > 0).float() == labels).all()


@pytest.mark.parametrize('shape', [(1, 1, 64, 36), (1, 3, 36, 36), (1, 1, 1, 36, 36)])
def test_frames_that_the_discriminator_refuses(shape):
    with pytest.raises(ValueError, match=r'frames of \(B, 1, 36, 36\), but got \(1, .*patch_size is its side'):
        VSRResDiscriminator(patch_size=36, num_feat=4)(torch.rand(shape))


def test_options_that_the_discriminator_refuses():
    with pytest.raises(ValueError, match='patch_size must be at least 8, but is 4'):
        VSRResDiscriminator(patch_size=4)
    with pytest.raises(ValueError, match='num_in_ch must be one of 1, 3, but is 5'):
        VSRResDiscriminator(num_in_ch=5)


# ---------------------------------------------------------------- docs/adaptive_gan.md

def test_the_page_in_python(tmp_path, monkeypatch):
    """Its code runs on three frames, and of a network that has learned nothing gives them back in colour, larger."""
    monkeypatch.chdir(tmp_path)
    write_texture(tmp_path / 'frames', num_frames=3, size=(24, 40), width=32, step=1)
    small = 'VSRResNet(scale=4, num_feat=4, num_block=1, add_center=True)'
    torch.save({'params': eval(small).state_dict()}, 'net_g_latest.pth')
    page = (ROOT / 'docs' / 'adaptive_gan.md').read_text().replace('VSRResNet(scale=4)', small)
    names: dict = {}
    for code in re.findall(r'^```python\n(.*?)^```$', page, re.MULTILINE | re.DOTALL):
        exec(code, names)
    rgb, frame = names['rgb'], cv2.imread('frames/00000001.png')
    expected = cv2.resize(frame, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    assert rgb.shape == (1, 3, 3, 96, 128)
    result = rgb[0, 1].permute(1, 2, 0).numpy()[..., ::-1] * 255
    assert np.abs(result - expected)[8:-8, 8:-8].max() < 3
    assert cv2.imread('activity.png', cv2.IMREAD_UNCHANGED).shape == (24, 32)
