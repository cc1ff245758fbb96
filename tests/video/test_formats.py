"""Each cell of the tables of formats in docs/videos.md: whole restorations, but for a network that does nothing."""
import json
import shutil
import subprocess
from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
import pytest
import torch
from av.video.frame import PictureType
from conftest import ROOT
from format_table import INPUT_FEATURES, INPUTS, OUTPUTS, Input, tables
from PIL import Image
from torch import nn
from video_util import beep_time, shown

from basicsr_stvsr.archs.spec import NetSpec
from basicsr_stvsr.io.video_info import BT709, VideoError, VideoInfo, probe
from basicsr_stvsr.utils.threads import same_priority
from basicsr_stvsr.video.pipeline import Shape
from basicsr_stvsr.zoo.network_source import NetworkSource
from basicsr_stvsr.zoo.restore_video import LoadedNetwork, VideoOptions, restore_video

NUM_FRAMES, FLASH, RATE = 12, 6, Fraction(25)
VARIABLE = [Fraction(number + number // 3, RATE) for number in range(NUM_FRAMES)]
EVEN = [number / RATE for number in range(NUM_FRAMES)]
WIDTH, HEIGHT = 64, 96
ASPECT = Fraction(2)  # pictures of 4:3, as MPEG-2 states no other shapes but that, 16:9 and 2.21:1
PLACES = np.ix_(range(8, HEIGHT, 16), range(8, WIDTH, 16))  # far from the borders of areas
COLORS = [(200, 60, 60), (60, 200, 60), (60, 60, 200)]
# What one file of a kind has, as far as the kind has it
STREAMS = frozenset({'frames', 'times', 'B-frames', 'sound', 'subtitles'})
SHAPE = frozenset({'pixel aspect'})
OTHERS = frozenset({'variable rate', 'rotation', 'colour tags', '10 bits'})
LINE = (Fraction(1, 25), Fraction(5, 25))  # when the subtitle is shown


class Nothing(nn.Module):
    spec = NetSpec(scale=1, num_frames=1)

    def forward(self, lq):
        return lq


class Mean(nn.Module):
    """x2 in time: the mean of both."""

    spec = NetSpec(scale=1, temporal_scale=2, num_frames=2)

    def forward(self, lq):
        a, b = lq.unbind(1)
        return torch.stack([a, (a + b) / 2, b], dim=1)


def picture(number: int, *, wide: bool = False) -> np.ndarray:
    """A frame: above, a grey that says its number; below, three colours, and white in the frame of the flash.

    Args:
        wide: uint16, with greys halfway between two levels of 8 bits.
    """
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint16 if wide else np.uint8)
    for place, color in enumerate([*COLORS, (255,) * 3 if number == FLASH else (0,) * 3]):
        image[HEIGHT // 3:, place * WIDTH // 4:(place + 1) * WIDTH // 4] = color
    image *= 257 if wide else 1
    image[:HEIGHT // 3] = grey_of(number, wide=wide) * (257 if wide else 1)
    return image


def grey_of(number: int, *, wide: bool) -> float:
    return 40 + 12 * (5 * number % NUM_FRAMES) + wide / 2  # far from that of the frames before and after it


def write_input(path: Path, kind: Input, wanted: frozenset[str]) -> None:
    """Write a file of a kind, with the wanted features as far as the kind has these."""
    features = {feature for feature in wanted if kind.has(feature)}
    times = VARIABLE if 'variable rate' in features else EVEN
    frames = [picture(number, wide='10 bits' in features) for number in range(NUM_FRAMES)]
    if not kind.suffix:
        write_images(path, frames, kind.codec)
    elif kind.codec in ('GIF', 'APNG', 'WebP'):
        write_animation(path, frames, times, kind.codec)
    elif kind.codec == 'libtheora':
        write_theora(path, frames)
    else:
        write_video(path, frames, times, kind, features)
        if 'pixel aspect' in features and (kind.suffix == '.webm' or kind.codec in ('ffv1', 'rawvideo')):
            set_aspect(path)


def write_images(folder: Path, frames: list[np.ndarray], codec: str) -> None:
    folder.mkdir()
    suffix = {'TIFF': 'tif', 'JPEG': 'jpg'}.get(codec, codec.lower())
    for number, frame in enumerate(frames):
        cv2.imwrite(str(folder / f'{number}.{suffix}'), frame[..., ::-1])


def write_animation(path: Path, frames: list[np.ndarray], times: list[Fraction], codec: str) -> None:
    durations = [float(1000 * (after - before)) for before, after in pairwise([*times, times[-1] + 1 / RATE])]
    first, *rest = (Image.fromarray(frame) for frame in frames)
    first.save(path, codec.replace('APNG', 'PNG'), save_all=True, append_images=rest, duration=durations,
               **({'lossless': True} if codec == 'WebP' else {}))


def write_theora(path: Path, frames: list[np.ndarray]) -> None:
    """PyAV has no encoder for it."""
    command = shutil.which('ffmpeg') or pytest.skip('needs the command ffmpeg')
    subprocess.run([command, '-v', 'error', '-f', 'rawvideo', '-pix_fmt', 'rgb24', '-s', f'{WIDTH}x{HEIGHT}', '-r',
                    str(RATE), '-i', '-', '-f', 'lavfi', '-i',
                    'aevalsrc=sin(2000*PI*t)*between(t\\,0.24\\,0.32)/2:d=0.48',
                    '-vf', 'setsar=2', '-pix_fmt', 'yuv420p', '-c:v', 'libtheora', '-q:v', '9', '-c:a', 'libopus',
                    path],
                   input=b''.join(frame.tobytes() for frame in frames), check=True)


def write_video(path: Path, frames: list[np.ndarray], times: list[Fraction], kind: Input,
                features: set[str]) -> None:
    """Lossy encoders keep flat pictures nearly as they are at this bit rate."""
    formats = {'.ts': 'mpegts', '.mpg': 'mpeg', '.y4m': 'yuv4mpegpipe', '.wmv': 'asf'}
    strict = {'strict': '-1'}  # y4m of 10 bits
    with same_priority(), av.open(str(path), 'w', format=formats.get(kind.suffix), options=strict) as container:
        options = {'bf': '2', 'g': '6'} if 'B-frames' in features else {}
        if kind.codec in ('libx264', 'libx265'):
            # With its usual blocks of 64 pixels, x265 spoils some of these frames, others in each run; the cause is
            # unknown. With blocks of 16 it encodes them the same each time.
            options |= {'preset': 'veryfast', 'qp': '4', 'x265-params': 'log-level=error:qp=4:min-cu-size=16:ctu=16'}
        video = container.add_stream(kind.codec, rate=RATE, options=options | kind.options, width=WIDTH, height=HEIGHT)
        context = video.codec_context
        video.pix_fmt = kind.wide if '10 bits' in features else kind.pixels
        context.time_base, context.thread_count, context.bit_rate = 1 / RATE, 1, 4_000_000
        if 'rotation' in features:
            video.set_display_rotation(-90)
        if 'pixel aspect' in features:
            context.sample_aspect_ratio = ASPECT
        matrix = 5
        if 'colour tags' in features:
            context.colorspace = context.color_primaries = context.color_trc = matrix = 1
        track = texts = None
        if 'sound' in features:
            track = container.add_stream(kind.sound, rate=48000, layout='stereo', options={'strict': '-2'})
            track.bit_rate = 128_000
        if 'subtitles' in features:
            texts = container.add_mux_stream(kind.subtitle)
            texts.time_base = Fraction(1, 1000)
        for frame, time in zip(frames, times, strict=True):
            if frame.itemsize == 2:
                frame = frame - (frame >> 8)  # swscale expects white at 255 * 256
            image = av.VideoFrame.from_ndarray(frame, format='rgb48le' if frame.itemsize == 2 else 'rgb24').reformat(
                format=video.pix_fmt, dst_colorspace=matrix, threads=1)
            image.pts, image.time_base, image.duration = round(time * RATE), 1 / RATE, 1
            container.mux(video.encode(image))
        container.mux(video.encode())
        if track is not None:
            encode_sound(container, track, float(times[FLASH]))
        if texts is not None:
            container.mux(subtitle_packet(kind.subtitle, texts))


def set_aspect(path: Path) -> None:
    """Write the shape of pixels into the container, which PyAV cannot."""
    if path.suffix == '.y4m':
        path.write_bytes(path.read_bytes().replace(b' A0:0 ', f' A{ASPECT}:1 '.encode(), 1))
        return
    command = shutil.which('ffmpeg') or pytest.skip('needs the command ffmpeg')
    plain = path.rename(path.with_stem('plain'))
    subprocess.run([command, '-v', 'error', '-i', plain, '-c', 'copy', '-aspect',
                    str(ASPECT * Fraction(WIDTH, HEIGHT)).replace('/', ':'), path], check=True)


def subtitle_packet(codec: str, stream: Any) -> av.Packet:
    text = {'mov_text': b'\0\4line', 'ass': b'0,0,Default,,0,0,0,,line'}.get(codec, b'line')
    packet = av.Packet(text)
    packet.pts = packet.dts = round(1000 * LINE[0])
    packet.duration, packet.time_base, packet.stream = round(1000 * LINE[1]), Fraction(1, 1000), stream
    return packet


def encode_sound(container: Any, track: Any, start: float) -> None:
    """Write a beep from `start` on."""
    seconds = np.arange(int(48000 * NUM_FRAMES / RATE)) / 48000
    beep = np.sin(2 * np.pi * 1000 * seconds) * ((seconds >= start) & (seconds < start + 0.08)) * 0.5
    context = track.codec_context
    context.open(strict=False)
    resampler = av.AudioResampler(format=context.format, layout='stereo', rate=48000,
                                  frame_size=context.frame_size or 1024)
    frame = av.AudioFrame.from_ndarray(np.stack([beep] * 2).astype(np.float32), format='fltp', layout='stereo')
    frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        container.mux(track.encode(part))
    container.mux(track.encode())


def restore(source: Path, output: Path, net: nn.Module | None = None, **options: Any) -> list[str]:
    """Restore a file as the command does, with a network that does nothing; return the warnings."""
    notes: list[str] = []
    loaded = LoadedNetwork(net or Nothing(), 'net', (), None)
    restore_video(VideoOptions(source=source, output=output, network=NetworkSource('net', {}, None), **options),
                  loaded=loaded, on_warning=notes.append)
    return notes


class Restored(NamedTuple):
    source: Path
    output: Path
    notes: list[str]


@pytest.fixture(scope='module')
def restored(tmp_path_factory):
    @cache
    def make(number: int, features: frozenset[str]) -> Restored:
        kind, folder = INPUTS[number], tmp_path_factory.mktemp('formats')
        source, output = folder / f'in{kind.suffix}', folder / ('out.mkv' if features == STREAMS else 'out.mp4')
        write_input(source, kind, features)
        return Restored(source, output, restore(source, output, codec='ffv1'))

    return make


def decoded(path: Path) -> tuple[list[np.ndarray], list[Fraction]]:
    """Frames as floats, 0-255, and their times."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [shown(frame) for frame in frames], [frame.pts * frame.time_base for frame in frames]


def codecs_of(path: Path, kind: str) -> list[str]:
    with av.open(str(path)) as container:
        return [stream.codec_context.name for stream in container.streams if stream.type == kind]


def assert_frames(images: list[np.ndarray], *, wide: bool = False) -> None:
    """All frames, in order, each like the one that it stands for."""
    assert len(images) == NUM_FRAMES
    for number, image in enumerate(images):
        assert image.shape == (HEIGHT, WIDTH, 3)
        np.testing.assert_allclose(image[PLACES], picture(number, wide=wide)[PLACES] / (257 if wide else 1), atol=5,
                                   err_msg=f'frame {number}')


def assert_times(found: list[Fraction], expected: list[Fraction], unit: float) -> None:
    """Apart from a start after that of the sound."""
    np.testing.assert_allclose([float(time - found[0]) for time in found], [float(time) for time in expected],
                               atol=unit + 1e-9)


def flash_of(images: list[np.ndarray], times: list[Fraction]) -> float:
    """When the white area is brightest, seconds; it is in the right or, in turned pictures, the left corner below."""
    levels = [image[-8, [8, -8]].mean(1).max() for image in images]
    return float(times[int(np.argmax(levels))])


def assert_in_sync(path: Path) -> None:
    """Click and flash are within a frame of the input."""
    assert abs(beep_time(path, 0) - flash_of(*decoded(path))) < 1 / RATE


def own_conversion(path: Path) -> np.ndarray:
    """RGB frames of a file, not turned, as the command ffmpeg converts them."""
    command = shutil.which('ffmpeg') or pytest.skip('needs the command ffmpeg')
    raw = subprocess.run([command, '-v', 'error', '-noautorotate', '-i', path, '-vf',
                          'scale=flags=accurate_rnd+full_chroma_int', '-pix_fmt', 'rgb24', '-fps_mode', 'passthrough',
                          '-f', 'rawvideo', '-'], capture_output=True, check=True)
    return np.frombuffer(raw.stdout, np.uint8).reshape(-1, HEIGHT, WIDTH, 3).astype(float)


def assert_line(path: Path) -> None:
    """The subtitle is there, in time."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(container.streams.subtitles[0]) if packet.size > 2]
    (packet,) = packets
    assert b'line' in bytes(packet)
    assert abs(packet.pts * packet.time_base - LINE[0]) <= Fraction(1, 1000)
    assert packet.duration * packet.time_base == LINE[1]


CELLS = [(number, feature) for number, kind in enumerate(INPUTS) for feature in INPUT_FEATURES if kind.has(feature)]
NAMES = [f'{INPUTS[number]}: {feature}' for number, feature in CELLS]


@pytest.mark.parametrize(('number', 'feature'), CELLS, ids=NAMES)
def test_input(restored, number, feature):
    """Each cell of the first table."""
    kind = INPUTS[number]
    made = restored(number, next(file for file in (STREAMS, SHAPE, OTHERS) if feature in file))
    images, times = decoded(made.output)
    if feature in OTHERS and kind.has('rotation'):
        assert probe(made.output).rotation == 0
        images = [np.rot90(image) for image in images]
    match feature:
        case 'frames':
            assert_frames(images)
        case 'times':
            assert_times(times, EVEN, .001)
            if command := shutil.which('ffprobe'):
                assert_times(packet_times(command, made.output), EVEN, .001)
        case 'variable rate':
            assert_times(times, VARIABLE, kind.unit)
        case 'B-frames':
            with av.open(str(made.source)) as container:
                assert any(frame.pict_type == PictureType.B for frame in container.decode(video=0))
            assert_frames(images)
        case 'sound':
            given, found = codecs_of(made.source, 'audio'), codecs_of(made.output, 'audio')
            assert found == ([kind.sound_becomes] if kind.sound_becomes else given)
            assert any('encoded as' in note for note in made.notes) == bool(kind.sound_becomes)
            assert_in_sync(made.output)
        case 'subtitles':
            assert any('is converted to subrip' in note for note in made.notes) == (kind.subtitle == 'mov_text')
            assert_line(made.output)
        case 'rotation':
            assert_frames(images, wide=kind.has('10 bits'))
        case 'pixel aspect':
            assert probe(made.output).sample_aspect_ratio == ASPECT
        case 'colour tags':
            assert_frames(images, wide=kind.has('10 bits'))
            for image, other in zip(images, own_conversion(made.source), strict=True):
                np.testing.assert_allclose(image[PLACES], other[PLACES], atol=1.5)
        case '10 bits':
            greys = [image[8:24, 8:-8].mean() - grey_of(number, wide=True) for number, image in enumerate(images)]
            assert np.abs(greys).mean() < 0.3


@pytest.fixture(scope='module')
def everything(tmp_path_factory) -> Path:
    """10 bits, BT.709, a variable rate, rotated, with wide pixels, sound and subtitles."""
    path = tmp_path_factory.mktemp('everything') / 'in.mp4'
    write_input(path, INPUTS[0], STREAMS | SHAPE | OTHERS)
    return path


@pytest.mark.parametrize('kind', OUTPUTS, ids=str)
def test_output(everything, tmp_path, kind):
    """Each row of the second table."""
    output = tmp_path / f'out{kind.suffix}'
    preset = {'x264': 'veryfast', 'x265': 'ultrafast', 'av1': '6'}.get(kind.codec)
    options = {'codec': kind.codec, 'preset': preset, 'crf': 1 if preset else None}
    if kind.refused:
        with pytest.raises(VideoError, match=f'{kind.suffix} files cannot hold {kind.codec}'):
            restore(everything, output, **options)
        return
    notes = restore(everything, output, **options)
    images, times = decoded(output)
    assert_frames([np.rot90(image) for image in images], wide=True)
    assert_times(times, VARIABLE, .001)
    info = probe(output)
    assert (info.rotation, info.bits >= 10, info.color.primaries, info.color.transfer) == (0, True, BT709, BT709)
    assert codecs_of(output, 'audio') == [kind.sound]
    assert_in_sync(output)
    assert codecs_of(output, 'subtitle') == [kind.subtitle]
    assert_line(output)
    assert info.sample_aspect_ratio == 1 / ASPECT
    expected = ['encoded as opus'] * (kind.sound == 'opus') + ['converted to'] * (kind.subtitle != 'mov_text')
    assert len(notes) == len(expected)
    assert all(words in note for words, note in zip(expected, notes, strict=True))
    if command := shutil.which('ffprobe'):
        assert_layout(command, output, info)
        assert_times(packet_times(command, output), VARIABLE, .001)


@pytest.mark.parametrize(('suffix', 'unit'), [('.gif', 10), ('.webp', 1)])
def test_animations(everything, tmp_path, suffix, unit):
    """GIF has one palette; times are rounded to a unit, milliseconds. Pillow reads both."""
    output = tmp_path / f'out{suffix}'
    notes = restore(everything, output)
    expected = ['cannot hold audio stream 1', 'cannot hold subtitle stream 2', 'no place for the shape of the pixels']
    assert all(words in note for words, note in zip(expected, notes, strict=True))
    with Image.open(output) as image:
        images, times = [], [0.0]
        for number in range(image.n_frames):
            image.seek(number)
            image.load()
            pixels = np.asarray(image.convert('RGBA'))
            assert pixels[..., 3].min() == 255
            images.append(np.rot90(pixels[..., :3].astype(float)))
            times.append(times[-1] + image.info['duration'])
    assert_frames(images, wide=True)
    assert times[:-1] == [round(1000 * time / unit) * unit for time in VARIABLE]
    assert times[-1] > times[-2]


def test_animation_too_large(everything, tmp_path):
    """libwebp refuses such sizes, but only when it gets a frame."""
    with pytest.raises(VideoError, match='at most 16383 pixels of width and height, the output would have 16384x10'):
        restore(everything, tmp_path / 'out.webp', shape=Shape(width=16384, height=10))
    assert list(tmp_path.iterdir()) == []


def assert_layout(command: str, path: Path, info: VideoInfo) -> None:
    """What another program reads in the file."""
    process = subprocess.run([command, '-v', 'error', '-count_packets', '-show_streams', '-of', 'json', path],
                             capture_output=True, check=True)
    video, *others = json.loads(process.stdout)['streams']
    assert (video['codec_type'], video['nb_read_packets']) == ('video', str(NUM_FRAMES))
    assert (video['width'], video['height']) == (HEIGHT, WIDTH)
    aspect = info.sample_aspect_ratio
    assert video.get('sample_aspect_ratio', '1:1') == f'{aspect.numerator}:{aspect.denominator}'
    assert (video['color_primaries'], video['color_transfer']) == ('bt709', 'bt709')
    assert [stream['codec_type'] for stream in others] == [stream.type for stream in info.streams]


def packet_times(command: str, path: Path) -> list[Fraction]:
    """When frames are shown, as another program reads the file."""
    process = subprocess.run([command, '-v', 'error', '-select_streams', 'v:0', '-show_entries', 'packet=pts_time',
                              '-of', 'json', path], capture_output=True, check=True)
    return sorted(Fraction(packet['pts_time']) for packet in json.loads(process.stdout)['packets'])


@pytest.mark.parametrize(('net', 'options'), [
    (Mean(), {}), (Mean(), {'shape': Shape(fps=Fraction(60))}), (Nothing(), {'start': Fraction(3, 25)}),
    (Mean(), {'start': Fraction(3, 25), 'shape': Shape(fps=Fraction(30))})],
    ids=['x2', '60 fps', 'start', '30 fps, start'])
@pytest.mark.parametrize('number', [0, 19, 21], ids=[str(INPUTS[number]) for number in (0, 19, 21)])
@pytest.mark.parametrize('suffix', ['.mp4', '.mkv'])
def test_click_and_flash(restored, tmp_path, number, net, options, suffix):
    """They stay within a frame of each other."""
    output = tmp_path / f'out{suffix}'
    restore(restored(number, STREAMS).source, output, net, preset='ultrafast', **options)
    assert_in_sync(output)


def test_the_page_has_these_tables():
    assert tables() in (ROOT / 'docs' / 'videos.md').read_text(encoding='utf-8')
