"""`stvsr restore` on real clips, from file to file; what it made is looked at by PyAV alone."""
import re
import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from conftest import SHARED
from run_util import run, succeed
from video_util import frame_of_planes, packets_of, planes, shown, write_film, write_video, yuv_of

from basicsr_stvsr import restore
from basicsr_stvsr.video.restorer import RestoreOptions
from stvsr.main import main

FILM = Fraction(24000, 1001)
SCALE = {'mbnet-small': 4, 'fisr-small': 2, 'fstrn-small': 4, 'hoffr-small': 4, 'adaptive-gan-small': 4}
DOUBLES_RATE = ('mbnet-small', 'fisr-small')


@pytest.fixture(scope='module')
def footage(tmp_path_factory) -> list[np.ndarray]:
    """10 frames of 96 x 128, uint8 RGB: people who walk; where there are no real clips, a clip of the demo."""
    folder = SHARED / 'data' / 'eval' / 'vid4' / 'walk'
    if not folder.is_dir():
        made = tmp_path_factory.mktemp('demo')
        succeed('scripts/demo/make_demo_clips.py', '--output', made, '--num_frames', 10, '--height', 96, '--width', 128)
        folder = made / 'test' / 'astronaut_pan_cat'
    images = [cv2.imread(str(path)) for path in sorted(folder.iterdir())[:10]]
    return [to_rgb(cv2.resize(image, (128, 96), interpolation=cv2.INTER_AREA)) for image in images]


def to_rgb(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def halved(frames: list[np.ndarray], height: int, width: int) -> list[np.ndarray]:
    """Parts of frames, shrunk to a size of at most half of theirs: float, in quarters of a level."""
    return [area_mean(frame[:2 * height, :2 * width], 2) for frame in frames]


def area_mean(image: np.ndarray, scale: int) -> np.ndarray:
    height, width = image.shape[0] // scale, image.shape[1] // scale
    return image.reshape(height, scale, width, scale, -1).mean(axis=(1, 3))


def to_bytes(frames: list[np.ndarray]) -> list[np.ndarray]:
    return [frame.round().astype(np.uint8) for frame in frames]


def yuv_frame(image: np.ndarray, matrix: str, *, full_range: bool, bits: int) -> av.VideoFrame:
    """A frame of 4:2:0 of (h, w, 3) RGB, 0-255."""
    yuv = yuv_of(image / 255, matrix, full_range=full_range, bits=bits)
    parts = [yuv[..., 0], *np.moveaxis(area_mean(yuv[..., 1:], 2), -1, 0)]
    dtype, pix_fmt = (np.uint8, 'yuv420p') if bits == 8 else (np.uint16, 'yuv420p10le')
    return frame_of_planes([part.round().clip(0, 2**bits - 1).astype(dtype) for part in parts], pix_fmt)


def run_restore(source: Path, output: Path, model: str, *options: str) -> int:
    return main(['restore', str(source), str(output), '--model', model, '--device', 'cpu', *options])


def decode(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def times_of(frames: list[av.VideoFrame]) -> list[Fraction]:
    return [frame.pts * frame.time_base for frame in frames]


def rate_of(path: Path) -> Fraction:
    with av.open(str(path)) as container:
        return container.streams.video[0].average_rate


def halfway(times: list[Fraction]) -> list[Fraction]:
    return [(a + b) / 2 for a, b in pairwise(times)]


def difference(restored: av.VideoFrame, given: av.VideoFrame | np.ndarray, scale: int) -> np.ndarray:
    """How far a restored frame, shrunk, is from a small one: (h, w), levels of 0-255, the mean of the channels."""
    given = shown(given) if isinstance(given, av.VideoFrame) else given
    return np.abs(area_mean(shown(restored), scale) - given).mean(axis=2)


def assert_alike(restored: list[av.VideoFrame], small: list[av.VideoFrame | np.ndarray], scale: int) -> None:
    """Restored frames look like the small ones that they stand for, each more so than like any other of these.

    The small networks are 1.5 to 5 levels away, as they were trained with bicubic instead of area means. A shift by a
    pixel would be 12 to 18 levels, red for blue 11 to 26.
    """
    errors = np.array([[difference(frame, other, scale).mean() for other in small] for frame in restored])
    assert errors.diagonal().max() < 6
    assert errors.argmin(axis=1).tolist() == list(range(len(small)))


# ---------------------------------------------------------------- time, size, depth

@pytest.mark.parametrize(('model', 'options'), [
    ('mbnet-small', []), ('fisr-small', []), ('fisr-small', ['--even']), ('fstrn-small', []), ('hoffr-small', []),
    ('adaptive-gan-small', [])])
def test_film(footage, tmp_path, model, options):
    """23.976 a second stays so, or becomes twice of it; frames between others look like those that were left out."""
    source, output = tmp_path / 'in.mp4', tmp_path / 'out.mp4'
    frames, step = to_bytes(halved(footage[:5], 36, 48)), 2 if model in DOUBLES_RATE else 1
    given = frames[::step]
    write_video(source, given, rate=FILM, options={'crf': '5'})
    assert run_restore(source, output, model, *options) == 0
    restored = decode(output)
    assert len(restored) == len(frames) + len(options)
    assert times_of(restored) == [n / (step * FILM) for n in range(len(restored))]
    assert rate_of(output) == step * FILM
    assert {(frame.height, frame.width) for frame in restored} == {(SCALE[model] * 36, SCALE[model] * 48)}
    assert_alike(restored[:len(frames)], frames, SCALE[model])
    if options:
        assert np.abs(shown(restored[-1]) - shown(restored[-2])).mean() < 1


@pytest.mark.parametrize('model', ['hoffr-small', 'fisr-small'])
def test_variable_frame_rate(footage, tmp_path, model):
    """Each frame is shown when it was; those between others exactly halfway."""
    source, output = tmp_path / 'in.mp4', tmp_path / 'out.mp4'
    times = [Fraction(ticks, 90000) for ticks in (0, 3003, 4504, 9010, 9011, 20000)]
    write_video(source, to_bytes(halved(footage[:6], 24, 32)), rate=Fraction(30), times=times,
                time_base=Fraction(1, 90000), options={'crf': '5'})
    assert times_of(decode(source)) == times
    assert run_restore(source, output, model) == 0
    restored = decode(output)
    assert times_of(restored) == (sorted(times + halfway(times)) if model in DOUBLES_RATE else times)
    assert_alike(restored[::2 if model in DOUBLES_RATE else 1], decode(source), SCALE[model])


@pytest.mark.parametrize(('model', 'pix_fmt', 'options'), [
    ('adaptive-gan-small', 'yuv420p', []), ('fisr-small', 'yuv444p', ['--codec', 'ffv1', '--tile', '24'])])
def test_odd_size(footage, tmp_path, model, pix_fmt, options):
    """All rows and columns come out, the last ones as well."""
    source, output, scale = tmp_path / 'in.mkv', tmp_path / 'out.mkv', SCALE[model]
    write_video(source, to_bytes(halved(footage[:3], 35, 47)), codec='ffv1', pix_fmt=pix_fmt)
    assert run_restore(source, output, model, *options) == 0
    given, restored = decode(source), decode(output)[::2 if model in DOUBLES_RATE else 1]
    assert (given[0].height, given[0].width) == (35, 47)
    assert {(frame.height, frame.width) for frame in restored} == {(scale * 35, scale * 47)}
    assert_alike(restored, given, scale)
    for a, b in zip(restored, given, strict=True):
        assert difference(a, b, scale)[-1].mean() < 8 and difference(a, b, scale)[:, -1].mean() < 8


@pytest.mark.parametrize(('model', 'options', 'pix_fmt'), [
    ('hoffr-small', ['--codec', 'x265'], 'yuv420p10le'), ('fisr-small', [], 'yuv420p10le'),
    ('adaptive-gan-small', ['--codec', 'ffv1'], 'gbrp16le')])
def test_10_bits(footage, tmp_path, model, options, pix_fmt):
    """They come out, and hold what 8 bits could not: a video of 8 bits that was widened has multiples of 4 alone."""
    source, output = tmp_path / 'in.mkv', tmp_path / 'out.mkv'
    frames = [yuv_frame(frame, 'bt709', full_range=False, bits=10) for frame in halved(footage[:3], 36, 48)]
    color = {'colorspace': 1, 'color_range': 1, 'color_primaries': 1, 'color_trc': 1}
    write_video(source, frames, pix_fmt='yuv420p10le', color=color, options={'crf': '5'})
    assert run_restore(source, output, model, *options) == 0
    given, restored = decode(source), decode(output)
    assert given[0].format.name == 'yuv420p10le' and {frame.format.name for frame in restored} == {pix_fmt}
    luma, unit = planes(restored[0])[0], 4 if pix_fmt == 'yuv420p10le' else 257
    assert (luma % unit != 0).mean() > 0.6
    assert_alike(restored[::2 if model in DOUBLES_RATE else 1], given, SCALE[model])


@pytest.mark.parametrize('num_frames', [1, 2])
@pytest.mark.parametrize('model', SCALE)
def test_one_frame_and_two(footage, tmp_path, model, num_frames):
    """As few as that are restored, too, whatever the window of the network."""
    source, output = tmp_path / 'in.mp4', tmp_path / 'out.mp4'
    write_video(source, to_bytes(halved(footage[:2 * num_frames:2], 24, 32)), rate=FILM, options={'crf': '5'})
    assert run_restore(source, output, model) == 0
    given, restored, step = decode(source), decode(output), 2 if model in DOUBLES_RATE else 1
    assert times_of(restored) == [n / (step * FILM) for n in range(step * (num_frames - 1) + 1)]
    assert_alike(restored[::step], given, SCALE[model])


# ---------------------------------------------------------------- colours

@pytest.mark.parametrize('model', ['fisr-small', 'fstrn-small', 'hoffr-small'])
@pytest.mark.parametrize(('matrix', 'full_range', 'tag'), [('bt601', True, 6), ('bt709', False, 1)])
def test_colours_and_their_tags(footage, tmp_path, model, matrix, full_range, tag):
    """Flat patches beside a real picture keep their colours, and the video keeps its colour tags."""
    source, output, scale, side = tmp_path / 'in.mp4', tmp_path / 'out.mp4', SCALE[model], 16
    patches = [(200, 60, 60), (60, 180, 60), (60, 60, 200), (230, 230, 230)]
    images = halved(footage[:2], 32, 64)
    for image in images:
        for number, color in enumerate(patches):
            image[-side:, side * number:side * (number + 1)] = color
    tags = {'colorspace': tag, 'color_range': 2 if full_range else 1, 'color_primaries': tag, 'color_trc': tag}
    write_video(source, [yuv_frame(image, matrix, full_range=full_range, bits=8) for image in images], color=tags,
                options={'crf': '1'})
    assert run_restore(source, output, model, '--crf', '1') == 0
    for frame in decode(output):
        assert {name: getattr(frame, name) for name in tags} == tags
        for number, color in enumerate(patches):
            rows, columns = (slice(scale * (start + side // 2 - 3), scale * (start + side // 2 + 3))
                             for start in (32 - side, side * number))
            assert np.abs(shown(frame)[rows, columns].mean(axis=(0, 1)) - color).max() < 2.5


# ---------------------------------------------------------------- sound and texts

def film_of(folder: Path, frames: list[np.ndarray], suffix: str) -> Path:
    """A film of these frames, with two sound tracks, a subtitle, and chapters, as `write_film` makes them."""
    film, picture, path = folder / f'film{suffix}', folder / f'picture{suffix}', folder / f'in{suffix}'
    write_film(film, num_frames=len(frames), subtitle='mov_text' if suffix == '.mp4' else 'subrip')
    write_video(picture, frames, rate=FILM, options={'crf': '5'})
    with av.open(str(film)) as others, av.open(str(picture)) as video, av.open(str(path), 'w') as container:
        copies = {stream: container.add_stream_from_template(stream)
                  for stream in (video.streams.video[0], *others.streams.audio, *others.streams.subtitles)}
        for stream, copy in copies.items():
            copy.metadata.update(stream.metadata)
        container.set_chapters(others.chapters())
        for original in (video, others):
            for packet in original.demux([stream for stream in copies if stream.container is original]):
                if packet.pts is not None and packet.size > 2:
                    packet.stream = copies[packet.stream]
                    container.mux(packet)
    return path


def around_picture(path: Path) -> tuple[list[object], ...]:
    """Languages of streams, and chapters."""
    with av.open(str(path)) as container:
        return ([(stream.type, stream.language) for stream in container.streams if stream.type != 'data'],
                [(chapter['start'] * chapter['time_base'], chapter['end'] * chapter['time_base'],
                  chapter['metadata']['title']) for chapter in container.chapters()])


@pytest.mark.parametrize('suffix', ['.mp4', '.mkv'])
def test_two_sound_tracks_and_subtitles(footage, tmp_path, suffix):
    """All that is no picture is there byte for byte, at the same times, while there are twice as many frames."""
    clip = to_bytes(halved(footage, 24, 32))
    source, output = film_of(tmp_path, clip + clip[::-1] + clip, suffix), tmp_path / f'out{suffix}'
    assert run_restore(source, output, 'fisr-small') == 0
    given, copied = packets_of(source), packets_of(output)
    assert around_picture(output) == around_picture(source)
    languages, chapters = around_picture(output)
    assert languages[1:] == [('audio', 'deu'), ('audio', 'fra'), ('subtitle', 'spa')] and len(chapters) == 2
    for number in (1, 2, 3):
        assert len(given[number]) > (20 if number < 3 else 0)
        assert copied[number] == given[number]
    times, restored = times_of(decode(source)), times_of(decode(output))
    rounding = 0 if suffix == '.mp4' else Fraction(1, 2000)  # Matroska has milliseconds
    assert len(times) == 30
    assert max(abs(a - b) for a, b in zip(restored, sorted(times + halfway(times)), strict=True)) <= rounding


def test_silent_video_stays_silent(footage, tmp_path):
    write_video(tmp_path / 'in.mp4', to_bytes(halved(footage[:2], 24, 32)))
    assert run_restore(tmp_path / 'in.mp4', tmp_path / 'out.mkv', 'fisr-small') == 0
    assert around_picture(tmp_path / 'out.mkv') == ([('video', None)], [])


# ---------------------------------------------------------------- what goes wrong

@pytest.mark.parametrize(('suffix', 'codec', 'pix_fmt'), [('.mp4', 'libx264', 'yuv420p'), ('.mkv', 'ffv1', 'bgr0')])
def test_truncated_file(footage, tmp_path, capsys, suffix, codec, pix_fmt):
    """All frames before the first missing one are kept in a video; a line states the last time, and the file."""
    whole, source, output = (tmp_path / f'{name}{suffix}' for name in ('whole', 'in', 'out'))
    write_video(whole, to_bytes(halved(footage, 24, 32)), codec=codec, pix_fmt=pix_fmt, rate=FILM,
                container_options={'movflags': 'faststart'} if suffix == '.mp4' else None)
    with av.open(str(whole)) as container:
        packets = [(packet.pos + packet.size // 2, packet.pts * packet.time_base)
                   for packet in container.demux(video=0) if packet.size]
    cut = 7  # so many packets are whole
    source.write_bytes(whole.read_bytes()[:packets[cut][0]])
    missing = min(time for _, time in packets[cut:])
    expected = [time for time in times_of(decode(whole)) if time < missing]
    assert len(expected) >= 4

    assert run_restore(source, output, 'fisr-small') == 1
    error = capsys.readouterr().err
    assert not output.exists() and str(source) in error
    last_time, kept = re.search(r'frames up to 0:00:(\S+) are kept in (.*)', error).groups()
    assert float(last_time) == pytest.approx(float(expected[-1]), abs=0.0006)
    restored = decode(Path(kept))
    assert len(restored) == 2 * len(expected) - 1
    tick = 0 if suffix == '.mp4' else Fraction(1, 1000)
    assert max(abs(a - b) for a, b in zip(times_of(restored)[::2], expected, strict=True)) <= tick
    assert_alike(restored[::2], decode(whole)[:len(expected)], 2)


def test_text_that_is_called_mp4(tmp_path, capsys):
    source = tmp_path / 'in.mp4'
    source.write_text('This is not a video.\n' * 100)
    assert run_restore(source, tmp_path / 'out.mp4', 'fisr-small') == 2
    assert re.fullmatch(r'error: .*in\.mp4: not a readable video .*\n', capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ['in.mp4']


def test_places_where_nothing_can_be_written(footage, tmp_path, capsys):
    source, file = tmp_path / 'in.mp4', tmp_path / 'file'
    write_video(source, to_bytes(halved(footage[:2], 24, 32)))
    file.write_text('no folder')
    for place in (file, Path('/proc/self')):  # the latter takes no files from anyone, root included
        if place.exists():
            assert run_restore(source, place / 'out.mp4', 'fisr-small') == 2
            assert str(place) in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ['file', 'in.mp4']


def run_apart(source: Path, output: Path, *options: str, before: str) -> subprocess.CompletedProcess:
    """Restore in a separate process, after some preparation."""
    command = ['restore', str(source), str(output), '--model', 'fisr-small', '--device', 'cpu', *options]
    return run('-c', f'{before}\nimport sys\nfrom stvsr.main import main\nsys.exit(main({command!r}))')


@pytest.mark.skipif(sys.platform != 'linux', reason='Linux has capabilities')
def test_folder_without_permission(footage, tmp_path):
    """Also for root, who here has given up the capability to pass over permissions."""
    source, locked = tmp_path / 'in.mp4', tmp_path / 'locked'
    write_video(source, to_bytes(halved(footage[:2], 24, 32)))
    locked.mkdir(mode=0o500)
    done = run_apart(source, locked / 'out.mp4', before="""
import ctypes
header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; and once more for numbers from 32 on
libc = ctypes.CDLL(None)
assert libc.capget(header, sets) == 0
for number in range(3):
    sets[number] &= ~(1 << 1)  # CAP_DAC_OVERRIDE
assert libc.capset(header, sets) == 0
""")
    assert done.returncode == 2 and f'no permission to write to the folder {locked}' in done.stderr
    assert not list(locked.iterdir())


def test_disk_that_gets_full(footage, tmp_path):
    """Stood for by a limit of the size of files, which is reached in the middle of the work."""
    source, output = tmp_path / 'in.mp4', tmp_path / 'out.mkv'
    write_video(source, footage, rate=FILM, options={'crf': '5'})
    done = run_apart(source, output, '--codec', 'ffv1', before="""
import resource
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
""")
    assert done.returncode == 1 and not output.exists()
    error, until, kept = re.search(r'error: (.*) frames up to 0:00:(\S+) are kept in (.*)', done.stderr).groups()
    assert 'cannot be written' in error and 'File too large' in error
    restored = decode(kept)
    assert 3 < len(restored) < 19 and abs(times_of(restored)[-1] - Fraction(until)) <= Fraction(1, 1000)
    assert max(abs(time - n / (2 * FILM)) for n, time in enumerate(times_of(restored))) <= Fraction(1, 2000)
    assert_alike(restored[::2], decode(source)[:(len(restored) + 1) // 2], 2)


# ---------------------------------------------------------------- tiles and cuts

@pytest.mark.parametrize(('model', 'num_frames'), [('fstrn-small', 1), ('hoffr-small', 3)])
def test_no_seams_between_tiles(footage, model, num_frames):
    """Tiled frames are those of one piece, and their steps from column to column are as large at and around seams.

    Tiles that see nothing of each other would give steps at the seams that are twice as large.
    """
    frames = [frame[:64, :64] for frame in footage[:num_frames]]
    whole, tiled = (np.array(list(restore(frames, model, options=options, device='cpu'))).astype(float)
                    for options in (None, RestoreOptions(tile=32, tile_overlap=16)))
    assert whole.shape == tiled.shape == (num_frames, 256, 256, 3)
    assert np.abs(tiled - whole).mean() < 0.1
    for axis in (1, 2):
        steps = [np.abs(np.diff(clip, axis=axis)).mean(axis=(0, 3 - axis, 3)) for clip in (tiled, whole)]
        ratio = (steps[0] / steps[1])[127 - 32:127 + 33]  # the seam is between rows, or columns, 127 and 128
        assert ratio == pytest.approx(1, abs=0.02)


@pytest.mark.real_clips
@pytest.mark.parametrize('at_cut', ['previous', 'next'])
def test_real_cut(real_data, tmp_path, at_cut):
    """Between two scenes the frame before the cut stands twice, or the one behind it; no other frame does."""
    source, output = tmp_path / 'in.mkv', tmp_path / 'out.mkv'
    files = sorted((real_data / 'eval' / 'scene_cuts' / 'DragonBaby').iterdir())[6:12]  # a scene begins with file 9
    frames = [to_rgb(cv2.resize(cv2.imread(str(file)), (48, 27), interpolation=cv2.INTER_AREA)) for file in files]
    write_video(source, frames, codec='ffv1', pix_fmt='bgr0')
    assert run_restore(source, output, 'mbnet-small', '--codec', 'ffv1', '--at-cut', at_cut) == 0
    restored = [shown(frame) for frame in decode(output)]
    assert len(restored) == 11  # number 5 lies between the scenes
    repeated = [number for number, (a, b) in enumerate(pairwise(restored)) if np.array_equal(a, b)]
    assert repeated == [4 if at_cut == 'previous' else 5]
