"""Sources of optical flow: known motion, the papers' other implementations, files, and the script that fills them."""
import hashlib
import io
import json
import multiprocessing
import os
import pickle
import re
import runpy
import shutil
import signal
import sys
from pathlib import Path

import cv2
import h5py
import lmdb
import numpy as np
import pytest
import skimage.data
import torch

import basicsr_stvsr  # noqa: F401  (before basicsr, also in processes that the tests start)

# isort: split
from basicsr.utils.flow_util import flowwrite
from conftest import ROOT
from skimage.transform import resize
from torch.utils.data import DataLoader, get_worker_info

from basicsr_stvsr.archs.arch_util import warp
from basicsr_stvsr.archs.pwcnet_arch import PWCNet
from basicsr_stvsr.data.degradations import bicubic
from basicsr_stvsr.flow import (
    FlowEstimator,
    StoredFlow,
    build_flow,
    flow_lmdb,
    read_flow_archive,
    read_warp_archive,
)
from basicsr_stvsr.flow.base import enlarge, shrink_flow
from basicsr_stvsr.flow.dis_flow import DISFlow
from basicsr_stvsr.flow.flow_lmdb import FlowLmdbWriter
from basicsr_stvsr.io.color_spaces import convert_frame
from basicsr_stvsr.io.frames import FolderReader, FrameReadError

SCRIPTS = ROOT / 'scripts' / 'data_preparation'
MOTION = (2, 1)  # x and y


def moved(height: int, width: int, motion: tuple[int, int] = MOTION) -> tuple[np.ndarray, np.ndarray]:
    """Two frames of a smooth texture; what is at (x, y) in the first is at (x, y) + motion in the second."""
    noise = np.random.default_rng(0).uniform(0, 255, (height + 32, width + 32, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    texture = ((smooth - smooth.mean()) / smooth.std() * 45 + 128).clip(0, 255).astype(np.uint8)
    x, y = 16 - motion[0], 16 - motion[1]
    return texture[16:16 + height, 16:16 + width], texture[y:y + height, x:x + width]


def inner(flow: np.ndarray) -> np.ndarray:
    """What is not near the border, where things come and go."""
    height, width = flow.shape[:2]
    return flow[height // 4:height - height // 4, width // 4:width - width // 4]


# ---------------------------------------------------------------- DIS

@pytest.mark.numeric
@pytest.mark.parametrize('size', [(64, 96), (61, 97), (180, 320)])
@pytest.mark.parametrize('options', [
    {}, {'preset': 'fast'}, {'preset': 'ultrafast'}, {'upscale': 2}, {'preset': 'fast', 'upscale': 3}],
    ids=lambda options: '-'.join(map(str, options.values())) or 'default')
def test_known_motion(size, options):
    flow = build_flow({'type': 'DISFlow', **options})(*moved(*size))
    assert flow.shape == (*size, 2) and flow.dtype == np.float32
    error = np.abs(inner(flow) - MOTION)
    # The faster presets search at a quarter of the size.
    assert error.max() < (0.2 if 'preset' in options else 0.1) and error.mean() < 0.1


@pytest.mark.numeric
def test_the_second_frame_sampled_along_the_flow_is_the_first():
    """And by no other choice of sign and axes."""
    first, second = moved(96, 128, (3, -2))
    flow = DISFlow()(first, second)
    image = [torch.from_numpy(frame.copy()).permute(2, 0, 1).unsqueeze(0).float() for frame in (first, second)]

    def error(flow):
        warped = warp(image[1], torch.from_numpy(flow.copy()).permute(2, 0, 1).unsqueeze(0))
        return float((warped - image[0])[..., 8:-8, 8:-8].abs().mean())

    assert error(flow) < 1
    assert min(error(other) for other in (-flow, flow[..., ::-1], np.zeros_like(flow))) > 10


# 31 x 96 and the like crash OpenCV where nothing is done about it; 4 x 4 it refuses.
@pytest.mark.numeric
@pytest.mark.parametrize('size', [(12, 12), (16, 16), (17, 23), (14, 40), (16, 96), (31, 96), (31, 200), (96, 16)])
@pytest.mark.parametrize('preset', ['medium', 'fast', 'ultrafast'])
def test_small_frames(size, preset):
    flow = DISFlow(preset=preset)(*moved(*size, (1, 0)))
    np.testing.assert_allclose(np.median(inner(flow), axis=(0, 1)), (1, 0), atol=0.2)


@pytest.mark.numeric
@pytest.mark.parametrize('size', [(1, 1), (2, 30), (8, 8), (8, 300), (11, 11), (10, 48), (300, 8)])
@pytest.mark.parametrize('preset', ['medium', 'fast', 'ultrafast'])
def test_tiny_frames(size, preset):
    first, second = moved(*size)
    flow = DISFlow(preset=preset)(first, second)
    assert flow.shape == (*size, 2) and np.abs(flow).max() < max(size)
    assert not DISFlow(preset=preset)(first, first).any()


@pytest.mark.numeric
def test_flow_does_not_depend_on_what_came_before():
    small, large = moved(16, 20), moved(120, 160, (5, 3))
    used, fresh = DISFlow(preset='fast'), DISFlow(preset='fast')
    used(*small)
    np.testing.assert_array_equal(used(*large), fresh(*large))
    np.testing.assert_array_equal(used(*small), DISFlow(preset='fast')(*small))


@pytest.mark.numeric
def test_flow_does_not_depend_on_threads():
    pair = moved(240, 320)
    before = cv2.getNumThreads()
    flows = []
    try:
        for num_threads in (1, 2, 4):
            cv2.setNumThreads(num_threads)
            flows.append(DISFlow()(*pair))
    finally:
        cv2.setNumThreads(before)
    np.testing.assert_array_equal(flows[0], flows[1])
    np.testing.assert_array_equal(flows[0], flows[2])


class FlowDataset(torch.utils.data.Dataset):
    """The flow of a pair, and whether OpenCV keeps to one thread."""

    def __init__(self, source):
        self.source = source

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if isinstance(self.source, StoredFlow):
            flow = self.source.read('clip', 'im1', 'im2', (2, 3))
        else:
            flow = self.source(*moved(200, 240))
        return flow, cv2.getNumThreads() if get_worker_info() else 1


@pytest.mark.numeric
@pytest.mark.parametrize('context', ['fork', pytest.param('spawn', marks=pytest.mark.slow)])
def test_workers(context):
    """OpenCV's threads have been used before; with those of the parent a forked process could crash or hang."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(4)
    try:
        dataset = FlowDataset(DISFlow())
        expected, _ = dataset[0]
        loader = DataLoader(dataset, 2, num_workers=2, multiprocessing_context=context, timeout=60)
        for flow, num_threads in loader:
            np.testing.assert_array_equal(flow[0], expected)
            assert num_threads.tolist() == [1, 1]
        assert cv2.getNumThreads() == 4  # those of this process are left alone
    finally:
        cv2.setNumThreads(before)


@pytest.mark.numeric
def test_real_frames(real_data):
    """Of real motion the flow must explain most of what changes."""
    first, second = (cv2.imread(str(path)) for path in sorted((real_data / 'eval/vid4/foliage').glob('*.webp'))[:2])
    flow = torch.from_numpy(DISFlow()(first, second)).permute(2, 0, 1).unsqueeze(0)
    first, second = (torch.from_numpy(frame).permute(2, 0, 1).unsqueeze(0).float() for frame in (first, second))
    assert (warp(second, flow) - first).square().mean() < 0.4 * (second - first).square().mean()


# ---------------------------------------------------------------- what all estimators share

@pytest.mark.numeric
@pytest.mark.parametrize('scale', [2, 3])
@pytest.mark.parametrize('size', [(13, 18), (1, 7)])
def test_resizing_is_that_of_skimage(scale, size):
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    large = tuple(scale * side for side in size)
    expected = resize(frame, large, order=1, preserve_range=True, anti_aliasing=False)
    np.testing.assert_array_equal(enlarge(frame, scale), np.rint(expected))
    flow = rng.normal(0, 5, (*large, 2)).astype(np.float32)
    small = shrink_flow(flow, scale)
    assert small.dtype == np.float32
    np.testing.assert_allclose(small, resize(flow, size, anti_aliasing=True) / scale, atol=1e-5)


@pytest.mark.numeric
def test_upscale():
    """The estimator sees larger frames, and its pixels are smaller ones."""
    class Seen(FlowEstimator):
        def estimate(self, first, second):
            self.shape = first.shape
            return np.full((*first.shape[:2], 2), (6, -3), np.float32)

    seen = Seen(upscale=3)
    flow = seen(*moved(10, 14))
    assert seen.shape == (30, 42, 3) and flow.shape == (10, 14, 2)
    np.testing.assert_allclose(flow, np.broadcast_to((2, -1), flow.shape), rtol=1e-6)


@pytest.mark.parametrize(('first', 'second', 'message'), [
    (np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8), r'DISFlow needs two uint8 frames .* uint8 \(8, 8\)'),
    (np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.float32), r'got float32 \(8, 8, 3\)'),
    (np.zeros((8, 0, 3), np.uint8), np.zeros((8, 0, 3), np.uint8), r'got uint8 \(8, 0, 3\)'),
    (np.zeros((8, 9, 3), np.uint8), np.zeros((9, 8, 3), np.uint8), r'of the same size, but got \(8, 9\) and \(9, 8\)'),
])
def test_frames_that_are_none(first, second, message):
    with pytest.raises(ValueError, match=message):
        DISFlow()(first, second)


@pytest.mark.parametrize(('opt', 'message'), [
    ({'type': 'DIS'}, "must be one of DISFlow, .*RAFTFlow, but is 'DIS'"),
    ({}, 'must be one of DISFlow, .*, but is None'),
    ({'type': 'DISFlow', 'preset': 'slow'}, "preset must be one of ultrafast, fast, medium, fine, got 'slow'"),
    ({'type': 'DISFlow', 'upscale': 0}, 'upscale must be a whole number >= 1, got 0'),
])
def test_options_that_are_wrong(opt, message):
    with pytest.raises(ValueError, match=message):
        build_flow(opt)


def test_options_are_not_changed():
    opt = {'type': 'DISFlow', 'preset': 'fast'}
    assert build_flow(opt).preset == 'fast' and opt == {'type': 'DISFlow', 'preset': 'fast'}


# ---------------------------------------------------------------- networks

@pytest.fixture(scope='module')
def weights(tmp_path_factory) -> dict[str, Path]:
    """Files with random weights."""
    from torchvision.models.optical_flow import raft_large
    folder = tmp_path_factory.mktemp('weights')
    torch.manual_seed(0)
    for name, net in (('PWCFlow', PWCNet()), ('RAFTFlow', raft_large(weights=None))):
        torch.save(net.state_dict(), folder / f'{name}.pth')
    return {path.stem: path for path in folder.iterdir()}


def rgb(frame: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frame[..., ::-1].copy()).permute(2, 0, 1).unsqueeze(0) / 255


@pytest.mark.numeric
def test_pwc_is_the_network_of_that_name(weights):
    first, second = moved(64, 128)
    net = PWCNet(pretrained=str(weights['PWCFlow'])).eval()
    with torch.no_grad():
        coarse = net(rgb(first), rgb(second))[0][0].permute(1, 2, 0).numpy()
    expected = 4 * cv2.resize(coarse, (128, 64), interpolation=cv2.INTER_LINEAR)
    flow = build_flow({'type': 'PWCFlow', 'weights': weights['PWCFlow'], 'upscale': 1})(first, second)
    assert np.ptp(expected) > 0.1  # random weights, but not nothing
    np.testing.assert_allclose(flow, expected, atol=1e-4)


@pytest.mark.numeric
def test_raft_is_torchvisions(weights):
    from torchvision.models.optical_flow import raft_large
    first, second = moved(128, 136)
    net = raft_large(weights=None).eval()
    net.load_state_dict(torch.load(weights['RAFTFlow'], weights_only=True))
    with torch.no_grad():
        expected = net(2 * rgb(first) - 1, 2 * rgb(second) - 1)[-1][0].permute(1, 2, 0).numpy()
    flow = build_flow({'type': 'RAFTFlow', 'weights': weights['RAFTFlow']})(first, second)
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(flow, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.numeric
@pytest.mark.parametrize(('name', 'small', 'extended'), [
    ('PWCFlow', (50, 70), (64, 128)), ('PWCFlow', (1, 3), (64, 64)),
    ('RAFTFlow', (9, 130), (128, 136)),  # at least 128, and a multiple of 8
])
def test_sizes_that_networks_do_not_take(weights, name, small, extended):
    """Frames are extended by their last pixels, and the flow is cut."""
    estimator = build_flow({'type': name, 'weights': weights[name], 'upscale': 1})
    pair = moved(*small)
    padding = [(0, large - side) for large, side in zip(extended, small, strict=True)]
    expected = estimator(*(np.pad(frame, [*padding, (0, 0)], 'edge') for frame in pair))
    flow = estimator(*pair)
    assert flow.dtype == np.float32
    np.testing.assert_array_equal(flow, expected[:small[0], :small[1]])


@pytest.mark.numeric
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
@pytest.mark.parametrize('name', ['PWCFlow', 'RAFTFlow'])
def test_networks_on_a_gpu(weights, name):
    """What a CPU gives, but for TF32."""
    pair = moved(100, 150)
    on_cpu, on_gpu = (build_flow({'type': name, 'weights': weights[name], 'device': device})(*pair)
                      for device in ('cpu', 'cuda'))
    np.testing.assert_allclose(on_gpu, on_cpu, atol=0.02 * np.abs(on_cpu).max())


def test_networks_enlarge_as_their_authors_did(weights):
    assert build_flow({'type': 'PWCFlow', 'weights': weights['PWCFlow']}).upscale == 2
    assert build_flow({'type': 'RAFTFlow', 'weights': weights['RAFTFlow']}).upscale == 1


@pytest.mark.numeric
def test_networks_can_be_pickled(weights):
    estimator, pair = build_flow({'type': 'PWCFlow', 'weights': weights['PWCFlow'], 'upscale': 1}), moved(20, 20)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(estimator))(*pair), estimator(*pair))


@pytest.mark.parametrize(('name', 'expected'), [
    ('PWCFlow', 'the weights of PWC-Net .*, published as'), ('RAFTFlow', "the weights of torchvision's raft_large"),
])
def test_weights_that_are_missing(name, expected, tmp_path):
    with pytest.raises(FileNotFoundError, match=f'none.pth does not exist; expected {expected}'):
        build_flow({'type': name, 'weights': tmp_path / 'none.pth'})


# ---------------------------------------------------------------- files of one flow

FLOW = np.arange(12, dtype=np.float32).reshape(2, 3, 2) - 5.5


@pytest.fixture
def flow_folder(tmp_path) -> Path:
    root = tmp_path / 'flows'
    (root / 'clip').mkdir(parents=True)
    flowwrite(FLOW, str(root / 'clip' / 'im1_to_im2.flo'))
    for kind in (np.float16, np.float32, np.float64):
        np.save(root / 'clip' / f'a.b_to_{kind.__name__}.npy', FLOW.astype(kind))
    return root


@pytest.mark.numeric
@pytest.mark.parametrize('pair', [
    ('im1', 'im2'), ('a.b', 'float16'), ('a.b', 'float32'), ('a.b', 'float64')], ids='_'.join)
def test_files_of_one_flow(flow_folder, pair):
    flow = build_flow({'type': 'FlowFiles', 'root': str(flow_folder)}).read('clip', *pair, (2, 3))
    assert flow.dtype == np.float32
    np.testing.assert_array_equal(flow, FLOW)


PIEH = b'PIEH' + np.array([3, 2], '<i4').tobytes() + FLOW.tobytes()  # a good file


@pytest.mark.parametrize(('suffix', 'content', 'message'), [
    ('.txt', b'', r"no flow from frame 'a' to 'b' of clip 'clip': neither .*clip/a_to_b.flo nor .*clip/a_to_b.npy"),
    ('.flo', b'HEIP' + PIEH[4:], r"a_to_b.flo cannot be read .* begins with b'HEIP' \(the number .*\), expected b'PIEH'"
     r' \(the number 202021.25\)'),
    ('.flo', PIEH[:-1], r'has 59 bytes instead of 60, by the size in its header, 3x2 \(w x h\); it is truncated'),
    ('.flo', PIEH + b'\0', 'has 61 bytes instead of 60'),
    ('.flo', PIEH[:10], 'a_to_b.flo cannot be read as a flow: it has 10 bytes'),
    ('.flo', b'', "a_to_b.flo cannot be read as a flow: it begins with b''"),
    ('.npy', b'no array', 'a_to_b.npy cannot be read as a flow'),
    ('.npy', b'', 'a_to_b.npy cannot be read as a flow'),
    ('.npy', FLOW.astype(int), "flow from frame 'a' to 'b' of clip 'clip' holds int64, expected floats"),
    ('.npy', FLOW.transpose(1, 0, 2), r'has shape \(3, 2, 2\), expected \(2, 3, 2\)'),
    ('.npy', FLOW[..., 0], r'has shape \(2, 3\), expected \(2, 3, 2\)'),
    ('.npy', np.where(FLOW > 5, np.nan, FLOW), "clip 'clip' has values that are not a motion: NaN, infinite or marked"),
    ('.npy', np.where(FLOW > 5, -np.inf, FLOW), 'has values that are not a motion'),
    ('.npy', np.where(FLOW > 5, 1.67e9, FLOW), 'has values that are not a motion'),  # Middlebury's "unknown"
])
def test_files_that_are_wrong(flow_folder, suffix, content, message):
    path = flow_folder / 'clip' / f'a_to_b{suffix}'
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    with pytest.raises(FrameReadError, match=message):
        build_flow({'type': 'FlowFiles', 'root': flow_folder}).read('clip', 'a', 'b', (2, 3))


def test_no_folder(tmp_path):
    with pytest.raises(FrameReadError, match='none: no such flow folder'):
        build_flow({'type': 'FlowFiles', 'root': tmp_path / 'none'})


# ---------------------------------------------------------------- the authors' files

@pytest.fixture
def lq_folder(tmp_path) -> Path:
    """Three clips of three frames."""
    for clip in ('scene2', 'scene10', 'scene1'):
        (tmp_path / 'lq' / clip).mkdir(parents=True)
        for frame in range(3):
            cv2.imwrite(str(tmp_path / 'lq' / clip / f'f{frame}.png'), np.zeros((5, 7, 3), np.uint8))
    return tmp_path / 'lq'


def write_archive(path: Path, flows: np.ndarray, magic: float = 202021.25) -> Path:
    with open(path, 'wb') as file:
        np.float32(magic).tofile(file)
        np.array(flows.shape[:4], '<i4').tofile(file)
        flows.astype('<f4').tofile(file)
    return path


@pytest.fixture
def archive(tmp_path) -> Path:
    """Flow k of sample n is 10 n + k in x, and minus that in y."""
    number = 10 * np.arange(3)[:, None] + np.arange(4)
    flows = np.stack((number, -number), axis=-1)[:, :, None, None]
    return write_archive(tmp_path / 'test_ss1.flo', np.broadcast_to(flows, (3, 4, 5, 7, 2)))


def test_flow_archive(archive):
    flows = read_flow_archive(archive)
    assert flows.shape == (3, 4, 5, 7, 2) and flows.dtype == np.float32 and isinstance(flows, np.memmap)
    assert (flows[2, 1] == (21, -21)).all()


@pytest.mark.numeric
@pytest.mark.parametrize(('clip', 'first', 'second', 'expected'), [
    ('scene1', 'f0', 'f1', 0), ('scene1', 'f1', 'f0', 1), ('scene1', 'f1', 'f2', 2), ('scene1', 'f2', 'f1', 3),
    ('scene2', 'f0', 'f1', 10), ('scene10', 'f2', 'f1', 23),  # scene10 is the third, not the second
])
def test_flows_of_a_test_set(archive, lq_folder, clip, first, second, expected):
    source = build_flow({'type': 'FlowArchive', 'path': str(archive), 'frames': str(lq_folder)})
    flow = pickle.loads(pickle.dumps(source)).read(clip, first, second, (5, 7))
    np.testing.assert_array_equal(flow, np.broadcast_to((expected, -expected), (5, 7, 2)))


def test_nothing_of_an_archive_is_pickled(archive, lq_folder):
    source = build_flow({'type': 'FlowArchive', 'path': archive, 'frames': lq_folder})
    before = len(pickle.dumps(source))
    source.read('scene1', 'f0', 'f1', (5, 7))
    assert len(pickle.dumps(source)) == before


@pytest.mark.parametrize(('clip', 'first', 'second', 'size', 'message'), [
    ('scene1', 'f0', 'f2', (5, 7), "no flow from frame 'f0' to 'f2' of clip 'scene1' in .*; it holds the flows"),
    ('scene1', 'f0', 'f0', (5, 7), "no flow from frame 'f0' to 'f0'"),
    ('scene3', 'f0', 'f1', (5, 7), "no flow .* of clip 'scene3'"),
    ('scene1', 'f0', 'f1', (5, 8), r"clip 'scene1' has shape \(5, 7, 2\), expected \(5, 8, 2\)"),
])
def test_flows_that_an_archive_does_not_have(archive, lq_folder, clip, first, second, size, message):
    with pytest.raises(FrameReadError, match=message):
        build_flow({'type': 'FlowArchive', 'path': archive, 'frames': lq_folder}).read(clip, first, second, size)


@pytest.mark.parametrize(('shape', 'message'), [
    ((2, 4, 5, 7, 2), 'holds the flows of 2 clips, but .*lq has 3'),
    ((3, 8, 5, 7, 2), "holds 8 flows of each clip, for 5 frames, but clip 'scene1' of .* has 3"),
])
def test_an_archive_of_other_clips(tmp_path, lq_folder, shape, message):
    path = write_archive(tmp_path / 'other.flo', np.zeros(shape))
    with pytest.raises(FrameReadError, match=message):
        build_flow({'type': 'FlowArchive', 'path': path, 'frames': lq_folder})


def test_archives_that_are_wrong(archive, tmp_path):
    content, bad = archive.read_bytes(), tmp_path / 'bad.flo'
    plain = tmp_path / 'plain.flo'
    flowwrite(FLOW, str(plain))
    for other, message in ((content[:-1], r'has 3379 bytes instead of 3380, by the shape in .*, \(3, 4, 5, 7\)'),
                           (content + b'\0', 'has 3381 bytes instead of 3380'),
                           (content[:11], 'has 11 bytes instead of'),
                           (content[:4] + b'\0' * 16, r'its header, \(0, 0, 0, 0\)'),
                           (content[:4] + b'\xff' * 16, r'its header, \(-1, -1, -1, -1\)'),
                           (b'PK\3\4' + content[4:], r"bad.flo is not a flow file .*: it begins with b'PK\\x03\\x04' "
                            r"\(the number 1.5.*e-36\), expected b'PIEH' \(the number 202021.25\)"),
                           (plain.read_bytes(), 'it holds a single flow; read it with FlowFiles')):
        bad.write_bytes(other)
        with pytest.raises(FrameReadError, match=message):
            read_flow_archive(bad)
    with pytest.raises(FrameReadError, match='none.flo: no such flow file'):
        read_flow_archive(tmp_path / 'none.flo')


@pytest.mark.numeric
def test_warp_archive(tmp_path):
    """hdf5storage stores an array of Python with its axes in reverse order."""
    frames = np.random.default_rng(0).uniform(0, 255, (3, 4, 5, 7, 3)).astype(np.float32)
    with h5py.File(tmp_path / 'warp.mat', 'w') as file:
        file['pred'], file['other'] = frames.T, np.zeros((3, 1, 1, 1, 1))
    archive = read_warp_archive(tmp_path / 'warp.mat')
    assert archive.shape == (3, 4, 5, 7, 3) and archive.dtype == np.float32 and len(archive) == 3
    np.testing.assert_array_equal(archive[1], frames[1])


@pytest.mark.parametrize(('content', 'message'), [
    (b'MATLAB 5.0 MAT-file', 'warp.mat was saved by MATLAB as version 5 to 7; save it with -v7.3'),
    ({'a': (2, 3)}, r'warp.mat holds a \(3, 2\); expected pred'),
    ({'a': (3, 7, 5, 4, 2), 'b': (3, 7, 5, 4, 2)}, r'holds a \(2, 4, 5, 7, 3\), b \(2, 4, 5, 7, 3\); expected pred'),
    ({}, 'warp.mat holds no array; expected pred'),
])
def test_warp_archives_that_are_wrong(tmp_path, content, message):
    path = tmp_path / 'warp.mat'
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with h5py.File(path, 'w') as file:
            for name, shape in content.items():
                file[name] = np.zeros(shape)
    with pytest.raises(FrameReadError, match=message):
        read_warp_archive(path)


# ---------------------------------------------------------------- precompute_flow.py

@pytest.fixture
def precompute(monkeypatch, tmp_path):
    """Runs the script in this process, into `flow.lmdb`, and returns its exit code."""
    monkeypatch.syspath_prepend(str(SCRIPTS))

    def run(*args) -> int:
        monkeypatch.setattr(sys, 'argv', ['precompute_flow.py', '--output', str(tmp_path / 'flow.lmdb'),
                                          '--workers', '1', *map(str, args)])
        with pytest.raises(SystemExit) as exit_info:
            runpy.run_path(str(SCRIPTS / 'precompute_flow.py'), run_name='__main__')
        return exit_info.value.code

    return run


def content(path: Path) -> dict[str, bytes]:
    with lmdb.open(str(path), readonly=True, lock=False) as env, env.begin() as transaction:
        return {bytes(key).decode(): bytes(value) for key, value in transaction.cursor()}


def frame(clips: Path, clip: str, name: str) -> np.ndarray:
    return cv2.imread(str(clips / clip / f'{name}.png'))


@pytest.mark.numeric
def test_precomputed_flows(precompute, clips, tmp_path, capfd):
    """Those between neighbours, as they are estimated on the fly, to the half precision that they are kept in."""
    assert precompute('--input', clips, '--preset', 'fast') == 0
    assert 'Wrote 24 flows' in capfd.readouterr().out
    pairs = {f'{clip}/im{i}_to_im{j}' for clip in ('first', 'second') for i in range(1, 8) for j in (i - 1, i + 1)
             if 1 <= j <= 7}
    assert set(content(tmp_path / 'flow.lmdb')) == pairs
    source = build_flow({'type': 'FlowFiles', 'root': tmp_path / 'flow.lmdb'})
    for first, second in (('im3', 'im4'), ('im4', 'im3')):
        flow = source.read('second', first, second, (64, 72))
        expected = DISFlow(preset='fast')(*(frame(clips, 'second', name) for name in (first, second)))
        assert flow.dtype == np.float32
        np.testing.assert_array_equal(flow, expected.astype(np.float16))
    # The clips move to the left, by two pixels a frame.
    assert np.median(source.read('first', 'im1', 'im2', (64, 72))[..., 0]) == pytest.approx(-2, abs=0.05)


@pytest.mark.parametrize(('args', 'steps'), [
    (['--strides', 1, 2], (1, 2)), (['--every', 2], (2,)), (['--every', 2, '--strides', 2, 1, 2], (2, 4)),
])
def test_pairs(precompute, clips, tmp_path, args, steps):
    assert precompute('--input', clips, '--preset', 'ultrafast', *args) == 0
    expected = {f'{clip}/im{i}_to_im{j}' for clip in ('first', 'second') for i in range(1, 8) for j in range(1, 8)
                if abs(i - j) in steps}
    assert set(content(tmp_path / 'flow.lmdb')) == expected


def test_each_frame_is_decoded_once(precompute, clips, monkeypatch):
    """Also where it is part of eight pairs."""
    def read(self, clip, index):
        decoded.append((clip, index))
        return original(self, clip, index)

    decoded, original = [], FolderReader._read
    monkeypatch.setattr(FolderReader, '_read', read)
    assert precompute('--input', clips, '--preset', 'ultrafast', '--every', 2, '--strides', 1, 2) == 0
    assert sorted(decoded) == [(clip, index) for clip in ('first', 'second') for index in range(7)]


@pytest.mark.numeric
def test_flows_of_lr_frames(precompute, clips, tmp_path):
    """--scale makes LR frames as the data sets do, of ground truth that is cut to a multiple."""
    assert precompute('--input', clips, '--scale', 3) == 0
    lq = [bicubic(3)(frame(clips, 'first', name)[:63]) for name in ('im1', 'im2')]
    flow = build_flow({'type': 'FlowFiles', 'root': tmp_path / 'flow.lmdb'}).read('first', 'im1', 'im2', (21, 24))
    np.testing.assert_array_equal(flow, DISFlow()(*lq).astype(np.float16))


@pytest.mark.numeric
def test_flows_of_yuv_frames(precompute, clips, tmp_path):
    """They are those of the RGB frames, but for the rounding of both."""
    yuv = tmp_path / 'yuv' / 'first'
    yuv.mkdir(parents=True)
    for name in ('im1', 'im2'):
        cv2.imwrite(str(yuv / f'{name}.png'), convert_frame(frame(clips, 'first', name), 'rgb', 'yuv'))
    assert precompute('--input', yuv.parent, '--color', 'yuv') == 0
    flow = build_flow({'type': 'FlowFiles', 'root': tmp_path / 'flow.lmdb'}).read('first', 'im1', 'im2', (64, 72))
    expected = DISFlow()(frame(clips, 'first', 'im1'), frame(clips, 'first', 'im2'))
    assert np.abs(inner(flow) - inner(expected)).mean() < 0.02


def test_rgb_frames_are_not_taken_for_yuv(precompute, tmp_path, capfd):
    (tmp_path / 'photos').mkdir()
    for number in (1, 2):
        photo = skimage.data.astronaut()[::4, 4 * number:4 * number + 96, ::-1]
        cv2.imwrite(str(tmp_path / 'photos' / f'im{number}.png'), photo)
    assert precompute('--input', tmp_path / 'photos', '--color', 'yuv') == 1
    assert re.search(r'photos should hold YUV, but does not look like YUV: \d+% of its', capfd.readouterr().err)
    assert not list(tmp_path.glob('flow.lmdb*'))
    assert precompute('--input', tmp_path / 'photos') == 0


def test_threads_give_the_same(precompute, clips, tmp_path):
    before = cv2.getNumThreads()
    try:
        assert precompute('--input', clips, '--workers', 3) == 0
    finally:
        cv2.setNumThreads(before)
    threaded = content(tmp_path / 'flow.lmdb')
    assert precompute('--input', clips, '--force') == 0
    assert content(tmp_path / 'flow.lmdb') == threaded


def killed_run(run, args, num_flows: int) -> None:
    """A run that is killed as soon as so many flows are on disk."""
    def put(self, key, flow):
        original(self, key, flow)
        if len(self) >= num_flows:
            os.kill(os.getpid(), signal.SIGKILL)

    original = FlowLmdbWriter.put
    flow_lmdb._COMMIT_BYTES = 1
    FlowLmdbWriter.put = put
    run(*args)


def test_a_killed_run_goes_on(precompute, clips, tmp_path, capfd):
    args = ['--input', clips, '--preset', 'fast', '--strides', 1, 2]
    target, part = tmp_path / 'flow.lmdb', tmp_path / 'flow.lmdb.part'
    assert precompute(*args) == 0
    expected, expected_list = content(target), (target / 'meta_info.txt').read_text()
    assert precompute(*args) == 0  # there is nothing to do
    assert 'complete already' in capfd.readouterr().out
    target.rename(tmp_path / 'other.lmdb')

    for num_flows in (1, 7, 30):
        process = multiprocessing.get_context('fork').Process(target=killed_run, args=(precompute, args, num_flows))
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL and not target.exists()
        assert len(content(part)) == num_flows
        with pytest.raises(FrameReadError, match='meta_info.txt is missing'):
            build_flow({'type': 'FlowFiles', 'root': part})
    before = content(part)
    assert precompute(*args) == 0
    assert '30/44' in capfd.readouterr().err  # the progress begins there
    assert content(target) == expected and before.items() <= expected.items() and not part.exists()
    assert (target / 'meta_info.txt').read_text() == expected_list


def test_an_error_keeps_what_was_made(precompute, clips, tmp_path, capfd):
    broken = tmp_path / 'clips'
    (broken / 'a').mkdir(parents=True)
    for i in (1, 2, 3):
        (broken / 'a' / f'im{i}.png').write_bytes((clips / 'first' / f'im{i}.png').read_bytes()[:None if i < 3 else 99])
    args = ['--input', broken]
    assert precompute(*args) == 1
    assert "clip 'a', frame 2 (im3)" in capfd.readouterr().err
    assert 'a/im1_to_im2' in content(tmp_path / 'flow.lmdb.part')
    (broken / 'a' / 'im3.png').write_bytes((clips / 'first' / 'im3.png').read_bytes())
    assert precompute(*args) == 0
    assert len(content(tmp_path / 'flow.lmdb')) == 4


@pytest.mark.parametrize(('change', 'message'), [
    (['--preset', 'ultrafast'], "was begun with flow {.*'fast'}, not {.*'ultrafast'}; --force starts over"),
    (['--strides', '1', '2'], r'was begun with steps \[1\], not \[1, 2\]; --force'),
    (['--scale', '2'], 'was begun with scale 1, not 2; --force'),
    (['--upscale', '2'], "was begun with flow {.*'upscale': 1.*}, not {.*'upscale': 2"),
])
def test_other_settings_do_not_go_on(precompute, clips, tmp_path, capfd, change, message):
    args = ['--input', clips, '--preset', 'fast']
    assert precompute(*args) == 0
    (tmp_path / 'flow.lmdb').rename(tmp_path / 'flow.lmdb.part')  # as if it had been killed before its last step
    assert precompute(*args, *change) == 1
    assert re.search(message, capfd.readouterr().err)
    assert precompute(*args, *change, '--force') == 0
    settings = json.loads((tmp_path / 'flow.lmdb' / 'flow_settings.json').read_text())
    assert settings['input'] == {'path': str(clips), 'clips': 2, 'frames': 14, 'names': settings['input']['names']}


def test_other_clips_do_not_go_on(precompute, clips, tmp_path, capfd):
    other = tmp_path / 'clips'
    shutil.copytree(clips, other)
    assert precompute('--input', other, '--preset', 'ultrafast') == 0
    (tmp_path / 'flow.lmdb').rename(tmp_path / 'flow.lmdb.part')
    (other / 'second').rename(other / 'third')
    assert precompute('--input', other, '--preset', 'ultrafast') == 1
    assert 'flow.lmdb.part was begun with input' in capfd.readouterr().err


def make_target(path: Path, kind: str) -> str:
    """Something that stands where the flows should go, and the message about it."""
    part = path.with_name(path.name + '.part')
    if kind == 'complete':
        path.mkdir()
        return 'flow.lmdb exists already; --force starts over'
    if kind == 'frames':
        with lmdb.open(str(part)) as env, env.begin(write=True) as transaction:
            transaction.put(b'clip/im1', b'a frame')
        return 'flow.lmdb.part is not an unfinished LMDB of flows: it has no flow_settings.json; --force starts over'
    path.rename(part)
    with open(part / 'data.mdb', 'r+b') as file:
        file.truncate(3 * 4096)
    return r'data.mdb is truncated, it has 12288 of \d+ bytes; --force starts over'


@pytest.mark.parametrize('kind', ['complete', 'frames', 'truncated'])
def test_what_is_in_the_way(precompute, clips, tmp_path, capfd, kind):
    args = ['--input', clips, '--preset', 'ultrafast']
    if kind == 'truncated':
        assert precompute(*args) == 0
    message = make_target(tmp_path / 'flow.lmdb', kind)
    assert precompute(*args) == 1
    assert re.search(message, capfd.readouterr().err)
    assert precompute(*args, '--force') == 0
    assert len(content(tmp_path / 'flow.lmdb')) == 24


def test_two_runs_of_one_target(precompute, clips, tmp_path, capfd):
    with pytest.raises(KeyboardInterrupt), FlowLmdbWriter(tmp_path / 'flow.lmdb', {}):
        assert precompute('--input', clips) == 1
        assert f'another run is writing {tmp_path / "flow.lmdb.part"}' in capfd.readouterr().err
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())  # there was nothing to keep


@pytest.mark.parametrize(('args', 'message'), [
    (['--weights', 'x.pth'], '--flow DISFlow takes no --weights'),
    (['--flow', 'PWCFlow'], '--flow PWCFlow needs --weights'),
    (['--flow', 'RAFTFlow', '--weights', 'none.pth', '--preset', 'fast'], '--flow RAFTFlow takes no --preset'),
    (['--flow', 'RAFTFlow', '--weights', 'none.pth'], "none.pth does not exist; expected the weights of torchvision's"),
    (['--strides', '7'], 'no clip has 8 frames, so there are no pairs'),
    (['--output', 'flow.npy'], "the name of an LMDB must end in '.lmdb', got flow.npy"),
    (['--input', 'none'], 'none'),
])
def test_arguments_that_are_wrong(precompute, clips, tmp_path, capfd, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    assert precompute('--input', clips, *args) == 1
    assert re.search(message, capfd.readouterr().err)
    assert not list(tmp_path.iterdir())


@pytest.mark.numeric
def test_the_settings_name_the_weights(precompute, clips, tmp_path, weights):
    """By their content, as files are called alike."""
    small = tmp_path / 'clips' / 'a'
    small.mkdir(parents=True)
    for name in ('im1', 'im2'):
        cv2.imwrite(str(small / f'{name}.png'), frame(clips, 'first', name)[:40, :50])
    assert precompute('--input', small.parent, '--flow', 'PWCFlow', '--weights', weights['PWCFlow']) == 0
    settings = json.loads((tmp_path / 'flow.lmdb' / 'flow_settings.json').read_text())
    digest = hashlib.sha256(weights['PWCFlow'].read_bytes()).hexdigest()
    assert settings['flow'] == {'type': 'PWCFlow', 'upscale': 2, 'weights': 'PWCFlow.pth', 'sha256': digest}
    pair = [frame(clips, 'first', name)[:40, :50] for name in ('im1', 'im2')]
    expected = build_flow({'type': 'PWCFlow', 'weights': weights['PWCFlow']})(*pair).astype(np.float16)
    flow = build_flow({'type': 'FlowFiles', 'root': tmp_path / 'flow.lmdb'}).read('a', 'im1', 'im2', (40, 50))
    np.testing.assert_array_equal(flow, expected)


# ---------------------------------------------------------------- an LMDB of flows

@pytest.fixture
def flow_lmdb_path(tmp_path) -> Path:
    with FlowLmdbWriter(tmp_path / 'written.lmdb', {'made': 'by hand'}) as writer:
        writer.put('clip/im1_to_im2', FLOW)
        writer.put('a clip/é_to_2', -FLOW)
    return tmp_path / 'written.lmdb'


@pytest.mark.numeric
def test_writer_and_reader(flow_lmdb_path):
    source = build_flow({'type': 'FlowFiles', 'root': flow_lmdb_path})
    np.testing.assert_array_equal(source.read('clip', 'im1', 'im2', (2, 3)), FLOW)
    np.testing.assert_array_equal(source.read('a clip', 'é', '2', (2, 3)), -FLOW)


@pytest.mark.numeric
def test_half_precision(tmp_path):
    """As docs/datasets.md has it: off by 1/64 pixel below 64 pixels, by half a pixel above 1024."""
    values = np.random.default_rng(0).uniform(0, 64, (40, 50, 2)).astype(np.float32)
    with FlowLmdbWriter(tmp_path / 'a.lmdb', {}) as writer:
        writer.put('c/slow', values)
        writer.put('c/fast', 1024 + 16 * values)
    for name, flow, error in (('slow', values, 1 / 64), ('fast', 1024 + 16 * values, 1 / 2)):
        stored = np.load(io.BytesIO(content(tmp_path / 'a.lmdb')[f'c/{name}'])).astype(np.float32)
        assert error / 2 < np.abs(stored - flow).max() <= error


@pytest.mark.numeric
@pytest.mark.parametrize('context', ['fork', pytest.param('spawn', marks=pytest.mark.slow)])
def test_stored_flows_in_workers(flow_lmdb_path, context):
    source = build_flow({'type': 'FlowFiles', 'root': flow_lmdb_path})
    source.read('clip', 'im1', 'im2', (2, 3))  # open here before the workers start
    for flow, _ in DataLoader(FlowDataset(source), 2, num_workers=2, multiprocessing_context=context, timeout=60):
        np.testing.assert_array_equal(flow[1], FLOW)


def test_flows_that_an_lmdb_does_not_have(flow_lmdb_path):
    source = build_flow({'type': 'FlowFiles', 'root': flow_lmdb_path})
    with pytest.raises(FrameReadError, match="no flow from frame 'im2' to 'im1' of clip 'clip' in .*; flow_settings"):
        source.read('clip', 'im2', 'im1', (2, 3))
    with pytest.raises(FrameReadError, match=r"flow from frame 'im1' to 'im2' of clip 'clip' has shape \(2, 3, 2\)"):
        source.read('clip', 'im1', 'im2', (3, 2))


def damage(path: Path, kind: str) -> None:
    if kind == 'value':
        with lmdb.open(str(path)) as env, env.begin(write=True) as transaction:
            transaction.put(b'clip/im1_to_im2', b'no array')
    elif kind == 'truncated':
        with open(path / 'data.mdb', 'r+b') as file:
            file.truncate(4096 * 2)
    elif kind == 'missing':
        with lmdb.open(str(path)) as env, env.begin(write=True) as transaction:
            transaction.delete(b'clip/im1_to_im2')
    else:
        (path / kind).unlink()


@pytest.mark.parametrize(('kind', 'message'), [
    ('value', "flow from frame 'im1' to 'im2' of clip 'clip' is damaged: 8 bytes are not a .npy file"),
    ('truncated', 'data.mdb is truncated, it has 8192 of'),
    ('missing', 'data.mdb holds 1 images and meta_info.txt lists 2'),
    ('meta_info.txt', 'meta_info.txt is missing'),
    ('flow_settings.json', 'flow_settings.json is missing, so this is not a flow LMDB of .*precompute_flow.py'),
])
def test_damaged_lmdbs(flow_lmdb_path, kind, message):
    damage(flow_lmdb_path, kind)
    with pytest.raises(FrameReadError, match=message):
        build_flow({'type': 'FlowFiles', 'root': flow_lmdb_path}).read('clip', 'im1', 'im2', (2, 3))


@pytest.mark.parametrize(('key', 'flow', 'message'), [
    ('c/a_to_b', np.full((1, 1, 2), np.nan), "the flow 'c/a_to_b' has values that are not a motion"),
    ('c/a_to_b', np.full((1, 1, 2), -7e4), 'NaN, or too large'),
    ('c' * 600, FLOW, 'is longer than the 511 bytes that LMDB allows; rename the clip'),
])
def test_flows_that_cannot_be_written(tmp_path, key, flow, message):
    with pytest.raises(ValueError, match=message), FlowLmdbWriter(tmp_path / 'a.lmdb', {}) as writer:
        writer.put(key, flow)
    assert not list(tmp_path.iterdir())


def test_two_flows_of_one_key(tmp_path):
    """Frames 'a_to_b' and 'c', and frames 'a' and 'b_to_c'."""
    with pytest.raises(ValueError, match="two flows have the key 'c/a_to_b_to_c'; rename the clips"), \
            FlowLmdbWriter(tmp_path / 'a.lmdb', {}) as writer:
        writer.put('c/a_to_b_to_c', FLOW)
        writer.put('c/a_to_b_to_c', FLOW)


def test_the_map_grows(tmp_path, monkeypatch):
    """Also that of a run which goes on."""
    monkeypatch.setattr(flow_lmdb, '_COMMIT_BYTES', 1)
    for name in ('a', 'b'):
        writer = FlowLmdbWriter(tmp_path / 'a.lmdb', {})
        writer._map_size = 2**16
        with pytest.raises(KeyboardInterrupt), writer:
            for i in range(20):
                writer.put(f'{name}/{i}', np.full((64, 64, 2), i))
            raise KeyboardInterrupt
    assert len(content(tmp_path / 'a.lmdb.part')) == 40
