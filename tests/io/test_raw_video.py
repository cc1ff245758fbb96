"""Raw .yuv files. Truth: FFmpeg, which writes and reads the same format, and planes made by hand."""
import pickle
import runpy
import sys
from concurrent.futures import ThreadPoolExecutor

import av
import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT
from run_util import in_forks
from torch.utils.data import DataLoader
from video_util import write_yuv

from basicsr_stvsr.data.clip_dataset import STVSRClipDataset, STVSRTestDataset
from basicsr_stvsr.io.color_spaces import convert_frame
from basicsr_stvsr.io.frames import FrameReadError
from basicsr_stvsr.io.opening import open_color_reader, open_reader
from basicsr_stvsr.io.raw_video import RawVideoReader

HEIGHT, WIDTH, NUM_FRAMES = 32, 48, 7


def planes(seed, height=HEIGHT, width=WIDTH, num_frames=NUM_FRAMES):
    """Y, U and V of each frame of smooth noise that moves, in the range of video."""
    rng = np.random.default_rng(seed)
    scene = cv2.resize(rng.integers(16, 236, (12, 16), np.uint8), (width + 2 * num_frames, height))
    chroma = cv2.resize(rng.integers(100, 156, (6, 8, 2), np.uint8), (width // 2 + num_frames, height // 2))
    return [(scene[:, 2 * i:2 * i + width], *chroma[:, i:i + width // 2].transpose(2, 0, 1))
            for i in range(num_frames)]


@pytest.fixture
def path(tmp_path):
    return write_yuv(tmp_path / 'walk_48x32.yuv', planes(0))


# Frames


def test_one_frame_by_hand(tmp_path):
    """2 x 4 pixels: eight of Y, then two of U, then two of V, each of which stands for 2 x 2 pixels."""
    (tmp_path / 'tiny_4x2.yuv').write_bytes(bytes([1, 2, 3, 4, 5, 6, 7, 8, 50, 60, 70, 80]))
    frame = RawVideoReader(tmp_path / 'tiny_4x2.yuv').frame('tiny_4x2', 0)
    assert frame.dtype == np.uint8
    v, u, y = frame.transpose(2, 0, 1).tolist()
    assert y == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert u == [[50, 50, 60, 60]] * 2 and v == [[70, 70, 80, 80]] * 2


@pytest.mark.numeric
def test_ffmpeg_reads_the_same_planes(path):
    reader = open_reader(path)
    assert isinstance(reader, RawVideoReader) and reader.color == 'yuv'
    assert reader.clips == ['walk_48x32'] and reader.num_frames('walk_48x32') == NUM_FRAMES
    assert reader.frame_size('walk_48x32') == (HEIGHT, WIDTH)
    assert reader.frame_name('walk_48x32', 3) == '00000003'
    options = {'video_size': f'{WIDTH}x{HEIGHT}', 'pixel_format': 'yuv420p'}
    with av.open(str(path), format='rawvideo', options=options) as container:
        expected = [frame.reformat(format='yuv420p').to_ndarray() for frame in container.decode(video=0)]
    assert len(expected) == NUM_FRAMES
    for index in (*range(NUM_FRAMES), 2, 6, 0):  # in order, and then not
        frame = reader.frame('walk_48x32', index)
        np.testing.assert_array_equal(frame[..., 2], expected[index][:HEIGHT])
        chroma = expected[index][HEIGHT:].reshape(2, HEIGHT // 2, WIDTH // 2)
        np.testing.assert_array_equal(frame[::2, ::2, 1::-1].transpose(2, 0, 1), chroma)
        np.testing.assert_array_equal(frame[1::2, 1::2, 1::-1].transpose(2, 0, 1), chroma)


@pytest.mark.numeric
def test_reads_what_ffmpeg_writes(tmp_path):
    """Colours survive FFmpeg's conversion to 4:2:0 to about one level."""
    rgb = cv2.resize(np.random.default_rng(1).integers(40, 216, (2, 3, 3), np.uint8), (WIDTH, HEIGHT))
    with av.open(str(tmp_path / 'walk_48x32.yuv'), 'w', format='rawvideo') as container:
        stream = container.add_stream('rawvideo', rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, 'yuv420p'
        for frame in (rgb, rgb[:, ::-1], rgb[::-1]):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format='rgb24')
            container.mux(stream.encode(frame.reformat(format='yuv420p')))
        container.mux(stream.encode())
    reader = open_color_reader(tmp_path / 'walk_48x32.yuv', 'rgb', 'rgb')
    assert reader.num_frames('walk_48x32') == 3 and reader.color == 'rgb'
    for index, expected in enumerate((rgb, rgb[:, ::-1], rgb[::-1])):
        frame = reader.frame('walk_48x32', index)[..., ::-1].astype(int)
        assert np.abs(frame - expected).mean() < 3  # chroma of half the size; with U for V it would be dozens
        luma = convert_frame(np.ascontiguousarray(expected[..., ::-1]), 'rgb', 'y').astype(int)
        assert np.abs(open_reader(tmp_path / 'walk_48x32.yuv').frame('walk_48x32', index)[..., 2:] - luma).max() <= 1


@pytest.mark.numeric
def test_survives_pickle_fork_and_threads(path):
    reader = open_reader(path)
    expected = [reader.frame('walk_48x32', i) for i in range(NUM_FRAMES)]
    assert any(not np.array_equal(frame, expected[0]) for frame in expected)
    copy = pickle.loads(pickle.dumps(reader))
    calls = [('walk_48x32', i) for i in (6, 0, 3, 3, 1, 5)]
    with ThreadPoolExecutor(4) as threads:
        for frames in (in_forks(reader.frame, calls), threads.map(reader.frame, *zip(*calls, strict=True)),
                       [copy.frame(*call) for call in calls]):
            for (_, index), frame in zip(calls, frames, strict=True):
                np.testing.assert_array_equal(frame, expected[index])


@pytest.mark.parametrize(('name', 'size'), [
    ('foreman_176x144', (144, 176)), ('Foreman_QCIF', (144, 176)), ('mother-daughter_cif', (288, 352)),
    ('ice_4cif_30fps', (576, 704)), ('Star_Fan.654x480.25fps', (480, 654)), ('qcif', (144, 176)),
    ('bus_qcif_176x144', (144, 176))])
def test_size_in_the_name(tmp_path, name, size):
    num_bytes = 2 * size[0] * size[1] * 3 // 2
    (tmp_path / f'{name}.yuv').write_bytes(bytes(num_bytes))
    reader = open_reader(tmp_path / f'{name}.yuv')
    assert reader.frame_size(name) == reader.frame(name, 1).shape[:2] == size and reader.num_frames(name) == 2


def test_given_size_goes_before_the_name(tmp_path, log):
    (tmp_path / 'scifi_8x4.yuv').write_bytes(bytes(48))
    assert 'frame_size' not in log.text
    assert open_reader(tmp_path, frame_size=(8, 4)).frame('scifi_8x4', 0).shape == (8, 4, 3)
    assert (r'scifi_8x4.yuv: the file name says 8x4 (width x height), but frame_size, which applies, is '
            '[height, width] = [8, 4]') in log.text
    (tmp_path / 'scifi_8x4.yuv').rename(tmp_path / 'scifi.YUV')
    assert open_reader(tmp_path, frame_size=(2, 16)).frame('scifi', 0).shape == (2, 16, 3)


@pytest.mark.numeric
def test_folder(tmp_path):
    for number in (10, 9):
        write_yuv(tmp_path / f'clip{number}_48x32.yuv', planes(number))
    (tmp_path / '._clip9_48x32.yuv').write_bytes(b'what macOS leaves on foreign disks')
    (tmp_path / 'notes.txt').write_text('no video')
    reader = open_reader(tmp_path)
    assert reader.clips == ['clip9_48x32', 'clip10_48x32']
    for number in (10, 9):
        np.testing.assert_array_equal(reader.frame(f'clip{number}_48x32', 6)[..., 2], planes(number)[6][0])
    assert open_reader(tmp_path, clips=['clip10_48x32']).clips == ['clip10_48x32']
    write_yuv(tmp_path / 'odd_size.yuv', planes(1))
    assert open_reader(tmp_path, clips=['clip9_48x32']).clips == ['clip9_48x32']  # the others are not looked at
    with pytest.raises(FrameReadError, match="no clip 'clip8'; it holds 3 clips"):
        open_reader(tmp_path, clips=['clip8'])
    with pytest.raises(FrameReadError, match="no clip 'clip8'"):
        reader.num_frames('clip8')


@pytest.mark.numeric
def test_yuv_whatever_the_caller_thinks(path):
    """The file states its colour space, so its pixels are not checked: full-range or grey video is no error."""
    yuv = open_reader(path).frame('walk_48x32', 4)
    for stored in ('rgb', 'yuv'):
        np.testing.assert_array_equal(open_color_reader(path, stored, 'yuv').frame('walk_48x32', 4), yuv)
        np.testing.assert_array_equal(open_color_reader(path, stored, 'y').frame('walk_48x32', 4), yuv[..., 2:])
    path.write_bytes(bytes([0, 255]) * (path.stat().st_size // 2))
    assert open_color_reader(path, 'yuv', 'y').frame('walk_48x32', 4).shape == (HEIGHT, WIDTH, 1)


# Bad files


@pytest.mark.parametrize(('name', 'num_bytes', 'message'), [
    ('walk_48x32', 0, 'walk_48x32.yuv: the file is empty'),
    ('walk_48x32', 5000, r'5000 bytes are not a whole number of frames of 32x48 .* 2304 bytes each \(2.17 frames\)'),
    ('walk_48x31', 2232, r'frames of 31x48 \(h x w\) cannot be 4:2:0.*both must be even'),
    ('walk_47x32', 2256, r'frames of 32x47 \(h x w\) cannot be 4:2:0'),
    ('walk_0x32', 2304, r'frames of 32x0 \(h x w\) cannot'),
    ('walk_fast', 2304, r'walk_fast.yuv: the file name does not contain the frame size.* walk_176x144.yuv or .*frame_'),
    ('walk_48x32_qcif', 2304, r'contains two sizes, 48x32 and 176x144 \(width x height\).*frame_size'),
])
def test_bad_file(tmp_path, name, num_bytes, message):
    (tmp_path / f'{name}.yuv').write_bytes(bytes(num_bytes))
    for place in (tmp_path, tmp_path / f'{name}.yuv'):
        with pytest.raises(FrameReadError, match=message):
            open_reader(place)


def test_file_that_is_cut_after_it_was_opened(path):
    reader = open_reader(path)
    path.write_bytes(path.read_bytes()[:-1])
    reader.frame('walk_48x32', 5)
    with pytest.raises(FrameReadError, match=r"clip 'walk_48x32', frame 6 \(00000006\): .* ends before it"):
        reader.frame('walk_48x32', 6)
    path.unlink()
    with pytest.raises(FrameReadError, match=r"clip 'walk_48x32', frame 0 .*No such file"):
        reader.frame('walk_48x32', 0)


def test_frame_out_of_range(path):
    with pytest.raises(FrameReadError, match="clip 'walk_48x32' has frames 0 to 6, frame 7 was asked for"):
        open_reader(path).frame('walk_48x32', 7)


def test_unclear_folders(tmp_path, path):
    (tmp_path / 'talk.mp4').write_bytes(b'')
    with pytest.raises(FrameReadError, match='holds .yuv files and other videos, expected only one of the two'):
        open_reader(tmp_path)
    (tmp_path / 'talk.mp4').unlink()
    path.rename(tmp_path / 'walk_48x32.YUV')
    write_yuv(path, planes(1))
    with pytest.raises(FrameReadError, match='walk_48x32.YUV and walk_48x32.yuv would be clips of the same name'):
        open_reader(tmp_path)


def test_size_of_what_is_no_raw_video(tmp_path):
    (tmp_path / 'clip').mkdir()
    cv2.imwrite(str(tmp_path / 'clip' / '0.png'), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(FrameReadError, match='frame_size is for .yuv files, but there are none'):
        open_reader(tmp_path, frame_size=(4, 4))


# Data sets


OPTIONS = {'name': 'QCIF', 'phase': 'train', 'scale': 4, 'temporal_scale': 1, 'color': 'y'}


@pytest.mark.numeric
def test_training_on_luma_of_raw_video(tmp_path):
    """Samples hold the very bytes of the plane Y; workers read them alike."""
    clips = {name: planes(seed, height=40) for seed, name in enumerate(('one', 'two'))}
    for name, clip in clips.items():
        write_yuv(tmp_path / f'{name}.yuv', clip)
    dataset = STVSRClipDataset({
        **OPTIONS, 'dataroot_gt': tmp_path, 'frame_size': [40, WIDTH], 'num_frame': 5, 'frame_stride': 2,
        'degradation': {'type': 'blur_bicubic'}})
    assert len(dataset) == 4
    for worker_items in (iter(dataset), DataLoader(dataset, num_workers=2, batch_size=None)):
        keys = []
        for item, (name, start) in zip(worker_items, [('one', 0), ('one', 2), ('two', 0), ('two', 2)], strict=False):
            keys.append(item['key'])
            assert item['gt'].shape == (5, 1, 40, WIDTH) and item['lq'].shape == (5, 1, 10, WIDTH // 4)
            expected = np.stack([y for y, _, _ in clips[name][start:start + 5]])
            np.testing.assert_array_equal((item['gt'][:, 0] * 255).round().byte(), expected)
            assert item['gt'].dtype == torch.float32 and item['gt'].max() <= 235 / 255
        assert keys == ['one/00000000', 'one/00000002', 'two/00000000', 'two/00000002']


def test_raw_video_equals_images_of_yuv(tmp_path):
    """The same frames as image files of YUV, 4:4:4: every sample is the same, chroma included."""
    raw = write_yuv(tmp_path / 'raw' / 'walk_48x32.yuv', planes(3))
    reader = open_reader(raw)
    for i in range(NUM_FRAMES):
        (tmp_path / 'images' / 'walk_48x32').mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / 'images' / 'walk_48x32' / f'{i:08d}.png'), reader.frame('walk_48x32', i))
    for color in ('rgb', 'yuv', 'y'):
        opt = {**OPTIONS, 'color': color}
        first = STVSRTestDataset({**opt, 'dataroot_gt': raw})[0]
        second = STVSRTestDataset({**opt, 'dataroot_gt': tmp_path / 'images', 'stored_color': 'yuv'})[0]
        assert first.keys() == second.keys() and first['frame_names'] == second['frame_names']
        for key in ('lq', 'gt', *(['lq_chroma'] if color == 'y' else [])):
            assert torch.equal(first[key], second[key])


def test_sizes_of_lr_and_gt(tmp_path):
    """frame_size applies to the ground truth, if there is one; LR files then state their size in their names."""
    gt = write_yuv(tmp_path / 'gt' / 'walk.yuv', planes(0))
    lq = write_yuv(tmp_path / 'lq' / 'walk_12x8.yuv', planes(0, 8, 12))
    item = STVSRTestDataset({**OPTIONS, 'dataroot_gt': gt, 'dataroot_lq': lq, 'frame_size': [HEIGHT, WIDTH]})[0]
    assert item['gt'].shape == (7, 1, HEIGHT, WIDTH) and item['lq'].shape == (7, 1, 8, 12)
    lq = lq.rename(lq.with_stem('walk'))
    with pytest.raises(FrameReadError, match='lq/walk.yuv: the file name does not contain'):
        STVSRTestDataset({**OPTIONS, 'dataroot_gt': gt, 'dataroot_lq': lq, 'frame_size': [HEIGHT, WIDTH]})
    item = STVSRTestDataset({**OPTIONS, 'dataroot_lq': lq, 'frame_size': [8, 12]})[0]
    assert item['lq'].shape == (7, 1, 8, 12)


@pytest.mark.parametrize(('size', 'message'), [
    ([0, 48], r'frame_size\[0\] must be >= 1, but is 0'), ([32], 'frame_size must be a list of at least 2'),
    ('32x48', "frame_size must be a list, but is '32x48'")])
def test_bad_frame_size(path, size, message):
    with pytest.raises(ValueError, match=message):
        STVSRTestDataset({**OPTIONS, 'dataroot_gt': path, 'frame_size': size})


def test_missing_raw_video_needs_no_lmdb(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'dataroot_gt does not exist: .*foreman_qcif\.yuv$'):
        STVSRTestDataset({**OPTIONS, 'dataroot_gt': tmp_path / 'foreman_qcif.yuv'})


# Scripts write RGB, as other files hold


@pytest.mark.numeric
@pytest.mark.parametrize(('name', 'options', 'scale'), [
    ('create_lmdb', ['--dataset', 'folder', '--verify'], 1), ('extract_frames', ['--no-split'], 1),
    ('make_lr', ['--scale', '4', '--degradation', 'blur_bicubic'], 4)])
def test_scripts_read_raw_video(tmp_path, monkeypatch, name, options, scale):
    for seed in (0, 1):
        write_yuv(tmp_path / 'raw' / f'clip{seed}_48x32.yuv', planes(seed))
    folder = ROOT / 'scripts' / 'data_preparation'
    monkeypatch.syspath_prepend(folder)
    arguments = ['--input', tmp_path / 'raw', '--output', tmp_path / 'made.lmdb', *options]
    monkeypatch.setattr(sys, 'argv', [f'{name}.py', *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_info:
        runpy.run_path(str(folder / f'{name}.py'), run_name='__main__')
    assert exit_info.value.code == 0
    made = open_reader(tmp_path / 'made.lmdb')
    raw = open_color_reader(tmp_path / 'raw')
    assert made.clips == ['clip0_48x32', 'clip1_48x32']
    for clip in made.clips:
        assert made.num_frames(clip) == NUM_FRAMES and made.frame_size(clip) == (HEIGHT // scale, WIDTH // scale)
        if scale == 1:
            np.testing.assert_array_equal(made.frame(clip, 5), raw.frame(clip, 5))
