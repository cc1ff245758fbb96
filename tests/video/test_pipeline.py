"""Size and rate of the output: how many frames, at which times, in which size."""
from fractions import Fraction

import numpy as np
import pytest
import torch
from test_job import FILM, LOSSLESS, Pair, film, read, restore, tiny_hoffr  # noqa: F401  (film is a fixture)
from torch import nn
from video_util import moving_clip, write_film, write_video

from basicsr_stvsr.archs.spec import NetSpec
from basicsr_stvsr.io.encoding import Encoding
from basicsr_stvsr.io.frame_source import TimedFrame
from basicsr_stvsr.io.video_reader import open_source
from basicsr_stvsr.video.pipeline import Pipeline, Retimer, Shape
from basicsr_stvsr.video.restorer import RestoreOptions


class Repeat(nn.Module):
    """x3 in space, of single images: repeats pixels."""

    spec = NetSpec(scale=3, num_frames=1)

    def forward(self, lq):
        return lq.repeat_interleave(3, -1).repeat_interleave(3, -2)


class Mean(nn.Module):
    """x2 in time: the mean of both."""

    spec = NetSpec(scale=1, temporal_scale=2, num_frames=2)

    def forward(self, lq):
        a, b = lq.unbind(1)
        return torch.stack([a, (a + b) / 2, b], dim=1)


@pytest.mark.parametrize(('given', 'wanted', 'expected'), [
    (4, 2, [0, 2]), (4, 6, [0, 1, 1, 2, 3, 3]), (3, 3, [0, 1, 2]), (4, 3, [0, 1, 3])])
def test_the_nearest_frame_is_shown(given, wanted, expected):
    """Counted by hand for one second of video; a time halfway takes the later frame."""
    frames = [TimedFrame(np.full((1, 1, 3), n, np.uint8), 7 + Fraction(n, given)) for n in range(given)]
    shown = list(Retimer(Fraction(wanted), Fraction(7))(frames, Fraction(0)))
    assert [int(frame.image[0, 0, 0]) for frame in shown] == expected
    assert [frame.time for frame in shown] == [7 + Fraction(n, wanted) for n in range(wanted)]


@pytest.mark.parametrize(('shape', 'size'), [
    (Shape(), (144, 96)), (Shape(scale=Fraction(2)), (96, 64)), (Shape(scale=Fraction(3, 2)), (72, 48)),
    (Shape(height=50), (76, 50)), (Shape(width=60, height=50), (60, 50)), (Shape(scale=Fraction(1)), (48, 32))])
def test_any_size(tmp_path, shape, size):
    """A flat picture stays flat; a size with other proportions keeps the shown picture by the form of its pixels."""
    write_video(tmp_path / 'in.mkv', [np.full((32, 48, 3), 80, np.uint8)] * 2, codec='ffv1', pix_fmt='bgr0', rate=FILM)
    restore(tmp_path / 'in.mkv', tmp_path / 'out.mkv', Repeat(), encoding=Encoding('x264', crf=1), shape=shape)
    with open_source(tmp_path / 'out.mkv') as source:
        assert (source.info.width, source.info.height) == size
        shown = source.info.sample_aspect_ratio * Fraction(*size)
        assert float(shown) == pytest.approx(1.5, abs=0.03)
        for image, _ in source.frames():
            np.testing.assert_allclose(image.astype(int), 80, atol=1)


@pytest.mark.parametrize(('fps', 'count'), [
    (Fraction(60), 100), (Fraction(24000, 1001), 40), (Fraction(48000, 1001), 80), (Fraction(100), 167),
    (Fraction(10), 17), (Fraction(30000, 1001), 50)])
@pytest.mark.parametrize('segment_length', [9, 250])
def test_any_rate(film, tmp_path, fps, count, segment_length):  # noqa: F811
    """40 frames of 24000 / 1001 take 1.668 s; all output times are multiples of 1 / fps, segments or not."""
    restore(film, tmp_path / 'out.mkv', Mean(), encoding=LOSSLESS, shape=Shape(fps=fps), segment_length=segment_length)
    frames, times = read(tmp_path / 'out.mkv')
    assert len(frames) == count
    for number, time in enumerate(times):
        assert abs(time - number / fps) <= Fraction(1, 1000)  # as Matroska rounds
    with open_source(tmp_path / 'out.mkv') as source:
        assert source.info.rate == fps and not source.info.is_variable
    given, _ = read(film)
    for number in range(0, count - 1, 7):  # near a given frame or between its neighbours
        place = number / fps * FILM
        a, b = given[min(int(place), 39)], given[min(int(place) + 1, 39)]
        low, high = np.minimum(a, b).astype(int) - 1, np.maximum(a, b).astype(int) + 1
        assert ((frames[number] >= low) & (frames[number] <= high)).all()


def test_interrupted_work_at_another_rate_goes_on(film, tmp_path):  # noqa: F811
    shape = {'shape': Shape(fps=Fraction(60), height=40), 'encoding': LOSSLESS, 'segment_length': 8}
    restore(film, tmp_path / 'whole.mkv', Pair(), **shape)
    with pytest.raises(KeyboardInterrupt):
        restore(film, tmp_path / 'out.mkv', Pair(fails_at=60), **shape)
    restore(film, tmp_path / 'out.mkv', Pair(), resume=True, **shape)
    restore(film, tmp_path / 'two.mkv', Pair(), builders=[Pair, Pair], **shape)
    expected, times = read(tmp_path / 'whole.mkv')
    for name in ('out.mkv', 'two.mkv'):
        frames, other_times = read(tmp_path / name)
        np.testing.assert_array_equal(frames, expected)
        assert other_times == times


def test_one_thing_only(film, tmp_path):  # noqa: F811
    """Space: the given frames, enlarged. Time: the given frames unchanged, and new ones of their size."""
    given, times = read(film)
    restore(film, tmp_path / 'both.mkv', Pair(), encoding=LOSSLESS)
    restore(film, tmp_path / 'space.mkv', Pair(), encoding=LOSSLESS, shape=Shape(only='space'))
    restore(film, tmp_path / 'time.mkv', Pair(), encoding=LOSSLESS, shape=Shape(only='time'))
    both = read(tmp_path / 'both.mkv')[0]
    assert read(tmp_path / 'space.mkv')[1] == times
    np.testing.assert_array_equal(read(tmp_path / 'space.mkv')[0], both[::2])
    frames, _ = read(tmp_path / 'time.mkv')
    np.testing.assert_array_equal(frames[::2], given)
    mean = (given[3].astype(int) + given[4]) / 2
    assert np.abs(frames[7] - mean).max() <= 1


def test_one_network_enlarges_another_interpolates(film, tmp_path):  # noqa: F811
    given, _ = read(film)
    restore(film, tmp_path / 'out.mkv', Repeat(), interpolator=Mean(), encoding=LOSSLESS)
    frames, _ = read(tmp_path / 'out.mkv')
    assert len(frames) == 79
    np.testing.assert_array_equal([frame[::3, ::3] for frame in frames[::2]], given)
    assert np.abs(frames[7][::3, ::3] - (given[3].astype(int) + given[4]) / 2).max() <= 1
    calls = []

    class Counted(Repeat):
        def forward(self, lq):
            calls.append(1)
            return super().forward(lq)

    restore(film, tmp_path / 'slow.mkv', Counted(), interpolator=Mean(), encoding=LOSSLESS,
            shape=Shape(fps=Fraction(30)))
    assert len(calls) == len(read(tmp_path / 'slow.mkv')[0]) == 50  # frames that are not shown are not enlarged


@pytest.mark.parametrize('fps', [60, 10])
def test_a_recurrent_network_at_another_rate(tmp_path, fps):
    """As in two runs, also where the work was interrupted: the network does not see frames that are not shown."""
    interpolator, path = Mean() if fps == 60 else None, tmp_path / 'in.mkv'
    write_video(path, moving_clip(10, height=24, width=32), codec='ffv1', pix_fmt='bgr0', rate=FILM)
    restore(path, tmp_path / 'between.mkv', Mean(), encoding=LOSSLESS, shape=Shape(fps=Fraction(fps), only='time'))
    restore(tmp_path / 'between.mkv', tmp_path / 'expected.mkv', tiny_hoffr(), encoding=LOSSLESS)
    expected, times = read(tmp_path / 'expected.mkv')
    assert len(expected) == round(10 / FILM * fps)
    same = {'encoding': LOSSLESS, 'segment_length': 4, 'shape': Shape(fps=Fraction(fps)), 'interpolator': interpolator}
    net = tiny_hoffr()
    step, calls = net.step, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == len(expected) // 2:
            raise KeyboardInterrupt
        return step(*args)

    net.step = interrupted
    with pytest.raises(KeyboardInterrupt):
        restore(path, tmp_path / 'out.mkv', net, **same)
    restore(path, tmp_path / 'out.mkv', net, resume=True, **same)
    assert len(calls) < 2 * len(expected)
    frames, shown = read(tmp_path / 'out.mkv')
    np.testing.assert_array_equal(frames, expected)
    assert shown == times


def test_uneven_times_become_even_and_stay_in_sync(tmp_path):
    """Variable frame rate: each frame is shown from about its own time on."""
    times = [0, 1, 2, 3, 10, 11, 20, 21, 22, 30]
    levels = [20 * n for n in range(10)]
    write_video(tmp_path / 'in.mkv', [np.full((16, 16, 3), level, np.uint8) for level in levels], codec='ffv1',
                pix_fmt='bgr0', times=[Fraction(time, 10) for time in times])
    restore(tmp_path / 'in.mkv', tmp_path / 'out.mkv', Repeat(), encoding=LOSSLESS, shape=Shape(fps=Fraction(10, 3)))
    frames, shown = read(tmp_path / 'out.mkv')
    for image, time in zip(frames, shown, strict=True):
        nearest = min(range(10), key=lambda n: (abs(Fraction(times[n], 10) - time), -n))
        assert abs(Fraction(times[int(image[0, 0, 0]) // 20], 10) - time) <= abs(
            Fraction(times[nearest], 10) - time) + Fraction(1, 500)


def test_sound_is_kept_at_another_rate(tmp_path):
    write_film(tmp_path / 'film.mp4', num_frames=24)
    restore(tmp_path / 'film.mp4', tmp_path / 'out.mp4', Mean(), shape=Shape(fps=Fraction(50)))
    with open_source(tmp_path / 'film.mp4') as given, open_source(tmp_path / 'out.mp4') as made:
        assert {stream.type for stream in made.info.streams} >= {'audio'}
        assert abs(made.info.duration - given.info.duration) <= Fraction(1, 50)
        assert made.info.rate == 50


@pytest.mark.parametrize(('net', 'shape', 'message'), [
    (Repeat(), Shape(only='time'), 'Repeat does not interpolate frames; expected a network that does'),
    (Repeat(), Shape(fps=Fraction(60)), r'60 a second are more than the 24000/1001 of the video; add .*--interpolate'),
    (Pair(), Shape(fps=Fraction(60), only='space'), '--space-only keeps the frame rate'),
])
def test_what_networks_cannot_do(film, net, shape, message):  # noqa: F811
    with open_source(film) as source, pytest.raises(ValueError, match=message):
        Pipeline(net, RestoreOptions(), source.info, shape)


def test_numbers_are_positive():
    with pytest.raises(ValueError, match='height must be above 0, but is -3'):
        Shape(height=-3)
