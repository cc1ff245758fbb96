"""Video files through networks, in segments: what is whole, what goes on, and what is kept."""
import json
import os
import shutil
import time
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from basicsr.archs import build_network
from torch import nn
from video_util import moving_clip, write_video

from basicsr_stvsr.archs.spec import NetSpec
from basicsr_stvsr.io.encoding import Encoding
from basicsr_stvsr.io.video_info import VideoError
from basicsr_stvsr.io.video_reader import open_source
from basicsr_stvsr.io.video_writer import VideoWriter
from basicsr_stvsr.video import job
from basicsr_stvsr.video.job import Job, Progress, RestoreError, clock
from basicsr_stvsr.video.restorer import RestoreOptions
from basicsr_stvsr.video.segments import Segments


class Pair(nn.Module):
    """x2 in both: repeats pixels, and puts the mean of its two frames between them."""

    spec = NetSpec(scale=2, temporal_scale=2, num_frames=2)

    def __init__(self, fails_at: int | None = None):
        super().__init__()
        self.fails_at, self.calls = fails_at, 0

    def forward(self, lq):
        if self.calls == self.fails_at:
            raise KeyboardInterrupt
        self.calls += 1
        a, b = lq.repeat_interleave(2, -1).repeat_interleave(2, -2).unbind(1)
        return torch.stack([a, (a + b) / 2, b], dim=1)


LOSSLESS = Encoding('ffv1')
FILM = Fraction(24000, 1001)


def restore(source: Path, output: Path, net: nn.Module, *, resume: bool = False, **arguments) -> list:
    """Restore a file; return the reported progress."""
    reports = []
    with open_source(source) as opened:
        Job(opened, output, net, model='net', **arguments).run(resume=resume, on_progress=reports.append)
    return reports


def read(path: Path) -> tuple[list[np.ndarray], list[Fraction]]:
    with open_source(path) as source:
        frames = list(source.frames())
    return [frame.image for frame in frames], [frame.time for frame in frames]


@pytest.fixture(scope='module')
def film(tmp_path_factory) -> Path:
    """40 frames with a cut before the 24th; 23.976 a second, lossless."""
    path = tmp_path_factory.mktemp('film') / 'film.mkv'
    frames = [frame // 3 for frame in moving_clip(23)] + [255 - frame // 3 for frame in moving_clip(17, seed=1)]
    write_video(path, frames, codec='ffv1', pix_fmt='bgr0', rate=FILM)
    return path


def tiny_hoffr() -> nn.Module:
    torch.manual_seed(0)
    return build_network({'type': 'HOFFR', 'num_feat': 8, 'num_block': 1, 'num_rcab': 1, 'reduction': 1,
                          'num_flow_feat': 4}).eval()


@pytest.mark.parametrize('make', [Pair, tiny_hoffr])
def test_segments_make_no_difference(film, tmp_path, make):
    """Neither does where they lie, though in one of them there is a cut."""
    reports = restore(film, tmp_path / 'whole.mkv', make(), encoding=LOSSLESS)
    frames, times = read(tmp_path / 'whole.mkv')
    count = 79 if make is Pair else 40
    assert len(frames) == count and [progress.frames for progress in reports] == list(range(1, count + 1))
    assert {progress.total for progress in reports} == {count}
    for segment_length in (9, 23):
        restore(film, tmp_path / 'parts.mkv', make(), encoding=LOSSLESS, segment_length=segment_length, overwrite=True)
        other, other_times = read(tmp_path / 'parts.mkv')
        np.testing.assert_array_equal(other, frames)
        assert other_times == times
    assert sorted(path.name for path in tmp_path.iterdir()) == ['parts.mkv', 'whole.mkv']


@pytest.mark.parametrize('make, fails_at', [(Pair, 0), (Pair, 16), (Pair, 29), (tiny_hoffr, 27)])
def test_work_goes_on(film, tmp_path, make, fails_at, monkeypatch):
    """As if it had not been interrupted; what is done already is not done again, but for some frames of context."""
    restore(film, tmp_path / 'whole.mkv', make(), encoding=LOSSLESS)
    net, output = make(), tmp_path / 'out.mkv'
    method = 'forward' if make is Pair else 'step'
    original, calls = getattr(net, method), []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == fails_at + 1:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(net, method, interrupted)
    with pytest.raises(KeyboardInterrupt, match=r'frames up to 0:00:\d\d\.\d{3} are kept in .*until_now\.mkv'
                       if fails_at else 'no frame was written'):
        restore(film, output, net, encoding=LOSSLESS, segment_length=8)
    assert not output.exists()
    kept = tmp_path / 'out.mkv.parts' / 'until_now.mkv'
    if fails_at:
        np.testing.assert_array_equal(read(kept)[0], read(tmp_path / 'whole.mkv')[0][:len(read(kept)[0])])
        assert len(read(kept)[0]) >= net.spec.temporal_scale * (fails_at - 1)
    calls.clear()
    monkeypatch.setattr(net, method, lambda *args: calls.append(args) or original(*args))
    restore(film, output, net, encoding=LOSSLESS, segment_length=8, resume=True)
    np.testing.assert_array_equal(read(output)[0], read(tmp_path / 'whole.mkv')[0])
    assert read(output)[1] == read(tmp_path / 'whole.mkv')[1]
    assert len(calls) <= 40 - fails_at // 8 * 8 + (11 if make is Pair else 0)


@pytest.mark.parametrize('codec, suffix', [('x264', 'mkv'), ('x265', 'mp4'), ('av1', 'webm')])
def test_the_same_input_gives_the_same_file(film, tmp_path, codec, suffix):
    """Byte by byte, also where the work was interrupted in its second segment, and the encoder begins anew."""
    encoding, names = Encoding(codec), [tmp_path / f'{name}.{suffix}' for name in ('one', 'two', 'interrupted')]
    for output in names[:2]:
        restore(film, output, Pair(), encoding=encoding, segment_length=16)
    with pytest.raises(KeyboardInterrupt):
        restore(film, names[2], Pair(fails_at=24), encoding=encoding, segment_length=16)
    restore(film, names[2], Pair(), encoding=encoding, segment_length=16, resume=True)
    first, *others = [path.read_bytes() for path in names]
    assert [other == first for other in others] == [True, True]


def test_a_folder_of_frames(film, tmp_path):
    """From PNGs to PNGs, interrupted and gone on with."""
    images, _ = read(film)
    (tmp_path / 'in').mkdir()
    for number, image in enumerate(images):
        av.VideoFrame.from_ndarray(image, format='rgb24').to_image().save(tmp_path / 'in' / f'{number}.png')
    png = Encoding('png')
    restore(film, tmp_path / 'whole.mkv', Pair(), encoding=LOSSLESS)
    with pytest.raises(KeyboardInterrupt):
        restore(tmp_path / 'in', tmp_path / 'out', Pair(fails_at=20), encoding=png, segment_length=8)
    assert not (tmp_path / 'out').exists()
    restore(tmp_path / 'in', tmp_path / 'out', Pair(), encoding=png, segment_length=8, resume=True)
    np.testing.assert_array_equal(read(tmp_path / 'out')[0], read(tmp_path / 'whole.mkv')[0])


def test_two_runs_at_once(film, tmp_path):
    """The second one is refused, with and without `resume`, and the first one goes on."""
    refused = []

    def begin_again(progress: Progress) -> None:
        if progress.frames in (20, 40):
            with pytest.raises(VideoError, match=r'out\.mkv\.parts: another process is working in this folder'):
                restore(film, tmp_path / 'out.mkv', Pair(), encoding=LOSSLESS, resume=progress.frames == 40)
            refused.append(progress.frames)

    with open_source(film) as source:
        Job(source, tmp_path / 'out.mkv', Pair(), model='net', encoding=LOSSLESS).run(on_progress=begin_again)
    assert refused == [20, 40] and len(read(tmp_path / 'out.mkv')[0]) == 79


def test_an_output_beside_its_frames(film, tmp_path):
    """The parts of the output are no frames of the source, which would have changed since."""
    for number, image in enumerate(read(film)[0][:20]):
        av.VideoFrame.from_ndarray(image, format='rgb24').to_image().save(tmp_path / f'{number}.png')
    output = tmp_path / 'out.mkv'
    with pytest.raises(KeyboardInterrupt):
        restore(tmp_path, output, Pair(fails_at=10), encoding=LOSSLESS, segment_length=4)
    restore(tmp_path, output, Pair(), encoding=LOSSLESS, segment_length=4, resume=True)
    assert len(read(output)[0]) == 39


def test_a_segment_that_is_gone_is_made_once_more(film, tmp_path):
    restore(film, tmp_path / 'whole.mkv', Pair(), encoding=LOSSLESS)
    output = tmp_path / 'out.mkv'
    with pytest.raises(KeyboardInterrupt):
        restore(film, output, Pair(fails_at=30), encoding=LOSSLESS, segment_length=8)
    next(output.with_name('out.mkv.parts').glob('000001.*')).unlink()
    restore(film, output, Pair(), encoding=LOSSLESS, segment_length=8, resume=True)
    np.testing.assert_array_equal(read(output)[0], read(tmp_path / 'whole.mkv')[0])


class Dying(Pair):
    """Ends its process, or fails, at its sixth window."""

    def __init__(self, exit_code: int | None = None):
        super().__init__()
        self.exit_code = exit_code

    def forward(self, lq):
        if self.calls == 5 and self.exit_code is not None:
            os._exit(self.exit_code)
        if self.calls == 5:
            raise RuntimeError('no more')
        return super().forward(lq)


def test_several_processes_make_no_difference(film, tmp_path):
    restore(film, tmp_path / 'whole.mkv', Pair(), encoding=LOSSLESS)
    reports = restore(film, tmp_path / 'two.mkv', Pair(), encoding=LOSSLESS, segment_length=9, builders=[Pair, Pair])
    assert [progress.frames for progress in reports] == list(range(1, 80))
    np.testing.assert_array_equal(read(tmp_path / 'two.mkv')[0], read(tmp_path / 'whole.mkv')[0])
    assert read(tmp_path / 'two.mkv')[1] == read(tmp_path / 'whole.mkv')[1]


def test_an_interrupt_of_several_processes(film, tmp_path):
    """Segments that are whole are not restored anew, also where one before them is not; by one process, or by two."""
    images = [tmp_path / name for name in ('in', 'whole', 'out')]
    images[0].mkdir()
    for number, image in enumerate(read(film)[0]):
        av.VideoFrame.from_ndarray(image, format='rgb24').to_image().save(images[0] / f'{number}.png')
    png = {'encoding': Encoding('png'), 'segment_length': 4}
    restore(images[0], images[1], Pair(), **png)
    expected = read(images[1])[0]

    def interrupt(progress: Progress) -> None:
        if progress.frames == 60:
            raise KeyboardInterrupt

    with open_source(images[0]) as source:
        job = Job(source, images[2], Pair(), model='net', builders=[Pair, Pair], **png)
        with pytest.raises(KeyboardInterrupt, match='are kept in'):
            job.run(on_progress=interrupt)
    state = images[2].with_name('out.parts') / 'state.json'
    fields = json.loads(state.read_text())
    assert len(fields['whole']) >= 5
    fields['whole'] = [segment for segment in fields['whole'] if segment[0] != 2]  # as if that had been slower
    state.write_text(json.dumps(fields))
    shutil.copytree(state.parent, tmp_path / 'other.parts')
    net = Pair()
    restore(images[0], images[2], net, resume=True, **png)
    assert net.calls <= 60
    np.testing.assert_array_equal(read(images[2])[0], expected)
    restore(images[0], tmp_path / 'other', Pair(), resume=True, builders=[Pair], **png)
    np.testing.assert_array_equal(read(tmp_path / 'other')[0], expected)


@pytest.mark.parametrize('build, message', [
    (partial(Dying, 7), r'a process that restores frames ended with exit code 7; frames up to .* are kept in'),
    (Dying, 'RuntimeError: no more'),
])
def test_a_process_that_fails(film, tmp_path, build, message):
    with pytest.raises(RestoreError, match=message):
        restore(film, tmp_path / 'out.mkv', Pair(), encoding=LOSSLESS, segment_length=4, builders=[build])
    assert not (tmp_path / 'out.mkv').exists()


def test_a_damaged_source_in_several_processes(film, tmp_path):
    """All before the damage comes out, whoever finds it first."""
    damaged = tmp_path / 'damaged.mkv'
    damaged.write_bytes(film.read_bytes()[:film.stat().st_size * 3 // 4])
    kept = []
    for builders in ([], [Pair, Pair]):
        output = tmp_path / f'out{len(builders)}.mkv'
        with pytest.raises(RestoreError, match=r'damaged\.mkv.*; frames up to 0:00:0\d\.\d{3} are kept in'):
            restore(damaged, output, Pair(), encoding=LOSSLESS, segment_length=8, builders=builders)
        kept.append(read(output.with_name(f'{output.name}.parts') / 'until_now.mkv'))
    assert kept[0][1] == kept[1][1] and len(kept[0][0]) > 40
    np.testing.assert_array_equal(kept[0][0], kept[1][0])


def test_a_recurrent_network_is_not_shared(film, tmp_path):
    with pytest.raises(ValueError, match='HOFFR is recurrent, so several devices cannot share its work'):
        restore(film, tmp_path / 'out.mkv', tiny_hoffr(), builders=[tiny_hoffr, tiny_hoffr])


@pytest.mark.parametrize('damage', [
    lambda path: path.unlink(), lambda path: path.write_bytes(b''),
    lambda path: path.write_bytes(path.read_bytes()[:-200]),
    lambda path: path.write_bytes(path.read_bytes().replace(b'\x00\x00\x80\x3f', b'\x00\x00\x81\x3f', 1)),
    lambda path: torch.save({'lq': torch.ones(1)}, path),
    lambda path: torch.save([torch.ones(1, dtype=torch.int8)], path),
    lambda path: torch.save([torch.ones(1)], path),
], ids=['gone', 'empty', 'cut', 'another number', 'a block', 'integers', 'too few'])
def test_a_damaged_state_of_a_recurrent_network(tmp_path, damage):
    net = tiny_hoffr()
    _, state = net.step(torch.ones(1, 3, 16, 16))
    path = tmp_path / 'work' / '000001.pt'
    path.parent.mkdir()
    job.save_state(state, path)
    assert all(map(torch.equal, job.load_state(path, net), state))
    damage(path)
    with pytest.raises(VideoError, match=f'; remove {path.parent} and begin anew$') as error:
        job.load_state(path, net)
    assert '\n' not in str(error.value)


def test_parts_of_other_work_are_not_gone_on_with(film, tmp_path):
    output = tmp_path / 'out.mkv'
    with pytest.raises(KeyboardInterrupt):
        restore(film, output, Pair(fails_at=20), encoding=LOSSLESS, segment_length=8)
    with pytest.raises(VideoError, match=r'out\.mkv\.parts: holds interrupted work; continue'):
        restore(film, output, Pair(), encoding=LOSSLESS, segment_length=8)
    with pytest.raises(VideoError, match=r'holds work with other settings: options, encoding differ; resume'):
        restore(film, output, Pair(), options=RestoreOptions(tile=32), segment_length=8, resume=True)
    with open_source(film) as source:
        source.reading = 'deinterlaced'
        with pytest.raises(VideoError, match='holds work with other settings: source differ'):
            Job(source, output, Pair(), model='net', encoding=LOSSLESS, segment_length=8).run(resume=True)
    state = tmp_path / 'out.mkv.parts' / 'state.json'
    state.write_text(state.read_text()[:50])
    with pytest.raises(VideoError, match=r'state\.json: is damaged'):
        restore(film, output, Pair(), encoding=LOSSLESS, segment_length=8, resume=True)


@pytest.mark.parametrize('begun', ['fp32', 'bf16'])
def test_work_keeps_its_precision(film, tmp_path, monkeypatch, begun):
    """Also where 'auto' would choose another one now; but not against what the options say."""
    output = tmp_path / 'out.mkv'
    auto = RestoreOptions(precision='auto')
    monkeypatch.setattr(job, 'fastest_precision', lambda net, devices: begun)
    with pytest.raises(KeyboardInterrupt):
        restore(film, output, Pair(fails_at=20), options=auto, encoding=LOSSLESS, segment_length=8)
    monkeypatch.setattr(job, 'fastest_precision', lambda net, devices: {'fp32': 'bf16', 'bf16': 'fp32'}[begun])
    with pytest.raises(VideoError, match='holds work with other settings: options differ'):
        restore(film, output, Pair(), options=RestoreOptions(precision='fp16'), encoding=LOSSLESS, segment_length=8,
                resume=True)
    seen = []

    class Spy(Pair):
        def forward(self, lq):
            seen.append(torch.is_autocast_enabled('cpu'))
            return super().forward(lq)

    restore(film, output, Spy(), options=auto, encoding=LOSSLESS, segment_length=8, resume=True)
    assert set(seen) == {begun == 'bf16'} and len(read(output)[0]) == 79


def test_the_network_goes_on_while_a_segment_ends(film, tmp_path, monkeypatch):
    """Where the encoder has frames left to encode; but only one encoder is there at a time."""
    events, close, is_open = [], VideoWriter.close, []

    class Slow(Pair):
        def forward(self, lq):
            time.sleep(0.01)
            events.append('window')
            return super().forward(lq)

    def slow_close(writer):
        if writer in is_open:
            time.sleep(0.3)
            close(writer)
            events.append('closed')
            is_open.remove(writer)

    original = Segments.writer

    def open_writer(segments, *which):
        assert not is_open
        is_open.append(original(segments, *which))
        return is_open[0]

    monkeypatch.setattr(VideoWriter, 'close', slow_close)
    monkeypatch.setattr(Segments, 'writer', open_writer)
    restore(film, tmp_path / 'out.mkv', Slow(), encoding=LOSSLESS, segment_length=20)
    assert not is_open and len(read(tmp_path / 'out.mkv')[0]) == 79
    assert events.index('closed') >= 22  # the first segment is made of 20 windows


def test_a_damaged_source(film, tmp_path):
    """All frames before the damage come out, those on their way when it showed, too."""
    damaged, whole = tmp_path / 'damaged.mkv', read(film)[0]
    data = film.read_bytes()
    damaged.write_bytes(data[:len(data) * 3 // 4])
    with pytest.raises(RestoreError, match=r'damaged\.mkv.*; frames up to 0:00:0\d\.\d{3} are kept in .*until_now'):
        restore(damaged, tmp_path / 'out.mkv', Pair(), encoding=LOSSLESS, segment_length=8)
    kept, _ = read(tmp_path / 'out.mkv.parts' / 'until_now.mkv')
    given = []
    with open_source(damaged) as source, pytest.raises(VideoError):
        given.extend(source.frames())
    assert len(kept) == 2 * len(given) - 1 > 30
    np.testing.assert_array_equal([frame[::2, ::2] for frame in kept[::2]], whole[:(len(kept) + 1) // 2])


def test_clock():
    assert clock(Fraction(0)) == '0:00:00.000'
    assert clock(Fraction(3600 * 11 + 62) + Fraction(1, 3)) == '11:01:02.333'
    assert clock(Fraction(59_9996, 10_000)) == '0:01:00.000'
