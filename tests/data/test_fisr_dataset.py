import multiprocessing
import pickle

import cv2
import h5py
import numpy as np
import pytest
import scipy.io
import torch
from basicsr.data import build_dataset
from basicsr.models import build_model
from conftest import ROOT
from torch.utils.data import DataLoader

from basicsr_stvsr.config.loading import complete_paths, load_options
from basicsr_stvsr.data.fisr_dataset import FISRMatDataset
from basicsr_stvsr.io.color_spaces import convert_frame
from basicsr_stvsr.io.frames import FrameReadError
from basicsr_stvsr.training.loader import make_train_loader

H, W, N = 8, 12, 9  # of the LR frames, and of samples


def pattern(height, width, num_frames, num_samples=N):
    """YUV of 0-255 in MATLAB's order, (height, width, 3, frames, samples); every axis shows in the values."""
    y, x, frame, sample = np.meshgrid(
        np.arange(height), np.arange(width), np.arange(num_frames), np.arange(num_samples), indexing='ij')
    luma = 40 + 2 * y + 3 * x + 5 * frame + 4 * sample
    return np.stack((luma, 120 + y + frame, 140 - x + sample), axis=2).astype(np.uint8)


def write_mat(path, array, name, **options):
    """As MATLAB does with -v7.3: the axes in reverse order; a 512-byte header comes before the HDF5 part."""
    with h5py.File(path, 'w', userblock_size=512) as file:
        file.create_dataset(name, data=array.T, **options)
    with open(path, 'r+b') as file:
        file.write(b'MATLAB 7.3 MAT-file'.ljust(124) + b'\0\x02IM')
    return path


def write_flow(path, flow):
    """The authors' format: a magic number, the first four axes, and the numbers."""
    with open(path, 'wb') as file:
        np.float32(202021.25).tofile(file)
        np.array(flow.shape[:4], '<i4').tofile(file)
        flow.astype('<f4').tofile(file)
    return path


@pytest.fixture(scope='session')
def mat_files(tmp_path_factory):
    """LR and GT frames, flows (N, 8 | 4, H, W, 2) and warped frames (N, 8 | 4, H, W, 3), all different."""
    root = tmp_path_factory.mktemp('fisr')
    write_mat(root / 'lr.mat', pattern(H, W, 5), 'LR_data')
    write_mat(root / 'hr.mat', pattern(2 * H, 2 * W, 7), 'HR_data')
    rng = np.random.default_rng(0)
    for stride, number in ((1, 8), (2, 4)):
        flow = rng.normal(0, 5, (N, number, H, W, 2)).astype(np.float32)
        np.save(root / f'flow{stride}.npy', flow)
        write_flow(root / f'ss{stride}.flo', flow)
        warped = rng.uniform(16, 235, (N, number, H, W, 3)).astype(np.float32)
        np.save(root / f'warp{stride}.npy', warped)
        write_mat(root / f'ss{stride}_warp.mat', warped, 'pred')
    return root


@pytest.fixture
def opt(mat_files):
    return {
        'name': 'FISR', 'type': 'FISRMatDataset', 'phase': 'train', 'key': 'train', 'scale': 2,
        'dataroot_lq': mat_files / 'lr.mat', 'dataroot_gt': mat_files / 'hr.mat'
    }


@pytest.fixture
def flow_files(mat_files):
    return {'dataroot_flow': mat_files / 'ss1.flo', 'dataroot_flow_stride2': mat_files / 'ss2.flo'}


@pytest.fixture
def warp_files(mat_files):
    return {'dataroot_warp': mat_files / 'ss1_warp.mat', 'dataroot_warp_stride2': mat_files / 'ss2_warp.mat'}


def levels(clip):
    """(T, 3, h, w), 0-1 -> whole numbers in MATLAB's order, (h, w, 3, T)."""
    return (255 * clip).round().byte().permute(2, 3, 1, 0).numpy()


# What a sample is


@pytest.mark.parametrize('number', [0, 4, 8])
def test_frames(opt, number):
    dataset = build_dataset(opt)
    assert isinstance(dataset, FISRMatDataset) and len(dataset) == N
    assert (dataset.color, dataset.scale, dataset.temporal_scale) == ('yuv', 2, 2)
    sample = dataset[number]
    assert sample['lq'].shape == (5, 3, H, W) and sample['gt'].shape == (7, 3, 2 * H, 2 * W)
    assert sample['lq'].dtype == sample['gt'].dtype == torch.float32
    np.testing.assert_array_equal(levels(sample['lq']), pattern(H, W, 5)[..., number])
    np.testing.assert_array_equal(levels(sample['gt']), pattern(2 * H, 2 * W, 7)[..., number])
    # One value by hand: U of frame 3 in row 5 and column 9 is 120 + 5 + 3.
    assert sample['lq'][3, 1, 5, 9].item() == pytest.approx(128 / 255)
    assert sample['key'] == f'sample/{number:08d}' and sample['gt_start'] == 1
    assert set(sample) == {'lq', 'gt', 'gt_start', 'key'}


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_frames_stored_as_floats(opt, tmp_path, dtype):
    """They are not rounded."""
    opt['dataroot_lq'] = write_mat(tmp_path / 'lr.mat', pattern(H, W, 5).astype(dtype) + dtype(0.25), 'LR_data')
    sample = FISRMatDataset(opt)[2]
    assert sample['lq'].dtype == torch.float32
    np.testing.assert_allclose(255 * sample['lq'].permute(2, 3, 1, 0), pattern(H, W, 5)[..., 2] + 0.25, atol=1e-4)


def test_a_single_array_may_have_any_name(opt, tmp_path):
    opt['dataroot_lq'] = path = write_mat(tmp_path / 'lr.mat', pattern(H, W, 5), 'frames')
    with h5py.File(path, 'r+') as file:
        file['indices'] = np.arange(3)
        file.create_group('#refs#')
    np.testing.assert_array_equal(levels(FISRMatDataset(opt)[1]['lq']), pattern(H, W, 5)[..., 1])
    with h5py.File(path, 'r+') as file:
        file['more'] = file['frames'][:]
    message = r'must hold LR_data, or only one array, .* frames \(8, 12, 3, 5, 9\), indices \(3,\), more \('
    with pytest.raises(ValueError, match=message):
        FISRMatDataset(opt)
    with h5py.File(path, 'r+') as file:
        file.move('more', 'LR_data')
    assert len(FISRMatDataset(opt)) == N


@pytest.mark.parametrize(('samples', 'expected'), [
    ([0, -3], range(6)), ([-3, None], range(6, 9)), ([2, 4], range(2, 4)), ([0, 100], range(9)),
])
def test_some_of_the_samples(opt, samples, expected):
    dataset = FISRMatDataset({**opt, 'samples': samples})
    assert [dataset[i]['key'] for i in range(len(dataset))] == [f'sample/{number:08d}' for number in expected]
    np.testing.assert_array_equal(levels(dataset[1]['lq']), pattern(H, W, 5)[..., expected[1]])
    with pytest.raises(IndexError):
        dataset[len(expected)]


def in_file(pairs: torch.Tensor) -> np.ndarray:
    """(P, 2, C, h, w), both directions of each pair, as files hold them: (2P, h, w, C)."""
    return pairs.flatten(0, 1).permute(0, 2, 3, 1).numpy()


def test_flows(opt, mat_files, flow_files):
    sample = FISRMatDataset({**opt, **flow_files, 'samples': [3, None]})[2]
    for key, stride, pairs in (('lq_flow', 1, 4), ('lq_flow_stride2', 2, 2)):
        assert sample[key].shape == (pairs, 2, 2, H, W) and sample[key].dtype == torch.float32
        stored = np.load(mat_files / f'flow{stride}.npy')[5]
        np.testing.assert_array_equal(in_file(sample[key]), stored[:2 * pairs])
    assert 'lq_warped' not in sample


def test_warped_frames(opt, mat_files, flow_files, warp_files):
    sample = FISRMatDataset({**opt, **flow_files, **warp_files})[7]
    for key, stride, pairs in (('lq_warped', 1, 4), ('lq_warped_stride2', 2, 2)):
        assert sample[key].shape == (pairs, 2, 3, H, W) and sample[key].dtype == torch.float32
        stored = np.load(mat_files / f'warp{stride}.npy')[7]
        np.testing.assert_allclose(255 * in_file(sample[key]), stored[:2 * pairs], rtol=1e-6)


def moving_frames(size, num_frames, step):
    """RGB-like texture as YUV, in MATLAB's order without samples; it moves right and down by `step` (x, y) a frame."""
    height, width = size
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.uniform(0, 255, (height + 40, width + 40, 3)), (0, 0), 2.5)
    texture = (4 * (texture - 127) + 127).clip(0, 255).round().astype(np.uint8)
    corners = [(20 - step[1] * i, 20 - step[0] * i) for i in range(num_frames)]
    frames = [convert_frame(texture[y:y + height, x:x + width], 'rgb', 'yuv') for y, x in corners]
    return np.stack(frames, axis=-1)[:, :, ::-1]


def test_estimated_flows(opt, tmp_path):
    """Forward the flow is the motion, backward its opposite, and between every second frame twice that."""
    lq, gt = moving_frames((64, 80), 5, (2, 1)), moving_frames((128, 160), 7, (2, 1))
    opt['dataroot_lq'] = write_mat(tmp_path / 'lr.mat', np.stack([lq] * 2, axis=-1), 'LR_data')
    opt['dataroot_gt'] = write_mat(tmp_path / 'hr.mat', np.stack([gt] * 2, axis=-1), 'HR_data')
    sample = FISRMatDataset({**opt, 'flow_opt': {'type': 'DISFlow'}})[1]
    motion = torch.tensor([2., 1.]).view(2, 1, 1)
    for key, pairs, expected in (('lq_flow', 4, motion), ('lq_flow_stride2', 2, 2 * motion)):
        assert sample[key].shape == (pairs, 2, 2, 64, 80)
        inner = sample[key][..., 12:-12, 12:-12]
        assert (inner[:, 0] - expected).abs().mean() < 0.15 and (inner[:, 1] + expected).abs().mean() < 0.15


# Reading in processes


@pytest.mark.parametrize('context', ['fork', pytest.param('spawn', marks=pytest.mark.slow)])
def test_workers(opt, flow_files, warp_files, context):
    dataset = FISRMatDataset({**opt, **flow_files, **warp_files})
    expected = [dataset[i] for i in range(N)]  # so that all files are open where workers are forked
    loader = DataLoader(dataset, batch_size=3, num_workers=2 if context == 'fork' else 1,
                        multiprocessing_context=multiprocessing.get_context(context))
    batches = list(loader)
    assert len(batches) == 3
    for number, batch in enumerate(batches):
        assert batch['lq_warped'].shape == (3, 4, 2, 3, H, W)
        for i in range(3):
            for key, value in expected[3 * number + i].items():
                assert torch.equal(batch[key][i], value) if torch.is_tensor(value) else batch[key][i] == value


def test_nothing_of_the_files_is_kept(opt, flow_files, warp_files):
    """What a worker is sent does not grow with the files."""
    dataset = FISRMatDataset({**opt, **flow_files, **warp_files})
    before = pickle.dumps(dataset)
    expected = dataset[3]['lq_flow']
    assert pickle.dumps(dataset) == before and len(before) < 10_000
    assert torch.equal(pickle.loads(before)[3]['lq_flow'], expected)


def test_training_batches(opt, flow_files):
    """As the training makes them; there is no chance in a sample."""
    dataset = FISRMatDataset({**opt, **flow_files})
    options = {'datasets': {'train': {'batch_size_per_gpu': 4}}, 'rank': 0, 'world_size': 1, 'manual_seed': 0,
               'dist': False, 'num_gpu': 0}
    batch = next(iter(make_train_loader(options, dataset)))
    assert batch['lq'].shape == (4, 5, 3, H, W) and batch['lq_flow_stride2'].shape == (4, 2, 2, 2, H, W)
    for key, lq in zip(batch['key'], batch['lq'], strict=True):
        assert torch.equal(lq, dataset[int(key[-8:])]['lq'])


def test_the_option_file(opt, flow_files, tmp_path):
    """options/train_fisr_mat.yml with other files: what it trains and validates on, and what its model says."""
    options = load_options(str(ROOT / 'options' / 'train_fisr_mat.yml'))
    assert options['datasets']['train']['samples'] == [0, -320]
    assert options['datasets']['val']['samples'] == [-320, None]
    published = load_options(str(ROOT / 'options' / 'train_fisr.yml'))
    assert options['network_g'] == published['network_g'] and options['train'] == published['train']
    options.update(num_gpu=0, dist=False, rank=0, world_size=1, is_train=True)
    options['network_g']['num_feat'] = 2
    complete_paths(options, str(tmp_path))
    files = {key: str(path) for key, path in {**opt, **flow_files}.items() if key.startswith('dataroot')}
    datasets = {}
    for phase, samples in (('train', [0, -2]), ('val', [-2, None])):
        datasets[phase] = build_dataset(
            {**options['datasets'][phase], **files, 'samples': samples, 'phase': phase, 'key': phase, 'scale': 2})
    assert (len(datasets['train']), len(datasets['val'])) == (N - 2, 2)
    model = build_model(options)
    with pytest.raises(ValueError, match='divisible by 32, but these are 8x12'):
        model.check_data(datasets['train'], [datasets['val']])


# Bad options


@pytest.mark.parametrize(('change', 'message'), [
    ({'scale': 4}, r'^datasets\.train\.scale must be 2 with FISRMatDataset, but is 4$'),
    ({'dataroot_gt': None}, 'datasets.train.dataroot_gt is missing: MATLAB file'),
    ({'dataroot_flow': 'a.flo'}, 'dataroot_flow_stride2 is missing, but dataroot_flow is set'),
    ({'dataroot_warp_stride2': 'a.mat'}, 'dataroot_warp is missing, but dataroot_warp_stride2 is set'),
    ({'dataroot_warp': 'a', 'dataroot_warp_stride2': 'b'}, 'dataroot_flow is missing, but dataroot_warp is set'),
    ({'dataroot_flow': 'a', 'dataroot_flow_stride2': 'b', 'flow_opt': {'type': 'DISFlow'}}, 'flow_opt cannot be'),
    ({'flow_opt': {'type': 'DISFlows'}}, r'flow_opt.type must be .* Did you mean DISFlow\?'),
    ({'samples': [0]}, 'datasets.train.samples must be a list of at least 2'),
    ({'samples': [9, None]}, r"'FISR' \(datasets.train\): samples \[9, None\] select none of the 9 samples of "),
    ({'gt_size': 192}, 'datasets.train.gt_size is not an option'),
])
def test_bad_options(opt, change, message):
    with pytest.raises(ValueError, match=message):
        FISRMatDataset({**opt, **change})


def test_all_missing_files_are_reported_together(opt, tmp_path):
    names = ('dataroot_lq', 'dataroot_gt', 'dataroot_flow', 'dataroot_flow_stride2')
    with pytest.raises(FileNotFoundError) as error:
        FISRMatDataset({**opt, **{name: tmp_path / name for name in names}})
    assert str(error.value).splitlines() == [
        f"data set 'FISR' (datasets.train): {name} is not a file: {tmp_path / name}" for name in names]


def test_stored_flows_are_no_estimator(opt, tmp_path):
    message = 'flow_opt must be an estimator, but is FlowFiles; set dataroot_flow and dataroot_flow_stride2'
    with pytest.raises(ValueError, match=message):
        FISRMatDataset({**opt, 'flow_opt': {'type': 'FlowFiles', 'root': str(tmp_path)}})


# Bad files


def test_file_of_an_older_matlab(opt, tmp_path):
    opt['dataroot_lq'] = path = tmp_path / 'lr.mat'
    scipy.io.savemat(path, {'LR_data': pattern(H, W, 5)})
    with pytest.raises(FrameReadError, match=r'lr.mat was saved by MATLAB as version 5 to 7; save it with -v7\.3'):
        FISRMatDataset(opt)


@pytest.mark.parametrize('content', [b'', b'no data', 'truncated'])
def test_no_hdf5(opt, mat_files, tmp_path, content):
    opt['dataroot_gt'] = path = tmp_path / 'hr.mat'
    path.write_bytes((mat_files / 'hr.mat').read_bytes()[:4000] if content == 'truncated' else content)
    with pytest.raises(FrameReadError, match=r'hr.mat cannot be read as HDF5, which MATLAB writes with -v7.3 \('):
        FISRMatDataset(opt)


@pytest.mark.parametrize(('lq', 'gt', 'message'), [
    (pattern(H, W, 4), None, r'lr.mat holds an array of \(8, 12, 3, 4, 9\) in MATLAB, expected .* 3, 5, samples\)$'),
    (None, pattern(2 * H, 2 * W, 9), r'hr.mat holds an array of \(16, 24, 3, 9, 9\) .* \(.*, width, 3, 7, samples\)$'),
    (pattern(H, W, 5)[:, :, :1], None, r'lr.mat holds an array of \(8, 12, 1, 5, 9\) in MATLAB'),
    (pattern(H, W, 5).T, None, r'lr.mat holds an array of \(9, 5, 3, 12, 8\) in MATLAB, expected'),
    (pattern(H, W, 5)[..., 0], None, r'must hold LR_data, .* it holds LR_data \(8, 12, 3, 5\)'),
    (pattern(H, W, 5).astype(np.int16), None, 'lr.mat holds int16, expected uint8, single or double'),
    (pattern(H, W, 5, 8), None, r'8 samples of 8x12 \(h x w\) in .*lr.mat and 9 of 16x24 in .*hr.mat, expected the'),
    (pattern(H, W + 1, 5), None, r'9 samples of 8x13 \(h x w\) .* 9 of 16x24 .* 2 times as large'),
    (pattern(H, W, 5) / 255, None, 'values of .*lr.mat are at most 0.* expected YUV of 0-255'),
])
def test_arrays_that_do_not_fit(opt, tmp_path, lq, gt, message):
    for name, array, variable in (('lq', lq, 'LR_data'), ('gt', gt, 'HR_data')):
        if array is not None:
            opt[f'dataroot_{name}'] = write_mat(tmp_path / f'{variable[:2].lower()}.mat', array, variable)
    with pytest.raises(ValueError, match=message):
        FISRMatDataset(opt)


@pytest.mark.parametrize('name', ['dataroot_lq', 'dataroot_gt'])
def test_rgb_frames(opt, tmp_path, name):
    size, num_frames, variable = ((H, W), 5, 'LR_data') if name == 'dataroot_lq' else ((2 * H, 2 * W), 7, 'HR_data')
    rgb = np.random.default_rng(0).integers(0, 256, (*size, 3, num_frames, N), np.uint8)
    rgb[..., 0] = 128  # a grey sample may be either
    opt[name] = write_mat(tmp_path / 'rgb.mat', rgb, variable)
    with pytest.raises(ValueError, match=r"'FISR' \(datasets.train\): .*rgb.mat does not look like YUV: "):
        FISRMatDataset(opt)


@pytest.mark.parametrize(('shape', 'message'), [
    ((N - 1, 8, H, W, 2), r'dataroot_flow .*flow.flo has the shape \(8, 8, 8, 12, 2\), expected \(9, 8, 8, 12, 2\)'),
    ((N, 4, H, W, 2), r'has the shape \(9, 4, 8, 12, 2\), expected \(9, 8, 8, 12, 2\) to match the LR frames'),
    ((N, 8, W, H, 2), r'has the shape \(9, 8, 12, 8, 2\), expected \(9, 8, 8, 12, 2\)'),
])
def test_flows_of_other_samples(opt, flow_files, tmp_path, shape, message):
    flow_files['dataroot_flow'] = write_flow(tmp_path / 'flow.flo', np.zeros(shape))
    with pytest.raises(ValueError, match=message):
        FISRMatDataset({**opt, **flow_files})


def test_warped_frames_of_other_samples(opt, flow_files, warp_files, mat_files):
    warp_files['dataroot_warp'] = mat_files / 'ss2_warp.mat'
    with pytest.raises(ValueError, match=r'dataroot_warp .* the shape \(9, 4, 8, 12, 3\), expected \(9, 8, 8, 12, 3\)'):
        FISRMatDataset({**opt, **flow_files, **warp_files})


def test_values_that_are_none(opt, flow_files, tmp_path):
    """Of samples that are not looked at before."""
    lq, flow = pattern(H, W, 5).astype(np.float32), np.zeros((N, 8, H, W, 2))
    lq[1, 2, 0, 3, 1], lq[1, 2, 0, 3, 5], flow[3, 7, 0, 0, 0] = 256, np.nan, np.inf
    opt['dataroot_lq'] = write_mat(tmp_path / 'lr.mat', lq, 'LR_data')
    flow_files['dataroot_flow'] = write_flow(tmp_path / 'flow.flo', flow)
    dataset = FISRMatDataset({**opt, **flow_files})
    for number, message in ((1, 'lr.mat, sample 1: values of 44 to 256, expected 0 to 255'),
                            (3, 'flow.flo, sample 3: a flow with values that are not finite'),
                            (5, 'lr.mat, sample 5: values of nan to nan, expected')):
        with pytest.raises(FrameReadError, match=message):
            dataset[number]
    assert dataset[2]['lq'].isfinite().all()


def test_a_damaged_sample_is_named(opt, tmp_path):
    path = write_mat(tmp_path / 'lr.mat', pattern(H, W, 5), 'LR_data', chunks=(1, 5, 3, W, H), compression='gzip')
    with h5py.File(path) as file:
        _, chunk = file['LR_data'].id.read_direct_chunk((3, 0, 0, 0, 0))
    path.write_bytes(path.read_bytes().replace(chunk, b'\xff' * len(chunk)))
    dataset = FISRMatDataset({**opt, 'dataroot_lq': path})
    np.testing.assert_array_equal(levels(dataset[2]['lq']), pattern(H, W, 5)[..., 2])
    with pytest.raises(FrameReadError, match=r'lr.mat, sample 3, cannot be read: .*read data'):
        dataset[3]
