import contextlib
import io
import os
import shutil
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from video_util import (
    beep_time,
    flash_time,
    moving_clip,
    number_of,
    numbered_clip,
    packets_of,
    planes,
    write_film,
    write_video,
    yuv_of,
)

from basicsr_stvsr.io.encoding import CODEC_TABLE, Encoding, OutputSpec, add_encoder
from basicsr_stvsr.io.joining import join
from basicsr_stvsr.io.output_checks import check_output
from basicsr_stvsr.io.video_info import ColorSpec, VideoError, probe
from basicsr_stvsr.io.video_reader import open_source
from basicsr_stvsr.io.video_writer import FolderWriter, VideoWriter

BT601, BT709 = ColorSpec('bt601', False, 6, 6), ColorSpec('bt709', False, 1, 1)
FAST = {'x264': 'ultrafast', 'x265': 'ultrafast', 'av1': '12'}


def spec_of(height, width, *, bits=8, color=BT709, rate=Fraction(25), time_base=None):
    return OutputSpec(width, height, bits, color, rate, time_base or 1 / rate)


def fast(codec, **options):
    return Encoding(codec, preset=FAST.get(codec), **options)


def write_segments(folder, clip, times, spec, encoding, *, lengths):
    """Segments of so many frames each."""
    paths, done = [], 0
    for number, length in enumerate(lengths):
        paths.append(folder / f'segment{number}{encoding.segment_suffix}')
        with VideoWriter(paths[-1], spec, encoding, threads=1) as writer:
            for image, time in zip(clip[done:done + length], times[done:done + length], strict=True):
                writer.write(image, time)
        done += length
    return paths


def write_output(path, clip, *, spec=None, encoding=None, times=None, source=None):
    """A whole output of one segment."""
    spec = spec or spec_of(*clip[0].shape[:2])
    encoding = encoding or fast('x264')
    times = times or [n / spec.rate for n in range(len(clip))]
    segments = write_segments(path.parent, clip, times, spec, encoding, lengths=[len(clip)])
    join(segments, source, path, rate=spec.rate)


def decode(path):
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def times_of(path):
    return [frame.pts * frame.time_base for frame in decode(path)]


# Colour

@pytest.mark.parametrize('full_range', [False, True])
@pytest.mark.parametrize('matrix', ['bt601', 'bt709', 'bt2020'])
@pytest.mark.parametrize('bits', [8, 10])
def test_stored_yuv_is_that_of_the_standards(tmp_path, bits, matrix, full_range):
    """x264 with crf 0 is lossless with 8 bits, and nearly so with 10; the exact levels are fractions."""
    top = 255 if bits == 8 else 65535
    rgb = np.random.default_rng(0).random((4, 6, 3))
    rgb[0] = np.linspace(0, 1, 6)[:, None]
    image = (rgb * top).round().repeat(32, axis=0).repeat(32, axis=1).astype(np.uint8 if bits == 8 else np.uint16)
    number = {'bt601': 6, 'bt709': 1, 'bt2020': 9}[matrix]
    spec = spec_of(*image.shape[:2], bits=bits, color=ColorSpec(matrix, full_range, number, 1))
    write_output(tmp_path / 'out.mp4', [image], spec=spec, encoding=fast('x264', crf=0))
    (frame,) = decode(tmp_path / 'out.mp4')
    assert frame.format.name in ('yuv420p', 'yuvj420p') if bits == 8 else frame.format.name == 'yuv420p10le'
    tags = frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc
    assert tags == (number, 2 if full_range else 1, number, 1)
    wanted = yuv_of(image / top, matrix, full_range=full_range, bits=bits).clip(0, 2**bits - 1)
    for channel, plane in enumerate(planes(frame)):
        step = 1 if channel == 0 else 2
        size = 32 // step
        middle = slice(size // 2 - 2, size // 2 + 2)  # away from the edges of the squares
        error = np.abs(plane - wanted[::step, ::step, channel]).reshape(4, size, 6, size)[:, middle, :, middle]
        assert error.max() <= (2.5 if bits == 10 else 1.2 if full_range else 0.6)


def test_chroma_lies_at_the_left_pixel(tmp_path):
    """As players take it: columns 2n of luma and n of chroma are at one place."""
    x = np.linspace(0, 6 * np.pi, 128)
    image = np.zeros((32, 128, 3), np.uint8)
    image[..., 2] = (127 + 100 * np.sin(x)).round()
    write_output(tmp_path / 'out.mp4', [image], encoding=fast('x264', crf=0))
    blue = planes(decode(tmp_path / 'out.mp4')[0])[1][8, 2:-2].astype(float)
    wanted = yuv_of(image / 255, 'bt709', full_range=False, bits=8)[0, :, 1]
    at_left, between = wanted[4:-4:2], (wanted[4:-4:2] + wanted[5:-3:2]) / 2
    assert np.abs(blue - at_left).max() < 1
    assert np.abs(blue - between).max() > 3


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('size', [(48, 64), (49, 67)])
def test_lossless_video_keeps_each_bit(tmp_path, dtype, size):
    rng = np.random.default_rng(0)
    clip = [rng.integers(0, np.iinfo(dtype).max + 1, (*size, 3)).astype(dtype) for _ in range(5)]
    spec = spec_of(*size, bits=8 * dtype(0).itemsize)
    write_output(tmp_path / 'out.mkv', clip, spec=spec, encoding=Encoding('ffv1'))
    with open_source(tmp_path / 'out.mkv') as source:
        found = [frame.image for frame in source.frames()]
    assert all(np.array_equal(image, other) for image, other in zip(found, clip, strict=True))


@pytest.mark.parametrize('codec', ['x264', 'x265', 'av1', 'prores', 'ffv1'])
@pytest.mark.parametrize(('size', 'bits'), [((48, 64), 8), ((49, 67), 10)])
def test_codecs_keep_picture_size_and_bits(tmp_path, codec, size, bits):
    clip = [image.astype(np.uint16) * 257 if bits == 10 else image
            for image in moving_clip(4, height=size[0] + 16, width=size[1] + 16)]
    clip = [image[:size[0], :size[1]] for image in clip]
    path = tmp_path / ('out.mov' if codec == 'prores' else 'out.mp4')
    write_output(path, clip, spec=spec_of(*size, bits=bits), encoding=fast(codec))
    info = probe(path)
    assert (info.height, info.width) == size
    assert info.bits >= (10 if codec == 'prores' else bits)
    assert info.color.matrix == ('rgb' if codec == 'ffv1' else 'bt709')
    if codec == 'x265':
        with av.open(str(path)) as container:
            assert container.streams.video[0].codec_tag == 'hvc1'
    with open_source(path) as source:
        found = [frame.image / (255 if frame.image.dtype == np.uint8 else 65535) for frame in source.frames()]
    top = 65535 if bits == 10 else 255
    errors = [np.mean((image - other / top)**2) for image, other in zip(found, clip, strict=True)]
    assert 10 * np.log10(1 / max(errors)) > (27 if codec == 'av1' else 30)


def test_pixels_of_the_other_depth_are_converted(tmp_path):
    image = np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3)
    write_output(tmp_path / 'out.mkv', [image], spec=spec_of(48, 64, bits=10), encoding=Encoding('ffv1'))
    wide = image.astype(np.uint16) * 257
    with open_source(tmp_path / 'out.mkv') as source:
        assert np.array_equal(next(source.frames()).image, wide)
    write_output(tmp_path / 'out.mkv', [wide], spec=spec_of(48, 64), encoding=Encoding('ffv1'))
    with open_source(tmp_path / 'out.mkv') as source:
        assert np.array_equal(next(source.frames()).image, image)


def test_rgb_sources_are_stored_as_yuv_of_limited_range():
    rgb = ColorSpec('rgb', True, 1, 13)
    assert spec_of(48, 64, color=rgb).stored_color(Encoding('x264')) == ColorSpec('bt601', False, 1, 13)
    assert spec_of(720, 1280, color=rgb).stored_color(Encoding('x264')) == ColorSpec('bt709', False, 1, 13)
    assert spec_of(720, 1280, color=BT601).stored_color(Encoding('ffv1')) == ColorSpec('rgb', True, 6, 6)


# Times

NTSC2 = Fraction(48000, 1001)
RHYTHMS = {  # name -> times of 25 frames, time base, rate
    'twice 23.976': ([n / NTSC2 for n in range(25)], Fraction(1, 48000), NTSC2),
    'from 3 s on': ([3 + n / NTSC2 for n in range(25)], Fraction(1, 48000), NTSC2),
    'variable': ([Fraction(int(t), 2000) for t in np.cumsum([7, *np.random.default_rng(0).integers(20, 200, 24)])],
                 Fraction(1, 2000), Fraction(0)),
}


@pytest.mark.parametrize('rhythm', RHYTHMS)
@pytest.mark.parametrize('codec', ['x264', 'x265', 'av1', 'prores', 'ffv1'])
def test_times_are_exact_in_segments_and_in_the_whole(tmp_path, codec, rhythm):
    times, time_base, rate = RHYTHMS[rhythm]
    encoding = fast(codec) if codec != 'x264' else Encoding('x264', preset='veryfast')  # which has B-frames
    clip = numbered_clip(25)
    spec = spec_of(48, 64, rate=rate, time_base=time_base)
    lengths = [8, 1, 2, 9, 5]
    segments = write_segments(tmp_path, clip, times, spec, encoding, lengths=lengths)
    ends = np.cumsum(lengths)
    assert [times_of(path) for path in segments] == [times[e - n:e] for n, e in zip(lengths, ends, strict=True)]
    exact = tmp_path / ('out.mov' if codec == 'prores' else 'out.mp4')
    for path in (exact, tmp_path / 'out.mkv'):
        join(segments, None, path, rate=rate)
        with open_source(path) as source:
            frames = list(source.frames())
        assert [number_of(frame.image) for frame in frames] == list(range(25))
        found = [frame.time for frame in frames]
        if path == exact:
            assert found == times
        assert max(abs(a - b) for a, b in zip(found, times, strict=True)) <= Fraction(1, 2000)
        if rate:
            assert probe(path).rate == rate


@pytest.mark.parametrize('codec', ['x264', 'x265', 'av1'])
@pytest.mark.parametrize('num_frames', [1, 2, 3, 4])
def test_short_videos(tmp_path, codec, num_frames):
    times = [2 + n / NTSC2 for n in range(num_frames)]
    spec = spec_of(48, 64, rate=NTSC2, time_base=Fraction(1, 48000))
    write_output(tmp_path / 'out.mp4', numbered_clip(num_frames), spec=spec, encoding=fast(codec), times=times)
    assert times_of(tmp_path / 'out.mp4') == times
    with av.open(str(tmp_path / 'out.mp4')) as container:
        assert container.streams.video[0].frames == num_frames


def test_spec_of_a_source(tmp_path):
    write_video(tmp_path / 'clip.mp4', numbered_clip(2), rate=Fraction(24000, 1001))
    info = probe(tmp_path / 'clip.mp4')
    spec = OutputSpec.of(info, scale=4, temporal_scale=2)
    assert (spec.width, spec.height, spec.bits, spec.rate) == (256, 192, 8, NTSC2)
    halfway = (Fraction(1001, 24000) + Fraction(2002, 24000)) / 2
    assert (halfway / spec.time_base).denominator == 1


# What comes along with the picture

def restore(source, output, *, encoding=None):
    """What a restoration does, without a network: each frame twice as large."""
    encoding = encoding or fast('x264')
    with open_source(source) as opened:
        spec = OutputSpec.of(opened.info, scale=2)
        notes = check_output(output, opened.info, encoding, spec)
        frames = list(opened.frames())
    clip = [image.repeat(2, axis=0).repeat(2, axis=1) for image, _ in frames]
    middle = len(clip) // 2
    segments = write_segments(output.parent, clip, [frame.time for frame in frames], spec, encoding,
                              lengths=[middle, len(clip) - middle])
    join(segments, source, output, rate=opened.info.rate)
    return notes


@pytest.mark.parametrize(('suffix', 'subtitle', 'output_suffix'), [
    ('.mp4', 'mov_text', '.mp4'), ('.mp4', 'mov_text', '.mov'), ('.mkv', 'subrip', '.mkv'), ('.mp4', None, '.mkv'),
    ('.mkv', None, '.mp4')])
def test_sound_subtitles_chapters_and_tags_are_copied(tmp_path, suffix, subtitle, output_suffix):
    source, output = tmp_path / f'film{suffix}', tmp_path / f'out{output_suffix}'
    start = write_film(source, subtitle=subtitle)
    assert restore(source, output) == []

    old, new = packets_of(source), packets_of(output)
    tick = Fraction(1, 1000) if 'mkv' in suffix + output_suffix else 0
    for index in (1, 2, 3) if subtitle else (1, 2):
        assert [data for _, data in new[index]] == [data for _, data in old[index]]
        assert max(abs(a - b) for (a, _), (b, _) in zip(new[index], old[index], strict=True)) <= tick
    assert len(new[0]) == len(old[0]) == 48

    with av.open(str(output)) as container:
        assert container.metadata['title'] == 'A film'
        assert [(c['start'] * c['time_base'], c['end'] * c['time_base'], c['metadata']['title'])
                for c in container.chapters()] == [(0, 1, 'One'), (1, 2, 'Two')]
        sound = container.streams.audio
        assert [bool(track.disposition & 1) for track in sound] == [False, True]
        if output_suffix != '.mov':  # it has fewer languages
            assert [track.language for track in sound] == ['deu', 'fra']
        assert [track.metadata.get('title', track.metadata.get('name')) for track in sound] == ['Track 0', 'Track 1']
        if subtitle:
            assert container.streams.subtitles[0].language == 'spa'
        assert (container.streams.video[0].width, container.streams.video[0].height) == (128, 96)

    assert abs(flash_time(output) - start) <= 0.001
    for track in range(2):
        assert abs(beep_time(output, track) - beep_time(source, track)) <= 0.001
        assert abs(beep_time(output, track) - start) <= 0.01


def test_broadcast_recordings_start_at_0_and_stay_in_sync(tmp_path):
    source = tmp_path / 'film.ts'
    write_film(source, subtitle=None, container_options={'output_ts_offset': '10'})
    begins = probe(source).start
    assert begins >= 10
    restore(source, tmp_path / 'out.mp4')
    old, new = packets_of(source), packets_of(tmp_path / 'out.mp4')
    first = min(packets[0][0] for packets in old.values())
    assert times_of(tmp_path / 'out.mp4')[0] == begins - first
    for index in (1, 2):
        assert max(abs(a - (b - first)) for (a, _), (b, _) in zip(new[index], old[index], strict=True)) < 0.0001
    lag = flash_time(source) - beep_time(source, 0)
    assert abs(flash_time(tmp_path / 'out.mp4') - beep_time(tmp_path / 'out.mp4', 0) - lag) < 0.001


def test_an_unfinished_picture_gets_sound_as_far_as_it_goes(tmp_path):
    source, output = tmp_path / 'film.mkv', tmp_path / 'out.mkv'
    write_film(source, subtitle='subrip')
    until = Fraction(1)
    clip = numbered_clip(24)
    segments = write_segments(tmp_path, clip, [n * Fraction(1001, 24000) for n in range(24)], spec_of(48, 64),
                              fast('x264'), lengths=[24])
    assert join(segments, source, output, until=until) == []
    old, new = packets_of(source), packets_of(output)
    for index in (1, 2, 3):
        assert [data for _, data in new[index]] == [data for time, data in old[index] if time < until]
    with av.open(str(output)) as container:
        assert [(c['metadata']['title'], c['end'] * c['time_base']) for c in container.chapters()] == [('One', 1)]


def test_sound_of_a_truncated_source_is_copied_as_far_as_it_is_there(tmp_path):
    source, output = tmp_path / 'film.mkv', tmp_path / 'out.mkv'
    write_film(source, subtitle=None)
    whole = packets_of(source)
    source.write_bytes(source.read_bytes()[:int(0.6 * source.stat().st_size)])
    segments = write_segments(tmp_path, numbered_clip(10), [Fraction(n, 25) for n in range(10)], spec_of(48, 64),
                              fast('x264'), lengths=[10])
    join(segments, source, output)
    found = packets_of(output)[1]
    assert 5 < len(found) < len(whole[1])
    assert [data for _, data in found] == [data for _, data in whole[1][:len(found)]]
    assert len(times_of(output)) == 10


def test_tags_that_are_no_longer_true_are_dropped(tmp_path):
    source = tmp_path / 'turned.mp4'
    write_video(source, moving_clip(3), rotation=90)
    restore(source, tmp_path / 'out.mkv')
    info = probe(tmp_path / 'out.mkv')
    assert (info.rotation, info.width, info.height) == (0, 96, 128)
    with av.open(str(tmp_path / 'out.mkv'), 'r') as container:
        assert 'rotate' not in container.streams.video[0].metadata
        assert not {'major_brand', 'MAJOR_BRAND', 'minor_version', 'MINOR_VERSION'} & set(container.metadata)


def test_attachments_are_copied_to_matroska(tmp_path):
    source = tmp_path / 'film.mkv'
    with av.open(str(source), 'w') as container:
        stream = container.add_stream('libx264', rate=25, width=64, height=48)
        stream.pix_fmt = 'yuv420p'
        container.add_attachment('font.ttf', 'font/ttf', b'letters' * 100)
        for image in moving_clip(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format='rgb24')))
        container.mux(stream.encode())
    assert restore(source, tmp_path / 'out.mkv') == []
    with av.open(str(tmp_path / 'out.mkv')) as container:
        (attachment,) = container.streams.attachments
        assert (attachment.name, attachment.data) == ('font.ttf', b'letters' * 100)
    (note,) = restore(source, tmp_path / 'out.mp4')
    assert 'attachment stream 1' in note


# What goes wrong

@pytest.mark.parametrize('codec', ['x264', 'x265', 'prores', 'ffv1'])
def test_what_was_written_before_a_crash_is_playable(tmp_path, codec):
    encoding = fast(codec)
    writer = VideoWriter(tmp_path / f'segment{encoding.segment_suffix}', spec_of(48, 64), encoding, threads=1)
    rng = np.random.default_rng(0)
    for number in range(250):
        writer.write(rng.integers(0, 256, (48, 64, 3), np.uint8), Fraction(number, 25))
    left = shutil.copy(writer.path, tmp_path / f'left{encoding.segment_suffix}')
    writer.close()
    shown = []
    with av.open(left) as container, contextlib.suppress(av.error.FFmpegError):  # the last frame may not be whole
        for frame in container.decode(video=0):
            shown.append(frame.pts * frame.time_base)
    assert len(shown) >= 75
    assert shown == [Fraction(number, 25) for number in range(len(shown))]
    assert len(times_of(writer.path)) == 250


def test_an_error_leaves_a_playable_segment(tmp_path):
    path = tmp_path / 'segment.mp4'
    with pytest.raises(KeyboardInterrupt), VideoWriter(path, spec_of(48, 64), fast('x264')) as writer:
        for number, image in enumerate(numbered_clip(10)):
            writer.write(image, Fraction(number, 25))
        raise KeyboardInterrupt
    assert times_of(path) == [Fraction(number, 25) for number in range(10)]


def test_a_failing_join_leaves_no_output(tmp_path):
    segments = write_segments(tmp_path, numbered_clip(4), [Fraction(n, 25) for n in range(4)], spec_of(48, 64),
                              fast('x264'), lengths=[2, 2])
    output = tmp_path / 'out.mp4'
    output.write_bytes(b'what was there before')
    segments[1].write_bytes(b'damaged')
    with pytest.raises(VideoError, match='segment1.mp4.*cannot be read'):
        join(segments, None, output)
    assert output.read_bytes() == b'what was there before'
    assert not list(tmp_path.glob('*.part'))
    with pytest.raises(VideoError, match='nothing to join'):
        join([], None, output)


def test_segments_must_be_alike_and_in_order(tmp_path):
    times = [Fraction(n, 25) for n in range(4)]
    first, second = write_segments(tmp_path, numbered_clip(4), times, spec_of(48, 64), fast('x264'), lengths=[2, 2])
    other = tmp_path / 'other.mp4'
    with VideoWriter(other, spec_of(64, 64), fast('x264')) as writer:
        writer.write(np.zeros((64, 64, 3), np.uint8), Fraction(1))
    with pytest.raises(VideoError, match='other.mp4.*differs from that of the first'):
        join([first, other], None, tmp_path / 'out.mp4')
    with pytest.raises(VideoError, match='not after the previous segment'):
        join([second, first], None, tmp_path / 'out.mp4')


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='needs /dev/full')
def test_full_disk_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / 'segment.mp4'
    path.symlink_to('/dev/full')
    rng = np.random.default_rng(0)
    with pytest.raises(VideoError, match='segment.mp4.*No space left'), \
            VideoWriter(path, spec_of(480, 640), Encoding('ffv1')) as writer:
        for number in range(60):
            writer.write(rng.integers(0, 256, (480, 640, 3), np.uint8), Fraction(number, 25))


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='needs /dev/full')
@pytest.mark.parametrize('num_frames', [1, 5])
@pytest.mark.parametrize('codec', ['x264', 'x265', 'ffv1'])
def test_full_disk_at_the_end_is_noticed(tmp_path, codec, num_frames):
    """Few frames are written when the file is closed, and FFmpeg's MP4 muxer does not report the failure."""
    path = tmp_path / 'segment.mp4'
    path.symlink_to('/dev/full')
    frames = np.random.default_rng(0).integers(0, 256, (num_frames, 48, 64, 3), np.uint8)
    with pytest.raises(VideoError, match='segment.mp4: cannot be written'), \
            VideoWriter(path, spec_of(48, 64), fast(codec)) as writer:
        for number, frame in enumerate(frames):
            writer.write(frame, Fraction(number, 25))


def test_wrong_frames_are_refused(tmp_path):
    with VideoWriter(tmp_path / 'segment.mp4', spec_of(48, 64), fast('x264')) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8), Fraction(1))
        with pytest.raises(ValueError, match=r'\(48, 64, 3\).*\(64, 48, 3\)'):
            writer.write(np.zeros((64, 48, 3), np.uint8), Fraction(2))
        with pytest.raises(ValueError, match='float32'):
            writer.write(np.zeros((48, 64, 3), np.float32), Fraction(2))
        with pytest.raises(VideoError, match='1.000000 s is not later'):
            writer.write(np.zeros((48, 64, 3), np.uint8), Fraction(1))
    with pytest.raises(VideoError, match='segments of prores are .mov'):
        VideoWriter(tmp_path / 'segment.mp4', spec_of(48, 64), Encoding('prores'))
    with pytest.raises(VideoError, match='no_folder.*cannot be written'):
        VideoWriter(tmp_path / 'no_folder' / 'segment.mp4', spec_of(48, 64), Encoding())


# Checks before work starts

@pytest.mark.parametrize(('name', 'options', 'message'), [
    ('out.wmv', {}, r'ends in one of \.mp4'),
    ('out', {}, 'ends in one of'),
    ('folder.mp4', {}, 'ends in one of'),
    ('out.webm', {}, r'\.webm files cannot hold x264, .*\.mkv files can'),
    ('out.mp4', {'codec': 'prores'}, r'\.mp4 files cannot hold prores, but \.mov and \.mkv files can'),
    ('out.mov', {'codec': 'ffv1'}, r'\.mov files cannot hold ffv1'),
    ('out.mkv', {'preset': 'fastest'}, 'x264 cannot encode.*fastest'),
    ('out.mp4', {'codec': 'png'}, 'writes a folder'),
    ('film.mp4', {}, 'is the source itself'),
    ('nowhere/out.mp4', {}, 'the folder .*nowhere does not exist'),
])
def test_outputs_that_cannot_be_are_refused_at_once(tmp_path, name, options, message):
    (tmp_path / 'folder.mp4').mkdir()
    write_film(tmp_path / 'film.mp4', num_frames=10)
    info = probe(tmp_path / 'film.mp4')
    files = sorted(tmp_path.iterdir())
    with pytest.raises(VideoError, match=message) as error:
        check_output(tmp_path / name, info, Encoding(**options), OutputSpec.of(info, scale=2))
    assert str(tmp_path / name) in str(error.value)
    assert sorted(tmp_path.iterdir()) == files


@pytest.mark.parametrize(('codec', 'size'), [('x264', (64, 20000)), ('av1', (64, 20000)), ('x265', (64, 48))])
def test_sizes_beyond_the_codec_are_refused_at_once(tmp_path, codec, size):
    """Of x265, which takes narrow pictures, but writes beyond its memory."""
    write_video(tmp_path / 'clip.mp4', numbered_clip(2))
    with pytest.raises(VideoError, match=f'{codec} cannot encode {size[1]}x{size[0]}'):
        check_output(tmp_path / 'out.mp4', probe(tmp_path / 'clip.mp4'), Encoding(codec), spec_of(*size))


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write everywhere')
def test_folder_without_permission_is_refused(tmp_path):
    write_video(tmp_path / 'clip.mp4', numbered_clip(2))
    (tmp_path / 'locked').mkdir(mode=0o500)
    info = probe(tmp_path / 'clip.mp4')
    with pytest.raises(VideoError, match='no permission'):
        check_output(tmp_path / 'locked' / 'out.mp4', info, Encoding(), OutputSpec.of(info))


def test_what_will_be_otherwise_is_told(tmp_path):
    write_video(tmp_path / 'clip.mp4', numbered_clip(2))
    write_film(tmp_path / 'film.mp4', num_frames=10)
    info, film = probe(tmp_path / 'clip.mp4'), probe(tmp_path / 'film.mp4')
    assert check_output(tmp_path / 'out.mp4', info, Encoding(), spec_of(48, 64)) == []
    (note,) = check_output(tmp_path / 'out.mp4', info, Encoding(), spec_of(49, 64))
    assert '64x49 in 4:4:4' in note
    notes = check_output(tmp_path / 'frames', film, Encoding('png'), OutputSpec.of(film))
    assert 'audio stream 1 (aac, deu)' in notes[0]


@pytest.mark.parametrize('options', [
    {'codec': 'h264'}, {'crf': 52}, {'codec': 'av1', 'crf': 0}, {'codec': 'ffv1', 'crf': 3},
    {'codec': 'png', 'preset': 'fast'}, {'codec': 'prores', 'preset': 'medium'}])
def test_encodings_that_do_not_exist(options):
    with pytest.raises(ValueError, match='codec|crf|preset|expected one of'):
        Encoding(**options)


def test_every_encoder_option_is_known_to_ffmpeg(tmp_path):
    """FFmpeg passes over options that it does not know."""
    for codec in CODEC_TABLE:
        encoding = Encoding(codec)
        with av.open(io.BytesIO(), 'w', format='matroska') as container:
            stream = add_encoder(container, spec_of(48, 64), encoding, 1)
            known = stream.codec_context.supported_options
            names = {option.name for option in (*known.generic, *known.private)}
            assert set(stream.codec_context.options) | set(encoding.encoder_options()) <= names


@pytest.mark.skipif(not hasattr(os, 'sched_getscheduler'), reason='no such priorities')
@pytest.mark.parametrize('codec', CODEC_TABLE)
def test_threads_keep_their_priority(codec):
    """SVT-AV1 takes the highest one as root, for the calling thread, too."""
    def policies() -> set[int]:
        return {os.sched_getscheduler(int(thread)) for thread in os.listdir('/proc/self/task')}

    before = policies()
    with av.open(io.BytesIO(), 'w', format='matroska') as container:
        stream = add_encoder(container, spec_of(64, 64), Encoding(codec), 1)
        for number in range(3):
            frame = av.VideoFrame(64, 64, stream.pix_fmt)
            frame.pts = number
            container.mux(stream.encode(frame))
            assert policies() == before
        container.mux(stream.encode())


# Folders

@pytest.mark.parametrize('bits', [8, 10])
def test_folder_of_frames(tmp_path, bits):
    clip = moving_clip(3)
    with FolderWriter(tmp_path / 'frames', spec_of(48, 64, bits=bits), first=5) as writer:
        for number, image in enumerate(clip):
            writer.write(image, Fraction(number, 25))
    files = sorted((tmp_path / 'frames').iterdir())
    assert [file.name for file in files] == ['00000005.png', '00000006.png', '00000007.png']
    for file, image in zip(files, clip, strict=True):
        stored = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)[..., ::-1]
        assert np.array_equal(stored, image if bits == 8 else image.astype(np.uint16) * 257)
    with pytest.raises(VideoError, match='cannot be made'):
        FolderWriter(tmp_path / 'no' / 'frames', spec_of(48, 64))
    with pytest.raises(ValueError, match='float64'):
        writer.write(clip[0] / 255, Fraction(1))
