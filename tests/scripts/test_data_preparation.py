"""The scripts of scripts/data_preparation and what they stand on; stock BasicSR data sets read the results."""
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest
import skimage.data
import torch
from basicsr.data import build_dataset
from basicsr.utils.lmdb_util import make_lmdb_from_imgs
from conftest import ROOT
from run_util import run

from basicsr_stvsr.data.degradations import bicubic, linear_light_average
from basicsr_stvsr.inference.scene_cuts import find_cuts
from basicsr_stvsr.io.frames import FrameReadError
from basicsr_stvsr.io.lmdb_files import FrameSource, LmdbWriter, verify_lmdb, write_lmdb

SCRIPTS = ROOT / 'scripts' / 'data_preparation'


@pytest.fixture
def script(monkeypatch):
    """Runs a script of the folder in this process and returns its exit code."""

    def run(name, *args) -> int:
        monkeypatch.setattr(sys, 'argv', [f'{name}.py', *map(str, args)])
        with pytest.raises(SystemExit) as exit_info:
            runpy.run_path(str(SCRIPTS / f'{name}.py'), run_name='__main__')
        return exit_info.value.code

    monkeypatch.syspath_prepend(str(SCRIPTS))
    return run


def noise(seed, height=32, width=48) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_images(root: Path, names, height=32, width=48) -> Path:
    """Write different images of noise; a name is a path below `root` with a suffix."""
    for seed, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), noise(seed, height, width))
    return root


def read_lmdb(path: Path) -> dict[str, bytes]:
    with lmdb.open(str(path), readonly=True, lock=False) as env, env.begin() as txn:
        return {key.decode(): value for key, value in txn.cursor()}


def meta_info_keys(path: Path) -> list[str]:
    return [line.split('.png ')[0] for line in (path / 'meta_info.txt').read_text().splitlines()]


def decode(png: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)


def sources(count, height=16, width=16, prefix='clip/'):
    return [FrameSource(f'{prefix}{i:04d}', f'frame {i}', lambda i=i: noise(i, height, width)) for i in range(count)]


@pytest.fixture
def vimeo(tmp_path) -> Path:
    clips = ['00001/0001', '00001/0002', '00002/0010']
    root = write_images(tmp_path / 'vimeo', [f'sequences/{clip}/im{i}.png' for clip in clips for i in range(1, 8)])
    (root / 'sep_trainlist.txt').write_text('00001/0002\n00001/0001\n\n')
    (root / 'sep_testlist.txt').write_text('00002/0010\n')
    (root / 'tri_trainlist.txt').write_text('00001/0001\n')
    return root


# --- LMDB ---


def test_lmdb_equals_basicsr_to_the_byte(script, vimeo, tmp_path):
    ours, theirs = tmp_path / 'ours.lmdb', tmp_path / 'theirs.lmdb'
    assert script('create_lmdb', '--dataset', 'vimeo90k', '--input', vimeo, '--output', ours, '--verify') == 0
    keys = [f'{clip}/im{i}' for clip in ('00001/0002', '00001/0001') for i in range(1, 8)]
    make_lmdb_from_imgs(str(vimeo / 'sequences'), str(theirs), [f'{key}.png' for key in keys], keys)
    assert read_lmdb(ours) == read_lmdb(theirs)
    assert (ours / 'meta_info.txt').read_bytes() == (theirs / 'meta_info.txt').read_bytes()
    assert {file.name for file in ours.iterdir()} == {file.name for file in theirs.iterdir()}


def test_map_grows_when_it_is_full(tmp_path):
    path = tmp_path / 'x.lmdb'
    assert write_lmdb(path, sources(40, 64, 64), map_size=2**16) == 40
    assert path.joinpath('data.mdb').stat().st_size > 2**18
    stored = read_lmdb(path)
    for i in (0, 39):
        np.testing.assert_array_equal(decode(stored[f'clip/{i:04d}']), noise(i, 64, 64))


@pytest.mark.parametrize('num_workers', [1, 4])
def test_order_is_kept(tmp_path, num_workers):
    path = tmp_path / 'x.lmdb'

    def slow_at_first(i):
        time.sleep(0.02 * (i < 3))
        return noise(i)

    frames = [FrameSource(f'{9 - i}', 'x', lambda i=i: slow_at_first(i)) for i in range(10)]
    write_lmdb(path, frames, num_workers=num_workers)
    assert meta_info_keys(path) == [str(9 - i) for i in range(10)]


def test_duplicate_key_names_both_sources(tmp_path):
    frames = [*sources(3), FrameSource('clip/0001', 'the other one', lambda: noise(9))]
    with pytest.raises(ValueError, match="'clip/0001': frame 1 and the other one"):
        write_lmdb(tmp_path / 'x.lmdb', frames)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('key, message', [
    ('my clip/0001', 'white space'),
    ('Zürich/0001', 'ASCII'),
    ('', 'ASCII'),
    ('x' * 600, '511 bytes'),
])
def test_keys_that_basicsr_cannot_read(tmp_path, key, message):
    with pytest.raises(ValueError, match=f'here: .*{message}'):
        write_lmdb(tmp_path / 'x.lmdb', [FrameSource(key, 'here', lambda: noise(0))])


def test_target_exists(tmp_path):
    path = tmp_path / 'x.lmdb'
    write_lmdb(path, sources(2))
    with pytest.raises(FileExistsError, match='x.lmdb'):
        write_lmdb(path, sources(3))
    assert len(read_lmdb(path)) == 2
    write_lmdb(path, sources(3), overwrite=True)
    assert len(read_lmdb(path)) == 3


def test_failed_overwrite_keeps_the_old_lmdb(tmp_path):
    path = tmp_path / 'x.lmdb'
    write_lmdb(path, sources(2))
    with pytest.raises(ZeroDivisionError):
        write_lmdb(path, [*sources(1), FrameSource('a/b', 'x', lambda: 1 / 0)], overwrite=True)
    assert [child.name for child in tmp_path.iterdir()] == ['x.lmdb'] and len(read_lmdb(path)) == 2


def test_nothing_to_write(tmp_path):
    with pytest.raises(ValueError, match='no frames'):
        write_lmdb(tmp_path / 'x.lmdb', [])
    with pytest.raises(ValueError, match='.lmdb'):
        write_lmdb(tmp_path / 'x', sources(1))


def test_verify_finds_what_is_damaged(script, tmp_path, capsys):
    path = tmp_path / 'x.lmdb'
    write_lmdb(path, sources(5))
    assert verify_lmdb(path) == []
    with lmdb.open(str(path)) as env, env.begin(write=True) as txn:
        whole = txn.get(b'clip/0001')
        txn.put(b'clip/0001', whole[:len(whole) // 2])
        txn.put(b'clip/0002', whole[:200] + b'????' + whole[204:])
        txn.put(b'clip/0003', cv2.imencode('.png', noise(0, 16, 24))[1].tobytes())
    first, second, third = verify_lmdb(path, num_workers=2)
    assert "'clip/0001'" in first and "'clip/0002'" in second
    assert "'clip/0003'" in third and '(16,24,3)' in third and '(16,16,3)' in third
    assert script('create_lmdb', '--output', path, '--verify-only') == 1
    assert '3 damaged frames' in capsys.readouterr().err


def test_verify_does_not_rely_on_opencv(tmp_path, monkeypatch):
    """OpenCV 4 decodes what there is of a truncated image, and only warns."""
    path = tmp_path / 'x.lmdb'
    write_lmdb(path, sources(3))
    with lmdb.open(str(path)) as env, env.begin(write=True) as txn:
        txn.put(b'clip/0001', txn.get(b'clip/0001')[:-20])
    monkeypatch.setattr(cv2, 'imdecode', lambda *_: noise(0, 16, 16))
    problem, = verify_lmdb(path)
    assert "x.lmdb: key 'clip/0001': the image is truncated" in problem


def test_verify_takes_grey_images(tmp_path):
    path = tmp_path / 'x.lmdb'
    write_lmdb(path, [FrameSource('clip/0000', 'x', lambda: noise(0)[..., 0])])
    assert (path / 'meta_info.txt').read_text() == 'clip/0000.png (32,48,1) 1\n'
    assert verify_lmdb(path) == []


def test_verify_refuses_a_truncated_lmdb(tmp_path):
    path = tmp_path / 'x.lmdb'
    write_lmdb(path, sources(20, 64, 64))
    data = path / 'data.mdb'
    data.write_bytes(data.read_bytes()[:data.stat().st_size // 2])
    with pytest.raises(FrameReadError, match='truncated'):
        verify_lmdb(path)


def test_killed_run_never_looks_finished(script, tmp_path, capsys):
    root = write_images(tmp_path / 'clips', [f'a/{i:08d}.png' for i in range(60)], 256, 256)
    target, part = tmp_path / 'x.lmdb', tmp_path / 'x.lmdb.part'
    args = ['--dataset', 'folder', '--input', root, '--output', target, '--workers', '1']
    process = subprocess.Popen([sys.executable, SCRIPTS / 'create_lmdb.py', *args], stderr=subprocess.DEVNULL)
    while not part.exists():
        assert process.poll() is None, 'the script ended before it could be killed'
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert part.exists() and not target.exists()

    assert script('create_lmdb', *args) == 0
    assert 'unfinished run' in capsys.readouterr().out
    assert len(read_lmdb(target)) == 60
    assert sorted(child.name for child in tmp_path.iterdir()) == ['clips', 'x.lmdb']


def test_two_runs_with_one_output(script, tmp_path, capsys):
    """The second stops, and leaves the `.part` of the first alone."""
    root, target = write_images(tmp_path / 'clips', ['a/0.png']), tmp_path / 'x.lmdb'

    def second_run(i):
        args = '--dataset', 'folder', '--input', root, '--output', target, '--force'
        assert script('create_lmdb', *args) == 1
        assert f'another run is writing {target}.part' in capsys.readouterr().err
        return noise(i)

    assert write_lmdb(target, [*sources(2), FrameSource('clip/0002', 'x', lambda: second_run(2))]) == 3
    assert sorted(read_lmdb(target)) == ['clip/0000', 'clip/0001', 'clip/0002']
    assert sorted(child.name for child in tmp_path.iterdir()) == ['clips', 'x.lmdb']


def test_target_that_another_run_has_made_meanwhile(tmp_path):
    path = tmp_path / 'x.lmdb'
    late = LmdbWriter(path)
    write_lmdb(path, sources(2))
    with pytest.raises(FileExistsError, match='exists already'), late:
        pass
    assert len(read_lmdb(path)) == 2 and [child.name for child in tmp_path.iterdir()] == ['x.lmdb']


@pytest.mark.slow
def test_memory_does_not_grow_with_the_data(tmp_path):
    # 100 frames of noise are 79 MB, decoded as well as encoded; 25 frames are 20 MB.
    program = '''
import resource, sys
import numpy as np
from basicsr_stvsr.io.lmdb_files import FrameSource, write_lmdb

noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
for count in (25, 100):
    frames = (FrameSource(f'{i}', 'x', lambda i=i: noise ^ i) for i in range(count))
    write_lmdb(f'{sys.argv[1]}/{count}.lmdb', frames, num_workers=2, map_size=2**20)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
'''
    done = subprocess.run([sys.executable, '-c', program, tmp_path], capture_output=True, text=True, check=True)
    of_25, of_100 = map(int, done.stdout.split())
    assert of_100 - of_25 < 25  # MB


# --- create_lmdb.py: data sets as they are distributed ---


def reds_tree(root: Path, clips=('000', '001')) -> Path:
    for clip in clips:
        write_images(root, [f'train_sharp/{clip}/{i:08d}.png' for i in range(100)], 16, 16)
        write_images(root, [f'train_sharp_bicubic/X4/{clip}/{i:08d}.png' for i in range(100)], 4, 4)
    return root


def reader_options(kind, gt, lq, meta_info, **more):
    return dict(type=kind, name='x', dataroot_gt=str(gt), dataroot_lq=str(lq), meta_info_file=str(meta_info),
                io_backend=dict(type='lmdb'), gt_size=16, scale=4, random_reverse=False, use_hflip=False,
                use_rot=False, **more)


def test_stock_vimeo_dataset_reads_ours(script, vimeo, tmp_path):
    gt, lq, meta_info = tmp_path / 'gt.lmdb', tmp_path / 'lq.lmdb', tmp_path / 'meta_info.txt'
    assert script('create_lmdb', '--dataset', 'vimeo90k', '--input', vimeo, '--output', gt) == 0
    assert script('make_lr', '--input', gt, '--output', lq, '--scale', 4) == 0
    assert script('generate_meta_info', '--input', gt, '--output', meta_info) == 0
    assert meta_info.read_text() == '00001/0001 7 (32,48,3)\n00001/0002 7 (32,48,3)\n'

    dataset = build_dataset(reader_options('Vimeo90KRecurrentDataset', gt, lq, meta_info, num_frame=7,
                                           flip_sequence=False) | dict(gt_size=32))
    assert len(dataset) == 2
    sample = dataset[1]
    assert sample['lq'].shape == (7, 3, 8, 8) and sample['gt'].shape == (7, 3, 32, 32)
    # Some column range of im7 of this clip, RGB; the height is that of the whole frame.
    frame = cv2.imread(str(vimeo / 'sequences/00001/0002/im7.png'))[:, :, ::-1].transpose(2, 0, 1) / 255
    assert any(np.allclose(sample['gt'][6], frame[:, :, x:x + 32]) for x in range(0, 17, 4))


def test_stock_reds_dataset_reads_ours(script, tmp_path):
    root = reds_tree(tmp_path / 'reds')
    gt, lq, meta_info = tmp_path / 'gt.lmdb', tmp_path / 'lq.lmdb', tmp_path / 'meta_info.txt'
    for subset, path in (('sharp', gt), ('sharp_bicubic', lq)):
        assert script('create_lmdb', '--dataset', 'reds', '--split', 'all', '--subset', subset, '--input', root,
                      '--output', path) == 0
    assert script('generate_meta_info', '--input', gt, '--output', meta_info) == 0
    assert meta_info.read_text() == '000 100 (16,16,3)\n001 100 (16,16,3)\n'

    dataset = build_dataset(reader_options('REDSRecurrentDataset', gt, lq, meta_info, num_frame=15, test_mode=False,
                                           val_partition='REDS4'))
    assert len(dataset) == 100  # clip 000 belongs to REDS4
    sample = dataset[3]
    frame = cv2.imread(str(root / 'train_sharp/001/00000005.png'))[:, :, ::-1].transpose(2, 0, 1) / 255
    np.testing.assert_allclose(sample['gt'][2], frame, atol=1e-6)
    assert sample['lq'].shape == (15, 3, 4, 4)


def test_reds_splits(script, tmp_path):
    root = reds_tree(tmp_path / 'reds', ('000', '001', '011', '015', '020'))
    clips = {}
    for split in ('train', 'reds4', 'all'):
        path = tmp_path / f'{split}.lmdb'
        assert script('create_lmdb', '--dataset', 'reds', '--split', split, '--input', root, '--output', path) == 0
        clips[split] = sorted({key.split('/')[0] for key in read_lmdb(path)})
    assert clips == {'train': ['001'], 'reds4': ['000', '011', '015', '020'],
                     'all': ['000', '001', '011', '015', '020']}


REDS_FOLDERS = {'sharp': 'train_sharp', 'blur': 'train_blur', 'sharp_bicubic': 'train_sharp_bicubic/X4',
                'blur_bicubic': 'train_blur_bicubic/X4'}


def test_reds_for_deblurring(script, tmp_path):
    """Each version of the frames, REDS4 apart; and a sample with sharp frames, blurred LR frames and sharp ones."""
    clips, marked = ('000', '007', '011', '015', '020'), {}
    for seed, (subset, folder) in enumerate(REDS_FOLDERS.items()):
        size = 4 if subset.endswith('bicubic') else 16
        for clip in clips:
            marked[subset, clip] = noise((seed, int(clip)), size, size)
            write_images(tmp_path / 'reds' / folder / clip, [f'{i:08d}.png' for i in range(100)], size, size)
            cv2.imwrite(str(tmp_path / 'reds' / folder / clip / '00000007.png'), marked[subset, clip])
        for split, expected in (('train', ('007',)), ('reds4', ('000', '011', '015', '020'))):
            path = tmp_path / f'{subset}_{split}.lmdb'
            assert script('create_lmdb', '--dataset', 'reds', '--split', split, '--subset', subset,
                          '--input', tmp_path / 'reds', '--output', path) == 0
            assert meta_info_keys(path) == [f'{clip}/{i:08d}' for clip in expected for i in range(100)]
            stored = read_lmdb(path)
            for clip in expected:
                np.testing.assert_array_equal(decode(stored[f'{clip}/00000007']), marked[subset, clip])

    dataset = build_dataset(dict(
        type='STVSRClipDataset', name='REDS', phase='train', scale=4, num_frame=8, temporal_scale=1,
        dataroot_gt=tmp_path / 'sharp_train.lmdb', dataroot_lq=tmp_path / 'blur_bicubic_train.lmdb',
        dataroot_lq_sharp=tmp_path / 'sharp_bicubic_train.lmdb'))
    item = dataset[7]
    assert len(dataset) == 93 and item['key'] == '007/00000007' and item['lq_sharp'].shape == (8, 3, 4, 4)
    for key, subset in (('gt', 'sharp'), ('lq', 'blur_bicubic'), ('lq_sharp', 'sharp_bicubic')):
        frame = (item[key][0] * 255).round().byte().permute(1, 2, 0).numpy()[..., ::-1]
        np.testing.assert_array_equal(frame, marked[subset, '007'])


DVD_TEST = {  # of issue 2 of github.com/shuochsu/DeepVideoDeblurring
    'IMG_0030', 'IMG_0049', 'IMG_0021', '720p_240fps_2', 'IMG_0032', 'IMG_0033', 'IMG_0031', 'IMG_0003', 'IMG_0039',
    'IMG_0037'}


def dvd_tree(root: Path) -> Path:
    """As many clips as DVD has, 71, of one to three frames."""
    names = sorted(DVD_TEST | {f'IMG_{i:04d}' for i in range(100, 150)} | {f'720p_240fps_{i}' for i in range(3, 14)})
    assert len(names) == 71
    for number, name in enumerate(names):
        for side in ('GT', 'input'):
            write_images(root / name / side, [f'{i:05d}.jpg' for i in range(1 + number % 3)], 8, 8)
    return root


def test_dvd(script, tmp_path):
    """61 clips to train, ten to test, with all of their frames; LR frames are made of those of `input`."""
    root, clips = dvd_tree(tmp_path / 'quantitative_datasets'), {}
    for split in ('train', 'test'):
        for subset in ('GT', 'input'):
            path = tmp_path / f'dvd_{split}_{subset}.lmdb'
            assert script('create_lmdb', '--dataset', 'dvd', '--split', split, '--subset', subset, '--input', root,
                          '--output', path) == 0
            keys = meta_info_keys(path)
            clips[split] = {key.split('/')[0] for key in keys}
            files = [file for clip in clips[split] for file in (root / clip / subset).iterdir()]
            assert sorted(keys) == sorted(f'{file.parent.parent.name}/{file.stem}' for file in files)
    assert clips['test'] == DVD_TEST and len(clips['train']) == 61 and not clips['train'] & DVD_TEST

    blurred = tmp_path / 'dvd_test_input.lmdb'
    assert script('make_lr', '--scale', 4, '--input', blurred, '--output', tmp_path / 'dvd_test_LR4.lmdb') == 0
    options = dict(type='STVSRTestDataset', name='DVD', phase='val', scale=4, temporal_scale=1,
                   dataroot_gt=tmp_path / 'dvd_test_GT.lmdb')
    stored = build_dataset(options | {'dataroot_lq': tmp_path / 'dvd_test_LR4.lmdb'})
    made = build_dataset(options | {'dataroot_blurred': blurred})
    assert len(stored) == len(made) == 10
    assert all(torch.equal(stored[i]['lq'], made[i]['lq']) for i in range(10))


def test_dvd_lacks_a_clip(script, tmp_path, capsys):
    root = dvd_tree(tmp_path / 'dvd')
    shutil.rmtree(root / 'IMG_0033')
    arguments = ['--dataset', 'dvd', '--split', 'test', '--input', root, '--output', tmp_path / 'x.lmdb']
    assert script('create_lmdb', *arguments) == 1
    assert re.search(r'IMG_0033/GT does not exist', capsys.readouterr().err)


TRIPLET_KEYS = ['7/00000000', '7/00000001', '7/00000002']
LAYOUTS = {  # options, files, and the key of each file (None: not part of it), in the order of meta_info.txt
    'vimeo90k_triplet': (
        ['--clips', '{list}'], [f'sequences/00001/0004/im{i}.png' for i in (1, 2, 3)],
        ['00001/0004/im1', '00001/0004/im2', '00001/0004/im3'], '00001/0004\n'),
    'vimeo90k': (  # low-resolution trees come without lists; a meta info file will do
        ['--clips', '{list}'], [f'00001/0004/im{i}.png' for i in range(1, 8)],
        [f'00001/0004/im{i}' for i in range(1, 8)], '00001/0004 7 (256,448,3)\n'),
    'dvd': (
        ['--subset', 'input'],
        ['IMG_0055/input/00010.jpg', 'IMG_0055/GT/00010.jpg', 'IMG_0021/input/00000.jpg', 'IMG_0021/GT/00000.jpg'],
        ['IMG_0055/00010', None, None, None], None),
    'vid4': (
        ['--subset', 'BIx4'],
        [f'{subset}/{clip}/{name}.png' for subset in ('BIx4', 'GT') for clip in ('calendar', 'city', 'foliage', 'walk')
         for name in ('Frame 002', 'Frame 010')],
        [f'{clip}/{i:08d}' for clip in ('calendar', 'city', 'foliage', 'walk') for i in (0, 1)] + [None] * 8, None),
    'ucf101': (
        [], ['7/frame_00.png', '7/frame_01_gt.png', '7/frame_02.png', '7/frame_01_ours.png'], [*TRIPLET_KEYS, None],
        None),
    'middlebury': (
        [], ['other-data/7/frame10.png', 'other-gt-interp/7/frame10i11.png', 'other-data/7/frame11.png',
             'other-data/7/frame09.png'], [*TRIPLET_KEYS, None], None),
    'middlebury in one tree': ([], ['7/frame10.png', '7/frame10i11.png', '7/frame11.png'], TRIPLET_KEYS, None),
    'folder': ([], ['b/im10.webp', 'b/im9.webp', 'a/c/0.bmp'], ['b/im10', 'b/im9', 'a/c/0'], None),
}


@pytest.mark.parametrize('name', LAYOUTS)
def test_layouts(script, tmp_path, name):
    options, files, keys, clip_list = LAYOUTS[name]
    root, target, list_file = write_images(tmp_path / 'set', files), tmp_path / 'x.lmdb', tmp_path / 'list.txt'
    if clip_list:
        list_file.write_text(clip_list)
    options = [option.format(list=list_file) for option in options]
    assert script('create_lmdb', '--dataset', name.split()[0], '--input', root, '--output', target, *options) == 0
    stored = read_lmdb(target)
    expected = {key: cv2.imread(str(root / file)) for key, file in zip(keys, files, strict=True) if key}
    assert set(stored) == set(expected)
    for key, image in expected.items():
        np.testing.assert_array_equal(decode(stored[key]), image)


@pytest.mark.real_clips
def test_real_triplets(script, real_data, tmp_path):
    target = tmp_path / 'x.lmdb'
    folder = real_data / 'eval' / 'middlebury_other'
    assert script('create_lmdb', '--dataset', 'middlebury', '--input', folder, '--output', target, '--verify') == 0
    stored = read_lmdb(target)
    assert len(stored) == 36
    np.testing.assert_array_equal(decode(stored['Walking/00000001']),
                                  cv2.imread(str(folder / 'Walking' / '00000001.webp')))


ERRORS = {  # arguments -> exit code, what stderr says
    '--dataset vimeo90k --input {root} --output {out}': (1, r'sequences/00001/0001/im5\.png does not exist'),
    '--dataset vimeo90k --split test --input {root} --output {out}': (1, r'sep_testlist\.txt does not exist'),
    '--dataset vimeo90k --split val --input {root} --output {out}': (2, '--split val: vimeo90k takes one of train'),
    '--dataset vid4 --split test --input {root} --output {out}': (2, '--split test: vid4 takes none'),
    '--dataset dvd --subset blur --input {root} --output {out}': (2, '--subset blur: dvd takes one of GT, input'),
    '--dataset reds --input {root} --output {out}': (1, 'train_sharp does not exist'),
    '--dataset ucf101 --input {root}/sequences/00001 --output {out}': (1, r'00001/0001: no triplet.*frame_01_gt'),
    '--dataset folder --input {root}/nothing --output {out}': (1, 'nothing: no such file or folder'),
    '--dataset folder --input {existing} --output {existing} --force': (1, 'would replace the input'),
    '--dataset folder --input {root} --output {root}/x': (2, "must end in '.lmdb'"),
    '--dataset folder --input {root} --output {existing}': (1, r'exists already; --force'),
    '--dataset folder --input {root} --output {out} --workers 0': (2, 'whole number >= 1'),
    '--dataset kinetics --input {root} --output {out}': (2, "invalid choice: 'kinetics'"),
    '--output {out}': (2, '--dataset and --input are needed'),
    '--output {out} --verify-only': (1, r'x\.lmdb: data\.mdb is missing'),
}


@pytest.mark.parametrize('args', ERRORS)
def test_errors_of_create_lmdb(script, tmp_path, capsys, args):
    root = write_images(tmp_path / 'vimeo', [f'sequences/00001/0001/im{i}.png' for i in (1, 2, 3, 4, 6, 7)])
    (root / 'sep_trainlist.txt').write_text('00001/0001\n')
    (tmp_path / 'existing.lmdb').mkdir()
    args, (code, message) = args.format(root=root, out=tmp_path / 'x.lmdb', existing=tmp_path / 'existing.lmdb'), \
        ERRORS[args]
    assert script('create_lmdb', *args.split()) == code
    error = capsys.readouterr().err
    assert re.search(message, error) and 'Traceback' not in error
    if code == 1:
        assert error.count('\n') == 1
    assert sorted(child.name for child in tmp_path.iterdir()) == ['existing.lmdb', 'vimeo']


def test_damaged_frame_stops_the_writing(script, tmp_path, capsys):
    root = write_images(tmp_path / 'clips', [f'a/{i}.png' for i in range(4)])
    whole = (root / 'a/2.png').read_bytes()
    (root / 'a/2.png').write_bytes(whole[:len(whole) // 2])
    assert script('create_lmdb', '--dataset', 'folder', '--input', root, '--output', tmp_path / 'x.lmdb') == 1
    assert re.search(r"clip 'a', frame 2 .*truncated", capsys.readouterr().err)
    assert [child.name for child in tmp_path.iterdir()] == ['clips']


# --- make_lr.py ---


@pytest.mark.real_clips
def test_make_lr_equals_matlab(script, real_data, tmp_path):
    root, target = tmp_path / 'vid4', tmp_path / 'lr'
    root.mkdir()
    (root / 'calendar').mkdir()
    for i in range(3):
        (root / 'calendar' / f'{i:08d}.webp').symlink_to(real_data / f'eval/vid4/calendar/{i:08d}.webp')
    assert script('make_lr', '--input', root, '--output', target, '--scale', 4) == 0
    for i in range(3):
        reference = cv2.imread(str(real_data / f'eval/lr_refs/tdan_calendar_BI/{i:08d}.webp'))
        np.testing.assert_array_equal(cv2.imread(str(target / f'calendar/{i:08d}.png')), reference)


@pytest.mark.parametrize('workers', [1, 3])
def test_motion_blur_window_shrinks_at_the_ends(script, tmp_path, workers):
    root = write_images(tmp_path / 'clips', [f'a/{i:08d}.png' for i in range(6)] + ['b/0.png'])
    target = tmp_path / 'x.lmdb'
    assert script('make_lr', '--input', root, '--output', target, '--scale', 2, '--blur-frames', 5,
                  '--workers', workers) == 0
    stored = read_lmdb(target)
    for i, (start, stop) in enumerate([(0, 1), (0, 3), (0, 5), (1, 6), (3, 6), (5, 6)]):
        expected = bicubic(2)(linear_light_average([noise(k) for k in range(start, stop)]))
        np.testing.assert_array_equal(decode(stored[f'a/{i:08d}']), expected)
    np.testing.assert_array_equal(decode(stored['b/0']), bicubic(2)(noise(6)))


@pytest.mark.parametrize('workers', [1, 2])
@pytest.mark.parametrize('size', [(96, 112), (99, 118)])  # of the latter, some rows and columns are left out
def test_motion_blur_equals_that_of_data_sets(script, tmp_path, size, workers):
    """LR frames made ahead are those that a data set makes, to the bit."""
    target = tmp_path / 'lr.lmdb'
    clips = write_images(tmp_path / 'clips', [f'{clip}/{number}.png' for clip in 'ab' for number in range(3)], *size)
    assert script('make_lr', '--input', clips, '--output', target, '--scale', 4, '--exposure', 1.5, '--sub-frames', 5,
                  '--workers', workers) == 0
    options = dict(type='STVSRTestDataset', name='x', phase='val', scale=4, temporal_scale=1, dataroot_gt=clips)
    made = build_dataset(options | {'motion_blur': {'exposure': 1.5, 'num_frame': 5}})
    stored = build_dataset(options | {'dataroot_lq': target})
    sharp = build_dataset(options)
    for i in range(2):
        assert torch.equal(stored[i]['lq'], made[i]['lq']) and not torch.equal(stored[i]['lq'], sharp[i]['lq'])
    stored.lq_reader.close()


def test_odd_sizes_are_cut(script, tmp_path):
    root = write_images(tmp_path / 'clips', ['a/0.png'], 35, 50)
    assert script('make_lr', '--input', root, '--output', tmp_path / 'lr', '--scale', 4) == 0
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / 'lr/a/0.png')),
                                  bicubic(4)(noise(0, 35, 50)[:32, :48]))


@pytest.mark.parametrize('options, code, message', [
    (['--blur-frames', '4'], 2, 'must be odd'),
    (['--sub-frames', '9'], 2, '--sub-frames needs --exposure'),
    (['--exposure', '1', '--sub-frames', '4'], 2, '--sub-frames must be odd, so that one frame is .*; got 4'),
    (['--exposure', '2.5'], 2, '--exposure must be > 0 and <= 2; got 2.5'),
    (['--exposure', '0'], 2, '--exposure must be > 0 and <= 2; got 0'),
    (['--exposure', '1', '--blur-frames', '3'], 2, 'not allowed with'),
    (['--sigma', '1.5'], 1, r'degradation\.sigma is not an option \(its value here is 1\.5\)'),
    (['--degradation', 'gaussian', '--kernel-size', '8'], 1, 'kernel_size must be odd'),
    (['--scale', '5'], 2, 'invalid choice: 5'),
])
def test_errors_of_make_lr(script, tmp_path, capsys, options, code, message):
    root = write_images(tmp_path / 'clips', ['a/0.png'])
    assert script('make_lr', '--input', root, '--output', tmp_path / 'lr', '--scale', '4', *options) == code
    assert re.search(message, capsys.readouterr().err)


# --- scenes ---


def pan(image: np.ndarray, num_frames: int, step: int) -> list[np.ndarray]:
    return [np.ascontiguousarray(image[100:220, 20 + i * step:212 + i * step, ::-1]) for i in range(num_frames)]


@pytest.fixture(scope='module')
def shots() -> list[list[np.ndarray]]:
    """A slow pan, a fast one (a tenth of the width a frame), and a still shot."""
    return [pan(skimage.data.astronaut(), 12, 4), pan(skimage.data.coffee(), 10, 18), pan(skimage.data.rocket(), 8, 0)]


def test_cuts_between_shots(shots):
    assert [find_cuts(shot) for shot in shots] == [[], [], []]
    assert find_cuts(sum(shots, [])) == [12, 22]
    assert find_cuts(frame for shot in reversed(shots) for frame in shot) == [8, 18]


def test_flash_is_no_cut(shots):
    shot = list(shots[0])
    shot[6] = np.full_like(shot[6], 250)
    assert find_cuts(shot) == []


def test_letterbox_is_passed_over(shots):
    boxed = [cv2.copyMakeBorder(frame, 60, 60, 0, 0, cv2.BORDER_CONSTANT) for frame in shots[0][:6] + shots[2]]
    assert find_cuts(boxed) == [6]


@pytest.mark.parametrize('num_frames', [0, 1, 2])
def test_short_clips_have_no_cuts(shots, num_frames):
    assert find_cuts(shots[0][:num_frames]) == []


def read_clip(folder: Path):
    for path in sorted(folder.iterdir()):
        yield cv2.imread(str(path))


@pytest.mark.real_clips
def test_cuts_of_real_clips(real_data):
    assert find_cuts(read_clip(real_data / 'eval/scene_cuts/DragonBaby')) == [9, 25]
    wrong = {folder.name: cuts for folder in sorted((real_data / 'train').iterdir())
             if (cuts := find_cuts(read_clip(folder)))}
    assert wrong == {}


@pytest.fixture
def video(shots, tmp_path) -> Path:
    path = tmp_path / 'My trip.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 25, (192, 120))
    assert writer.isOpened()
    for frame in sum(shots, []):
        writer.write(frame)
    writer.release()
    return path


def test_extract_frames_splits_at_cuts(script, video, shots, tmp_path):
    target = tmp_path / 'frames'
    assert script('extract_frames', '--input', video, '--output', target) == 0
    assert {folder.name: len(list(folder.iterdir())) for folder in target.iterdir()} == {
        'My_trip_000': 12, 'My_trip_001': 10, 'My_trip_002': 8}
    frame = cv2.imread(str(target / 'My_trip_001/00000004.png'))
    assert np.abs(frame.astype(int) - shots[1][4]).mean() < 5  # MJPEG is lossy


def test_extract_frames_leaves_out_short_scenes(script, video, tmp_path, capsys):
    target = tmp_path / 'frames.lmdb'
    assert script('extract_frames', '--input', video, '--output', target, '--min-length', 11) == 0
    assert meta_info_keys(target) == [f'My_trip_000/{i:08d}' for i in range(12)]
    told = capsys.readouterr().err
    assert 'frames 12 to 21' in told and 'frames 22 to 29' in told


def test_extract_frames_without_splitting(script, video, tmp_path):
    target = tmp_path / 'frames'
    assert script('extract_frames', '--input', video, '--output', target, '--no-split', '--ext', 'webp') == 0
    assert sorted(file.name for file in (target / 'My_trip').iterdir()) == [f'{i:08d}.webp' for i in range(30)]


def test_command_line(tmp_path):
    done = run(SCRIPTS / 'extract_frames.py', '--input', tmp_path / 'none.mp4', '--output', tmp_path / 'x')
    assert done.returncode == 1
    assert done.stderr == f'error: {tmp_path}/none.mp4: no such file or folder\n'
