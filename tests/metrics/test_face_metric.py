"""Scores of faces: by drawn faces and embeddings that are worked out by hand, and by facexlib's networks."""
import hashlib
import importlib.util
import json
import math
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.data import build_dataset
from basicsr.metrics import calculate_psnr, calculate_ssim
from basicsr.models import build_model
from basicsr.utils.registry import METRIC_REGISTRY
from skimage.metrics import peak_signal_noise_ratio

from basicsr_stvsr.evaluation.clip_scores import needs_order, needs_reference, usable_metrics
from basicsr_stvsr.metrics import face_metric, face_networks
from basicsr_stvsr.metrics.face_metric import (
    ARCFACE_POINTS,
    FaceScores,
    align,
    calculate_face_identity,
    calculate_face_psnr,
    calculate_face_ssim,
    calculate_face_stability,
    cosine,
    followed,
    overlap,
)
from basicsr_stvsr.metrics.face_networks import (
    ARCFACE,
    DETECTORS,
    ArcFaceEmbedder,
    Face,
    RetinaFaceDetector,
    load_detector,
)

METRICS = (calculate_face_identity, calculate_face_stability, calculate_face_psnr, calculate_face_ssim)
GREY = 60


# ---------------------------------------------------------------- drawn faces

def frame_of(*squares: tuple[int, int, int, tuple[int, int, int]], shape: tuple[int, int] = (120, 160)) -> np.ndarray:
    """A grey frame with squares: left, top, side, colour (B, G, R)."""
    frame = np.full((*shape, 3), GREY, np.uint8)
    for left, top, side, color in squares:
        frame[max(top, 0):top + side, max(left, 0):left + side] = color
    return frame


def face_at(left: float, top: float, side: float) -> Face:
    """Return a face that equals its aligned crop."""
    return Face(np.array([left, top, left + side, top + side]), 1.0, ARCFACE_POINTS * side / 112 + (left, top))


class DrawnFaces:
    """Finds what is not grey, the largest first, and remembers what it was shown."""

    def __init__(self):
        self.seen = []

    def __call__(self, frame: np.ndarray) -> list[Face]:
        self.seen.append(frame)
        mask = (frame != GREY).any(axis=2).astype(np.uint8)
        _, _, boxes, _ = cv2.connectedComponentsWithStats(mask)
        return [face_at(left, top, max(width, height)) for left, top, width, height, _ in
                sorted(boxes[1:], key=lambda box: -box[4])]


class MeanColor:
    """Embeds a crop by the colour of its middle; counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        assert crops.shape[1:] == (112, 112, 3) and crops.dtype == np.uint8
        self.calls += 1
        return crops[:, 20:-20, 20:-20].mean(axis=(1, 2))


@pytest.fixture
def scores() -> FaceScores:
    return FaceScores(DrawnFaces(), MeanColor())


RED, YELLOW, BLUE = (0, 0, 200), (0, 200, 200), (200, 0, 0)
HALF = 1 / math.sqrt(2)  # the cosine of red and yellow


@pytest.mark.numeric
def test_identity_is_the_cosine_of_result_and_truth(scores):
    truth = frame_of((10, 20, 60, RED))
    assert scores.identity(truth, truth) == pytest.approx(1)
    assert scores.identity(frame_of((10, 20, 60, YELLOW)), truth) == pytest.approx(HALF)
    assert scores.identity(frame_of((10, 20, 60, BLUE)), truth) == pytest.approx(0)


@pytest.mark.numeric
def test_both_are_aligned_by_the_points_of_the_truth(scores):
    """A face that the result shows elsewhere is not looked for there: grey is compared with red."""
    assert scores.identity(frame_of((90, 20, 60, RED)), frame_of((10, 20, 60, RED))) == pytest.approx(1 / math.sqrt(3))


@pytest.mark.numeric
def test_faces_of_a_frame_count_alike(scores):
    truth = frame_of((5, 5, 80, RED), (100, 60, 40, RED))
    assert scores.identity(frame_of((5, 5, 80, RED), (100, 60, 40, BLUE)), truth) == pytest.approx(0.5)


@pytest.mark.numeric
def test_stability_is_how_much_more_a_face_changes_than_it_should(scores):
    red, yellow = frame_of((10, 20, 60, RED)), frame_of((10, 20, 60, YELLOW))
    assert scores.stability(red, red, red, red) == 0
    assert scores.stability(yellow, red, red, red) == pytest.approx(1 - HALF)
    assert scores.stability(red, yellow, red, red) == pytest.approx(1 - HALF)  # it should change, and does not
    assert scores.stability(yellow, yellow, yellow, red) == pytest.approx(1 - HALF)
    # Another face throughout, but as steady as the true one
    assert scores.stability(yellow, red, yellow, red) == pytest.approx(0)


@pytest.mark.numeric
def test_a_face_is_followed_by_where_it_is(scores):
    """The order of the faces turns, as their size does; each is compared with itself."""
    last = frame_of((5, 10, 60, RED), (90, 10, 55, BLUE))
    now = frame_of((8, 10, 55, RED), (92, 10, 60, BLUE))
    assert scores.stability(now, now, last, last) == pytest.approx(0)
    changed = frame_of((8, 10, 55, YELLOW), (92, 10, 60, BLUE))
    assert scores.stability(changed, now, last, last) == pytest.approx((1 - HALF) / 2)


@pytest.mark.numeric
def test_only_faces_that_were_there_are_followed(scores):
    last, now = frame_of((5, 10, 60, RED)), frame_of((5, 10, 60, RED), (90, 10, 50, BLUE))
    result = frame_of((5, 10, 60, YELLOW), (90, 10, 50, RED))
    assert scores.stability(result, now, last, last) == pytest.approx(1 - HALF)
    moved_away = frame_of((95, 10, 60, RED))
    assert math.isnan(scores.stability(moved_away, moved_away, last, last))
    empty = frame_of()
    assert math.isnan(scores.stability(now, now, empty, empty)) and math.isnan(scores.stability(empty, empty, now, now))


@pytest.mark.numeric
def test_overlap_by_hand():
    box = np.array([0., 0, 10, 10])
    assert overlap(box, box) == 1
    assert overlap(box, np.array([5., 0, 15, 10])) == pytest.approx(50 / 150)
    assert overlap(box, np.array([10., 0, 20, 10])) == overlap(box, np.array([20., 30, 30, 40])) == 0


def test_pairs_overlap_most_in_sum_and_enough():
    last = [face_at(0, 0, 10), face_at(4, 0, 10)]
    # 20 overlaps nothing; 3 would overlap 4 most, and leaves it to 5
    assert followed([face_at(20, 0, 10), face_at(5, 0, 10), face_at(3, 0, 10)], last) == [(1, 1), (2, 0)]
    assert followed([face_at(5.5, 0, 10)], last[:1]) == []  # 45 of 155
    assert followed([], last) == followed(last, []) == []


@pytest.mark.numeric
def test_psnr_by_hand(scores):
    """An error of 10 levels in all of a box of 60x60, and another outside, which does not count."""
    truth = frame_of((10, 20, 60, (100, 100, 100)))
    result = truth.copy()
    result[20:80, 10:70] += 10
    result[:, 80:] = 255
    assert scores.psnr(result, truth) == pytest.approx(20 * math.log10(255 / 10))
    assert scores.psnr(truth, truth) == math.inf


@pytest.mark.numeric
def test_psnr_is_a_mean_over_faces(scores):
    truth = frame_of((5, 5, 80, (100, 100, 100)), (100, 60, 40, (100, 100, 100)))
    result = truth.copy()
    result[5:85, 5:85] += 10
    result[60:100, 100:140] += 1
    assert scores.psnr(result, truth) == pytest.approx((20 * math.log10(25.5) + 20 * math.log10(255)) / 2)


@pytest.mark.numeric
@pytest.mark.parametrize('luma', [False, True])
def test_psnr_and_ssim_of_the_box_alone(luma):
    """Those of BasicSR, and of scikit-image, of what was cut out; pixels that a box touches belong to it."""
    rng = np.random.default_rng(0)
    truth = cv2.GaussianBlur(rng.integers(0, 256, (70, 90, 3), np.uint8), (0, 0), 2)
    result = np.clip(truth + rng.integers(-20, 21, truth.shape), 0, 255).astype(np.uint8)
    face = face_at(0, 0, 1)._replace(box=np.array([10.6, 5.2, 52.1, 49.3]), points=ARCFACE_POINTS)
    scores = FaceScores(lambda frame: [face])
    cut, true = (frame[5:50, 10:53] for frame in (result, truth))
    assert scores.ssim(result, truth, test_y_channel=luma) == pytest.approx(
        calculate_ssim(cut, true, crop_border=0, test_y_channel=luma), abs=1e-6)
    assert scores.psnr(result, truth, test_y_channel=luma) == pytest.approx(
        calculate_psnr(cut, true, crop_border=0, test_y_channel=luma), abs=1e-6)
    assert luma or scores.psnr(result, truth) == pytest.approx(peak_signal_noise_ratio(true, cut))


@pytest.mark.numeric
def test_no_face(scores):
    truth, result = frame_of(), frame_of((10, 20, 60, RED))  # one that the result made up
    assert all(math.isnan(score) for score in (
        scores.identity(result, truth), scores.psnr(result, truth), scores.ssim(result, truth)))
    assert scores.embedder.calls == 0


@pytest.mark.numeric
@pytest.mark.parametrize('left, counts', [(-27, True), (-29, False), (128, True), (130, False), (-70, False),
                                          (170, False)])
def test_a_face_at_the_border_counts_as_far_as_it_is_seen(left, counts):
    """Of 60 pixels 32 must be seen; the score is that of what is."""
    truth = frame_of((left, 40, 60, (100, 100, 100)))
    result = truth.copy()
    result[40:100, max(left, 0):max(left + 60, 0)] += 10
    scores = FaceScores(lambda frame: [face_at(left, 40, 60)], MeanColor())
    psnr, identity = scores.psnr(result, truth), scores.identity(truth, truth)
    if counts:
        assert psnr == pytest.approx(20 * math.log10(25.5)) and identity == pytest.approx(1)
    else:
        assert math.isnan(psnr) and math.isnan(identity)


@pytest.mark.numeric
def test_small_faces_do_not_count(scores):
    truth = frame_of((10, 20, 60, RED), (100, 60, 31, RED))
    result = frame_of((10, 20, 60, RED), (100, 60, 31, BLUE))
    assert scores.identity(result, truth) == pytest.approx(1)
    assert FaceScores(DrawnFaces(), MeanColor(), min_size=31).identity(result, truth) == pytest.approx(0.5)
    with pytest.raises(ValueError, match='min_size of faces must be 11 pixels or more, .* but is 10'):
        FaceScores(DrawnFaces(), min_size=10)


@pytest.mark.parametrize('change', [{'box': np.array([np.nan, 0, 50, 50])}, {'points': np.full((5, 2), 7.)},
                                    {'points': np.full((5, 2), np.inf)}, {'box': np.array([50., 50, 10, 10])}])
def test_what_cannot_be_a_face(change):
    scores = FaceScores(lambda frame: [face_at(10, 10, 50)._replace(**change)], MeanColor())
    assert math.isnan(scores.identity(frame_of(), frame_of()))


@pytest.mark.numeric
def test_the_truth_is_looked_at_once_and_nothing_else_is(scores):
    frames = [frame_of((10 + i, 20, 60, RED)) for i in range(3)]
    results = [frame_of((10 + i, 20, 60, YELLOW)) for i in range(3)]
    for i in range(3):  # copies, as other processes get them
        pair = results[i].copy(), frames[i].copy()
        scores.identity(*pair)
        scores.psnr(*pair)
        scores.ssim(*pair)
        if i:
            scores.stability(*pair, results[i - 1].copy(), frames[i - 1].copy())
    assert len(scores.detector.seen) == 3
    assert all((seen == frame).all() for seen, frame in zip(scores.detector.seen, frames, strict=True))
    assert scores.embedder.calls == 6
    scores.faces(np.zeros((40, 50, 3), np.uint8))
    scores.faces(np.zeros((50, 40, 3), np.uint8))  # the same bytes
    assert len(scores.detector.seen) == 5


def test_no_more_than_a_few_frames_are_remembered(scores):
    for i in range(20):
        scores.identity(frame_of((10, 20, 60, BLUE)), frame_of((10 + i, 20, 60, RED)))
    assert len(scores._faces.values) == len(scores._embeddings.values) == 8


@pytest.mark.numeric
def test_embeddings_of_any_length():
    first, second = np.array([3, 4], np.float32), np.array([8, -6], np.float32)
    assert cosine(first, first) == pytest.approx(1) and cosine(first, second) == 0
    assert cosine(first, -2 * first) == pytest.approx(-1) and math.isnan(cosine(first, 0 * first))


@pytest.mark.numeric
@pytest.mark.parametrize('shape, dtype, shape2', [
    ((40, 40, 3), np.uint8, (40, 41, 3)), ((40, 40, 1), np.uint8, (40, 40, 1)), ((40, 40), np.uint8, (40, 40)),
    ((40, 40, 3), np.float32, (40, 40, 3))])
def test_frames_of_other_shapes_or_types(scores, shape, dtype, shape2):
    frames = np.zeros(shape, dtype), np.zeros(shape2, dtype)
    for score in (scores.identity, scores.psnr, scores.ssim, lambda *pair: scores.stability(*pair, *pair)):
        with pytest.raises(ValueError, match=r'faces need frames of the same shape \(H, W, 3\), uint8'):
            score(*frames)


def test_identity_needs_an_embedder():
    with pytest.raises(ValueError, match='need an embedder'):
        FaceScores(DrawnFaces()).identity(frame_of(), frame_of())


# ---------------------------------------------------------------- alignment

@pytest.mark.parametrize('angle, scale, shift', [(0, 1, (0, 0)), (0, 1, (30, 12)), (30, 1.5, (80, 90)),
                                                 (-75, 1.3, (90, 120)), (180, 0.9, (150, 140))])
def test_alignment_undoes_a_turn(angle, scale, shift):
    """A smooth picture of 112x112, turned and enlarged into a frame, is found again there."""
    picture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8), (0, 0), 4)
    picture = cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX)
    cos, sin = scale * math.cos(math.radians(angle)), scale * math.sin(math.radians(angle))
    turn = np.array([[cos, -sin], [sin, cos]])
    frame = cv2.warpAffine(picture, np.column_stack((turn, shift)), (400, 400))
    found = align(frame, ARCFACE_POINTS @ turn.T + shift)
    corners = np.array([[8., 8], [104, 8], [8, 104], [104, 104]]) @ turn.T + shift
    inside = ((corners >= 0) & (corners < 400)).all()
    middle = slice(8, -8) if inside else slice(40, -40)
    assert found.shape == (112, 112, 3)
    assert peak_signal_noise_ratio(picture[middle, middle], found[middle, middle]) > 38


def test_outside_of_the_frame_is_black():
    crop = align(np.full((60, 60, 3), 200, np.uint8), ARCFACE_POINTS - (56, 0))  # its left half is outside the frame
    assert (crop[:, :55] == 0).all() and (crop[:59, 57:] == 200).all() and (crop[61:] == 0).all()


@pytest.mark.numeric
def test_points_are_those_of_facexlib():
    pytest.importorskip('facexlib')
    from facexlib.detection.align_trans import get_reference_facial_points

    np.testing.assert_allclose(ARCFACE_POINTS, get_reference_facial_points(default_square=True), atol=1e-3)


# ---------------------------------------------------------------- in a validation

@pytest.fixture
def drawn(monkeypatch) -> FaceScores:
    """In place of facexlib's networks."""
    scores = FaceScores(DrawnFaces(), MeanColor())
    monkeypatch.setattr(face_metric, 'build_scores', lambda *args, **kwargs: scores)
    for metric in METRICS:
        monkeypatch.setattr(metric, 'unusable', lambda options: None)
        monkeypatch.setattr(metric, 'label', lambda options: 'drawn')
    return scores


OPTIONS = {'identity': {'type': 'calculate_face_identity', 'weights': 'weights'},
           'stability': {'type': 'calculate_face_stability', 'weights': 'weights', 'better': 'lower'},
           'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}


def write_clips(root: Path, clips: dict[str, str]) -> None:
    """Write clips of frames with a face (o) or without (-)."""
    for name, frames in clips.items():
        (root / name).mkdir(parents=True)
        for i, kind in enumerate(frames):
            squares = [(10 + i, 20, 60, RED)] if kind == 'o' else []
            cv2.imwrite(str(root / name / f'{i}.png'), frame_of(*squares))


def validate(root: Path, clips: dict[str, str], **val) -> dict:
    write_clips(root / 'clips', clips)
    opt = {'name': 'test', 'model_type': 'STVSRModel', 'num_gpu': 0, 'dist': False, 'is_train': False, 'rank': 0,
           'scale': 4, 'network_g': {'type': 'BicubicAverage', 'scale': 4}, 'val': {'metrics': OPTIONS, **val},
           'path': {'pretrain_network_g': None, 'strict_load_g': True, 'results_root': str(root),
                    'visualization': str(root)}}
    dataset = build_dataset({'name': 'set', 'type': 'STVSRTestDataset', 'dataroot_gt': str(root / 'clips'), 'scale': 4,
                             'phase': 'test'})
    build_model(opt).validation(torch.utils.data.DataLoader(dataset), 'test', None)
    return json.loads((root / 'set.json').read_text())


@pytest.mark.numeric
def test_coverage_stands_beside_scores(drawn, tmp_path, log):
    result = validate(tmp_path, {'first': 'ooo--', 'second': '---'})
    first = {'vsr': 2 / 3, 'vfi': 1 / 2, 'all': 3 / 5}
    nothing = {'vsr': 0, 'vfi': 0, 'all': 0}
    coverage = result['coverage']
    assert coverage['clips'] == {
        'first': {'identity (drawn)': pytest.approx(first),
                  'stability (drawn)': pytest.approx({'vsr': 1 / 2, 'vfi': 1 / 2, 'all': 1 / 2})},
        'second': {'identity (drawn)': nothing, 'stability (drawn)': nothing}}
    assert coverage['average']['identity (drawn)'] == pytest.approx({'vsr': 2 / 5, 'vfi': 1 / 3, 'all': 3 / 8})
    assert result['clips']['second']['identity (drawn)'] == {'vsr': None, 'vfi': None, 'all': None}
    average = result['average']['identity (drawn)']
    assert average == result['clips']['first']['identity (drawn)'] and average['all'] > 0.9
    assert [value for _, value in result['frames']['second']['identity (drawn)']] == 3 * [None]
    assert 'psnr' in result['average'] and 'psnr' not in coverage['average']

    message, = (record.message for record in log.records if record.message.startswith('Validation set'))
    lines = {line.split(' # ')[1].split(':')[0]: line for line in message.splitlines() if ' # ' in line}
    identity = '  '.join(f'{group} {average[group]:.4f} (coverage {share})' for group, share in (
        ('vsr', '40.0%'), ('vfi', '33.3%'), ('all', '37.5%')))
    assert lines['identity (drawn)'].endswith(f'identity (drawn): {identity}')
    assert 'coverage' not in lines['psnr']
    # PSNR of grey frames is infinite; only the coverage shows frames without a face
    assert '4 scores of single frames are not finite' in message


@pytest.mark.numeric
def test_coverage_is_of_frames_also_where_means_are(drawn, tmp_path):
    result = validate(tmp_path, {'first': 'ooo--', 'second': 'o--'}, average='frames')
    assert result['coverage']['average']['identity (drawn)']['all'] == pytest.approx(4 / 8)


def test_no_face_at_all(drawn, tmp_path, log):
    result = validate(tmp_path, {'only': '---'})
    assert result['average']['identity (drawn)'] == {'vsr': None, 'vfi': None, 'all': None}
    assert result['coverage']['average']['stability (drawn)']['all'] == 0
    assert 'all nan (coverage 0.0%)' in log.text


@pytest.mark.numeric
def test_coverage_in_mmengine(drawn):
    pytest.importorskip('mmengine', reason='mmengine is not installed: pip install mmengine')
    from basicsr_stvsr.openmmlab.clip_metrics import ClipMetrics

    metrics = ClipMetrics(OPTIONS)
    clip = torch.from_numpy(np.stack([frame_of((10, 20, 60, RED)), frame_of(), frame_of()])[..., ::-1] / 255.)
    clip = clip.permute(0, 3, 1, 2).float()
    metrics.process({'gt': clip[None]}, [{'frames': list(enumerate(clip * 0.9)), 'temporal_scale': 2}])
    found = metrics.compute_metrics(metrics.results)
    assert found['identity (drawn)_all_coverage'] == pytest.approx(1 / 3)
    assert (found['identity (drawn)_vsr_coverage'], found['identity (drawn)_vfi_coverage']) == (0.5, 0)
    assert found['identity (drawn)_all'] == pytest.approx(1, abs=1e-3) and 'psnr_all_coverage' not in found


def test_scored_with_truth_and_those_of_two_frames_in_order():
    names = [metric.__name__ for metric in METRICS]
    assert all(needs_reference(name) for name in names)
    assert [needs_order(name) for name in names] == [False, True, False, False]


# ---------------------------------------------------------------- facexlib's networks

FRAME = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (150, 213, 3), np.uint8), (0, 0), 3)
FRAME = cv2.normalize(FRAME, None, 0, 255, cv2.NORM_MINMAX)


@torch.no_grad()
def tamed(net: torch.nn.Module) -> torch.nn.Module:
    """With random weights by which outputs differ from place to place by about 1."""
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    inputs = {}
    heads = [head.conv1x1 for kind in (net.BboxHead, net.ClassHead, net.LandmarkHead) for head in kind]
    hooks = [head.register_forward_pre_hook(lambda head, args: inputs.update({head: args[0]})) for head in heads]
    net(torch.from_numpy(FRAME).permute(2, 0, 1)[None].float() - net.mean_tensor)
    for head, hook in zip(heads, hooks, strict=True):
        hook.remove()
        std, mean = torch.std_mean(head(inputs[head]), dim=(0, 2, 3))
        head.weight /= std.view(-1, 1, 1, 1)
        head.bias -= mean
        head.bias /= std
    return net


@pytest.fixture(scope='session')
def weights(tmp_path_factory) -> Path:
    """Random ones in the files of facexlib's release, as old versions of PyTorch wrote them; the names in those of the
    detectors stand behind 'module.'."""
    retinaface = pytest.importorskip('facexlib.detection.retinaface')
    arcface_arch = pytest.importorskip('facexlib.recognition.arcface_arch')
    folder = tmp_path_factory.mktemp('faces')
    torch.manual_seed(0)
    for network, file in DETECTORS.items():
        net = tamed(retinaface.RetinaFace(network_name=network, device=torch.device('cpu')))
        state = {f'module.{name}': value for name, value in net.state_dict().items()}
        torch.save(state, folder / file.name, _use_new_zipfile_serialization=False)
    net = arcface_arch.Backbone(num_layers=50, drop_ratio=0.6, mode='ir_se')
    torch.save(net.state_dict(), folder / ARCFACE.name, _use_new_zipfile_serialization=False)
    return folder


def greedy(dets: np.ndarray, thresh: float) -> list[int]:
    """Non-maximum suppression by its definition; torchvision's operator is missing beside some builds of torch."""
    keep = []
    for i in np.argsort(-dets[:, 4]):
        if all(overlap(dets[i, :4].astype(float), dets[j, :4].astype(float)) <= thresh for j in keep):
            keep.append(i)
    return keep


@pytest.mark.numeric
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('network, confidence', [('resnet50', 0.85), ('mobile0.25', 0.85)])
def test_detector_equals_that_of_facexlib(weights, monkeypatch, network, confidence):
    """As facexlib itself loads the file, and calls the network."""
    from facexlib.detection import init_detection_model, retinaface

    monkeypatch.setattr(retinaface, 'py_cpu_nms', greedy)
    reference = init_detection_model(f'retinaface_{network}', device='cpu', model_rootpath=str(weights))
    with torch.no_grad():
        expected = reference.detect_faces(FRAME, conf_threshold=confidence)
    found = RetinaFaceDetector(weights, network, confidence)(FRAME)
    assert len(expected) > 20
    assert len(found) == len(expected)
    for face, row in zip(found, expected, strict=True):
        np.testing.assert_allclose([*face.box, face.score, *face.points.ravel()], row, rtol=1e-4, atol=1e-3)


def test_detector_finds_nothing(weights):
    assert RetinaFaceDetector(weights, 'mobile0.25', 0.999)(FRAME) == []


@pytest.mark.numeric
def test_arcface_on_the_cpu(weights):
    """The network of facexlib, called with channels B, G, R of -1 to 1."""
    from facexlib.recognition.arcface_arch import Backbone

    net = Backbone(num_layers=50, drop_ratio=0.6, mode='ir_se').eval()
    net.load_state_dict(torch.load(weights / ARCFACE.name, weights_only=True))
    crops = np.stack([FRAME[:112, :112], FRAME[38:, 101:], FRAME[:112, 50:162, ::-1]])
    with torch.no_grad():
        expected = net(torch.tensor((crops.astype(np.float32) - 127.5) / 127.5).permute(0, 3, 1, 2).contiguous())
    found = ArcFaceEmbedder(weights)(crops)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    assert found[0] @ found[1] < 0.999


@pytest.mark.numeric
def test_metrics_by_facexlib(weights):
    options = {'weights': str(weights), 'detector': 'mobile0.25', 'confidence': 0.975, 'min_size': 16}
    noisy = np.clip(FRAME + np.random.default_rng(0).integers(-60, 61, FRAME.shape), 0, 255).astype(np.uint8)
    assert calculate_face_identity(FRAME, FRAME, **options) == pytest.approx(1)
    assert calculate_face_stability(FRAME, FRAME, FRAME, FRAME, **options) == 0
    assert calculate_face_psnr(FRAME, FRAME, **options) == math.inf
    assert calculate_face_ssim(FRAME, FRAME, **options) == pytest.approx(1)

    scores = FaceScores(RetinaFaceDetector(weights, 'mobile0.25', 0.975), ArcFaceEmbedder(weights), min_size=16)
    assert len(scores.faces(FRAME)) > 1
    pair, four = (noisy, FRAME), (noisy, FRAME, FRAME, FRAME)
    assert calculate_face_identity(*pair, **options) == scores.identity(*pair) < 0.9999
    assert calculate_face_stability(*four, **options) == scores.stability(*four) > 1e-4
    assert calculate_face_psnr(*pair, **options, test_y_channel=True) == scores.psnr(*pair, test_y_channel=True) < 40
    assert calculate_face_ssim(*pair, **options, test_y_channel=True) == scores.ssim(*pair, test_y_channel=True) < 0.99


@pytest.mark.numeric
def test_chance_goes_on_as_if_they_had_not_been_loaded(weights):
    load_detector.cache_clear()
    before = torch.get_rng_state()
    assert calculate_face_psnr.unusable({'weights': weights, 'detector': 'mobile0.25'}) is None
    assert torch.equal(torch.get_rng_state(), before)


def test_files_without_counters(weights, tmp_path):
    """PyTorch before 0.4.1 kept none; facexlib takes such files."""
    state = torch.load(weights / DETECTORS['mobile0.25'].name, weights_only=True)
    path = tmp_path / DETECTORS['mobile0.25'].name
    torch.save({name: value for name, value in state.items() if not name.endswith('num_batches_tracked')}, path)
    found = load_detector(path, 'mobile0.25').state_dict()
    assert all(torch.equal(found[name.removeprefix('module.')], value) for name, value in state.items())


@pytest.mark.numeric
def test_results_name_the_files(weights):
    metrics = {'identity': {'type': 'calculate_face_identity', 'weights': str(weights), 'detector': 'mobile0.25'},
               'psnr': {'type': 'calculate_face_psnr', 'weights': str(weights), 'detector': 'mobile0.25'}}
    assert all('arcface' not in name for name in usable_metrics({'psnr': metrics['psnr']}))
    assert [name.split('-')[0] for name in usable_metrics(metrics)] == ['identity (retinaface', 'psnr (retinaface']
    digests = [hashlib.sha256((weights / file.name).read_bytes()).hexdigest()[:8]
               for file in (DETECTORS['mobile0.25'], ARCFACE)]
    assert list(usable_metrics(metrics)) == [
        'identity (retinaface-{}, arcface-{})'.format(*digests), f'psnr (retinaface-{digests[0]})']


# ---------------------------------------------------------------- what is missing or wrong

def link(weights: Path, folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).symlink_to(weights / name)
    return folder


@pytest.mark.numeric
def test_a_missing_package_is_a_reason_to_leave_it_out(monkeypatch, tmp_path, log):
    monkeypatch.setattr(face_metric, 'find_spec', lambda name: None)
    metrics = {'faces': {'type': 'calculate_face_identity', 'weights': str(tmp_path)},
               'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}
    assert list(usable_metrics(metrics)) == ['psnr']
    message, = (record.message for record in log.records)
    assert message == ("val.metrics.faces is skipped: the package facexlib is not installed; pip install "
                       "'basicsr_stvsr[face]', or pip install facexlib")


@pytest.mark.numeric
def test_called_without_its_package_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'facexlib', None)
    monkeypatch.setitem(sys.modules, 'facexlib.detection.retinaface', None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'basicsr_stvsr\[face\]'"):
        calculate_face_psnr(FRAME, FRAME, weights=tmp_path)


@pytest.mark.numeric
def test_missing_files_are_a_reason_to_leave_it_out(weights, tmp_path, log):
    metrics = {'identity': {'type': 'calculate_face_identity', 'weights': str(tmp_path), 'detector': 'mobile0.25'},
               'psnr': {'type': 'calculate_face_psnr', 'weights': str(tmp_path), 'detector': 'mobile0.25'}}
    assert usable_metrics(metrics) == {}
    release = 'https://github.com/xinntao/facexlib/releases/download/v0.1.0/'
    for record in log.records:
        assert str(tmp_path / 'detection_mobilenet0.25_Final.pth') in record.message
        assert f'published as {release}detection_mobilenet0.25_Final.pth' in record.message
    log.clear()
    link(weights, tmp_path, DETECTORS['mobile0.25'].name)
    name, = usable_metrics(metrics)  # the PSNR of faces needs no more
    assert name.startswith('psnr')
    message, = (record.message for record in log.records if 'published as' in record.message)
    assert f'published as {release}recognition_arcface_ir_se50.pth' in message


class Hostile:
    """Runs a command where it is unpickled as the pickle says."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.numeric
def test_a_hostile_file_is_refused(tmp_path):
    pytest.importorskip('facexlib')
    (tmp_path / 'folder').mkdir()
    torch.save({'module.body': Hostile(f'touch {tmp_path}/done')}, tmp_path / 'folder' / DETECTORS['resnet50'].name)
    with pytest.raises(ValueError, match='holds more than tensors and plain values'):
        calculate_face_psnr.unusable({'weights': tmp_path / 'folder'})
    assert not (tmp_path / 'done').exists()


@pytest.mark.parametrize('name', [DETECTORS['resnet50'].name, ARCFACE.name])
def test_a_file_of_another_network_is_refused(weights, tmp_path, name):
    link(weights, tmp_path, DETECTORS['resnet50'].name, ARCFACE.name)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to(weights / DETECTORS['mobile0.25'].name)
    with pytest.raises(ValueError, match=f'{name} does not hold the weights of facexlib'):
        calculate_face_identity.unusable({'weights': tmp_path})


@pytest.mark.numeric
def test_a_web_page_is_refused(tmp_path):
    pytest.importorskip('facexlib')
    (tmp_path / DETECTORS['resnet50'].name).write_text('<!doctype html><p>Not found')
    with pytest.raises(ValueError, match=r"is a web page.*RetinaFace \(ResNet-50\), published as https://"):
        calculate_face_psnr.unusable({'weights': tmp_path})


@pytest.mark.parametrize('options, message', [
    ({'detector': 'mtcnn'}, "must be one of resnet50, mobile0.25, but is 'mtcnn'"),
    ({'confidence': 1.5}, 'confidence must be >= 0 and < 1, but is 1.5'), ({'min_size': 3}, 'but is 3')])
def test_options_that_make_no_sense(tmp_path, options, message):
    for metric in METRICS:
        with pytest.raises(ValueError, match=message):
            metric.unusable({'weights': tmp_path, **options})


def test_facexlib_is_imported_by_those_alone_who_ask(monkeypatch):
    """Both modules once more, where neither it nor the slow part of scikit-image can be imported."""
    for name in ('facexlib', 'skimage.transform'):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(METRIC_REGISTRY, '_obj_map', {})
    for module in (face_networks, face_metric):
        spec = importlib.util.spec_from_file_location(f'{module.__name__}_again', module.__file__)
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert len(METRIC_REGISTRY._obj_map) == len(METRICS)
