"""Files whose times are missing, wrong, or state that frames repeat: nothing is dropped, nothing invented."""
import shutil
import subprocess
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from video_util import moving_clip, number_of, numbered_clip, write_film, write_video

from basicsr_stvsr.io.frames import FrameReadError
from basicsr_stvsr.io.joining import join
from basicsr_stvsr.io.opening import open_reader
from basicsr_stvsr.io.video_info import VideoError
from basicsr_stvsr.io.video_reader import open_source

UNIT = Fraction(1, 25)


def read(path, start=None, **options):
    """Numbers of the frames, their times, and the warnings."""
    with open_source(path, **options) as source:
        frames = list(source.frames(start))
        return [number_of(frame.image) for frame in frames], [frame.time for frame in frames], source.notes.warnings()


def check_by_number(path, numbers):
    """That a data set has the same frames, also in another order."""
    reader = open_reader(path)
    assert reader.num_frames('clip') == len(numbers)
    for index in [*range(len(numbers)), *range(len(numbers) - 1, -1, -3)]:
        assert number_of(reader.frame('clip', index)) == numbers[index]


@pytest.mark.parametrize('codec', ['mpeg4', 'ffv1', 'mjpeg'])
def test_empty_frames_of_avi_repeat_the_one_before_them(tmp_path, codec):
    path = tmp_path / 'clip.avi'
    shown = [0, 1, 2, 5, 6, 10, 11]  # times at which there is a new frame; the muxer fills the others
    write_video(path, numbered_clip(7), codec=codec, pix_fmt='yuvj420p' if codec == 'mjpeg' else 'yuv420p',
                times=[n * UNIT for n in shown], options={} if codec == 'ffv1' else {'qmin': '1', 'qmax': '1'})
    numbers, times, warnings = read(path)
    assert numbers == [0, 1, 2, 2, 2, 3, 4, 4, 4, 4, 5, 6]
    assert times == [n * UNIT for n in range(12)]
    assert not warnings
    assert read(path, 4 * UNIT)[:2] == (numbers[4:], times[4:])
    check_by_number(path, numbers)


@pytest.mark.parametrize(('codec', 'options'), [
    ('libx264', {'g': '12', 'bf': '3'}), ('mpeg4', {'g': '12', 'bf': '2', 'qmin': '1', 'qmax': '1'})])
def test_b_frames_in_avi(tmp_path, codec, options):
    """AVI has no times of display."""
    path = tmp_path / 'clip.avi'
    write_video(path, numbered_clip(30), codec=codec, options=options)
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.has_b_frames
    numbers, times, _ = read(path)
    assert numbers == list(range(30))
    assert times == [n * UNIT for n in range(30)]
    assert read(path, 14 * UNIT)[0] == numbers[14:]
    check_by_number(path, numbers)


def encode_by_ffmpeg(path, clip, codec, *options):
    """By the program, as PyAV lacks some encoders."""
    command = shutil.which('ffmpeg')
    if not command or codec not in subprocess.run([command, '-v', 'error', '-encoders'], capture_output=True,
                                                  text=True, check=False).stdout:
        pytest.skip(f'needs the command ffmpeg with {codec}')
    write_video(path.with_name('in.mkv'), clip, codec='ffv1', pix_fmt='bgr0')
    subprocess.run([command, '-v', 'error', '-i', path.with_name('in.mkv'), '-c:v', codec, '-pix_fmt', 'yuv420p',
                    *options, path], check=True)


def test_packed_bitstream(tmp_path):
    """Two frames in a packet, and a placeholder of a few bytes in the next."""
    path, clip = tmp_path / 'clip.avi', moving_clip(20)
    encode_by_ffmpeg(path, clip, 'libxvid', '-bf', '2', '-g', '9', '-q:v', '1')
    with av.open(str(path)) as container:
        sizes = [packet.size for packet in container.demux(video=0) if packet.size]
    assert min(sizes) < 10
    with open_source(path) as source:
        frames = list(source.frames())
    numbers = [np.argmin([np.abs(frame.image.astype(int) - image).mean() for image in clip]) for frame in frames]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) == len(sizes)
    assert [frame.time for frame in frames] == [n * UNIT for n in range(len(frames))]


def test_truncated_avi_is_not_filled(tmp_path):
    path = tmp_path / 'clip.avi'
    write_video(path, moving_clip(40), codec='mjpeg', pix_fmt='yuvj420p')
    data = path.read_bytes()
    path.write_bytes(data[:len(data) // 2])
    with pytest.raises(VideoError, match='only up to the frame at 0.4'):
        read(path)
    with pytest.raises(FrameReadError, match='clip.avi'):
        open_reader(path).num_frames('clip')


def test_duplicates_of_theora_are_kept(tmp_path):
    path = tmp_path / 'clip.ogv'
    clip = moving_clip(6)
    order = [0, 1, 1, 1, 2, 3, 3, 4, 5]
    encode_by_ffmpeg(path, [clip[n] for n in order], 'libtheora', '-q:v', '8')
    with av.open(str(path)) as container:
        assert any(packet.size == 0 and packet.pts is not None for packet in container.demux(video=0))
    with open_source(path) as source:
        frames = list(source.frames())
    assert [frame.time for frame in frames] == [n * UNIT for n in range(9)]
    assert all(np.array_equal(frames[n].image, frames[n - 1].image) == (order[n] == order[n - 1]) for n in range(1, 9))


def test_equal_times_are_moved_by_a_step(tmp_path):
    """Matroska rounds times to a millisecond."""
    path = tmp_path / 'clip.mkv'
    stamps = [0, 400, 800, 804, 1200, 1204, 1600]
    write_video(path, numbered_clip(7), codec='mjpeg', pix_fmt='yuvj420p', time_base=Fraction(1, 10000),
                times=[Fraction(n, 10000) for n in stamps])
    numbers, times, warnings = read(path)
    assert numbers == list(range(7))
    assert times == [Fraction(n, 1000) for n in (0, 40, 80, 81, 120, 121, 160)]
    (warning,) = warnings
    assert 'after 0.080 s is 0.080 s, which is not later' in warning
    assert '(1 more' in warning
    assert read(path, Fraction(81, 1000))[0] == [3, 4, 5, 6]
    check_by_number(path, numbers)
    with pytest.raises(VideoError, match='not later.*--strict'):
        read(path, strict=True)


# Broadcasts

def film(path, **container_options):
    write_film(path, rate=Fraction(25), num_frames=40, flash=20, audio=('mp2',), subtitle=None,
               container_options=container_options)
    return path


def copied(source, tmp_path):
    """The source joined with its own picture, as `stvsr restore` does with restored segments."""
    with open_source(source) as opened:
        times = [frame.time for frame in opened.frames()]
    white = flashes(source)
    write_video(tmp_path / 'segment.mp4', [np.full((48, 64, 3), 235 if n in white else 20, np.uint8)
                                           for n in range(len(times))], times=times, time_base=Fraction(1, 90000))
    join([tmp_path / 'segment.mp4'], source, tmp_path / 'out.mkv')
    return tmp_path / 'out.mkv'


def flashes(path):
    """Numbers of the white frames."""
    with open_source(path) as source:
        return {number for number, frame in enumerate(source.frames()) if frame.image.mean() > 128}


def beeps(path):
    """Times at which the sound begins to be loud."""
    found, loud_until = [], -1.0
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format='fltp', layout='mono')
        for frame in container.decode(audio=0):
            for part in resampler.resample(frame):
                for sample in np.flatnonzero(np.abs(part.to_ndarray()[0]) > 0.1):
                    time = float(frame.pts * frame.time_base) + sample / part.sample_rate
                    if time > loud_until + 0.1:
                        found.append(time)
                    loud_until = time
    return found


def flash_times(path):
    with open_source(path) as source:
        return [float(frame.time) for frame in source.frames() if frame.image.mean() > 128]


@pytest.mark.parametrize('offset', ['95442.2', '95443.0'])
def test_times_that_wrap_start_at_zero(tmp_path, offset):
    """The clock of a transport stream has 33 bits: it begins anew every 95443.7 seconds."""
    source = film(tmp_path / 'clip.ts', output_ts_offset=offset)
    with open_source(source) as opened:
        times = [frame.time for frame in opened.frames()]
    assert len(times) == 40
    assert times[0] >= 0 or offset == '95443.0'
    assert all(after - before == UNIT for before, after in zip(times, times[1:], strict=False))
    out = copied(source, tmp_path)
    assert 0 <= read(out)[1][0] < 0.2
    assert abs(flash_times(out)[0] - beeps(out)[0]) < 0.03


def test_joined_recordings_go_on(tmp_path):
    source = film(tmp_path / 'clip.ts')
    source.write_bytes(source.read_bytes() * 3)
    numbers, times, warnings = read(source)
    assert len(numbers) == 120
    assert all(Fraction(1, 50) < after - before < Fraction(3, 50)
               for before, after in zip(times, times[1:], strict=False))
    assert any('times begin anew after' in warning and '(1 more' in warning for warning in warnings)
    out = copied(source, tmp_path)
    seen, heard = flash_times(out), beeps(out)
    assert len(seen) == len(heard) == 3
    assert np.abs(np.subtract(seen, heard)).max() < 0.05
    reader = open_reader(source)
    assert reader.num_frames('clip') == 120
    assert number_of(reader.frame('clip', 100)) == numbers[100]
    with pytest.raises(VideoError, match='missing or damaged'):
        read(source, strict=True)


def test_lost_packet_of_a_broadcast_leaves_a_gap(tmp_path):
    path = tmp_path / 'clip.ts'
    write_video(path, moving_clip(30), options={'g': '10', 'bf': '2', 'crf': '10'})
    with open_source(path) as source:
        whole = [frame.time for frame in source.frames()]
    data = path.read_bytes()
    packets = [data[at:at + 188] for at in range(0, len(data), 188)]
    of_video = [n for n, packet in enumerate(packets) if (packet[1] & 31) << 8 | packet[2] == 256]
    del packets[of_video[len(of_video) // 2]]
    path.write_bytes(b''.join(packets))
    _, times, warnings = read(path)
    assert 25 <= len(times) <= 30
    assert set(times) <= set(whole)
    assert times[-1] == whole[-1]
    assert 'missing or damaged, at' in warnings[0]
    with pytest.raises(VideoError, match='only up to the frame at .*missing or damaged'):
        read(path, strict=True)


def test_broadcast_that_ends_within_a_packet(tmp_path):
    path = tmp_path / 'clip.ts'
    write_video(path, moving_clip(30), options={'crf': '10', 'bf': '0'})
    data = path.read_bytes()
    path.write_bytes(data[:188 * (len(data) // 376) + 100])
    numbers, _, warnings = read(path)
    assert 5 < len(numbers) < 30
    assert f'ends within a packet, after {len(numbers)} frames' in ' '.join(warnings)
    with pytest.raises(VideoError):
        read(path, strict=True)


# What a file states

@pytest.mark.parametrize(('box', 'at', 'value'), [
    ('stsz', 20, 2**31 - 1), ('stts', 16, 2**31 - 1), ('stsc', 16, 2), ('mdhd', 16, 2)])
def test_broken_tables_of_mp4(tmp_path, box, at, value):
    """Sizes, durations, chunks and the unit of time: FFmpeg stops at what it cannot find, without an error."""
    path = tmp_path / 'clip.mp4'
    write_video(path, numbered_clip(12), options={'bf': '0'})
    data = bytearray(path.read_bytes())
    start = data.find(box.encode()) + at
    data[start:start + 4] = value.to_bytes(4)
    path.write_bytes(data)
    numbers, _, warnings = read(path)
    assert 0 < len(numbers) < 12
    (warning,) = warnings
    assert f'states 12 frames, but only {len(numbers)} can be read' in warning
    with pytest.raises(VideoError, match='states 12 frames'):
        read(path, strict=True)


def test_what_an_edit_list_removes_is_not_missing(tmp_path):
    write_video(tmp_path / 'in.mp4', numbered_clip(30), options={'g': '30', 'bf': '2'})
    with av.open(str(tmp_path / 'in.mp4')) as old, av.open(str(tmp_path / 'out.mp4'), 'w') as new:
        stream = new.add_stream_from_template(old.streams.video[0], opaque=True)
        for packet in old.demux(old.streams.video[0]):
            if packet.dts is not None:  # as `ffmpeg -ss 0.2 -c copy` does
                packet.pts -= round(Fraction(1, 5) / packet.time_base)
                packet.dts -= round(Fraction(1, 5) / packet.time_base)
                packet.stream = stream
                new.mux(packet)
    numbers, _, warnings = read(tmp_path / 'out.mp4', strict=True)
    assert numbers == list(range(5, 30))
    assert not warnings


# Fields

def test_interlaced_part_is_found(tmp_path):
    for name, number, options in (('a', 30, {}), ('b', 20, {'x264-params': 'tff=1'})):
        write_video(tmp_path / f'{name}.ts', moving_clip(number), options={'g': '10', 'bf': '0', 'crf': '4', **options},
                    times=[n * UNIT + (30 * UNIT if name == 'b' else 0) for n in range(number)])
    path = tmp_path / 'both.ts'
    path.write_bytes((tmp_path / 'a.ts').read_bytes() + (tmp_path / 'b.ts').read_bytes())
    with pytest.raises(VideoError, match=r'is interlaced at 1.2\d* s.*--deinterlace=auto'):
        open_source(path)
    with open_source(path, deinterlace='auto') as source, open_source(tmp_path / 'a.ts') as first:
        frames, progressive = list(source.frames()), list(first.frames())
    assert len(frames) == 50
    assert all(np.array_equal(a.image, b.image) for a, b in zip(frames[:29], progressive, strict=False))


def test_short_interlaced_part_is_named(tmp_path):
    """One second between progressive frames, and between the places that are looked at before."""
    data = b''
    for start, end, options in ((0, 31, {}), (31, 32, {'x264-params': 'tff=1'}), (32, 60, {})):
        write_video(tmp_path / 'part.ts', moving_clip(1, height=32, width=32) * 25 * (end - start),
                    options={'g': '25', 'bf': '0', 'preset': 'ultrafast', **options},
                    times=[n * UNIT for n in range(25 * start, 25 * end)])
        data += (tmp_path / 'part.ts').read_bytes()
    path = tmp_path / 'all.ts'
    path.write_bytes(data)
    _, times, warnings = read(path)
    named = [text for text in warnings if '--deinterlace=auto' in text]
    assert len(times) >= 1498 and len(named) == 1 and 'the frame at 31.0' in named[0]
    assert not any('--deinterlace' in text for text in read(path, deinterlace='auto')[2])


# Folders

def test_gap_in_numbered_images(tmp_path):
    for number in (1, 2, 3, 7, 8, 11):
        cv2.imwrite(str(tmp_path / f'im{number:03d}_x2.png'), numbered_clip(1)[0])
    with open_source(tmp_path) as source:
        (warning,) = source.notes.warnings()
    assert 'between im003_x2.png and im007_x2.png' in warning
    assert '(1 more' in warning
    with pytest.raises(VideoError, match='between im003_x2.png and im007_x2.png.*--strict'):
        open_source(tmp_path, strict=True)


def test_images_without_a_gap(tmp_path):
    for number in (2, 4, 6, 8):
        cv2.imwrite(str(tmp_path / f'{number}.png'), numbered_clip(1)[0])
    assert not read(tmp_path, strict=True)[2]
    cv2.imwrite(str(tmp_path / 'title.png'), numbered_clip(1)[0])
    assert not read(tmp_path)[2]
