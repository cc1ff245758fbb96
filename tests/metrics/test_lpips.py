import hashlib
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_metric
from basicsr.utils.registry import METRIC_REGISTRY
from conftest import score_of
from torch import nn

from basicsr_stvsr.evaluation.clip_scores import FramePair, needs_reference, usable_metrics
from basicsr_stvsr.metrics.lpips_metric import BACKBONES, build_lpips, calculate_lpips

lpips = pytest.importorskip('lpips')
torchvision = pytest.importorskip('torchvision')

# Network -> its name in torchvision, and the layers of `features` whose outputs the paper's authors compare
LAYERS = {
    'alex': ('alexnet', (1, 4, 7, 9, 11)),
    'vgg': ('vgg16', (3, 8, 15, 22, 29)),
    'squeeze': ('squeezenet1_1', (1, 4, 7, 9, 10, 11, 12)),
}


class Sample(NamedTuple):
    net: str
    model: nn.Module  # torchvision's, with weights by chance
    path: str  # of its weights


@pytest.fixture(scope='module')
def make_sample(tmp_path_factory):
    """Saves what torchvision's file has, but for the large layers behind the features, which nobody needs."""
    folder, made = tmp_path_factory.mktemp('backbones'), {}

    def make(net: str) -> Sample:
        if net not in made:
            torch.manual_seed(1)
            model = getattr(torchvision.models, LAYERS[net][0])(weights=None).eval()
            state = {name: value for name, value in model.state_dict().items() if name.startswith('features')}
            state['classifier.1.weight'] = torch.zeros(3, 3)
            torch.save(state, folder / f'{net}.pth')
            made[net] = Sample(net, model, str(folder / f'{net}.pth'))
        return made[net]

    return make


@pytest.fixture(params=LAYERS)
def sample(request, make_sample):
    return make_sample(request.param)


@pytest.fixture
def alex(make_sample):
    """The default."""
    return make_sample('alex')


@pytest.fixture
def squeeze(make_sample):
    """The smallest."""
    return make_sample('squeeze')


@pytest.fixture
def frames():
    """A colourful frame and the same with noise, uint8 BGR; its sides are no multiples of anything."""
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (9, 11, 3)).repeat(7, axis=0).repeat(7, axis=1)[:61, :75]
    frame[..., 2] //= 3  # make the channels different
    noisy = frame + rng.integers(-40, 41, frame.shape)
    return frame.astype(np.uint8), noisy.clip(0, 255).astype(np.uint8)


def digest_of(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


# What it computes

@torch.no_grad()
def lpips_by_formula(sample: Sample, frame: np.ndarray, frame2: np.ndarray) -> float:
    """Eq. 1 of the paper: unit vectors of the channels, their squared differences weighted, means over the pixels."""
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)  # of ImageNet, RGB
    weights = torch.load(f'{lpips.__path__[0]}/weights/v0.1/{sample.net}.pth', 'cpu', weights_only=True)
    maps = [(torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1) / 255 - mean) / std
            for image in (frame, frame2)]
    distance = 0
    compared = LAYERS[sample.net][1]
    for number, layer in enumerate(sample.model.features[:compared[-1] + 1]):
        maps = [layer(one[None])[0] for one in maps]
        if number in compared:
            weight = weights[f'lin{compared.index(number)}.model.1.weight'].view(-1, 1, 1)
            unit, unit2 = (one / (one.norm(dim=0) + 1e-10) for one in maps)
            distance += (weight * (unit - unit2)**2).sum(dim=0).mean()
    return float(distance)


@pytest.mark.numeric
def test_equals_the_formula_of_the_paper(sample, frames):
    expected = lpips_by_formula(sample, *frames)
    assert calculate_lpips(*frames, backbone=sample.path, net=sample.net) == pytest.approx(expected, rel=1e-4)
    assert expected > 1e-3


@pytest.mark.numeric
@pytest.mark.filterwarnings('ignore:.*weights_only:FutureWarning')
def test_equals_the_package_where_it_loads_its_backbone_itself(sample, frames, monkeypatch):
    monkeypatch.setattr(torchvision.models, LAYERS[sample.net][0], lambda pretrained: sample.model)
    reference = lpips.LPIPS(net=sample.net, verbose=False)
    tensors = (lpips.im2tensor(frame[..., ::-1].copy()) for frame in frames)
    with torch.no_grad():
        expected = float(reference(*tensors))
    assert calculate_lpips(*frames, backbone=sample.path, net=sample.net) == pytest.approx(expected, rel=1e-5)


def test_registered_as_a_metric_with_ground_truth(alex, frames):
    name = 'calculate_lpips'
    assert METRIC_REGISTRY.get(name) is calculate_lpips and needs_reference(name)
    score = calculate_metric({'img': frames[1], 'img2': frames[0]}, {'type': name, 'backbone': alex.path})
    assert score == calculate_lpips(frames[1], frames[0], backbone=alex.path, net='alex')


def test_distance_of_equal_frames_is_nothing(sample, frames):
    assert calculate_lpips(frames[0], frames[0], backbone=sample.path, net=sample.net) == 0


@pytest.mark.numeric
def test_border_does_not_count(alex, frames):
    inside = tuple(frame[5:-5, 5:-5] for frame in frames)
    expected = calculate_lpips(*inside, backbone=alex.path)
    assert calculate_lpips(*frames, backbone=alex.path, crop_border=5) == expected
    assert calculate_lpips(*frames, backbone=alex.path) != pytest.approx(expected, rel=1e-3)


def test_smallest_frames(sample):
    """The backbone itself takes no smaller ones, and its error would not name the metric."""
    side = BACKBONES[sample.net].smallest_side
    small, smaller = (np.zeros((40, length, 3), np.uint8) for length in (side, side - 1))
    assert calculate_lpips(small, small, backbone=sample.path, net=sample.net) == 0
    with pytest.raises(ValueError, match=rf"at least {side} pixels a side .* '{sample.net}', .* 40x{side - 1}"):
        calculate_lpips(smaller, smaller, backbone=sample.path, net=sample.net)
    with torch.no_grad(), pytest.raises(RuntimeError):
        build_lpips(Path(sample.path), sample.net)(*torch.zeros(2, 1, 3, 40, side - 1))


@pytest.mark.parametrize(('shape', 'dtype', 'shape2'), [
    ((40, 40, 3), np.uint8, (40, 41, 3)), ((40, 40, 1), np.uint8, (40, 40, 1)), ((40, 40), np.uint8, (40, 40)),
    ((40, 40, 3), np.float32, (40, 40, 3)),
])
def test_frames_of_other_shapes_or_types(alex, shape, dtype, shape2):
    with pytest.raises(ValueError, match=r'needs two frames of the same shape \(H, W, 3\), uint8'):
        calculate_lpips(np.zeros(shape, dtype), np.zeros(shape2, dtype), backbone=alex.path)


@pytest.mark.parametrize('border', [-1, 31])
def test_borders_that_leave_nothing(alex, frames, border):
    with pytest.raises(ValueError, match=f'cannot crop a border of {border} pixels from frames of 61x75'):
        calculate_lpips(*frames, backbone=alex.path, crop_border=border)


# Its backbone

@pytest.fixture
def build_anew():
    build_lpips.cache_clear()
    yield
    build_lpips.cache_clear()


def test_is_built_once_without_a_download_or_a_word(alex, frames, monkeypatch, tmp_path, build_anew, capsys, recwarn):
    def refuse(*args, **kwargs):
        raise AssertionError('nothing may be downloaded')

    monkeypatch.setattr(torch.hub, 'download_url_to_file', refuse)
    path = tmp_path / 'backbone.pth'
    path.write_bytes(Path(alex.path).read_bytes())
    score = calculate_lpips(*frames, backbone=path)
    path.unlink()
    assert calculate_lpips(*frames, backbone=str(path)) == score > 0
    assert capsys.readouterr() == ('', '') and not recwarn.list


def test_chance_goes_on_as_if_it_had_not_been_built(alex, frames, build_anew):
    """Numbers that a training draws after a validation must not depend on whether that was the first."""
    before = torch.get_rng_state()
    calculate_lpips(*frames, backbone=alex.path)
    assert torch.equal(torch.get_rng_state(), before)


def test_label_names_the_backbone(alex):
    assert calculate_lpips.label({'backbone': alex.path}) == f'alex-{digest_of(alex.path)[:8]}'
    assert calculate_lpips.label({'backbone': alex.path, 'net': 'vgg'}) == f'vgg-{digest_of(alex.path)[:8]}'


def test_result_names_the_backbone(alex):
    metrics = {'lpips': {'type': 'calculate_lpips', 'backbone': alex.path, 'better': 'lower'}}
    assert usable_metrics(metrics) == {f'lpips (alex-{digest_of(alex.path)[:8]})': metrics['lpips']}


def test_a_validation_scores_by_it(alex, frames):
    """With `better`, which metrics need if lower scores are better."""
    tensors = [torch.from_numpy(frame[..., ::-1].copy()).permute(2, 0, 1) / 255 for frame in frames]
    options = {'type': 'calculate_lpips', 'backbone': alex.path, 'better': 'lower'}
    assert score_of(FramePair(*tensors, 'rgb'), options) == calculate_lpips(*frames, backbone=alex.path)


# What is missing or wrong

def test_usable_where_all_is_there(squeeze):
    assert calculate_lpips.unusable({'backbone': squeeze.path, 'net': 'squeeze'}) is None


@pytest.mark.numeric
def test_a_missing_file_is_a_reason_to_leave_it_out(tmp_path, log):
    metrics = {'lpips': {'type': 'calculate_lpips', 'backbone': str(tmp_path / 'alexnet-owt-7be5be79.pth')},
               'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}
    assert list(usable_metrics(metrics)) == ['psnr']
    message, = (record.message for record in log.records)
    assert 'lpips' in message and str(tmp_path) in message
    assert "torchvision's AlexNet, published as https://download.pytorch.org/models/alexnet-owt-7be5be79.pth" in message


def test_a_missing_package_is_a_reason_to_leave_it_out(alex, monkeypatch):
    monkeypatch.setitem(sys.modules, 'lpips', None)
    assert calculate_lpips.unusable({'backbone': alex.path}) == 'the package lpips is not installed; pip install lpips'


def test_called_without_its_file_it_says_which(frames, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth does not exist; expected .* torchvision's VGG-16"):
        calculate_lpips(*frames, backbone=tmp_path / 'nowhere.pth', net='vgg')


@pytest.mark.numeric
@pytest.mark.parametrize(('net', 'other'), [('alex', 'squeeze'), ('squeeze', 'alex')])
def test_a_file_of_another_network_is_an_error(make_sample, net, other):
    path = make_sample(other).path
    with pytest.raises(ValueError, match=f'{path} does not hold the weights of {BACKBONES[net].what}'):
        calculate_lpips.unusable({'backbone': path, 'net': net})


def test_a_file_with_further_layers_is_of_another_network(squeeze, tmp_path):
    """As that of VGG-19 is beside VGG-16's."""
    state = torch.load(squeeze.path, weights_only=True)
    torch.save({**state, 'features.13.weight': torch.zeros(2, 2)}, tmp_path / 'longer.pth')
    with pytest.raises(ValueError, match=r'1 unknown \(first: features\.13\.weight\)'):
        calculate_lpips.unusable({'backbone': tmp_path / 'longer.pth', 'net': 'squeeze'})


@pytest.mark.numeric
def test_a_web_page_is_an_error(tmp_path):
    (tmp_path / 'alexnet-owt-7be5be79.pth').write_text('<!doctype html><p>Not found')
    with pytest.raises(ValueError, match=r"is a web page.*AlexNet, published as https://"):
        calculate_lpips.unusable({'backbone': tmp_path / 'alexnet-owt-7be5be79.pth'})


def test_the_hash_in_the_name(squeeze, tmp_path):
    content, digest = Path(squeeze.path).read_bytes(), digest_of(squeeze.path)
    for name in (f'squeezenet1_1-{digest[:8]}.pth', f'squeezenet-{digest}.pth', 'squeezenet.pth', 'net-b8a5.pth'):
        (tmp_path / name).write_bytes(content)
        assert calculate_lpips.unusable({'backbone': tmp_path / name, 'net': 'squeeze'}) is None
    (tmp_path / 'squeezenet1_1-b8a52dc0.pth').write_bytes(content)
    with pytest.raises(ValueError, match=f'squeezenet1_1-b8a52dc0.pth .* its sha256 is {digest}, not b8a52dc0'):
        calculate_lpips.unusable({'backbone': tmp_path / 'squeezenet1_1-b8a52dc0.pth', 'net': 'squeeze'})


def test_the_hash_that_is_given(squeeze, frames):
    digest = digest_of(squeeze.path)
    options = {'backbone': squeeze.path, 'net': 'squeeze'}
    for sha256 in (digest, digest[:8]):
        assert calculate_lpips.unusable({**options, 'sha256': sha256}) is None
    other = digest[:-1] + ('0' if digest[-1] != '0' else '1')
    with pytest.raises(ValueError, match=f'its sha256 is {digest}, not {other}'):
        calculate_lpips(*frames, **options, sha256=other)


@pytest.mark.parametrize('sha256', ['', '7be5be7', '7be5be7g', '7BE5BE79', 65 * '0'])
def test_a_hash_that_is_none(alex, sha256):
    with pytest.raises(ValueError, match=f"sha256 must be .* but is '{sha256}'"):
        calculate_lpips.unusable({'backbone': alex.path, 'sha256': sha256})


def test_another_network_than_lpips_has(alex):
    with pytest.raises(ValueError, match="net must be one of alex, vgg, squeeze, but is 'resnet'"):
        calculate_lpips(*2 * [np.zeros((64, 64, 3), np.uint8)], backbone=alex.path, net='resnet')
