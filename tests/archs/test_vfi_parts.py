"""UNet and the context network: parts that MBNet's ablations put in the place of GridNet and of RDN's feature."""
import numpy as np
import pytest
import torch

from basicsr_stvsr.archs.context_arch import DAIN_NAMES, ContextExtractor, ContextResNet
from basicsr_stvsr.archs.unet_arch import UNet

pytestmark = pytest.mark.numeric


def parameter_count(module):
    return sum(p.numel() for p in module.parameters())


def unlearned(module):
    grads = {name: parameter.grad for name, parameter in module.named_parameters()}
    return [name for name, grad in grads.items() if grad is None or not grad.isfinite().all() or not grad.any()]


def small_unet(**options):
    return UNet(**{'channels': (4, 6, 8), **options})


def test_unet_layers():
    convs = [(10, 32), (32, 32), (32, 96), (96, 96), (96, 192), (192, 192)]  # encoder, fine to coarse
    convs += [(192 + 96, 96), (96, 96), (96 + 32, 32), (32, 32)]  # decoder, with skips
    convs += [(32, 32), (32, 3)]  # head
    assert parameter_count(UNet()) == sum(9 * i * o + o for i, o in convs)


@pytest.mark.parametrize(('scale', 'feature_channels'), [(4, 64), (2, 8), (4, 0)])
def test_unet_shapes(scale, feature_channels):
    net = small_unet(scale=scale, feature_channels=feature_channels)
    feature = torch.rand(2, feature_channels, 4, 6) if feature_channels else None
    frame = net(torch.rand(2, 6, 4 * scale, 6 * scale), feature)
    assert frame.shape == (2, 3, 4 * scale, 6 * scale)
    frame.square().mean().backward()
    assert not unlearned(net)


def test_unet_feature_lands_where_it_belongs():
    net, pair, feature = small_unet().eval(), torch.rand(1, 6, 32, 256), torch.rand(1, 64, 8, 64)
    before = net(pair, feature)
    feature[..., 2] += 1  # LR column 2, HR columns 8 to 11; the net sees less than 40 pixels to either side
    changed = (net(pair, feature) - before).abs().amax(dim=(0, 1, 2))
    assert (changed[8:12] > 1e-6).all() and not changed[52:].any()


def test_unet_residual_is_the_mean_of_the_warped_frames():
    net, pair = small_unet(feature_channels=0, residual=True), torch.rand(1, 6, 8, 8)
    torch.nn.init.zeros_(net.head[-1].weight)
    torch.nn.init.constant_(net.head[-1].bias, 0.25)
    torch.testing.assert_close(net(pair, None), (pair[:, :3] + pair[:, 3:]) / 2 + 0.25)


def test_unet_clips_do_not_mix():
    net, pair, feature = small_unet().eval(), torch.rand(2, 6, 16, 16), torch.rand(2, 64, 4, 4)
    torch.testing.assert_close(net(pair, feature)[1:], net(pair[1:], feature[1:]))


def test_unet_bfloat16_is_finite():
    frame = small_unet().bfloat16()(torch.rand(1, 6, 16, 16).bfloat16(), torch.rand(1, 64, 4, 4).bfloat16())
    assert frame.dtype == torch.bfloat16 and frame.isfinite().all()


def test_unet_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match='UNet needs a height and width divisible by 4, but got 16x18'):
        small_unet(feature_channels=0)(torch.rand(1, 6, 16, 18), None)
    with pytest.raises(ValueError, match=r'needs a feature of shape \(1, 64, 4, 4\), but got \(1, 64, 2, 4\)'):
        small_unet()(torch.rand(1, 6, 16, 16), torch.rand(1, 64, 2, 4))
    with pytest.raises(ValueError, match=r'needs a feature of shape \(1, 64, 4, 4\), but got None'):
        small_unet()(torch.rand(1, 6, 16, 16), None)
    with pytest.raises(ValueError, match='feature_channels must be divisible by 16, but got 24'):
        small_unet(feature_channels=24)
    with pytest.raises(ValueError, match='3 levels, but got'):
        small_unet(channels=(4, 8))


def dain_weights():
    """DAIN's context network as its checkpoint holds it, weights drawn in the alphabetical order of their names."""
    shapes = {name: ContextExtractor().state_dict()[ours].shape for name, ours in DAIN_NAMES.items()}
    return {
        name: torch.from_numpy(
            np.random.RandomState(seed).standard_normal(tuple(shape)) * (2 / np.prod(shape[1:])) ** 0.5
        ).float()
        for seed, (name, shape) in enumerate(sorted(shapes.items()))
    }


# The forward pass of DAIN's context network (baowenbo/DAIN, S2DF_3dense) in float64 on the weights and the image of
# the test below: channels 0, 10, 80, 140, 194, row 3, every sixth column.
OFFICIAL_CONTEXT = torch.tensor([
    [0.6871, 0.9235, 0.2536, 0.7980],
    [0.7869, 0.4306, 0.9391, 1.0213],
    [0.0000, 0.4310, 0.0000, 0.0000],
    [0.4480, 0.3014, 0.2399, 0.0000],
    [0.1516, 0.1612, 0.0000, 0.0000],
])


def test_context_equals_dain(tmp_path):
    path = tmp_path / 'best.pth'
    torch.save(dain_weights() | {'flownets.conv1a.0.weight': torch.zeros(1)}, path)
    net = ContextResNet(pretrained=str(path))
    assert parameter_count(net.extractor) == 156_864
    frame = torch.from_numpy(np.random.RandomState(1000).rand(1, 3, 20, 24)).float()
    context = net.extractor(frame)
    assert context.shape == (1, 195, 20, 24)
    torch.testing.assert_close(context[0, [0, 10, 80, 140, 194], 3, ::6], OFFICIAL_CONTEXT, rtol=0, atol=1e-4)


def test_context_own_checkpoint(tmp_path):
    net, path = ContextResNet(num_feat=8), tmp_path / 'context.pth'
    torch.save({'params': net.state_dict()}, path)
    pair = torch.rand(1, 6, 8, 8)
    assert torch.equal(ContextResNet(num_feat=8, pretrained=str(path))(pair), net(pair))


def test_context_wrong_checkpoints_are_refused(tmp_path):
    path = tmp_path / 'context.pth'
    with pytest.raises(FileNotFoundError, match=r'context\.pth does not exist.*best\.pth of baowenbo/DAIN'):
        ContextResNet(pretrained=str(path))
    torch.save({'ctxNet.block1.0.weight': torch.zeros(64, 3, 7, 7)}, path)
    with pytest.raises(ValueError, match=r'context\.pth does not hold the weights of DAIN.*4 missing'):
        ContextResNet(pretrained=str(path))


def test_context_joins_both_frames():
    net, pair = ContextResNet(), torch.rand(2, 6, 9, 10)
    feature = net(pair)
    assert feature.shape == (2, net.part_spec.feature_channels, 9, 10) == (2, 64, 9, 10)
    torch.testing.assert_close(feature[1:], net(pair[1:]))
    for frame in (slice(0, 3), slice(3, 6)):
        other = pair.clone()
        other[:, frame] += 0.1
        assert not torch.allclose(net(other), feature)
    feature.square().mean().backward()
    assert not unlearned(net)
    assert net.bfloat16()(pair.bfloat16()).isfinite().all()


def test_context_refuses_a_single_frame():
    with pytest.raises(ValueError, match=r'two RGB frames \(B, 6, h, w\), but got \(1, 3, 8, 8\)'):
        ContextResNet()(torch.rand(1, 3, 8, 8))
