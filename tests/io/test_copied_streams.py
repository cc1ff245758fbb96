"""Streams other than the picture: decided before the first frame, and never a reason to lose finished work."""
import os
import shutil
import subprocess
import zlib
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from video_util import beep_time, flash_time, moving_clip, number_of, numbered_clip, write_film, write_video

from basicsr_stvsr.io.encoding import Encoding, OutputSpec
from basicsr_stvsr.io.joining import join
from basicsr_stvsr.io.matroska import ROOM, set_display_size
from basicsr_stvsr.io.output_checks import check_output
from basicsr_stvsr.io.video_info import probe
from basicsr_stvsr.io.video_reader import open_source
from basicsr_stvsr.io.video_writer import VideoWriter


def restore(source, output, *, audio='copy', codec='x264', stream=None):
    """What a restoration does, without a network; returns what was said before and after."""
    encoding = Encoding(codec, audio=audio, preset={'x264': 'ultrafast', 'av1': '12'}.get(codec))
    with open_source(source, stream=stream) as opened:
        spec = OutputSpec.of(opened.info)
        before = check_output(output, opened.info, encoding, spec)
        segment = output.parent / f'segment{encoding.segment_suffix}'
        with VideoWriter(segment, spec, encoding, threads=1) as writer:
            for frame in opened.frames():
                writer.write(*frame)
        return before, join([segment], source, output, rate=opened.info.rate, picture=opened.info.stream, audio=audio,
                            sample_aspect_ratio=spec.sample_aspect_ratio)


def streams_of(path):
    with av.open(str(path)) as container:
        return [(stream.type, stream.codec_context.name if stream.codec_context else '') for stream in
                container.streams]


@pytest.mark.parametrize(('given', 'sound', 'output', 'codec', 'expected'), [
    ('.mkv', 'wmav2', '.mp4', 'x264', 'aac'), ('.mp4', 'aac', '.webm', 'av1', 'opus'),
    ('.mkv', 'ac3', '.webm', 'av1', 'opus'), ('.mkv', 'ac3', '.mp4', 'x264', 'ac3'),
    ('.mov', 'pcm_s16be', '.mkv', 'x264', 'pcm_s16be')])
def test_sound_that_does_not_fit_is_encoded(tmp_path, given, sound, output, codec, expected):
    source, out = tmp_path / f'film{given}', tmp_path / f'out{output}'
    if sound == 'wmav2':
        command = shutil.which('ffmpeg') or pytest.skip('needs the command ffmpeg')
        write_film(tmp_path / 'in.mp4', audio=('aac',), subtitle=None)
        subprocess.run([command, '-v', 'error', '-i', tmp_path / 'in.mp4', '-c:v', 'copy', '-c:a', sound, source],
                       check=True)
    else:
        write_film(source, audio=(sound,), subtitle=None)
    before, after = restore(source, out, codec=codec)
    assert streams_of(out)[1] == ('audio', expected)
    assert abs(beep_time(out, 0) - flash_time(out)) < 0.03
    assert after == []
    if expected == sound:
        assert before == []
    else:
        assert any(f'audio stream 1 ({sound}' in note and f'is encoded as {expected}' in note for note in before)


@pytest.mark.parametrize(('audio', 'expected'), [('copy', ['aac', 'ac3']), ('aac', ['aac', 'aac']),
                                                 ('opus', ['opus', 'opus']), ('none', [])])
def test_choice_of_sound(tmp_path, audio, expected):
    write_film(tmp_path / 'film.mkv', subtitle=None)
    out = tmp_path / 'out.mkv'
    assert restore(tmp_path / 'film.mkv', out, audio=audio) == ([], [])
    assert [name for kind, name in streams_of(out) if kind == 'audio'] == expected
    for track in range(len(expected)):
        assert abs(beep_time(out, track) - flash_time(out)) < 0.03


@pytest.mark.parametrize(('codec', 'text', 'suffix', 'expected'), [
    ('mov_text', b'\0\7a <b>\xc3\xa9', '.mkv', 'a <b>é'.encode()),
    ('srt', b'<i>a</i> \xc3\xa9\nb', '.mp4', b'\0\6a \xc3\xa9\nb'),
    ('ass', rb'0,0,Default,,0,0,0,,{\i1}a{\i0}{\pos(1,2)} & <b\Nc', '.webm', b'<i>a</i> &amp; &lt;b\nc'),
    ('ass', rb'0,0,Default,,0,0,0,,{\i1}a{\i0}\Nb', '.mov', b'\0\3a\nb')])
def test_text_that_does_not_fit_is_converted(tmp_path, codec, text, suffix, expected):
    source, out = tmp_path / ('film.mp4' if codec == 'mov_text' else 'film.mkv'), tmp_path / f'out{suffix}'
    write_film(source, audio=(), subtitle=codec, text=text)
    (before,), after = restore(source, out, codec='av1' if suffix == '.webm' else 'x264')
    assert 'subtitle stream 1' in before and 'spa) is converted to' in before
    assert after == []
    with av.open(str(out)) as container:
        (stream,) = container.streams.subtitles
        assert stream.metadata['language'] == 'spa'
        texts = [(bytes(packet), packet.pts * packet.time_base, packet.duration * packet.time_base)
                 for packet in container.demux(stream) if packet.size > 2]
    half = Fraction(1, 2)
    assert texts == [(expected, Fraction(1, 5), half), (expected, Fraction(6, 5), half)]


@pytest.mark.parametrize('suffix', ['.mov', '.mp4', '.mkv'])
def test_time_code_is_kept(tmp_path, suffix):
    """FFmpeg writes a stream for it into MOV and MP4, and refuses packets of such a stream."""
    with av.open(str(tmp_path / 'clip.mov'), 'w') as container:
        stream = container.add_stream('libx264', rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
        stream.metadata['timecode'] = '01:02:03:04'
        for image in moving_clip(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format='rgb24')))
        container.mux(stream.encode())
    assert ('data', '') in streams_of(tmp_path / 'clip.mov')
    assert restore(tmp_path / 'clip.mov', tmp_path / f'out{suffix}') == ([], [])
    with av.open(str(tmp_path / f'out{suffix}')) as container:
        tags = {name.lower(): value for name, value in container.streams.video[0].metadata.items()}
    assert tags['timecode'] == '01:02:03:04'


def test_damaged_times_of_sound_are_repaired(tmp_path):
    """Packets of sound whose times go back, as FFmpeg refuses to write them."""
    write_film(tmp_path / 'film.mkv', audio=('ac3',), subtitle=None)
    data = (tmp_path / 'film.mkv').read_bytes()
    blocks = [at for at in range(len(data) - 4) if data[at] == 0xa3 and data[at + 1] >> 6 == 1 and data[at + 3] == 0x82]
    assert len(blocks) > 20, 'SimpleBlocks of the second track, with a size of two bytes'
    broken = bytearray(data)
    for at in blocks[5:8]:  # 16 bits, relative to the cluster
        broken[at + 4:at + 6] = (0).to_bytes(2)
    (tmp_path / 'film.mkv').write_bytes(broken)
    before, after = restore(tmp_path / 'film.mkv', tmp_path / 'out.mp4')
    assert before == []
    (note,) = after
    assert 'audio stream 1 (ac3, deu) of the source has damaged times' in note
    assert streams_of(tmp_path / 'out.mp4')[1] == ('audio', 'ac3')
    assert abs(beep_time(tmp_path / 'out.mp4', 0) - flash_time(tmp_path / 'out.mp4')) < 0.1


def write_teletext(path):
    with av.open(str(path), 'w', format='mpegts') as container:
        video = container.add_stream('libx264', rate=25, width=64, height=48, options={'bf': '0'})
        text = container.add_mux_stream('dvb_teletext')
        video.pix_fmt, text.metadata['language'], text.time_base = 'yuv420p', 'deu', Fraction(1, 90000)
        for number, image in enumerate(moving_clip(4)):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format='rgb24')))
            packet = av.Packet(b'\x10' + (b'\x02\x2c' + bytes(44)) * 4)  # EN 300 472: pages without text
            packet.pts = packet.dts = 3600 * number
            packet.time_base, packet.stream = Fraction(1, 90000), text
            container.mux(packet)
        container.mux(video.encode())


def write_unknown_sound(path):
    """As phones record beside AAC; FFmpeg knows no codec of this name."""
    write_film(path, num_frames=4, flash=1, audio=('aac',), subtitle=None)
    data = path.read_bytes()
    assert data.count(b'mp4a') == data.count(b'esds') == 1
    path.write_bytes(data.replace(b'mp4a', b'apac').replace(b'esds', b'dapa'))


def write_picture_and_font(path, picture=b''):
    """A cover picture, and in Matroska a font."""
    with av.open(str(path), 'w') as container:
        video = container.add_stream('libx264', rate=25, width=64, height=48)
        video.pix_fmt, cover = 'yuv420p', None
        if path.suffix == '.mkv':
            container.add_attachment('cover.png', 'image/png', picture)
            container.add_attachment('font.ttf', 'font/ttf', bytes(range(256)))
        else:
            cover = container.add_mux_stream('png', width=8, height=8)
            cover.disposition = av.stream.Disposition.attached_pic
        for image in moving_clip(4):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format='rgb24')))
        container.mux(video.encode())
        if cover is not None:
            packet = av.Packet(picture)
            packet.stream, packet.pts, packet.dts = cover, 0, 0
            container.mux(packet)


@pytest.mark.parametrize('suffix', ['.mp4', '.mov', '.mkv', '.webm'])
@pytest.mark.parametrize(('write', 'name', 'stream'), [
    (write_teletext, 'clip.ts', 'subtitle stream 1 (deu)'),
    (write_unknown_sound, 'clip.mp4', 'audio stream 1 (deu)')])
def test_streams_without_a_codec_are_left_out(tmp_path, write, name, stream, suffix):
    write(tmp_path / name)
    out = tmp_path / f'out{suffix}'
    (before,), after = restore(tmp_path / name, out, codec='av1' if suffix == '.webm' else 'x264')
    assert before.startswith(f'{stream} is left out, {suffix} files cannot hold it')
    assert after == []
    assert not {'audio', 'subtitle'} & {kind for kind, _ in streams_of(out)}
    with open_source(out) as source:
        assert len(list(source.frames())) == 4


@pytest.mark.parametrize('suffix', ['.mp4', '.m4v', '.mov', '.mkv', '.webm'])
@pytest.mark.parametrize('name', ['clip.mp4', 'clip.mkv'])
def test_cover_pictures_and_fonts(tmp_path, name, suffix):
    """Kept byte by byte where the container takes them, else one warning each."""
    _, data = cv2.imencode('.png', np.full((8, 8, 3), 99, np.uint8))
    picture = data.tobytes()
    write_picture_and_font(tmp_path / name, picture)
    out = tmp_path / f'out{suffix}'
    before, after = restore(tmp_path / name, out, codec='av1' if suffix == '.webm' else 'x264')
    keeps_cover, keeps_font, has_font = suffix in ('.mp4', '.m4v', '.mkv'), suffix == '.mkv', name == 'clip.mkv'
    expected = ([] if keeps_cover else [f'video stream 1 (png), a cover picture, is left out, {suffix} files']) + (
        [f'attachment stream 2 (font.ttf) is left out, {suffix} files'] if has_font and not keeps_font else [])
    assert [note[:len(text)] for note, text in zip(before, expected, strict=True)] == expected
    assert after == []
    with av.open(str(out)) as container:
        video, *others = container.streams
        assert (video.type, video.width) == ('video', 64)
        kinds = ['video'] * keeps_cover + ['attachment'] * (has_font and keeps_font)
        assert [stream.type for stream in others] == kinds
        if keeps_cover:
            assert int(others[0].disposition) == av.stream.Disposition.attached_pic
            assert bytes(next(container.demux(others[0]))) == picture
        if kinds[1:]:
            assert others[1].metadata == {'filename': 'font.ttf', 'mimetype': 'font/ttf'}
    with open_source(out) as source:
        assert len(list(source.frames())) == 4


# The picture

def write_two_videos(path, sizes, defaults=(0, 0)):
    """Videos of 10 frames in one file; the frames of the second one have higher numbers."""
    with av.open(str(path), 'w') as container:
        streams = [container.add_stream('libx264', rate=25, width=width, height=height) for width, height in sizes]
        for stream, default in zip(streams, defaults, strict=True):
            stream.pix_fmt, stream.disposition = 'yuv420p', default
        for number, (stream, (width, height)) in enumerate(zip(streams, sizes, strict=True)):
            for image in numbered_clip(20, width=width, height=height)[10 * number:10 * number + 10]:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format='rgb24')))
            container.mux(stream.encode())


@pytest.mark.parametrize(('sizes', 'defaults', 'main'), [
    (((64, 48), (96, 64)), (0, 0), 1), (((96, 64), (64, 48)), (0, 0), 0), (((64, 48), (96, 64)), (1, 0), 0)])
def test_main_video(tmp_path, sizes, defaults, main):
    path = tmp_path / 'clip.mkv'
    write_two_videos(path, sizes, defaults)
    with av.open(str(path)) as container:
        assert [int(stream.disposition) & 1 for stream in container.streams] == list(defaults)
    info = probe(path)
    assert (info.stream, info.width, info.height) == (main, *sizes[main])
    assert [stream.index for stream in info.streams] == [1 - main]
    for number in (0, 1):
        with open_source(path, stream=number) as source:
            assert [number_of(frame.image) for frame in source.frames()] == [10 * number + n for n in range(10)]
    with pytest.raises(OSError, match='no video stream 2'):
        open_source(path, stream=2)
    (warning,), _ = restore(path, tmp_path / 'out.mp4', stream=1)
    assert 'video stream 0' in warning
    assert probe(tmp_path / 'out.mp4').width == sizes[1][0]


@pytest.mark.parametrize(('codec', 'suffix'), [('x264', '.mp4'), ('x264', '.mkv'), ('av1', '.mp4'), ('prores', '.mov'),
                                               ('ffv1', '.mkv'), ('prores', '.mkv'), ('av1', '.webm')])
def test_shape_of_pixels_is_kept(tmp_path, codec, suffix):
    write_video(tmp_path / 'clip.mp4', moving_clip(3), color={'sample_aspect_ratio': Fraction(4, 3)})
    assert restore(tmp_path / 'clip.mp4', tmp_path / f'out{suffix}', codec=codec) == ([], [])
    assert probe(tmp_path / f'out{suffix}').sample_aspect_ratio == Fraction(4, 3)
    with open_source(tmp_path / f'out{suffix}') as source:
        assert len(list(source.frames())) == 3


def has_right_checksum(data):
    """Of the element of tracks (RFC 9559): its first child, and the CRC-32 of what follows."""
    place = data.rindex(bytes.fromhex('1654ae6b')) + 4  # also in the list of elements before it
    length = 9 - data[place].bit_length()
    size = int.from_bytes(data[place:place + length]) & (1 << 7 * length) - 1
    content = data[place + length:place + length + size]
    return content[:6] == bytes.fromhex('bf84') + zlib.crc32(content[6:]).to_bytes(4, 'little')


@pytest.mark.parametrize('title', ['', 'A title'])
def test_matroska_states_the_size_shown(tmp_path, title):
    """64 x 48 pixels of shape 4/3 are shown like 64 x 36."""
    write_film(tmp_path / 'film.mp4', num_frames=3, audio=(), subtitle=None)
    out = tmp_path / 'out.mkv'
    with av.open(str(tmp_path / 'film.mp4')) as film, av.open(str(out), 'w') as container:
        stream = container.add_stream_from_template(film.streams.video[0], opaque=True)
        stream.metadata['title'] = title + ROOM
        for packet in film.demux(film.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    before = out.read_bytes()
    set_display_size(out, 64, 36)
    after = out.read_bytes()
    assert len(after) == len(before)
    assert bytes.fromhex('54b0 10000004 00000040 54ba 10000004 00000024') in after
    assert has_right_checksum(before)  # of FFmpeg
    assert has_right_checksum(after)
    with av.open(str(out)) as container:
        (stream,) = container.streams
        assert stream.metadata.get('title', '') == title
        assert stream.sample_aspect_ratio == Fraction(4, 3)
    with pytest.raises(ValueError, match='no room'):
        set_display_size(out, 64, 36)


def test_shape_of_turned_pixels(tmp_path):
    write_video(tmp_path / 'clip.mp4', moving_clip(3), color={'sample_aspect_ratio': Fraction(4, 3)}, rotation=90)
    restore(tmp_path / 'clip.mp4', tmp_path / 'out.mp4')
    info = probe(tmp_path / 'out.mp4')
    assert (info.width, info.height, info.sample_aspect_ratio, info.rotation) == (48, 64, Fraction(3, 4), 0)


# Names

@pytest.mark.parametrize('name', ['S01:E02', 'a%03d', '-dash', 'what?', 'a b\'c"d', 'http:x', 'line\nbreak',
                                  os.fsdecode(b'gr\xfc\xdf')], ids=ascii)
def test_names(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / 'plain.mp4', numbered_clip(3))
    try:
        os.rename('plain.mp4', f'{name}.mp4')
    except OSError as error:
        pytest.skip(f'the file system does not take it ({error})')
    source, output = type(tmp_path)(f'{name}.mp4'), type(tmp_path)(f'{name} out.mp4')
    assert restore(source, output) == ([], [])
    with open_source(output) as opened:
        assert np.abs(np.subtract([number_of(frame.image) for frame in opened.frames()], [0, 1, 2])).max() == 0
