"""FSTRN against the paper's equations in numpy and scipy, and against the numbers of its release's layers."""
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.archs import build_network
from basicsr.data import build_dataset
from basicsr.losses import build_loss
from basicsr.models import build_model
from basicsr.utils.matlab_functions import imresize
from conftest import ROOT, write_texture
from scipy import ndimage
from torch import nn
from torch.nn import functional as F

from basicsr_stvsr.archs.fstrn_arch import FSTRN, C3DResBlock, FastResBlock, FrameConv, FrameDeconv, enlarge
from basicsr_stvsr.config.loading import complete_datasets, complete_paths, load_options
from basicsr_stvsr.config.run_options import read_command, start_run
from basicsr_stvsr.inference.windows import restore_clip
from basicsr_stvsr.models.stvsr_model import STVSRModel

pytestmark = pytest.mark.numeric

OPTIONS = ROOT / 'options'
TRAIN_FILES = [*sorted(OPTIONS.glob('train_fstrn*.yml')), *sorted((OPTIONS / 'ablations').glob('fstrn_*.yml'))]


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def randomized(net: nn.Module) -> nn.Module:
    """No bias and no slope is 0 any more."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.uniform_(-0.3, 0.3)
    return net


# ---------------------------------------------------------------- layers

@pytest.mark.parametrize('num_in_ch, total, lfe, tail', [(1, 802_241, 1_792, 433), (3, 806_563, 5_248, 1_299)])
def test_layers(num_in_ch, total, lfe, tail):
    """Parameters and shapes of every layer at the size of the training."""
    with torch.device('meta'):
        net = FSTRN(num_in_ch=num_in_ch, output='all')
        lq = torch.empty(2, 5, num_in_ch, 36, 36)
    table = {
        'lfe': (lfe, (64, 5, 36, 36)), **{f'blocks.{i}': (49_344, (64, 5, 36, 36)) for i in range(5)},
        'lrl_act': (64, (64, 5, 36, 36)), 'fuse': (442_624, (256, 5, 36, 36)), 'up': (110_608, (16, 5, 144, 144)),
        'tail': (tail, (num_in_ch, 5, 144, 144))}
    shapes = {}
    for name in table:
        net.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: shapes.update({name: tuple(output.shape[1:])}))
    assert net(lq).shape == (2, 5, num_in_ch, 144, 144)
    assert {name: (count(net.get_submodule(name)), shape) for name, shape in shapes.items()} == table
    assert count(net) == total == sum(number for number, _ in table.values())
    assert count(FSTRN(num_in_ch=num_in_ch)) == total


def test_what_the_blocks_save():
    """12 of 27 weights, 44 %."""
    with torch.device('meta'):
        fast, full = FastResBlock(64, 3, 'prelu'), C3DResBlock(64, 3, 'prelu')
    assert (count(fast), count(full[1])) == (49_344, 110_656)
    weights = [sum(p.numel() for p in block.parameters() if p.dim() > 1) for block in (fast, full)]
    assert weights[0] / weights[1] == 12 / 27


def test_start():
    """Xavier's bound for convolutions; a normal cut at two sigma has 0.8796 of its deviation."""
    net = FSTRN(num_feat=32, num_frb=1)
    for layer, fan in ((net.lfe[0], 27 * (1 + 32)), (net.blocks[0][1], 9 * 64), (net.blocks[0][2], 3 * 64),
                       (net.fuse, 27 * (32 + 128)), (net.tail[0], 27 * (8 + 1))):
        bound = (6 / fan)**0.5
        assert 0.9 * bound < layer.weight.abs().max() <= bound
        assert float(layer.weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.1)
    assert net.up.weight.abs().max() <= 0.04
    assert float(net.up.weight.detach().std()) == pytest.approx(0.8796 * 0.02, rel=0.02)
    assert all(not p.any() for p in net.parameters() if p.dim() == 1)  # biases, and slopes of PReLU


def test_the_factorised_convolution_is_a_full_one_of_fewer_weights():
    block = randomized(FastResBlock(4, 3, 'relu'))
    _, space, time = block
    nn.init.zeros_(space.bias)  # which padding in time knows nothing of
    x = torch.randn(1, 4, 5, 7, 6)
    weight = torch.einsum('omt,miyx->oityx', time.weight[..., 0], space.weight[:, :, 0])
    torch.testing.assert_close(block(x), x + F.conv3d(x.relu(), weight, time.bias, padding=1))


@pytest.mark.parametrize('layer, torchs, kernel, options', [
    (FrameConv, nn.Conv3d, (1, 3, 3), {'padding': (0, 1, 1)}),
    (FrameConv, nn.Conv3d, (3, 3, 3), {'padding': 1}),
    (FrameConv, nn.Conv3d, (5, 5, 5), {'padding': 2}),
    (FrameConv, nn.Conv3d, (3, 3, 3), {'padding': (0, 1, 1)}),
    (FrameDeconv, nn.ConvTranspose3d, (3, 3, 3),
     {'stride': (1, 4, 4), 'padding': (1, 0, 0), 'output_padding': (0, 1, 1)}),
    (FrameDeconv, nn.ConvTranspose3d, (3, 8, 8), {'stride': (1, 4, 4), 'padding': (2, 2, 2)}),
])
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last_3d])
def test_layers_of_frames_are_pytorchs(layer, torchs, kernel, options, memory_format):
    """2D convolutions of frames give what PyTorch's 3D ones give, and the same gradients."""
    torch.manual_seed(0)
    ours, theirs = (kind(3, 4, kernel, **options).double() for kind in (layer, torchs))
    theirs.load_state_dict(ours.state_dict())
    results = []
    for net in (ours, theirs):
        x = torch.linspace(-1, 1, 2 * 3 * 5 * 6 * 7, dtype=torch.double).sin().view(2, 3, 5, 6, 7)
        x = x.contiguous(memory_format=memory_format).requires_grad_()
        out = net(x)
        out.square().sum().backward()
        results.append([out, x.grad, net.weight.grad, net.bias.grad])
    torch.testing.assert_close(*results)
    assert results[0][0].is_contiguous(memory_format=torch.channels_last_3d)


# ---------------------------------------------------------------- the network

def correlate(x: np.ndarray, conv: nn.Module) -> np.ndarray:
    """A convolution of zero-padded (C, T, H, W)."""
    weight = conv.weight.detach().double().numpy()
    weight = weight[..., None] if weight.ndim == 4 else weight
    return np.stack([
        bias + sum(ndimage.correlate(plane, kernel, mode='constant') for plane, kernel in zip(x, kernels, strict=True))
        for kernels, bias in zip(weight, conv.bias.tolist(), strict=True)])


def prelu(x: np.ndarray, act: nn.PReLU) -> np.ndarray:
    return np.where(x > 0, x, act.weight.detach().double().numpy()[:, None, None, None] * x)


def deconvolve(x: np.ndarray, conv: nn.ConvTranspose3d) -> np.ndarray:
    """3x3x3 with the stride 1x4x4: every LR pixel is written to 3x3 of its 4x4 pixels, in three frames."""
    weight = conv.weight.detach().double().numpy()
    _, num_frames, h, w = x.shape
    out = np.zeros((weight.shape[1], num_frames + 2, 4 * h, 4 * w)) + np.array(conv.bias.tolist())[:, None, None, None]
    for t, y, z in np.ndindex(3, 3, 3):
        out[:, t:t + num_frames, y::4, z::4] += np.einsum('io,ithw->othw', weight[:, :, t, y, z], x)
    return out[:, 1:-1]


@torch.no_grad()
def test_equations():
    net = randomized(FSTRN(num_in_ch=3, num_feat=4, num_frb=2, output='all')).eval()
    lq = torch.rand(1, 5, 3, 6, 7)
    x = lq[0].transpose(0, 1).double().numpy()

    first = feat = correlate(x, net.lfe[0])
    for act, space, time in net.blocks:
        feat = feat + correlate(correlate(prelu(feat, act), space), time)  # eq. 3.6
    feat = prelu(feat + first, net.lrl_act[0])  # eq. 3.7
    residual = correlate(deconvolve(correlate(feat, net.fuse), net.up), net.tail[0])
    larger = ndimage.zoom(x, (1, 1, 4, 4), order=1, mode='nearest', grid_mode=True)
    expected = torch.from_numpy(residual + larger).float().transpose(0, 1)  # eq. 3.5
    torch.testing.assert_close(net(lq)[0], expected, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize('up_kernel', ['deconv3', 'deconv8', 'pixelshuffle'])
@pytest.mark.parametrize('scale', [2, 3, 4])
def test_the_centre_is_that_of_all(scale, up_kernel):
    options = dict(num_feat=12 if scale == 3 and up_kernel == 'pixelshuffle' else 8, num_frb=1)
    if scale == 3 and up_kernel == 'pixelshuffle':
        with pytest.raises(ValueError, match='needs 4 num_feat to be divisible by 9, but 4 num_feat is 48'):
            FSTRN(**options, scale=3, up_kernel=up_kernel)
        options['num_feat'] = 36
    center, every = (randomized(FSTRN(**options, scale=scale, up_kernel=up_kernel, output=output)).eval()
                     for output in ('center', 'all'))
    every.load_state_dict(center.state_dict())
    lq = torch.rand(2, 5, 1, 6, 7)
    assert every(lq).shape == (2, 5, 1, 6 * scale, 7 * scale)
    torch.testing.assert_close(center(lq), every(lq)[:, 2:3])
    assert (center.spec.first_output, every.spec.first_output) == (2, 0)


@torch.no_grad()
@pytest.mark.parametrize('up_kernel, untouched', [('deconv3', 0.4375), ('deconv8', 0)])
def test_pixels_that_the_transposed_convolution_leaves_out(up_kernel, untouched):
    net = FSTRN(num_feat=4, up_kernel=up_kernel)
    larger = net.up(torch.rand(1, 16, 5, 12, 12))  # no bias yet
    assert float((larger == 0).float().mean()) == untouched


@torch.no_grad()
def test_a_clip_comes_out_alike_by_the_centre_and_by_all():
    """Of the copies of a frame that windows of all frames make, the one that is the centre of its window counts."""
    centre = randomized(FSTRN(num_feat=4, num_frb=1)).eval()
    every = FSTRN(num_feat=4, num_frb=1, output='all').eval()
    every.load_state_dict(centre.state_dict())
    lq = torch.rand(1, 9, 1, 6, 8)
    torch.testing.assert_close(restore_clip(every, lq), restore_clip(centre, lq))


def test_ends_of_a_clip_are_repeated():
    """Every frame is a centre, of clips shorter than five frames too."""
    net = FSTRN(num_feat=4, num_frb=1).eval()
    for length in (1, 3, 6):
        lq = torch.rand(1, length, 1, 6, 8)
        padded = torch.cat((lq[:, :1], lq[:, :1], lq, lq[:, -1:], lq[:, -1:]), dim=1)
        expected = torch.cat([net(padded[:, i:i + 5]) for i in range(length)], dim=1)
        torch.testing.assert_close(restore_clip(net, lq), expected.clamp(0, 1))


# ---------------------------------------------------------------- enlarged frames

def test_enlarged_by_hand():
    row = torch.tensor([0., 4.]).view(1, 1, 1, 2)
    assert enlarge(row, 4)[0, 0, 0].tolist() == [0, 0, 0.5, 1.5, 2.5, 3.5, 4, 4]
    assert enlarge(row, 4, 'legacy_bilinear')[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 4, 4, 4]
    assert enlarge(row, 3, 'legacy_bilinear').shape == (1, 1, 3, 6)


def test_the_legacy_grid():
    """Four times is twice twice, which FISR's test compares with TensorFlow; a ramp lies 1.5 HR pixels to one side."""
    x = torch.rand(2, 3, 5, 7)
    twice = enlarge(enlarge(x, 2, 'legacy_bilinear'), 2, 'legacy_bilinear')
    torch.testing.assert_close(enlarge(x, 4, 'legacy_bilinear'), twice)
    ramp = torch.arange(8.).view(1, 1, 1, 8)
    shift = (enlarge(ramp, 4, 'legacy_bilinear') - enlarge(ramp, 4))[..., 4:-4]
    torch.testing.assert_close(4 * shift, torch.full_like(shift, 1.5))


def test_bicubic_is_matlabs():
    x = torch.rand(2, 1, 6, 7)
    torch.testing.assert_close(enlarge(x, 4, 'bicubic'), torch.stack([imresize(frame, 4) for frame in x]))


# ---------------------------------------------------------------- options

def pair(**options) -> tuple[FSTRN, FSTRN]:
    """A small network, and the same with other options and equal weights."""
    small = dict(num_feat=8, num_frb=1, dropout=0.0)
    one, other = FSTRN(**small).eval(), FSTRN(**small | options).eval()
    other.load_state_dict(one.state_dict(), strict=False)
    return one, other


@torch.no_grad()
def test_without_cross_space_residual_learning():
    one, other = pair(use_crl=False)
    lq = torch.rand(1, 5, 1, 6, 8)
    torch.testing.assert_close(one(lq) - other(lq), enlarge(lq[:, 2], 4).unsqueeze(1))
    one, other = pair(crl_mode='bicubic')
    torch.testing.assert_close(
        one(lq) - other(lq), (enlarge(lq[:, 2], 4) - enlarge(lq[:, 2], 4, 'bicubic')).unsqueeze(1))


@torch.no_grad()
def test_without_lr_space_residual_learning():
    """Blocks of zeros pass on F_0, to which it is added once more, or not."""
    seen = []
    for net in pair(use_lrl=False):
        for name, parameter in net.blocks[0].named_parameters():
            if not name.startswith('0.'):  # slopes
                nn.init.zeros_(parameter)
        net.lrl_act.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        net(torch.rand(1, 5, 1, 6, 8, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(seen[0], 2 * seen[1])
    assert seen[1].any()


@torch.no_grad()
def test_activations():
    """PReLU starts as ReLU; the release's outer ones keep a fifth of what is negative."""
    lq = torch.rand(1, 5, 1, 6, 8)
    one, other = pair(act='relu')
    assert torch.equal(one(lq), other(lq))
    nn.init.constant_(one.lrl_act[0].weight, 0.25)
    assert not torch.equal(one(lq), other(lq))
    one, other = pair(lfe_act='lrelu')
    feat = one.lfe(lq.transpose(1, 2))
    assert feat.min() < 0
    torch.testing.assert_close(other.lfe(lq.transpose(1, 2)), torch.where(feat < 0, 0.2 * feat, feat))
    one, other = (net for net in pair(tail_act='lrelu'))
    one.use_crl = other.use_crl = False
    residual = one(lq)
    torch.testing.assert_close(other(lq), torch.where(residual < 0, 0.2 * residual, residual))


@torch.no_grad()
@pytest.mark.parametrize('dropout', [0.3, 0.7])
def test_dropout(dropout):
    """Of single features, in training only; what stays is scaled up."""
    net = FSTRN(num_feat=8, num_frb=1, dropout=dropout)
    seen = []
    net.fuse.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    lq = torch.rand(2, 5, 1, 16, 16)
    net(lq)
    net.eval()(lq)
    dropped, whole = seen
    kept = dropped != 0
    assert float(kept[whole != 0].float().mean()) == pytest.approx(1 - dropout, abs=0.03)
    torch.testing.assert_close(dropped[kept], whole[kept] / (1 - dropout))


@pytest.mark.parametrize('options, message', [
    ({'num_in_ch': 2}, 'num_in_ch must be one of 1, 3, but got 2'),
    ({'block': 'c2d'}, "block must be one of frb, c3d, but got 'c2d'"),
    ({'scale': 8}, 'scale must be one of 2, 3, 4, but got 8'),
    ({'scale': 1}, 'scale must be one of 2, 3, 4, but got 1'),
    ({'crl_mode': 'nearest'}, "crl_mode must be one of bilinear, bicubic, legacy_bilinear, but got 'nearest'"),
    ({'tail_act': 'relu'}, "tail_act must be one of none, lrelu, but got 'relu'"),
    ({'up_kernel': 'deconv4'}, "up_kernel must be one of deconv3, deconv8, pixelshuffle, but got 'deconv4'"),
    ({'output': 'centre'}, "output must be one of center, all, but got 'centre'"),
    ({'num_feat': 30}, 'num_feat must be a multiple of 4, but got 30'),
    ({'kernel': 4}, 'kernel must be odd, but got 4'),
    ({'dropout': 1.0}, 'dropout must be at least 0 and below 1, but got 1.0'),
])
def test_options_that_are_refused(options, message):
    with pytest.raises(ValueError, match=f'^{message}$'):
        FSTRN(**options)


@pytest.mark.parametrize('shape', [(1, 4, 1, 8, 8), (1, 5, 3, 8, 8), (5, 1, 8, 8)])
def test_clips_that_are_refused(shape):
    with pytest.raises(ValueError) as error:
        FSTRN(num_feat=4)(torch.zeros(shape))
    assert str(error.value) == f'FSTRN with num_in_ch 1 takes windows of (B, 5, 1, H, W), but got {shape}'


def test_checkpointing_changes_nothing():
    net = FSTRN(num_feat=8, num_frb=2)
    lq = torch.rand(2, 5, 1, 8, 8)
    gradients = []
    for net.checkpoint in (False, True):
        net.zero_grad()
        torch.manual_seed(0)  # of the dropout
        net(lq).square().sum().backward()
        gradients.append([p.grad.clone() for p in net.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


# ---------------------------------------------------------------- option files

def test_charbonnier_by_hand():
    """sqrt(d^2 + 1e-6): 0.001 where the frames are equal, 0.003 where they differ by sqrt(8) / 1000."""
    loss = build_loss(load_options(str(OPTIONS / 'train_fstrn.yml'))['train']['pixel_opt'])
    pred = torch.tensor([0.5, 0.5 + 8**0.5 / 1000], dtype=torch.double).view(2, 1, 1, 1, 1)
    assert float(loss(pred, torch.full_like(pred, 0.5))) == pytest.approx((0.001 + 0.003) / 2)


def test_sizes_of_the_test_clips():
    """Those that the release's script makes, and its numbers of frames."""
    dataset = load_options(str(OPTIONS / 'test_fstrn.yml'))['datasets']['test']
    sizes = {clip: tuple(last - first + 1 for first, last in area.values())
             for clip, area in dataset['clip_areas'].items()}
    assert sizes == {'Star_Fan': (240, 320, 300), 'Flag': (176, 240, 292), 'Treadmill': (160, 144, 125),
                     'Turbine': (160, 224, 350), 'Dirty_Dancing': (352, 464, 59)}


def test_the_test_file_is_taken(tmp_path):
    opt = start_run(read_command('test', tmp_path, ['-opt', str(OPTIONS / 'test_fstrn.yml')]))
    assert count(build_network(opt['network_g'])) == 802_241


def test_volumes_of_the_training(tmp_path):
    """QCIF has two places for a crop; the planes show the place and the time of a crop."""
    rows, columns = np.mgrid[:144, :176]
    with open(tmp_path / 'toy_qcif.yuv', 'wb') as file:
        for number in range(27):
            file.write(((rows // 2 + columns) // 2 + number).astype(np.uint8).tobytes())
            file.write(np.full(2 * 72 * 88, 128, np.uint8).tobytes())
    opt = load_options(str(OPTIONS / 'train_fstrn.yml'))
    opt['datasets']['train'] |= {'dataroot_gt': str(tmp_path), 'use_hflip': False, 'use_rot': False}
    complete_datasets(opt)
    dataset = build_dataset(opt['datasets']['train'])
    assert len(dataset) == 3  # beginning with frames 0, 10 and 20
    columns = set()
    for index in range(3):
        for _ in range(8):
            sample = dataset[index]
            assert sample['lq'].shape == (5, 1, 36, 36) and sample['gt'].shape == (5, 1, 144, 144)
            corner = [round(value) for value in (255 * sample['gt'][:, 0, 0, 0]).tolist()]
            columns.add(2 * (corner[0] - 10 * index))
            assert corner == list(range(corner[0], corner[0] + 5))
    assert columns == {0, 32}


def small_model(opt: dict, clips: Path, root: Path) -> STVSRModel:
    """The model of a training, its network as small as can be, with a batch of two windows."""
    opt.update(num_gpu=0, dist=False, rank=0, world_size=1, is_train=True)
    opt['network_g'].update(num_feat=4, num_frb=1)
    opt['datasets'] = {'train': opt['datasets']['train'] | {
        'dataroot_gt': str(clips), 'gt_size': 48, 'crop_stride': 8, 'cache': False}}
    complete_datasets(opt)
    complete_paths(opt, str(root))
    model = build_model(opt)
    dataset = build_dataset(opt['datasets']['train'])
    model.feed_data(torch.utils.data.default_collate([dataset[0], dataset[0]]))
    return model


def test_all_frames_are_trained_on_where_all_are_made(tmp_path, clips):
    opt = load_options(str(OPTIONS / 'train_fstrn.yml'))
    opt['network_g']['output'] = 'all'
    model = small_model(opt, clips, tmp_path)
    assert model.gt.shape == (2, 5, 1, 48, 48)
    difference = model.net_g.eval()(model.lq) - model.gt
    expected = (difference.square() + 1e-6).sqrt().mean()
    torch.testing.assert_close(model.compute_losses()['l_pix'], expected)


@pytest.mark.parametrize('path', TRAIN_FILES, ids=lambda path: path.stem)
def test_every_training_file_builds_and_takes_a_step(path: Path, tmp_path, clips):
    opt = load_options(str(path))
    with torch.device('meta'):
        num_parameters = count(build_network(opt['network_g']))
    if 'small' in path.stem:
        assert num_parameters < 1_400_000
    elif path.stem in CHANGED_SIZES:
        assert num_parameters == CHANGED_SIZES[path.stem]
    else:
        assert num_parameters == 802_241
    opt['path']['pretrain_network_g'] = None  # what an earlier stage leaves
    model = small_model(opt, clips, tmp_path)
    assert model.lq.shape == (2, 5, 1, 12, 12) and model.gt.shape == (2, 1, 1, 48, 48)
    before = {name: p.detach().clone() for name, p in model.net_g.named_parameters()}
    model.optimize_parameters(1)
    # A step of Adam is about the rate for every weight that has a gradient; slopes wait for negative features.
    moved = [name for name, p in model.net_g.named_parameters() if not torch.equal(p, before[name])]
    assert len(moved) == len(before)


# ---------------------------------------------------------------- docs/fstrn.md

def test_the_example_of_the_docs(tmp_path, monkeypatch):
    """With a last layer of zeros, the network interpolates all frames, in colour."""
    monkeypatch.chdir(tmp_path)
    write_texture(tmp_path / 'frames', num_frames=7, size=(12, 32), width=20)
    net = FSTRN()
    nn.init.zeros_(net.tail[0].weight)
    torch.save({'params': net.state_dict()}, 'net_g_latest.pth')
    code, = re.findall(r'^```python\n(.*?)^```$', (ROOT / 'docs' / 'fstrn.md').read_text(), re.MULTILINE | re.DOTALL)
    names: dict = {}
    exec(code, names)
    rgb = names['rgb']
    assert rgb.shape == (1, 7, 3, 48, 80)
    for i in range(7):
        frame = cv2.resize(cv2.imread(f'frames/{i:08d}.png'), (80, 48), interpolation=cv2.INTER_LINEAR)
        assert np.abs(rgb[0, i].permute(1, 2, 0).numpy()[..., ::-1] * 255 - frame).max() < 6


# A full block has 110,720 parameters instead of 49,344; ReLU no slopes, of which there are 6 x 64; a transposed
# convolution of 3x8x8 has 64/9 of the weights of 3x3x3, and pixels made of channels need none.
CHANGED_SIZES = {
    'fstrn_c3d': 802_241 + 5 * (110_720 - 49_344), 'fstrn_relu': 802_241 - 6 * 64,
    'fstrn_up_deconv8': 802_241 + 256 * 16 * 3 * (64 - 9), 'fstrn_up_pixelshuffle': 802_241 - 110_608}
