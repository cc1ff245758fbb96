import gc
import multiprocessing
import os
import pickle
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import av
import cv2
import lmdb
import numpy as np
import pytest
import video_util
from basicsr.utils import FileClient
from basicsr.utils.lmdb_util import make_lmdb_from_imgs
from run_util import in_forks

from basicsr_stvsr.io.color_spaces import convert_frame
from basicsr_stvsr.io.derived_frames import CachedReader
from basicsr_stvsr.io.frames import FolderReader, FrameReadError
from basicsr_stvsr.io.images import decode_image
from basicsr_stvsr.io.lmdb_reader import LmdbReader
from basicsr_stvsr.io.opening import open_color_reader, open_reader
from basicsr_stvsr.io.video_clips import VideoReader
from basicsr_stvsr.io.video_decoder import VideoDecoder
from basicsr_stvsr.io.video_reader import open_source

HEIGHT, WIDTH = 32, 48
CLIPS = {'a/2': 5, 'a/10': 3}  # name -> number of frames; in natural, not alphabetical, order


def make_clip(num_frames, *, height=HEIGHT, width=WIDTH, seed=0):
    """Smooth noise that moves, so that no two frames are alike and video codecs have something to predict."""
    rng = np.random.default_rng(seed)
    scene = rng.integers(0, 256, (height // 4 + num_frames, width // 4 + num_frames, 3), np.uint8)
    scene = cv2.resize(scene, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    return [np.ascontiguousarray(scene[2 * i:2 * i + height, i:i + width]) for i in range(num_frames)]


def write_images(folder, clip, suffix='.png'):
    folder.mkdir(parents=True, exist_ok=True)
    for i, frame in enumerate(clip):
        assert cv2.imwrite(str(folder / f'im{i + 1}{suffix}'), frame)


def write_lmdb(folder, path):
    """By BasicSR's own writer, from a tree of images."""
    files = sorted(str(file.relative_to(folder)) for file in folder.rglob('*.png'))
    make_lmdb_from_imgs(str(folder), str(path), files, [file[:-len('.png')] for file in files])


def write_video(path, clip, codec='ffv1', pix_fmt='bgr0', *, container_options=None, **options):
    with av.open(str(path), 'w', options=container_options or {}) as container:
        options = {name.replace('_', '-'): str(value) for name, value in options.items()}
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = clip[0].shape[1], clip[0].shape[0], pix_fmt
        stream.codec_context.thread_count = 1  # an encoder's threads do not survive the forks of these tests
        for frame in clip:
            frame = av.VideoFrame.from_ndarray(frame, format='bgr24').reformat(format=pix_fmt)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def decode_in_order(path):
    with open_source(path) as source:
        return [frame.image[..., ::-1] for frame in source.frames()]


@pytest.fixture
def clips():
    return {name: make_clip(num, seed=num) for name, num in CLIPS.items()}


@pytest.fixture
def image_root(tmp_path, clips):
    for name, clip in clips.items():
        write_images(tmp_path / 'images' / name, clip)
    return tmp_path / 'images'


@pytest.fixture
def lmdb_path(tmp_path, image_root):
    write_lmdb(image_root, tmp_path / 'clips.lmdb')
    return tmp_path / 'clips.lmdb'


class TestAllReaders:

    @pytest.fixture(params=['folder', 'lmdb', 'video', 'cached'])
    def reader(self, request, tmp_path, clips, image_root):
        if request.param == 'folder':
            return open_reader(image_root)
        if request.param == 'lmdb':
            return open_reader(request.getfixturevalue('lmdb_path'))
        if request.param == 'cached':
            return CachedReader(open_reader(image_root))
        for name, clip in clips.items():
            write_video(tmp_path / 'videos' / f'{name.partition("/")[2]}.mkv', clip)
        return open_reader(tmp_path / 'videos')

    @pytest.fixture(autouse=True)
    def video_folder(self, tmp_path):
        (tmp_path / 'videos').mkdir()

    def test_same_frames(self, reader, clips):
        assert [clip.rpartition('/')[2] for clip in reader.clips] == ['2', '10']
        for name, clip in zip(reader.clips, clips.values(), strict=True):
            assert reader.num_frames(name) == len(clip)
            assert reader.frame_size(name) == (HEIGHT, WIDTH)
            for i in (*range(len(clip)), 0):
                frame = reader.frame(name, i)
                assert frame.dtype == np.uint8
                np.testing.assert_array_equal(frame, clip[i])

    def test_frame_names_in_natural_order(self, reader):
        names = [reader.frame_name(reader.clips[0], i) for i in range(5)]
        if isinstance(reader, VideoReader):
            assert names == ['00000000', '00000001', '00000002', '00000003', '00000004']
        else:
            assert names == ['im1', 'im2', 'im3', 'im4', 'im5']

    def test_survives_pickle_fork_and_close(self, reader, clips):
        name, clip = reader.clips[0], clips['a/2']
        reader.frame(name, 1)  # opens whatever is tied to this process
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(reader)).frame(name, 2), clip[2])
        for i, frame in enumerate(in_forks(reader.frame, [(name, i) for i in range(5)])):
            np.testing.assert_array_equal(frame, clip[i])
        with reader:
            np.testing.assert_array_equal(reader.frame(name, 3), clip[3])
        np.testing.assert_array_equal(reader.frame(name, 0), clip[0])

    @pytest.mark.parametrize('index', [-1, 5])
    def test_no_such_frame(self, reader, index):
        with pytest.raises(FrameReadError, match=rf"clip '.*2' has frames 0 to 4, frame {index} was asked for"):
            reader.frame(reader.clips[0], index)

    def test_no_such_clip(self, reader):
        with pytest.raises(FrameReadError, match="no clip 'nowhere'; it holds 2 clips"):
            reader.frame('nowhere', 0)


def test_forked_process_can_drop_the_parents_decoder(tmp_path):
    """It must not wait for the decoder's threads, which only the parent has."""
    write_video(tmp_path / 'clip.mp4', make_clip(12), 'libx264', 'yuv444p', qp=0)
    reader = VideoReader(tmp_path / 'clip.mp4')
    for i in (*range(12), 3):
        reader.frame('clip', i)

    def drop():
        reader.close()
        gc.collect()

    process = multiprocessing.get_context('fork').Process(target=drop)
    process.start()
    process.join(timeout=20)
    hangs = process.is_alive()
    process.kill()
    assert not hangs and process.exitcode == 0


# Images


@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.webp', '.bmp', '.tif'])
def test_decodes_as_opencv(tmp_path, suffix):
    write_images(tmp_path / 'clip', make_clip(1), suffix)
    reader = FolderReader(tmp_path)
    np.testing.assert_array_equal(reader.frame('clip', 0), cv2.imread(str(tmp_path / 'clip' / f'im1{suffix}')))


@pytest.mark.parametrize('kept', [0, 1, 20, 0.5, -13, -1])
@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.webp', '.bmp', '.tif'])
def test_truncated_image(tmp_path, suffix, kept):
    write_images(tmp_path / 'clip', make_clip(3), suffix)
    path = tmp_path / 'clip' / f'im2{suffix}'
    data = path.read_bytes()
    path.write_bytes(data[:int(kept * len(data)) if kept == 0.5 else kept])
    with pytest.raises(FrameReadError, match=rf"clip 'clip', frame 1 \(im2\): .*im2\{suffix}: "):
        FolderReader(tmp_path).frame('clip', 1)


@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.webp', '.bmp'])
def test_truncation_is_seen_without_opencv(suffix, monkeypatch):
    """OpenCV 4 decodes part of a truncated image and only warns."""
    data = cv2.imencode(suffix, make_clip(1)[0])[1].tobytes()
    monkeypatch.setattr(cv2, 'imdecode', lambda *_: np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    assert decode_image(data).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(ValueError, match='truncated'):
        decode_image(data[:-14])


def test_truncated_jpeg_with_thumbnail():
    """A thumbnail has its own end mark."""
    frame = make_clip(1)[0]
    data = cv2.imencode('.jpg', frame)[1].tobytes()
    thumbnail = cv2.imencode('.jpg', frame[:8, :8])[1].tobytes()
    data = data[:2] + b'\xff\xe1' + (len(thumbnail) + 2).to_bytes(2, 'big') + thumbnail + data[2:]
    assert decode_image(data).shape == frame.shape
    with pytest.raises(ValueError, match='truncated'):
        decode_image(data[:-20])


def test_no_image(tmp_path):
    write_images(tmp_path / 'clip', make_clip(2))
    (tmp_path / 'clip' / 'im2.png').write_text('an error page instead of an image')
    with pytest.raises(FrameReadError, match=r"frame 1 \(im2\): .*OpenCV cannot decode these 33 bytes"):
        FolderReader(tmp_path).frame('clip', 1)


def test_grey_and_alpha(tmp_path):
    frame = make_clip(1)[0]
    (tmp_path / 'clip').mkdir()
    cv2.imwrite(str(tmp_path / 'clip' / '0.png'), frame[..., 0])
    cv2.imwrite(str(tmp_path / 'clip' / '1.png'), np.dstack([frame, frame[..., 1]]))
    reader = FolderReader(tmp_path)
    np.testing.assert_array_equal(reader.frame('clip', 0), np.dstack([frame[..., 0]] * 3))
    np.testing.assert_array_equal(reader.frame('clip', 1), frame)


# Folders


def test_folder_that_holds_images_is_one_clip(tmp_path):
    clip = make_clip(12)
    write_images(tmp_path / 'walk', clip)
    (tmp_path / 'walk' / '._im1.png').write_bytes(b'what macOS leaves on foreign disks')
    (tmp_path / 'walk' / 'notes.txt').write_text('no image')
    reader = open_reader(tmp_path / 'walk')
    assert reader.clips == ['walk']
    assert [reader.frame_name('walk', i) for i in range(12)] == [f'im{i}' for i in range(1, 13)]
    np.testing.assert_array_equal(reader.frame('walk', 9), clip[9])


def test_given_clips_are_not_searched_for(image_root, clips, monkeypatch):
    def walk(*_, **__):
        raise AssertionError('the tree was searched')

    monkeypatch.setattr(os, 'walk', walk)
    reader = open_reader(image_root, clips=['a/10'])
    assert reader.clips == ['a/10'] and reader.num_frames('a/10') == 3
    np.testing.assert_array_equal(reader.frame('a/10', 2), clips['a/10'][2])
    with pytest.raises(FrameReadError, match="clip 'a/3' cannot be listed"):
        open_reader(image_root, clips=['a/3']).num_frames('a/3')


def test_unequal_sizes(image_root):
    cv2.imwrite(str(image_root / 'a' / '2' / 'im4.png'), np.zeros((HEIGHT, WIDTH + 2, 3), np.uint8))
    reader = FolderReader(image_root)
    reader.frame('a/2', 1)
    with pytest.raises(FrameReadError, match=r"clip 'a/2', frame 3 \(im4\) has size 32x50 .*, frame 1 has 32x48"):
        reader.frame('a/2', 3)


def test_vanished_image(image_root):
    reader = FolderReader(image_root)
    (image_root / 'a' / '2' / 'im2.png').unlink()
    with pytest.raises(FrameReadError, match=r"clip 'a/2', frame 1 \(im2\): .*im2.png"):
        reader.frame('a/2', 1)


def test_nothing_there(tmp_path):
    with pytest.raises(FrameReadError, match='missing: no such file or folder'):
        open_reader(tmp_path / 'missing')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FrameReadError, match='empty: no images'):
        open_reader(tmp_path / 'empty')


def test_real_clips(real_data):
    reader = open_reader(real_data / 'train')
    inventory = {'motorbike': (9, 540, 960), 'tennis': (50, 480, 854), 'kitti_drive': (9, 375, 1242)}
    assert len(reader.clips) == 18
    for clip, (num_frames, *size) in inventory.items():
        assert reader.num_frames(clip) == num_frames
        assert reader.frame_size(clip) == tuple(size)
    np.testing.assert_array_equal(
        reader.frame('tennis', 7), cv2.imread(str(real_data / 'train' / 'tennis' / '00000007.jpg')))


# LMDB


def test_lmdb_without_folders_is_one_clip(tmp_path):
    clip = make_clip(3)
    write_images(tmp_path / 'walk', clip)
    write_lmdb(tmp_path / 'walk', tmp_path / 'walk.lmdb')
    reader = LmdbReader(tmp_path / 'walk.lmdb')
    assert reader.clips == ['walk']
    np.testing.assert_array_equal(reader.frame('walk', 2), clip[2])


def test_two_readers_and_a_replaced_lmdb(lmdb_path, image_root, clips):
    first = LmdbReader(lmdb_path, clips=['a/10'])
    assert first.clips == ['a/10']
    np.testing.assert_array_equal(first.frame('a/10', 0), clips['a/10'][0])
    shutil.rmtree(lmdb_path)
    write_images(image_root / 'a' / '10', make_clip(3, seed=99))
    write_lmdb(image_root, lmdb_path)
    second = LmdbReader(lmdb_path)
    np.testing.assert_array_equal(second.frame('a/10', 0), make_clip(3, seed=99)[0])
    np.testing.assert_array_equal(second.frame('a/2', 1), clips['a/2'][1])


@pytest.mark.parametrize('kept', [0, 100, 4096, 8192, 9000, -4096, -1])
def test_truncated_lmdb(lmdb_path, kept):
    """Were it not refused when it is opened, reading would kill the process: LMDB reads through a memory map."""
    size = (lmdb_path / 'data.mdb').stat().st_size
    os.truncate(lmdb_path / 'data.mdb', kept if kept >= 0 else size + kept)
    with pytest.raises(FrameReadError, match=r'clips\.lmdb: (data.mdb is truncated|LMDB cannot open it)'):
        open_reader(lmdb_path)


@pytest.mark.parametrize('missing', ['data.mdb', 'meta_info.txt'])
def test_lmdb_without_a_file(lmdb_path, missing):
    (lmdb_path / missing).unlink()
    with pytest.raises(FrameReadError, match=rf'clips\.lmdb: {missing} is missing'):
        open_reader(lmdb_path)


def test_unfinished_lmdb(lmdb_path):
    meta_info = (lmdb_path / 'meta_info.txt').read_text()
    (lmdb_path / 'meta_info.txt').write_text(''.join(meta_info.splitlines(keepends=True)[:-1]))
    with pytest.raises(FrameReadError, match='data.mdb holds 8 images and meta_info.txt lists 7'):
        open_reader(lmdb_path)
    (lmdb_path / 'meta_info.txt').write_text(meta_info[:-10])
    with pytest.raises(FrameReadError, match='line 8 of meta_info.txt'):
        open_reader(lmdb_path)
    lmdb_path.rename(lmdb_path.with_suffix('.lmdb.part'))
    with pytest.raises(FrameReadError, match='writing it was interrupted'):
        open_reader(lmdb_path.with_suffix('.lmdb.part'))


def test_lmdb_with_a_line_twice(lmdb_path):
    with open(lmdb_path / 'meta_info.txt', 'a') as file:
        file.write('a/2/im3.png (32,48,3) 1\n')
    with pytest.raises(FrameReadError, match="line 9 of meta_info.txt lists the key 'a/2/im3' again"):
        open_reader(lmdb_path)


def test_threads_open_an_lmdb_at_once(lmdb_path, monkeypatch):
    """The library refuses a second opening."""
    def slow_open(*args, **kwargs):
        time.sleep(0.05)
        return open_(*args, **kwargs)

    open_ = lmdb.open
    reader = open_reader(lmdb_path)
    monkeypatch.setattr(lmdb, 'open', slow_open)
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda i: reader.frame('a/2', i), range(5)))
    np.testing.assert_array_equal(read, [reader.frame('a/2', i) for i in range(5)])


def test_fork_while_a_thread_opens_an_lmdb(lmdb_path, monkeypatch):
    """The forked process has the thread's lock without the thread."""
    opening, forked = threading.Event(), threading.Event()

    def slow_open(*args, **kwargs):
        opening.set()
        forked.wait(20)
        return open_(*args, **kwargs)

    open_ = lmdb.open
    reader = open_reader(lmdb_path)
    monkeypatch.setattr(lmdb, 'open', slow_open)
    thread = threading.Thread(target=reader.frame, args=('a/2', 0))
    thread.start()
    opening.wait(20)
    monkeypatch.setattr(lmdb, 'open', open_)
    process = multiprocessing.get_context('fork').Process(target=reader.frame, args=('a/2', 1))
    process.start()
    process.join(timeout=20)
    forked.set()
    thread.join()
    process.kill()
    assert process.exitcode == 0


def test_lmdb_that_somebody_else_has_open(lmdb_path):
    reader = open_reader(lmdb_path)
    stock = FileClient('lmdb', db_paths=[str(lmdb_path)], client_keys=['gt'])  # as BasicSR's data sets read
    with pytest.raises(FrameReadError, match='only once in a process.*num_worker_per_gpu: 0.*STVSRClipDataset'):
        reader.frame('a/2', 0)
    stock.client._client['gt'].close()
    assert reader.frame('a/2', 0).shape == (HEIGHT, WIDTH, 3)


def test_forked_process_may_open_what_ours_has_open(lmdb_path):
    """A worker of a stock data set, forked after one of our readers has read the same LMDB."""
    def read():
        stock = FileClient('lmdb', db_paths=[str(lmdb_path)], client_keys=['gt'])
        assert stock.get('a/2/im1', 'gt')

    reader = open_reader(lmdb_path)
    expected = reader.frame('a/2', 0)
    process = multiprocessing.get_context('fork').Process(target=read)
    process.start()
    process.join(timeout=20)
    assert process.exitcode == 0
    np.testing.assert_array_equal(reader.frame('a/2', 0), expected)


def change_lmdb(path, change):
    with lmdb.open(str(path)) as environment, environment.begin(write=True) as transaction:
        change(transaction)


def test_missing_key(lmdb_path):
    change_lmdb(lmdb_path, lambda transaction: transaction.put(b'b/0/im1', transaction.pop(b'a/2/im3')))
    with pytest.raises(FrameReadError, match=r"clip 'a/2', frame 2 \(im3\): .*the key 'a/2/im3', data.mdb does not"):
        open_reader(lmdb_path).frame('a/2', 2)
    with pytest.raises(FrameReadError, match="no clip 'c/1' in meta_info.txt"):
        open_reader(lmdb_path, clips=['c/1'])


def test_truncated_image_in_lmdb(lmdb_path):
    change_lmdb(lmdb_path, lambda transaction: transaction.put(b'a/2/im3', transaction.get(b'a/2/im3')[:-9]))
    with pytest.raises(FrameReadError, match=r"clips.lmdb: clip 'a/2', frame 2 \(im3\): the image is truncated"):
        open_reader(lmdb_path).frame('a/2', 2)


def test_unequal_sizes_in_lmdb(lmdb_path):
    wide = cv2.imencode('.png', np.zeros((HEIGHT, WIDTH + 2, 3), np.uint8))[1].tobytes()
    change_lmdb(lmdb_path, lambda transaction: transaction.put(b'a/2/im3', wide))
    with pytest.raises(FrameReadError, match=r"frame 2 \(im3\) has size 32x50 \(h x w\), frame 0 has 32x48"):
        open_reader(lmdb_path).frame('a/2', 2)


# Videos

CODECS = {  # name -> (file, codec, pixel format, encoder options)
    'h264': ('clip.mp4', 'libx264', 'yuv420p', dict(g=8, bf=3)),
    'h264 open gop': ('clip.mkv', 'libx264', 'yuv420p', dict(g=8, bf=3, x264_params='open-gop=1:keyint=8:bframes=3')),
    'h264 no time stamps': ('clip.h264', 'libx264', 'yuv420p', dict(g=8, bf=3)),
    'mpeg-ts': ('clip.ts', 'libx264', 'yuv420p', dict(g=8, bf=3)),
    'mpeg4 avi': ('clip.avi', 'mpeg4', 'yuv420p', dict(g=8, bf=2)),
    'vp9': ('clip.webm', 'libvpx-vp9', 'yuv420p', dict(g=8, auto_alt_ref=1, lag_in_frames=10)),
    'vp8 hidden frames': ('clip.webm', 'libvpx', 'yuv420p', dict(g=20, auto_alt_ref=1, lag_in_frames=16)),
}


@pytest.mark.parametrize('case', CODECS)
def test_random_access_equals_decoding_in_order(tmp_path, case):
    name, codec, pix_fmt, options = CODECS[case]
    write_video(tmp_path / name, make_clip(40, height=64, width=96), codec, pix_fmt, **options)
    expected = decode_in_order(tmp_path / name)
    assert len(expected) == 40
    reader = open_reader(tmp_path / name)
    assert reader.clips == ['clip'] and reader.num_frames('clip') == 40
    order = [*range(40), *np.random.default_rng(0).permutation(40).tolist(), *range(39, -1, -1)]
    for i in order:
        np.testing.assert_array_equal(reader.frame('clip', i), expected[i], err_msg=f'frame {i}')


def test_the_h264_clip_has_b_frames(tmp_path):
    """So that the test above tests what it says."""
    name, codec, pix_fmt, options = CODECS['h264']
    write_video(tmp_path / name, make_clip(40, height=64, width=96), codec, pix_fmt, **options)
    with av.open(str(tmp_path / name)) as container:
        pts = [packet.pts for packet in container.demux(video=0) if packet.size]
    assert pts != sorted(pts)


def test_video_is_not_decoded_again_and_again(tmp_path, monkeypatch):
    write_video(tmp_path / 'clip.mp4', make_clip(60), 'libx264', 'yuv420p', g=10, bf=3)
    reader = VideoReader(tmp_path / 'clip.mp4')
    decoded = []
    read = VideoDecoder._decoded

    def counted(self, target):
        for frame in read(self, target):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(VideoDecoder, '_decoded', counted)
    for i in range(60):
        reader.frame('clip', i)
    assert len(decoded) == 60
    decoded.clear()
    for i in (35, 5, 55, 21):
        reader.frame('clip', i)
    assert len(decoded) <= 4 * 10  # at most a group of pictures each


def test_video_colours_follow_the_tag(tmp_path):
    """Y'CbCr 63, 102, 240 is pure red by BT.709 (and another colour by BT.601)."""
    frame = av.VideoFrame(64, 48, 'yuv444p')
    for plane, value in zip(frame.planes, (63, 102, 240), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    with av.open(str(tmp_path / 'red.mp4'), 'w') as container:
        stream = container.add_stream('libx264', rate=25, options={'qp': '0'})
        stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv444p'
        stream.codec_context.colorspace = 1
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert np.abs(open_reader(tmp_path / 'red.mp4').frame('red', 0).astype(int) - [0, 0, 255]).max() <= 2


@pytest.mark.parametrize('size, bgr', [
    # Y'CbCr 120, 90, 180 without a tag; BT.709 from 1280 columns on: R = 1.164 104 + 1.793 52 and so on
    ((1280, 720), (40.8, 101.5, 214.3)), ((640, 480), (44.4, 93.7, 204.1))])
def test_untagged_colours_follow_the_size(tmp_path, size, bgr):
    """As in `stvsr restore`."""
    width, height = size
    frame = av.VideoFrame(width, height, 'yuv420p')
    for plane, value in zip(frame.planes, (120, 90, 180), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    path = tmp_path / 'clip.mp4'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=25, options={'qp': '0', 'preset': 'ultrafast'})
        stream.width, stream.height, stream.pix_fmt = width, height, 'yuv420p'
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    image = open_reader(path).frame('clip', 0)
    assert np.abs(image - np.array(bgr)).max() < 1
    np.testing.assert_array_equal(image, decode_in_order(path)[0])


@pytest.mark.parametrize('rotation', [90, 180, 270])
def test_rotation_is_applied(tmp_path, rotation):
    """As numpy turns it, and as in `stvsr restore`."""
    clip = make_clip(2)
    video_util.write_video(tmp_path / 'clip.mp4', [frame[..., ::-1] for frame in clip], rotation=rotation,
                           options={'crf': '4'})
    reader = open_reader(tmp_path / 'clip.mp4')
    turned = np.rot90(clip[0], -rotation // 90)
    assert reader.frame_size('clip') == turned.shape[:2]
    assert np.abs(reader.frame('clip', 0).astype(int) - turned).mean() < 15  # half-size chroma of noise
    np.testing.assert_array_equal(reader.frame('clip', 1), decode_in_order(tmp_path / 'clip.mp4')[1])


def test_alpha_is_dropped(tmp_path):
    """`stvsr restore` refuses it; data sets have always read such files."""
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 4), np.uint8)
    video_util.write_video(tmp_path / 'clip.mov', [av.VideoFrame.from_ndarray(image, format='rgba')], codec='png',
                           pix_fmt='rgba')
    np.testing.assert_array_equal(open_reader(tmp_path / 'clip.mov').frame('clip', 0), image[..., 2::-1])


@pytest.mark.skipif(not shutil.which('ffmpeg'), reason='needs the command ffmpeg')
@pytest.mark.parametrize('full_range', [False, True])
@pytest.mark.parametrize('matrix', ['bt601', 'bt709', 'bt2020'])
@pytest.mark.parametrize('bits', [8, 10])
def test_colours_are_those_of_ffmpeg(tmp_path, bits, matrix, full_range):
    """Both ways of reading give what FFmpeg's own program makes of a tagged file."""
    path = tmp_path / 'clip.mkv'
    pix_fmt, form = ('yuv420p', np.uint8) if bits == 8 else ('yuv420p10le', np.uint16)
    levels = np.random.default_rng(0).integers(16, 236, (3, 6, 8)) << bits - 8
    planes = [np.ascontiguousarray(plane.repeat(8, 0).repeat(8, 1)[::step, ::step].astype(form))
              for plane, step in zip(levels, (1, 2, 2), strict=True)]
    video_util.write_video(path, [video_util.frame_of_planes(planes, pix_fmt)] * 2, codec='ffv1', pix_fmt=pix_fmt,
                           color={'colorspace': video_util.COLORSPACE[matrix], 'color_range': 1 + full_range})
    command = ['ffmpeg', '-v', 'error', '-i', str(path), '-frames:v', '1', '-sws_flags',
               'bicubic+full_chroma_int+accurate_rnd', '-f', 'rawvideo', '-pix_fmt', 'rgb24', '-']
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    expected = np.frombuffer(raw, np.uint8).reshape(48, 64, 3)
    by_number = open_reader(path).frame('clip', 1)[..., ::-1]
    with open_source(path) as source:
        in_order = next(iter(source.frames())).image / (1 if bits == 8 else 257)
    middle = np.s_[3::8, 3::8]  # of flat squares, where the interpolation of chroma makes no difference
    assert np.abs(by_number[middle].astype(int) - expected[middle]).max() <= 1
    assert np.abs(in_order[middle] - expected[middle]).max() <= 1.5  # ffmpeg rounds to 8 bits


def test_folder_of_videos(tmp_path):
    for name, num in (('b', 3), ('a', 4)):
        write_video(tmp_path / f'{name}.mkv', make_clip(num))
    reader = open_reader(tmp_path)
    assert reader.clips == ['a', 'b'] and [reader.num_frames(clip) for clip in reader.clips] == [4, 3]
    shutil.copy(tmp_path / 'a.mkv', tmp_path / 'a.avi')
    with pytest.raises(FrameReadError, match='a.avi and a.mkv would be clips of the same name'):
        open_reader(tmp_path)


@pytest.mark.parametrize('movflags', ['', '+faststart'])
@pytest.mark.parametrize('kept', [0.4, 0.8])
def test_truncated_mp4(tmp_path, movflags, kept):
    path = tmp_path / 'clip.mp4'
    write_video(path, make_clip(30), 'libx264', 'yuv420p', container_options={'movflags': movflags} if movflags else {})
    os.truncate(path, int(kept * path.stat().st_size))
    with pytest.raises(FrameReadError, match=r'clip.mp4: (not a readable video|the video is truncated)'):
        open_reader(path).num_frames('clip')


@pytest.mark.parametrize(('name', 'codec', 'pix_fmt'), [
    ('clip.mkv', 'ffv1', 'bgr0'), ('clip.mkv', 'libx264', 'yuv420p'), ('clip.webm', 'libvpx-vp9', 'yuv420p')])
@pytest.mark.parametrize('kept', [0.4, 0.8, 0.95])
def test_truncated_matroska(tmp_path, name, codec, pix_fmt, kept):
    """FFmpeg ends the clip where the file ends, without an error."""
    write_video(tmp_path / name, make_clip(30), codec, pix_fmt)
    assert open_reader(tmp_path / name).num_frames('clip') == 30
    size = (tmp_path / name).stat().st_size
    os.truncate(tmp_path / name, int(kept * size))
    message = rf'clip\.{name[5:]}: the video is truncated, it has {int(kept * size)} of {size} bytes'
    with pytest.raises(FrameReadError, match=message):
        open_reader(tmp_path / name).num_frames('clip')


def test_matroska_of_unknown_length(tmp_path):
    """A live stream, or a recording that was never closed, states no size: what is there is the clip."""
    path = tmp_path / 'clip.mkv'
    write_video(path, make_clip(30), container_options={'live': '1'})
    assert b'\x18S\x80g\x01\xff\xff\xff\xff\xff\xff\xff' in path.read_bytes()[:100]
    assert open_reader(path).num_frames('clip') == 30
    os.truncate(path, int(0.5 * path.stat().st_size))
    assert 0 < open_reader(path).num_frames('clip') < 30


def test_sound_that_goes_on_after_the_video(tmp_path):
    path = tmp_path / 'clip.mkv'
    with av.open(str(path), 'w') as container:
        video, sound = container.add_stream('ffv1', rate=25), container.add_stream('pcm_s16le', rate=8000)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, 'bgr0'
        for frame in make_clip(5):
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format='bgr24').reformat(format='bgr0')))
        container.mux(video.encode())
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.int16), layout='stereo')
        silence.sample_rate = 8000
        container.mux(sound.encode(silence))
    assert open_reader(path).num_frames('clip') == 5


def test_damaged_video(tmp_path):
    """Frames before the damage can be read; those behind it are an error, or what the decoder makes of intact ones."""
    path = tmp_path / 'clip.mp4'
    clip = make_clip(30, height=64, width=96)
    write_video(path, clip, 'libx264', 'yuv420p', g=10, bf=0)
    expected = decode_in_order(path)
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][15]
    data = bytearray(path.read_bytes())
    data[packet.pos:packet.pos + packet.size] = bytes(packet.size)
    path.write_bytes(data)
    reader = open_reader(path)
    with pytest.raises(FrameReadError, match=r"clip 'clip', frame 15 \(00000015\): .*clip.mp4: .*damaged"):
        reader.frame('clip', 15)
    np.testing.assert_array_equal(reader.frame('clip', 14), expected[14])
    np.testing.assert_array_equal(reader.frame('clip', 25), expected[25])


def test_no_video(tmp_path):
    (tmp_path / 'notes.mp4').write_text('no video')
    with pytest.raises(FrameReadError, match='notes.mp4: not a readable video'):
        open_reader(tmp_path / 'notes.mp4').num_frames('notes')
    with av.open(str(tmp_path / 'sound.mkv'), 'w') as container:
        stream = container.add_stream('pcm_s16le', rate=8000, layout='mono')
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout='mono')
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    with pytest.raises(FrameReadError, match='no video stream'):
        open_reader(tmp_path / 'sound.mkv').num_frames('sound')


# Colours


@pytest.mark.parametrize('stored', ['rgb', 'yuv'])
@pytest.mark.parametrize('wanted', ['rgb', 'yuv', 'y'])
def test_colours(tmp_path, stored, wanted):
    clip = [convert_frame(frame, 'rgb', stored) for frame in make_clip(2)]
    write_images(tmp_path / 'clip', clip)
    with open_color_reader(tmp_path, stored, wanted) as reader:
        assert reader.color == (None if stored == wanted else wanted)  # files do not state it
        assert CachedReader(reader).color == reader.color
        assert reader.frame_size('clip') == (HEIGHT, WIDTH) and reader.frame_name('clip', 1) == 'im2'
        for i in range(2):
            frame = CachedReader(reader).frame('clip', i)
            assert frame.shape == (HEIGHT, WIDTH, 1 if wanted == 'y' else 3)
            np.testing.assert_array_equal(frame, convert_frame(clip[i], stored, wanted))


def test_rgb_that_is_said_to_be_yuv(image_root):
    for wanted in ('rgb', 'yuv', 'y'):
        with pytest.raises(ValueError, match=r'images should hold YUV, but does not look like YUV: \d+% of its'):
            open_color_reader(image_root, 'yuv', wanted)
