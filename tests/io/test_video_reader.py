from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from video_util import (
    COLORSPACE,
    frame_of_planes,
    moving_clip,
    number_of,
    numbered_clip,
    rgb_of,
    write_film,
    write_video,
    yuv_of,
)

from basicsr_stvsr.io.frame_folder import FolderSource
from basicsr_stvsr.io.video_info import VideoError, probe
from basicsr_stvsr.io.video_reader import VideoSource, open_source

NTSC = Fraction(24000, 1001)


def read(path, start=None, **options):
    with open_source(path, **options) as source:
        return list(source.frames(start))


def psnr(image, reference):
    return 10 * np.log10(255**2 / np.mean((image.astype(float) - reference)**2))


# Colour

def ramp_and_bars(matrix, *, full_range, bits, step=1, height=32, width=64):
    """Rounded (h, w, 3) YUV: a grey ramp above random colours, in flat squares of `step` pixels."""
    rng = np.random.default_rng(0)
    rgb = rng.random((height // step, width // step, 3))
    rgb[:height // step // 2] = np.linspace(0, 1, width // step)[:, None]
    yuv = yuv_of(rgb, matrix, full_range=full_range, bits=bits).round().clip(0, 2**bits - 1)
    return yuv.repeat(step, axis=0).repeat(step, axis=1).astype(np.uint8 if bits == 8 else np.uint16)


@pytest.mark.parametrize('full_range', [False, True])
@pytest.mark.parametrize('matrix', ['bt601', 'bt709', 'bt2020'])
@pytest.mark.parametrize('bits', [8, 10, 12])
def test_rgb_is_that_of_the_standards(tmp_path, bits, matrix, full_range):
    yuv = ramp_and_bars(matrix, full_range=full_range, bits=bits)
    pix_fmt = 'yuv444p' if bits == 8 else f'yuv444p{bits}le'
    path = tmp_path / 'clip.mkv'
    write_video(path, [frame_of_planes(np.moveaxis(yuv, -1, 0), pix_fmt)], codec='ffv1', pix_fmt=pix_fmt,
                color={'colorspace': COLORSPACE[matrix], 'color_range': 2 if full_range else 1})
    info, (frame,) = probe(path), read(path)
    assert (info.bits, info.color.matrix, info.color.full_range) == (bits, matrix, full_range)
    assert frame.image.dtype == (np.uint8 if bits == 8 else np.uint16)
    top = 255 if bits == 8 else 65535
    error = np.abs(frame.image / top - rgb_of(yuv, matrix, full_range=full_range, bits=bits))
    assert error.max() < (0.53 / 255 if bits == 8 else 0.06 / 255)  # rounding to a level, to a 16th of one


@pytest.mark.parametrize(('bits', 'pix_fmt'), [(8, 'yuv420p'), (10, 'yuv420p10le'), (10, 'yuv422p10le')])
def test_colours_of_subsampled_chroma_are_right_where_they_are_flat(tmp_path, bits, pix_fmt):
    yuv = ramp_and_bars('bt709', full_range=False, bits=bits, step=16, height=64, width=128)
    rows = 1 if '422' in pix_fmt else 2
    path = tmp_path / 'clip.mkv'
    frame = frame_of_planes([yuv[..., 0], yuv[::rows, ::2, 1], yuv[::rows, ::2, 2]], pix_fmt)
    write_video(path, [frame], codec='ffv1', pix_fmt=pix_fmt, color={'colorspace': 1, 'color_range': 1})
    image = read(path)[0].image / (255 if bits == 8 else 65535)
    error = np.abs(image - rgb_of(yuv, 'bt709', full_range=False, bits=bits))
    assert error.reshape(4, 16, 8, 16, 3)[:, 6:10, :, 6:10].max() < (0.53 if bits == 8 else 0.06) / 255


@pytest.mark.parametrize(('size', 'color', 'expected'), [
    ((48, 64), {}, ('bt601', False)),
    ((576, 720), {}, ('bt601', False)),
    ((16, 1280), {}, ('bt709', False)),
    ((578, 64), {}, ('bt709', False)),
    ((48, 64), {'colorspace': 1}, ('bt709', False)),
    ((16, 1280), {'colorspace': 6}, ('bt601', False)),
    ((48, 64), {'color_range': 2}, ('bt601', True)),
])
def test_untagged_video_is_taken_by_its_size(tmp_path, size, color, expected):
    write_video(tmp_path / 'clip.mp4', numbered_clip(2, height=size[0], width=size[1]), color=color)
    found = probe(tmp_path / 'clip.mp4').color
    assert (found.matrix, found.full_range) == expected
    assert found.primaries not in (0, 2)
    assert found.transfer not in (0, 2)


def test_jpeg_formats_are_of_full_range(tmp_path):
    write_video(tmp_path / 'clip.avi', numbered_clip(2), codec='mjpeg', pix_fmt='yuvj420p')
    assert probe(tmp_path / 'clip.avi').color.full_range


@pytest.mark.parametrize(('codec', 'pix_fmt', 'bits'), [('ffv1', 'bgr0', 8), ('ffv1', 'gbrp10le', 10),
                                                        ('ffv1', 'gbrp16le', 16), ('png', 'rgb48be', 16)])
def test_rgb_is_handed_out_as_it_is(tmp_path, codec, pix_fmt, bits):
    top = 2**bits - 1
    stored = np.random.default_rng(0).integers(0, top + 1, (48, 64, 3))
    stored[0], stored[1] = 0, top
    if bits == 8:
        frame = av.VideoFrame.from_ndarray(stored.astype(np.uint8), format='rgb24').reformat(format=pix_fmt)
    elif bits == 10:
        frame = frame_of_planes([stored[..., c].astype(np.uint16) for c in (1, 2, 0)], pix_fmt)
    else:
        frame = av.VideoFrame.from_ndarray(stored.astype(np.uint16), format='rgb48le').reformat(format=pix_fmt)
    write_video(tmp_path / 'clip.mov' if codec == 'png' else tmp_path / 'clip.mkv', [frame], codec=codec,
                pix_fmt=pix_fmt)
    (path,) = tmp_path.iterdir()
    assert probe(path).color.matrix == 'rgb'
    (found,) = read(path)
    whole = 255 if bits == 8 else 65535
    assert np.abs(found.image - stored / top * whole).max() <= (0 if bits in (8, 16) else 1)


# Times

@pytest.mark.parametrize('suffix', ['.mp4', '.mov'])
@pytest.mark.parametrize('num_frames', [1, 2, 3, 30])
def test_times_of_a_rational_rate_are_exact(tmp_path, suffix, num_frames):
    path = tmp_path / f'clip{suffix}'
    times = write_video(path, numbered_clip(num_frames), rate=NTSC)
    frames = read(path)
    assert [frame.time for frame in frames] == times == [Fraction(1001 * n, 24000) for n in range(num_frames)]
    assert [number_of(frame.image) for frame in frames] == list(range(num_frames))
    info = probe(path)
    assert (info.rate, info.num_frames, info.is_variable, info.start) == (NTSC, num_frames, False, 0)
    assert abs(info.duration - num_frames / NTSC) < Fraction(1, 1000)


def test_rate_of_matroska_is_exact(tmp_path):
    write_video(tmp_path / 'clip.mkv', numbered_clip(30), rate=2 * NTSC)
    assert probe(tmp_path / 'clip.mkv').rate == Fraction(48000, 1001)


@pytest.mark.parametrize('suffix', ['.mp4', '.mkv'])
def test_variable_times_are_handed_out_as_they_are(tmp_path, suffix):
    steps = np.random.default_rng(0).integers(10, 120, 30)
    times = [Fraction(int(t), 1000) for t in np.cumsum(steps)]
    write_video(tmp_path / f'clip{suffix}', numbered_clip(30), times=times, time_base=Fraction(1, 1000))
    frames = read(tmp_path / f'clip{suffix}')
    assert [frame.time for frame in frames] == times
    assert [number_of(frame.image) for frame in frames] == list(range(30))
    info = probe(tmp_path / f'clip{suffix}')
    assert info.is_variable
    assert info.start == times[0]


def test_raw_streams_get_times_from_their_rate(tmp_path):
    write_video(tmp_path / 'clip.h264', numbered_clip(20))
    info = probe(tmp_path / 'clip.h264')
    assert not info.has_times
    frames = read(tmp_path / 'clip.h264')
    assert [frame.time for frame in frames] == [n / info.rate for n in range(20)]
    assert [number_of(frame.image) for frame in frames] == list(range(20))
    assert [number_of(frame.image) for frame in read(tmp_path / 'clip.h264', 5 / info.rate)] == list(range(5, 20))


@pytest.mark.parametrize(('codec', 'suffix', 'options'), [
    ('libx264', '.mp4', {'g': '12', 'bf': '3'}), ('libx264', '.mkv', {'g': '12', 'x264-params': 'open-gop=1'}),
    ('libx264', '.ts', {'g': '12'}), ('mpeg2video', '.ts', {'g': '12', 'bf': '2'}), ('ffv1', '.mkv', {})])
@pytest.mark.parametrize('deinterlace', [False, True])
def test_reading_from_a_time_on_equals_reading_all(tmp_path, codec, suffix, options, deinterlace):
    path = tmp_path / f'clip{suffix}'
    write_video(path, moving_clip(40), codec=codec, options=options)
    frames = read(path, deinterlace=deinterlace)
    assert len(frames) == 40
    for start in (0, 1, 11, 12, 13, 25, 39):
        between = frames[start].time - Fraction(1, 1000)
        for wanted in (frames[start].time, between):
            found = read(path, wanted, deinterlace=deinterlace)
            assert [frame.time for frame in found] == [frame.time for frame in frames[start:]]
            assert all(np.array_equal(f.image, g.image) for f, g in zip(found, frames[start:], strict=True))
    assert read(path, frames[-1].time + 1) == []


# What frames are made of

@pytest.mark.parametrize('rotation', [90, 180, 270])
def test_rotation_is_applied_as_opencv_applies_it(tmp_path, rotation):
    path = tmp_path / 'clip.mp4'
    clip = moving_clip(2)
    write_video(path, clip, rotation=rotation, options={'crf': '4'})
    info, frame = probe(path), read(path)[0]
    assert info.rotation == rotation
    assert (info.height, info.width) == frame.image.shape[:2] == ((48, 64) if rotation == 180 else (64, 48))
    assert psnr(frame.image, np.rot90(clip[0], -rotation // 90)) > 30
    capture = cv2.VideoCapture(str(path))
    _, reference = capture.read()
    capture.release()
    assert psnr(frame.image, cv2.cvtColor(reference, cv2.COLOR_BGR2RGB)) > 25  # its chroma is not interpolated


def test_mirrored_video_is_mirrored(tmp_path):
    path = tmp_path / 'clip.mp4'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=25, options={'crf': '4'}, width=64, height=48)
        stream.pix_fmt = 'yuv420p'
        stream.set_display_rotation(0, hflip=True)
        image = moving_clip(1)[0]
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format='rgb24').reformat(format='yuv420p')))
        container.mux(stream.encode())
    assert psnr(read(path)[0].image, image[:, ::-1]) > 30


@pytest.mark.parametrize(('codec', 'pix_fmt'), [('ffv1', 'yuv420p'), ('libx264', 'yuv444p'), ('ffv1', 'bgr0')])
@pytest.mark.parametrize('size', [(49, 67), (1, 1)])
def test_odd_sizes(tmp_path, codec, pix_fmt, size):
    clip = moving_clip(3, height=size[0], width=size[1])
    options = {'crf': '4'} if codec == 'libx264' else {}
    write_video(tmp_path / 'clip.mkv', clip, codec=codec, pix_fmt=pix_fmt, options=options)
    frames = read(tmp_path / 'clip.mkv')
    assert [frame.image.shape for frame in frames] == [(*size, 3)] * 3
    if size == (49, 67):
        assert psnr(frames[1].image, clip[1]) > 30


def interlaced_clip(num_frames, height=64, width=64):
    """A white bar on black that moves by four pixels a field; the upper field is the earlier one."""
    clip = []
    for number in range(num_frames):
        image = np.full((height, width, 3), 30, np.uint8)
        for field in range(2):
            left = 4 * (2 * number + field)
            image[field::2, left:left + 12] = 220
        clip.append(image)
    return clip


def comb(image):
    """How much rows differ from both of their neighbours."""
    rows = image[..., 1].astype(float)
    return np.abs(rows[1:-1] - (rows[:-2] + rows[2:]) / 2).mean()


@pytest.mark.parametrize('num_frames', [1, 2, 6])
def test_interlaced_video_is_refused_or_deinterlaced(tmp_path, num_frames):
    path = tmp_path / 'clip.mp4'
    clip = interlaced_clip(num_frames)
    times = write_video(path, clip, rate=NTSC, options={'crf': '10', 'x264-params': 'tff=1'})
    assert probe(path).interlaced
    with pytest.raises(VideoError, match='interlaced.*--deinterlace'):
        open_source(path)
    frames = read(path, deinterlace=True)
    assert [frame.time for frame in frames] == times
    assert comb(clip[-1]) > 10
    if num_frames > 1:  # the filter looks at neighbours in time
        assert max(comb(frame.image) for frame in frames[1:-1] or frames) < 5


@pytest.mark.parametrize(('codec', 'suffix', 'pix_fmt'), [
    ('ffv1', '.mkv', 'yuva420p'), ('png', '.mov', 'rgba'), ('qtrle', '.mov', 'argb'),
    ('libvpx-vp9', '.webm', 'yuva420p')])
def test_alpha_is_refused(tmp_path, codec, suffix, pix_fmt):
    path = tmp_path / f'clip{suffix}'
    frame = av.VideoFrame.from_ndarray(np.full((48, 64, 4), 128, np.uint8), format='rgba').reformat(format=pix_fmt)
    write_video(path, [frame], codec=codec, pix_fmt=pix_fmt)
    with pytest.raises(VideoError, match='transparent pixels|alpha channel .* cannot be read'):
        open_source(path)


# Files that are damaged, or none

def test_what_is_no_video_is_refused(tmp_path):
    (tmp_path / 'text.mp4').write_text('This is no video.\n' * 50)
    (tmp_path / 'empty.mp4').write_bytes(b'')
    with av.open(str(tmp_path / 'sound.m4a'), 'w', format='mp4') as container:
        stream = container.add_stream('aac', rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format='fltp', layout='stereo')
        frame.sample_rate = 48000
        container.mux([*stream.encode(frame), *stream.encode()])
    for name, message in (('text.mp4', 'not a readable video'), ('empty.mp4', 'is empty'),
                          ('sound.m4a', 'no video stream.*audio'), ('none.mp4', 'no such file')):
        with pytest.raises(VideoError, match=f'{name}.*{message}'):
            open_source(tmp_path / name)


def frames_and_error(path, **options):
    """The frames that come, and the error behind them."""
    frames = []
    with pytest.raises(VideoError) as error, open_source(path, **options) as source:
        for frame in source.frames():
            frames.append(frame)
    return frames, str(error.value)


@pytest.mark.parametrize(('suffix', 'share', 'container_options'), [
    ('.mkv', 0.7, {}), ('.mp4', 0.7, {'movflags': 'faststart'}), ('.mov', 0.7, {'movflags': 'faststart'}),
    ('.avi', 0.9, {})])
def test_truncated_file_hands_out_what_is_whole(tmp_path, suffix, share, container_options):
    path = tmp_path / f'clip{suffix}'
    write_video(path, numbered_clip(40), options={'crf': '0', 'bf': '0', 'g': '10'},
                container_options=container_options)
    data = path.read_bytes()
    path.write_bytes(data[:int(share * len(data))])
    frames, message = frames_and_error(path)
    assert 5 < len(frames) < 40
    assert [number_of(frame.image) for frame in frames] == list(range(len(frames)))
    assert f'only up to the frame at {float(frames[-1].time):.3f} s' in message
    assert 'truncated' in message
    assert str(path) in message


@pytest.mark.parametrize(('codec', 'suffix', 'options', 'num_bytes'), [
    ('libx264', '.mp4', {'g': '10'}, 4096), ('libx264', '.ts', {'g': '10'}, 4096), ('mpeg4', '.mp4', {}, 64),
    ('mpeg2video', '.ts', {}, 64), ('prores_ks', '.mov', {}, 64),
    ('libx265', '.mp4', {'g': '10'}, 4096), ('ffv1', '.mkv', {}, 4096), ('libvpx-vp9', '.mkv', {}, 4096)])
def test_damage_ends_the_video_at_the_last_good_frame(tmp_path, codec, suffix, options, num_bytes):
    path = tmp_path / f'clip{suffix}'
    rng = np.random.default_rng(0)
    clip = [image // 2 + rng.integers(0, 100, image.shape, np.uint8) for image in numbered_clip(40)]
    if codec == 'libx265':
        options = options | {'x265-params': 'log-level=error'}
    write_video(path, clip, codec=codec, pix_fmt='yuv422p10le' if codec == 'prores_ks' else 'yuv420p', options=options)
    good = [frame.image for frame in read(path)]
    data = bytearray(path.read_bytes())
    data[len(data) // 2:len(data) // 2 + num_bytes] = bytes(num_bytes)
    path.write_bytes(data)
    frames, message = frames_and_error(path, strict=suffix == '.ts')  # other readers of broadcasts go on behind damage
    assert 5 < len(frames) < 40
    assert f'only up to the frame at {float(frames[-1].time):.3f} s' in message
    assert all(np.array_equal(f.image, g) for f, g in zip(frames[:-1], good, strict=False))


def test_recording_that_starts_between_two_keyframes(tmp_path):
    """Frames that need what was cut away are not shown by any player, and are no damage."""
    whole, cut = tmp_path / 'whole.ts', tmp_path / 'cut.ts'
    write_video(whole, numbered_clip(40), options={'g': '12', 'x264-params': 'open-gop=1:bframes=3'})
    with av.open(str(whole)) as old, av.open(str(cut), 'w') as new:
        stream = new.add_stream_from_template(old.streams.video[0], opaque=True)
        packets = [packet for packet in old.demux(old.streams.video[0]) if packet.dts is not None]
        second = [number for number, packet in enumerate(packets) if packet.is_keyframe][1]
        for packet in packets[second:]:
            packet.stream = stream
            new.mux(packet)
    assert [number_of(frame.image) for frame in read(cut)] == list(range(12, 40))


def test_change_of_size_is_refused_where_it_happens(tmp_path):
    write_video(tmp_path / 'small.h264', numbered_clip(10))
    write_video(tmp_path / 'large.h264', numbered_clip(10, height=64, width=96))
    with open(tmp_path / 'both.h264', 'wb') as both:
        for name in ('small', 'large'):
            both.write((tmp_path / f'{name}.h264').read_bytes())
    frames, message = frames_and_error(tmp_path / 'both.h264')
    assert [number_of(frame.image) for frame in frames] == list(range(10))
    assert 'from 64x48 to 96x64' in message


def test_other_streams_are_listed(tmp_path):
    write_film(tmp_path / 'film.mp4', num_frames=10)
    streams = probe(tmp_path / 'film.mp4').streams
    assert [(s.index, s.type, s.codec, s.language) for s in streams if s.type != 'data'] == [
        (1, 'audio', 'aac', 'deu'), (2, 'audio', 'ac3', 'fra'), (3, 'subtitle', 'mov_text', 'spa')]


def test_a_reading_may_be_left_and_begun_anew(tmp_path):
    write_video(tmp_path / 'clip.mp4', numbered_clip(20))
    with open_source(tmp_path / 'clip.mp4') as source:
        half = source.frames()
        assert [number_of(next(half).image) for _ in range(5)] == list(range(5))
        assert [number_of(frame.image) for frame in source.frames()] == list(range(20))
        assert number_of(next(half).image) == 5
    assert next(half, None) is None  # closed with the source


# Folders

@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_folder_of_images(tmp_path, dtype):
    clip = [image.astype(dtype) * (1 if dtype == np.uint8 else 257) for image in moving_clip(12)]
    for number, image in enumerate(clip):
        cv2.imwrite(str(tmp_path / f'im{number}.png'), image[..., ::-1])
    frames = read(tmp_path, rate=NTSC)
    assert [frame.time for frame in frames] == [n / NTSC for n in range(12)]
    assert all(np.array_equal(frame.image, image) for frame, image in zip(frames, clip, strict=True))
    assert frames[0].image.dtype == dtype
    assert [frame.time for frame in read(tmp_path, Fraction(1, 10))] == [Fraction(n, 25) for n in range(3, 12)]
    info = FolderSource(tmp_path).info
    assert (info.width, info.height, info.num_frames, info.rate, info.bits) == (64, 48, 12, 25, 8 * dtype(0).itemsize)


def test_grey_images_get_three_channels(tmp_path):
    image = moving_clip(1)[0][..., 0]
    cv2.imwrite(str(tmp_path / '1.png'), image)
    assert np.array_equal(read(tmp_path)[0].image, np.stack([image] * 3, axis=-1))


def test_folders_that_cannot_be_used_are_refused(tmp_path):
    image = moving_clip(1)[0]
    with pytest.raises(VideoError, match='no images'):
        open_source(tmp_path)
    for clip in ('a', 'b'):
        (tmp_path / clip).mkdir()
        cv2.imwrite(str(tmp_path / clip / '1.png'), image)
    with pytest.raises(VideoError, match=r'2 folders of images \(a, b\)'):
        open_source(tmp_path)
    with pytest.raises(VideoError, match='frame rate above 0'):
        open_source(tmp_path / 'a', rate=Fraction(0))
    with pytest.raises(VideoError, match='only video files can be deinterlaced'):
        open_source(tmp_path / 'a', deinterlace=True)
    cv2.imwrite(str(tmp_path / 'b' / '0.png'), np.zeros((8, 8, 4), np.uint8))
    with pytest.raises(VideoError, match='transparent pixels'):
        open_source(tmp_path / 'b')


@pytest.mark.parametrize(('second', 'message'), [
    (np.zeros((8, 9, 3), np.uint8), '9x8'), (np.zeros((8, 8, 3), np.uint16), '16 bits'), (None, 'truncated')])
def test_a_bad_image_ends_the_folder(tmp_path, second, message):
    cv2.imwrite(str(tmp_path / '1.png'), np.zeros((8, 8, 3), np.uint8))
    if second is None:
        (tmp_path / '2.png').write_bytes((tmp_path / '1.png').read_bytes()[:-20])
    else:
        cv2.imwrite(str(tmp_path / '2.png'), second)
    frames = open_source(tmp_path).frames()
    assert next(frames).time == 0
    with pytest.raises(VideoError, match=f'2.png.*{message}'):
        next(frames)


def test_rate_is_for_folders(tmp_path):
    write_video(tmp_path / 'clip.mp4', numbered_clip(2))
    with pytest.raises(VideoError, match='has its own'):
        open_source(tmp_path / 'clip.mp4', rate=Fraction(25))
    with pytest.raises(VideoError, match='is a folder'):
        VideoSource(tmp_path)


def test_real_frames_survive_a_video(tmp_path, real_data):
    paths = sorted((real_data / 'eval' / 'vid4').rglob('*.webp'))[:3]
    clip = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)[:240, :320] for path in paths]
    write_video(tmp_path / 'clip.mkv', clip, codec='ffv1', pix_fmt='bgr0')
    frames = read(tmp_path / 'clip.mkv')
    assert len(frames) == 3
    assert all(np.array_equal(frame.image, image) for frame, image in zip(frames, clip, strict=True))
