"""The spatially adaptive losses: numbers worked out by hand, torchvision, and what must not change them."""
import hashlib
import logging
import math

import pytest
import torch
from basicsr.losses import build_loss
from basicsr.losses.basic_loss import CharbonnierLoss
from conftest import ROOT
from torch import Tensor
from torch.nn import functional as F

from basicsr_stvsr.archs import vgg_features
from basicsr_stvsr.archs.vgg_features import VGGFeatures
from basicsr_stvsr.config.loading import load_options
from basicsr_stvsr.config.run_options import read_command, start_run
from basicsr_stvsr.io.color_spaces import convert_clip
from basicsr_stvsr.losses.adaptive_loss import (
    SpatiallyAdaptiveCharbonnierLoss,
    SpatiallyAdaptiveFeatureLoss,
    local_activity,
    weighted_charbonnier,
)

pytestmark = pytest.mark.numeric

EPS = 1e-3


def frame(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32)[None, None]


def step_image(size: int = 24) -> Tensor:
    """Black on the left, white on the right."""
    return torch.zeros(1, 1, size, size).index_fill_(3, torch.arange(size // 2, size), 1.0)


# ---------------------------------------------------------------- W

def test_activity_by_hand():
    """One white pixel of nine: variance 1/9 - 1/81 = 8/81; with theta 81, W = 8/9 and V = 1/9."""
    image = torch.zeros(1, 1, 7, 7)
    image[..., 3, 3] = 1
    activity = local_activity(image, window=3, theta=81)
    expected = torch.zeros(7, 7)
    expected[2:5, 2:5] = 8 / 9
    torch.testing.assert_close(activity[0, 0], expected)
    torch.testing.assert_close(local_activity(image, 'visibility', window=3, theta=81)[0, 0], 1 - expected)


def test_activity_reflects_at_the_border():
    """Columns 0 and 1 of a ramp 0, 1, 2 beside the border see 1 0 1 and 0 1 2, whose variances are 2/9 and 2/3."""
    ramp = torch.arange(3.).expand(1, 1, 3, 3)
    activity = local_activity(ramp, window=3, theta=1)
    torch.testing.assert_close(activity[0, 0, 1], torch.tensor([2 / 11, 2 / 5, 2 / 11]))


def test_the_default_window_and_theta():
    """In five columns around a step of height 0.1, two or three are low: variance 0.01 * 6/25, times 500 is 1.2."""
    activity = local_activity(0.1 * step_image())
    assert activity[0, 0, 12, 11].item() == pytest.approx(1.2 / 2.2, rel=1e-5)
    assert activity[0, 0, 12, 12].item() == pytest.approx(1.2 / 2.2, rel=1e-5)
    assert activity[0, 0, 12, 10].item() == pytest.approx(0.8 / 1.8, rel=1e-5)  # one of five: 0.01 * 4/25
    assert activity[0, 0, 12, 9] < 1e-12


@pytest.mark.parametrize('level', [0.0, 16 / 255, 0.7, 1.0])
@pytest.mark.parametrize('num_channels', [1, 3])
def test_a_constant_image_has_no_activity(level, num_channels):
    image = torch.full((2, 3, num_channels, 9, 10), level)
    assert local_activity(image).shape == (2, 3, 1, 9, 10)
    assert local_activity(image).max() < 1e-6
    assert local_activity(image, 'visibility').min() > 1 - 1e-6


def test_activity_is_that_of_an_exact_variance():
    """Faint texture on a bright frame, where E[x^2] - E[x]^2 in float32 would lose it."""
    image = 0.9 + 1e-4 * torch.rand(1, 1, 16, 16)
    torch.testing.assert_close(local_activity(image).double(), local_activity(image.double()), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize('change', [lambda x: x + 0.1, lambda x: 1 - x], ids=['brighter', 'negative'])
def test_activity_does_not_see_brightness_or_sign(change):
    image = 0.8 * torch.rand(1, 1, 12, 12)
    torch.testing.assert_close(local_activity(change(image)), local_activity(image), rtol=1e-4, atol=1e-6)


def test_activity_turns_with_the_image_and_moves_with_it():
    image = torch.rand(1, 1, 12, 14)
    activity = local_activity(image)
    torch.testing.assert_close(local_activity(image.rot90(1, (-2, -1))), activity.rot90(1, (-2, -1)))
    moved = local_activity(image.roll(3, -1))
    torch.testing.assert_close(moved[..., 5:-2], activity.roll(3, -1)[..., 5:-2])
    assert (activity >= 0).all() and (activity <= 1).all()


def test_activity_of_rgb_is_that_of_its_luma():
    """Clips of luma alone and RGB ones of the same frames are weighted alike; and a clip is weighted frame by frame."""
    rgb = torch.rand(2, 3, 3, 9, 10)
    activity = local_activity(rgb)
    luma = convert_clip(rgb, 'rgb', 'y')
    torch.testing.assert_close(activity, local_activity(luma), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(activity[1, 2], local_activity(rgb[1, 2]))
    with torch.autocast('cpu', torch.bfloat16):
        torch.testing.assert_close(local_activity(rgb), activity)


def test_activity_of_real_frames(real_data):
    """Most of a video frame is flat, and its edges are edges: what theta 500 was chosen for."""
    cv2 = pytest.importorskip('cv2')
    path = sorted((real_data / 'eval' / 'vid4').rglob('*.*'))[0]
    image = torch.from_numpy(cv2.imread(str(path))[..., ::-1].copy()).permute(2, 0, 1).float() / 255
    quantiles = local_activity(image).flatten().quantile(torch.tensor([0.1, 0.99]))
    assert quantiles[0] < 0.3 and quantiles[1] > 0.8


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(mode='edges'), "mode must be one of activity, visibility, but is 'edges'"),
    (dict(window=4), 'window must be an odd number of pixels from 3 on, but is 4'),
    (dict(window=1), 'but is 1'),
    (dict(theta=0), 'theta must be a number above 0, but is 0'),
    (dict(theta='D'), "theta must be a number above 0, but is 'D'"),
])
def test_arguments_of_the_activity_that_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        local_activity(torch.rand(1, 1, 8, 8), **arguments)
    with pytest.raises(ValueError, match=message):
        SpatiallyAdaptiveCharbonnierLoss(activity=arguments)


def test_frames_of_which_there_is_no_activity():
    with pytest.raises(ValueError, match=r'luma or RGB frames, \(..., 1 or 3, H, W\), but got \(1, 2, 8, 8\)'):
        local_activity(torch.rand(1, 2, 8, 8))
    with pytest.raises(ValueError, match=r'frames larger than 2 x 2, but got \(1, 1, 2, 9\)'):
        local_activity(torch.rand(1, 1, 2, 9))


# ---------------------------------------------------------------- gamma, gamma_w, the pixel term

def test_gamma_by_hand():
    """3-4-5 triangles: with eps 3, differences of 4 and 0 are at distances 5 and 3."""
    pred, target = frame([4, 0], [2, 1]), frame([0, 0], [2, 5])
    assert weighted_charbonnier(pred, target, eps=3, reduction='sum') == 5 + 3 + 3 + 5
    assert weighted_charbonnier(pred, target, eps=3) == 4
    weight = frame([1, 2], [0, 10])
    assert weighted_charbonnier(pred, target, weight, eps=3, reduction='sum') == 5 + 6 + 0 + 50
    assert weighted_charbonnier(pred, target, weight, eps=3) == 61 / 4


def test_pixel_term_by_hand():
    """On a board of black and white pixels, 4 or 5 of any nine are white: variance 20/81, W 1/2 with theta 81/20.

    A reflected board is a board, so that this holds at the border as well.
    """
    places = torch.arange(8)
    target = ((places[:, None] + places) % 2).float()[None, None]
    activity = {'window': 3, 'theta': 81 / 20}
    torch.testing.assert_close(local_activity(target, **activity), torch.full((1, 1, 8, 8), 0.5))
    loss = SpatiallyAdaptiveCharbonnierLoss(loss_weight=3, alpha=0.2, beta=0.7, eps=0.3, activity=activity)
    assert loss(target + 0.4, target) == pytest.approx(3 * (0.2 + 0.7 / 2) * 0.5)  # 0.3, 0.4, 0.5 make a triangle
    loss = SpatiallyAdaptiveCharbonnierLoss(alpha=0.2, beta=0.7, eps=0.3, activity=activity, reduction='sum')
    assert loss(target + 0.4, target) == pytest.approx(64 * (0.2 + 0.7 / 2) * 0.5)


def test_edges_weigh_a_hundred_times_as_much_as_flat_pixels():
    """The slide's 1 and 100: the same error on a black-white edge and far from it, by the defaults."""
    target = step_image()
    loss = SpatiallyAdaptiveCharbonnierLoss(reduction='sum')

    def of_error_in(column):
        pred = target.clone()
        pred[..., column] += 0.5
        return loss(pred, target) - loss(target, target)

    ratio = (of_error_in(12) / of_error_in(3)).item()
    assert ratio == pytest.approx(1 + 99 * 120 / 121, rel=1e-3)  # W = 500 * 0.24 / (1 + 500 * 0.24)
    assert 99 < ratio < 100
    flat = SpatiallyAdaptiveCharbonnierLoss(reduction='sum', activity={'mode': 'visibility'})
    pred = target.clone()
    pred[..., 3] += 0.5
    assert flat(pred, target) - flat(target, target) > 50 * (loss(pred, target) - loss(target, target))


@pytest.mark.parametrize('reduction', ['mean', 'sum'])
def test_without_beta_the_pixel_term_is_charbonniers(reduction):
    pred, target = torch.rand(2, 2, 3, 8, 9), torch.rand(2, 2, 3, 8, 9)
    ours = build_loss({'type': 'SpatiallyAdaptiveCharbonnierLoss', 'alpha': 0.001, 'beta': 0, 'reduction': reduction})
    basicsrs = CharbonnierLoss(loss_weight=0.001, eps=EPS**2, reduction=reduction)
    torch.testing.assert_close(ours(pred, target), basicsrs(pred, target))


def test_pixel_term_of_a_clip_is_that_of_its_frames():
    pred, target = torch.rand(2, 3, 3, 8, 9), torch.rand(2, 3, 3, 8, 9)
    loss = SpatiallyAdaptiveCharbonnierLoss()
    torch.testing.assert_close(loss(pred, target), loss(pred.flatten(0, 1), target.flatten(0, 1)))
    torch.testing.assert_close(loss(pred, target), torch.stack([
        loss(pred[b, t][None], target[b, t][None]) for b in range(2) for t in range(3)]).mean())


# ---------------------------------------------------------------- VGG

@pytest.fixture(scope='module')
def torchvision_vgg16():
    from torchvision.models import vgg16

    with torch.device('meta'):
        net = vgg16(weights=None)
    # Without the classifier's half a gigabyte; initial features, but with different biases
    net = net.to_empty(device='cpu').features
    generator = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        std = (2 / parameter[0].numel())**0.5 if parameter.dim() == 4 else 0.1
        parameter.data.normal_(std=std, generator=generator)
    return net.eval()


@pytest.fixture(scope='module')
def vgg_file(torchvision_vgg16, tmp_path_factory):
    path = tmp_path_factory.mktemp('vgg') / 'vgg16.pth'
    torch.save({f'features.{name}': value for name, value in torchvision_vgg16.state_dict().items()}, path)
    return path


@torch.no_grad()
@pytest.mark.parametrize('size', [(32, 32), (35, 42)])
def test_vgg_features_are_torchvisions(torchvision_vgg16, vgg_file, size):
    """Layers 0 to 15: relu3_3; with the normalisation that torchvision documents, or without."""
    images = torch.rand(2, 3, *size)
    net = VGGFeatures(vgg_file)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    expected = torchvision_vgg16[:16]((images - mean) / std)
    assert isinstance(torchvision_vgg16[15], torch.nn.ReLU) and isinstance(torchvision_vgg16[16], torch.nn.MaxPool2d)
    torch.testing.assert_close(net(images), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net(images, normalize=False), torchvision_vgg16[:16](images), rtol=1e-4, atol=1e-5)
    assert net(images).shape == (2, 256, size[0] // 4, size[1] // 4) and (net(images) >= 0).all()
    torch.testing.assert_close(net(images[:, :1]), net(images[:, :1].repeat(1, 3, 1, 1)))


def test_vgg_is_neither_trained_nor_saved(vgg_file):
    for net in (VGGFeatures(vgg_file), SpatiallyAdaptiveFeatureLoss(str(vgg_file))):
        assert not list(net.parameters()) and not net.state_dict()
        assert len([buffer for buffer in net.double().buffers() if buffer.dtype == torch.double]) == 7 * 2 + 2


def test_random_vgg_is_always_the_same_and_said_aloud(log):
    one = VGGFeatures('random')
    message, = [record for record in log.records if record.levelno == logging.WARNING]
    assert 'random weights' in message.getMessage() and vgg_features.PUBLISHED in message.getMessage()
    torch.manual_seed(5)
    image = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(VGGFeatures('random')(image), one(image), rtol=0, atol=0)
    assert one(image).std() > 0.1  # nothing fades on its way through the layers


def test_sha256_of_the_file(vgg_file):
    digest = hashlib.sha256(vgg_file.read_bytes()).hexdigest()
    for given in (digest, digest[:8]):
        VGGFeatures(vgg_file, given)
    with pytest.raises(ValueError, match=rf'its sha256 is {digest}, not 397923af; expected .*vgg16-397923af\.pth'):
        VGGFeatures(vgg_file, '397923af')
    with pytest.raises(ValueError, match="sha256 must be the first 8 to 64 hex digits, in lower case, but is 'abc'"):
        VGGFeatures(vgg_file, 'abc')
    with pytest.raises(ValueError, match="sha256 is given, but the weights are 'random'"):
        VGGFeatures('random', digest)


def other_network(name: str) -> dict[str, Tensor]:
    from torchvision import models

    with torch.device('meta'):
        state = getattr(models, name)(weights=None).state_dict()
    return {name: torch.zeros(value.shape) for name, value in state.items() if name.startswith('features')}


@pytest.mark.parametrize(('name', 'problem'), [
    ('vgg19', r'features\.17\.bias is missing'),  # its first seven layers have the same names and shapes
    ('vgg13', r'features\.14\.bias is missing'),
    ('vgg16_bn', r'features\.12\.bias is missing'),
    ('alexnet', r'features\.12\.bias is missing'),
])
def test_a_file_of_another_network_is_refused(name, problem, tmp_path):
    torch.save(other_network(name), tmp_path / f'{name}.pth')
    with pytest.raises(ValueError, match=rf"{name}\.pth does not hold the weights of torchvision's VGG-16: {problem}; "
                       r'expected .* https://download\.pytorch\.org/models/vgg16-397923af\.pth'):
        VGGFeatures(tmp_path / f'{name}.pth')


def test_files_that_are_no_weights(tmp_path, vgg_file):
    with pytest.raises(FileNotFoundError, match=r'gone\.pth does not exist; expected .*VGG-16, published as https'):
        SpatiallyAdaptiveFeatureLoss(str(tmp_path / 'gone.pth'), sha256='397923af')
    narrow = torch.load(vgg_file, weights_only=True)
    narrow['features.5.weight'] = narrow['features.5.weight'][:64]
    torch.save(narrow, tmp_path / 'narrow.pth')
    with pytest.raises(ValueError, match=r'features\.5\.weight is \(64, 64, 3, 3\), not \(128, 64, 3, 3\)'):
        VGGFeatures(tmp_path / 'narrow.pth')
    (tmp_path / 'page.pth').write_text('<html>')
    with pytest.raises(ValueError, match=r'page\.pth is a web page.*VGG-16'):
        VGGFeatures(tmp_path / 'page.pth')


def test_options_are_checked_without_the_file(log):
    """As every option file is, before any data is opened: built on the meta device, where nothing is read or said."""
    with torch.device('meta'):
        SpatiallyAdaptiveFeatureLoss('gone.pth', sha256='397923af')
        SpatiallyAdaptiveFeatureLoss('random')
        with pytest.raises(ValueError, match='weights_from must be one of vgg, resize'):
            SpatiallyAdaptiveFeatureLoss('gone.pth', weights_from='edges')
    assert not log.records


# ---------------------------------------------------------------- the feature term

class BlockSums(torch.nn.Module):
    """Stands for VGG: two maps of a quarter of the size, sums of 4 x 4 pixels and twice that; white is 1, not 16."""

    def forward(self, x: Tensor, normalize: bool = True) -> Tensor:
        sums = F.avg_pool2d(x.mean(dim=1, keepdim=True), 4) * (16 if normalize else 1)
        return torch.cat([sums, 2 * sums], dim=1)


def feature_loss(**options) -> SpatiallyAdaptiveFeatureLoss:
    with torch.device('meta'):
        loss = SpatiallyAdaptiveFeatureLoss('none', eps=3, **options)
    loss.vgg = BlockSums()
    return loss


def test_feature_term_by_hand():
    """Features differ by 4 and 8 on the left half and by 0 on the right: distances 5, sqrt(73) and 3, 3 with eps 3."""
    target = torch.zeros(1, 1, 8, 16)
    pred = target.clone()
    pred[..., :8] = 1 / 4
    left = 5 + math.sqrt(73)
    assert feature_loss(alpha=2, beta=0, reduction='sum')(pred, target) == pytest.approx(2 * (4 * left + 4 * 6))
    assert feature_loss(alpha=2, beta=0)(pred, target) == pytest.approx(2 * (4 * left + 4 * 6) / 16)

    # W is 1 in the left half and 0 in the right one: VGG(W) is 1, 2 | 0, 0, with the mean 3/4
    activity = torch.zeros(1, 1, 8, 16)
    activity[..., :8] = 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('basicsr_stvsr.losses.adaptive_loss.local_activity', lambda *_, **__: activity)
        plain = feature_loss(alpha=2, beta=3, reduction='sum', normalize=False)(pred, target)
        assert plain == pytest.approx(4 * (5 * 5 + 8 * math.sqrt(73)) + 4 * 2 * 6)
        normalized = feature_loss(alpha=2, beta=3, reduction='sum')(pred, target)
        assert normalized == pytest.approx(4 * (6 * 5 + 10 * math.sqrt(73)) + 4 * 2 * 6)
        resized = feature_loss(alpha=2, beta=3, reduction='sum', weights_from='resize', normalize=False)(pred, target)
        assert resized == pytest.approx(4 * (5 * 5 + 5 * math.sqrt(73)) + 4 * 2 * 6)
        halved = feature_loss(alpha=2, beta=3, reduction='sum', weights_from='resize')(pred, target)  # the mean is 1/2
        assert halved == pytest.approx(4 * (8 * 5 + 8 * math.sqrt(73)) + 4 * 2 * 6)


def test_feature_term_by_torchvision(torchvision_vgg16, vgg_file):
    """The formula over the true network, for a clip: gamma_w(VGG(x), VGG(G), alpha + beta VGG(W) / mean)."""
    pred, target = torch.rand(2, 2, 1, 16, 20), torch.rand(2, 2, 1, 16, 20)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    features = torchvision_vgg16[:16]

    def repeat(x):
        return x.flatten(0, 1).repeat(1, 3, 1, 1)

    with torch.no_grad():
        w = features(repeat(local_activity(target)))
        difference = features((repeat(pred) - mean) / std) - features((repeat(target) - mean) / std)
        expected = ((0.998 + 0.998 * w / w.mean()) * (difference**2 + 1e-6).sqrt()).mean()
        ours = build_loss({'type': 'SpatiallyAdaptiveFeatureLoss', 'feature_net': str(vgg_file)})(pred, target)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize('weights_from', ['vgg', 'resize'])
def test_without_beta_the_feature_term_is_the_baselines(weights_from):
    """As it is where beta has nothing to weigh: W of flat frames is zero, and so is VGG(W) without biases."""
    pred, target = torch.rand(2, 1, 16, 16), torch.full((2, 1, 16, 16), 0.5)
    net = VGGFeatures('random')
    expected = 0.998 * CharbonnierLoss(eps=EPS**2)(net(pred), net(target))
    for beta in (0.0, 5.0):
        loss = SpatiallyAdaptiveFeatureLoss('random', beta=beta, weights_from=weights_from)
        torch.testing.assert_close(loss(pred, target), expected)


@pytest.mark.parametrize('loss', [
    SpatiallyAdaptiveCharbonnierLoss, lambda: SpatiallyAdaptiveFeatureLoss('random'),
    lambda: SpatiallyAdaptiveFeatureLoss('random', weights_from='resize')], ids=['pixel', 'vgg', 'resize'])
@pytest.mark.parametrize('num_channels', [1, 3])
def test_gradients_reach_what_is_made_and_nothing_else(loss, num_channels):
    pred, target = (torch.rand(2, 1, num_channels, 16, 16, requires_grad=True) for _ in range(2))
    loss()(pred, target).backward()
    assert pred.grad.isfinite().all() and (pred.grad != 0).any(dim=1).all()
    assert target.grad is None


def test_losses_in_half_precision():
    pred, target = torch.rand(1, 1, 16, 16), torch.rand(1, 1, 16, 16)
    for loss in (SpatiallyAdaptiveCharbonnierLoss(), SpatiallyAdaptiveFeatureLoss('random')):
        exact = loss(pred, target)
        with torch.autocast('cpu', torch.bfloat16):
            half = loss(pred.bfloat16(), target)
        assert half.dtype == torch.float32 and half.item() == pytest.approx(exact.item(), rel=0.02)


# ---------------------------------------------------------------- option files

@pytest.mark.parametrize('scale', [2, 3, 4])
def test_option_files_of_the_baseline_differ_in_the_betas_alone(scale):
    adaptive, baseline, stage1 = (load_options(str(ROOT / 'options' / f'train_{name}_x{scale}.yml'))
                                  for name in ('adaptive_gan', 'vsrresfeatgan', 'vsrresnet'))
    assert adaptive['network_g'] == stage1['network_g'] and adaptive['scale'] == stage1['scale'] == scale
    assert adaptive['datasets'] == stage1['datasets']
    assert adaptive['path']['pretrain_network_g'] == f'experiments/{stage1["name"]}/models/net_g_latest.pth'
    assert baseline.pop('name') != adaptive.pop('name')
    for term in ('pixel_opt', 'feature_opt'):
        assert adaptive['train'][term].pop('beta') > 0 and baseline['train'][term].pop('beta') == 0
    assert baseline == adaptive


@pytest.mark.parametrize('scale', [2, 3, 4])
@pytest.mark.parametrize('stage', ['vsrresnet', 'adaptive_gan', 'vsrresfeatgan'])
def test_what_is_trained_is_what_is_tested(stage, scale):
    train, test = (load_options(str(ROOT / 'options' / f'{kind}_{stage}_x{scale}.yml')) for kind in ('train', 'test'))
    assert test['network_g'] == train['network_g'] and test['scale'] == scale
    assert test['path']['pretrain_network_g'] == f'experiments/{train["name"]}/models/net_g_latest.pth'
    assert {metric['crop_border'] for opt in (train, test) for metric in opt['val']['metrics'].values()} == {scale}


def test_the_option_file_has_the_ratio_of_the_slide():
    loss = load_options(str(ROOT / 'options' / 'train_adaptive_gan_x4.yml'))['train']['pixel_opt']
    assert (loss['alpha'] + loss['beta']) / loss['alpha'] == pytest.approx(100)


@pytest.mark.parametrize(('change', 'message'), [
    ('pixel_opt:activity={mod: activity}', r'train\.pixel_opt: activity has no option mod; its options are mode'),
    ('pixel_opt:activity:window=4', r'train\.pixel_opt: window must be an odd number .* but is 4'),
    ('feature_opt:weights_from=edges', r"train\.feature_opt\.weights_from .*'edges'"),
    ('feature_opt:sha256=abc', r"train\.feature_opt: sha256 must be the first 8 to 64 hex digits, .* but is 'abc'"),
])
def test_an_option_file_is_checked_before_anything_is_read(tmp_path, change, message):
    path = ROOT / 'options' / 'train_adaptive_gan_x4.yml'
    with pytest.raises(ValueError, match=message):
        start_run(read_command('train', tmp_path, ['-opt', str(path), '--force_yml', f'train:{change}']))


# ---------------------------------------------------------------- bad input

@pytest.mark.parametrize(('options', 'message'), [
    (dict(alpha=-1), 'must be >= 0 and not both 0, but are -1 and'),
    (dict(alpha=0, beta=0), 'not both 0, but are 0 and 0'),
    (dict(eps=0), 'eps must be above 0, but is 0'),
    (dict(reduction='none'), "reduction must be one of mean, sum, but is 'none'"),
    (dict(activity={'windw': 3}), 'activity has no option windw; its options are mode, window, theta'),
])
@pytest.mark.parametrize('arguments', [
    {'type': 'SpatiallyAdaptiveCharbonnierLoss'}, {'type': 'SpatiallyAdaptiveFeatureLoss', 'feature_net': 'random'}],
    ids=['pixel', 'feature'])
def test_options_that_are_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        build_loss({**arguments, **options})


@pytest.mark.parametrize(('pred', 'target'), [
    ((1, 1, 16, 16), (1, 3, 16, 16)), ((1, 1, 1, 16, 16), (1, 1, 16, 16)), ((1, 16, 16), (1, 16, 16))])
@pytest.mark.parametrize('loss', [
    SpatiallyAdaptiveCharbonnierLoss, lambda: SpatiallyAdaptiveFeatureLoss('random')], ids=['pixel', 'feature'])
def test_shapes_that_are_refused(loss, pred, target):
    with pytest.raises(ValueError, match='frames or clips of the same shape'):
        loss()(torch.rand(pred), torch.rand(target))


def test_frames_too_small_for_vgg():
    with pytest.raises(ValueError, match=r'4 x 4 or larger, but got \(1, 1, 3, 16\)'):
        SpatiallyAdaptiveFeatureLoss('random')(torch.rand(1, 1, 3, 16), torch.rand(1, 1, 3, 16))


# ---------------------------------------------------------------- the adversarial term

def logit(probability: float) -> Tensor:
    return torch.tensor([[math.log(probability / (1 - probability))]])


def test_basicsrs_vanilla_gan_loss_is_the_non_saturating_one():
    """L_gen = -log D(G), times alpha_1; L_dis = -log D(x) - log(1 - D(G)), without. D(G) = 1/4, D(x) = 4/5."""
    loss = build_loss({'type': 'GANLoss', 'gan_type': 'vanilla', 'loss_weight': 0.001})
    assert loss(logit(1 / 4), True, is_disc=False).item() == pytest.approx(0.001 * math.log(4))
    dis = loss(logit(4 / 5), True, is_disc=True) + loss(logit(1 / 4), False, is_disc=True)
    assert dis.item() == pytest.approx(math.log(5 / 4) + math.log(4 / 3))
    # Where the discriminator is sure, the saturating form log(1 - D(G)) would leave the generator no gradient
    score = logit(1e-4).requires_grad_()
    loss(score, True, is_disc=False).backward()
    assert score.grad.item() == pytest.approx(-0.001, rel=1e-3)
