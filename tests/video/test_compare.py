"""The page that compares two videos: what it holds, and how it behaves in a browser (Chromium, where there is one)."""
import base64
import json
import math
import re
import time
import weakref
from collections.abc import Iterable, Iterator
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from video_util import write_video

from basicsr_stvsr.io.frame_source import TimedFrame
from basicsr_stvsr.io.video_info import VideoError
from basicsr_stvsr.video import compare
from basicsr_stvsr.video.compare import write_comparison

HEIGHT, WIDTH = 48, 64


def noise(num_frames: int, seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> list[np.ndarray]:
    """RGB frames of random colours."""
    return list(np.random.default_rng(seed).integers(0, 256, (num_frames, *size, 3), np.uint8))


def disturbed(frames: Iterable[np.ndarray], amount: int, seed: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [(frame + rng.integers(-amount, amount + 1, frame.shape)).clip(0, 255).astype(np.uint8) for frame in frames]


def plain(num_frames: int, color: tuple[int, int, int]) -> list[np.ndarray]:
    """Frames of one colour; each has 5 levels more of blue than the previous one."""
    frames = np.zeros((num_frames, HEIGHT, WIDTH, 3), np.uint8) + np.uint8(color)
    frames[..., 2] += 5 * np.arange(num_frames, dtype=np.uint8)[:, None, None]
    return list(frames)


def write_folder(path: Path, frames: Iterable[np.ndarray]) -> Path:
    path.mkdir()
    for i, frame in enumerate(frames):
        cv2.imwrite(str(path / f'{i:08d}.png'), frame[..., ::-1])
    return path


def write_clip(path: Path, frames: list[np.ndarray], rate: Fraction | int, *,
               times: list[Fraction] | None = None) -> Path:
    """Matroska is lossless, and has times in milliseconds; MP4 has B-frames. `times`: seconds, default by the rate."""
    codec, pix_fmt = ('libx264', 'yuv420p') if path.suffix == '.mp4' else ('ffv1', 'bgr0')
    write_video(path, frames, codec=codec, pix_fmt=pix_fmt, rate=Fraction(rate), times=times,
                time_base=Fraction(1, 120_000))
    return path


class Page(HTMLParser):
    """A page read by the rules of HTML: its tags, the text of its scripts by id, and what it refers to."""

    VOID = {'meta', 'input', 'link', 'img', 'br'}

    def __init__(self, path: Path):
        super().__init__()
        self.tags: list[str] = []
        self.scripts: dict[str, str] = {}
        self.references: list[str] = []
        self.title = ''
        self._open: list[tuple[str, str]] = []
        self.text = path.read_text(encoding='utf-8')
        self.feed(self.text)
        self.close()
        self.data = json.loads(self.scripts['data'])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append(tag)
        self.references += [attributes[name] for name in ('src', 'href', 'srcset') if name in attributes]
        if tag not in self.VOID:
            self._open.append((tag, attributes.get('id', '')))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1][0] == 'script':
            self.scripts[self._open[-1][1]] = data
        elif self._open and self._open[-1][0] == 'title':
            self.title += data

    def close(self) -> None:
        super().close()
        assert not self._open

    def picture(self, position: int, video: int) -> np.ndarray:
        """RGB of the frame that a video shows."""
        key = self.data['shown'][position]['pictures'][video]
        encoded = np.frombuffer(base64.b64decode(self.scripts[key], validate=True), np.uint8)
        return cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1]


def scores(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """PSNR and SSIM (Gaussian windows, as in the paper that introduced it) by scikit-image."""
    return (peak_signal_noise_ratio(first, second, data_range=255),
            structural_similarity(first, second, data_range=255, channel_axis=2, gaussian_weights=True, sigma=1.5,
                                  use_sample_covariance=False))


# ---------------------------------------------------------------- numbers and pictures

@pytest.mark.parametrize('kind', ['video', 'folder'])
def test_scores_are_those_of_the_exact_frames(tmp_path, kind):
    gt = noise(4)
    videos = disturbed(gt, 40), disturbed(gt, 20), gt
    paths = [write_clip(tmp_path / f'{i}.mkv', frames, Fraction(24000, 1001)) if kind == 'video' else
             write_folder(tmp_path / str(i), frames) for i, frames in enumerate(videos)]
    result = write_comparison(paths[:2], tmp_path / 'page.html', gt=paths[2], labels=['a', 'b', 'truth'], quality=50)
    page = Page(result.path)
    assert (result.num_frames, result.num_shown) == (4, 4)
    for i, (curve, mean) in enumerate(zip(page.data['curves'], result.means, strict=True)):
        expected = np.array([scores(frame, true) for frame, true in zip(videos[i], gt, strict=True)])
        np.testing.assert_allclose(curve['psnr'], expected[:, 0], atol=1e-4)
        np.testing.assert_allclose(curve['ssim'], expected[:, 1], atol=1e-4)
        assert (mean.psnr, mean.ssim) == pytest.approx(tuple(expected.mean(axis=0)), abs=1e-4)
        assert mean[:3] == (f'{"ab"[i]} against truth', 'all', 4) and page.data['means'][i]['num_equal'] == 0
    expected_times = [n * 1001 / 24000 if kind == 'video' else n / 25 for n in range(4)]
    assert page.data['times'] == pytest.approx(expected_times, abs=5.1e-4)
    assert any('compressed' in note for note in result.notes)


def test_pictures_are_the_frames(tmp_path):
    frames = noise(3), [cv2.GaussianBlur(frame, (0, 0), 3) for frame in noise(3)]
    paths = [write_folder(tmp_path / name, video) for name, video in zip('ab', frames, strict=True)]
    lossless = Page(write_comparison(paths, tmp_path / 'lossless.html', quality=None).path)
    lossy = Page(write_comparison(paths, tmp_path / 'lossy.html').path)
    for position in range(3):
        for video in range(2):
            np.testing.assert_array_equal(lossless.picture(position, video), frames[video][position])
        # Colours of single pixels survive, which they would not at half resolution
        assert np.abs(lossy.picture(position, 0) - np.float32(frames[0][position])).mean() < 8
    assert len(lossy.text) < len(lossless.text)


def test_equal_frames_have_no_mean_psnr(tmp_path):
    frames = plain(3, (200, 30, 30))
    paths = [write_folder(tmp_path / name, frames) for name in 'ab']
    cv2.imwrite(str(paths[1] / '00000002.png'), frames[2][..., ::-1] + np.uint8(1))  # 1 level: 20 log10(255) = 48.13 dB
    result = write_comparison(paths, tmp_path / 'page.html')
    assert Page(result.path).data['curves'][0]['psnr'] == ['Infinity', 'Infinity', 48.1308]
    assert result.means[0].psnr == pytest.approx(48.1308, abs=1e-4) and result.means[0].num_equal == 2

    result = write_comparison([paths[0]] * 2, tmp_path / 'page.html')
    assert result.means[0][2:] == (3, None, 3, 1.0)


def test_frames_of_16_bits_are_scored_in_8(tmp_path):
    deep = np.full((HEIGHT, WIDTH, 3), 100 * 257 + 128, np.uint16)  # rounds to 100
    folder = write_folder(tmp_path / 'deep', [deep])
    result = write_comparison([folder, write_folder(tmp_path / 'flat', [np.full_like(deep, 102, np.uint8)])],
                              tmp_path / 'page.html', quality=None)
    assert result.means[0].psnr == pytest.approx(20 * math.log10(255 / 2))
    assert 'deep has 16 bits: it is shown, and scored, rounded to 8.' in result.notes
    assert (Page(result.path).picture(0, 0) == 100).all()


def test_names_cannot_break_the_page(tmp_path):
    paths = [write_folder(tmp_path / name, noise(1, seed))
             for seed, name in enumerate(['<b>$DATA &amp;', "'$PICTURES\"<!--<script>"])]
    # A file's name cannot hold a slash, a label can
    page = Page(write_comparison(paths, tmp_path / 'page.html').path)
    assert page.data['labels'] == [path.name for path in paths] and page.title == ' | '.join(page.data['labels'])
    labels = ['</script><b>', '</title><b>']
    page = Page(write_comparison(paths, tmp_path / 'page.html', labels=labels).path)
    assert page.data['labels'] == labels and page.title == '</script><b> | </title><b>'


def test_the_page_needs_nothing_else(tmp_path):
    paths = [write_folder(tmp_path / name, noise(2, seed)) for seed, name in enumerate('ab')]
    page = Page(write_comparison(paths, tmp_path / 'page.html').path)
    assert not page.references and not re.search(r'https?://|@import|url\(|\bfetch\b|XMLHttpRequest', page.text)
    assert page.text.startswith('<!DOCTYPE html>') and {'canvas', 'table', 'svg'} <= {*page.tags}
    ids = re.findall(r'\bid="([^"]*)"', page.text)
    assert len({*ids}) == len(ids)
    assert {*re.findall(r"byId\('([\w-]+)'\)", page.text)} <= {*ids}
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ['page.html']


# ---------------------------------------------------------------- frames that belong together

def test_containers_with_other_times(tmp_path):
    """MP4 has exact times, of which the first is not 0 in the order of decoding; Matroska has milliseconds."""
    frames = [cv2.resize(frame, (WIDTH, HEIGHT)) for frame in noise(40, size=(4, 4))]
    paths = [write_clip(tmp_path / name, frames, Fraction(24000, 1001)) for name in ('a.mp4', 'b.mkv')]
    for first, second in (paths, paths[::-1]):
        result = write_comparison([first, second], tmp_path / 'page.html')
        assert result.num_frames == 40 and result.means[0].num_frames == 40
        assert min(Page(result.path).data['curves'][0]['psnr']) > 25  # against the next frame it is 12 at most


@pytest.mark.parametrize('num_results', [7, 8])  # 2n - 1, 2n
@pytest.mark.parametrize('rate', [Fraction(24000, 1001), 30, 'folders', 'folder and video'])
def test_a_result_of_twice_the_rate_beside_its_input(tmp_path, rate, num_results):
    frames = noise(num_results)
    small = [frame[::2, ::2] for frame in frames[::2][:4]]
    is_folder = str(rate).startswith('folder')
    input_ = write_folder(tmp_path / 'in', small) if is_folder else write_clip(tmp_path / 'in.mkv', small, rate)
    if rate == 'folders':
        result = write_folder(tmp_path / 'out', disturbed(frames, 9))
    else:
        result = write_clip(tmp_path / 'out.mkv', disturbed(frames, 9), 50 if is_folder else 2 * rate)
    gt = write_folder(tmp_path / 'gt', frames) if is_folder else write_clip(tmp_path / 'gt.mkv', frames, 2 * rate)
    found = write_comparison([input_, result], tmp_path / 'page.html', gt=gt, quality=None, labels=['in', 'out', 'gt'])
    page = Page(found.path)
    assert found.num_frames == num_results and page.data['size'] == [WIDTH, HEIGHT]
    for position, shown in enumerate(page.data['shown']):
        assert shown['held'] == [position % 2 == 1, False, False]
        np.testing.assert_array_equal(page.picture(position, 0), small[position // 2])
        np.testing.assert_array_equal(page.picture(position, 2), frames[position])
    assert [(mean.compared, mean.group, mean.num_frames) for mean in found.means] == [
        ('out against gt', 'all', num_results), ('out against gt', 'given', 4),
        ('out against gt', 'between', num_results - 4)]
    assert 'in is 32x24, and is shown 2 times as large.' in found.notes
    assert 'There are no scores of in: scores need frames of the same size.' in found.notes


def test_a_ground_truth_of_twice_the_rate(tmp_path):
    frames = noise(6)
    video = write_clip(tmp_path / 'video.mkv', frames[::2], 15)
    gt = write_clip(tmp_path / 'gt.mkv', frames, 30)
    result = write_comparison([video, video], tmp_path / 'page.html', gt=gt)
    assert result.num_frames == 3 and [mean.num_equal for mean in result.means] == [3, 3]
    assert not any('ends before' in note for note in result.notes)


def test_variable_frame_rates_are_matched_by_time(tmp_path):
    times = [Fraction(ms, 1000) for ms in (0, 40, 120, 160, 240)]
    between = sorted({*times, *((a + b) / 2 for a, b in zip(times, times[1:], strict=False))})
    frames = noise(9)
    first = write_clip(tmp_path / 'first.mkv', frames[::2], 25, times=times)
    second = write_clip(tmp_path / 'second.mkv', frames, 50, times=between)
    result = write_comparison([first, second], tmp_path / 'page.html')
    assert result.num_frames == 9 and result.means[0].num_frames == result.means[0].num_equal == 5
    assert Page(result.path).data['times'] == [float(time) for time in between]


def test_a_video_that_ends_early_is_told(tmp_path):
    frames = noise(5)
    long, short = (write_clip(tmp_path / f'{n}.mkv', frames[:n], 25) for n in (5, 3))
    for videos in (long, short), (short, long):
        result = write_comparison(videos, tmp_path / 'page.html')
        assert result.num_frames == 3
        assert '3.mkv ends before the others; their later frames are left out.' in result.notes


def few_images(root: Path) -> Path:
    return write_folder(root / 'other', noise(4))


def one_frame_dropped(root: Path) -> Path:
    return write_clip(root / 'other.mkv', noise(5), 25, times=[Fraction(n, 25) for n in (0, 1, 2, 4, 5)])


@pytest.mark.parametrize('make, message', [
    (lambda root: write_clip(root / 'other.mkv', noise(6), 30),
     r'does not match .* at 0\.0\d+ s; expected frames at the same times, or a constant whole number'),
    (lambda root: write_clip(root / 'other.mkv', noise(6), Fraction(75, 2)), r'other.mkv.*37\.5 frames a second'),
    (one_frame_dropped, r'other.mkv: .*does not match .* at 0\.160 s'),
    (few_images, r'other: the folder has 4 frames and .*first has 6; expected the same'),
    (lambda root: write_clip(root / 'other.mkv', noise(6, size=(24, 48)), 25),
     r'other.mkv: frames are 48x24, those of .*first.mkv are 64x48; expected the same proportions'),
    (lambda root: root / 'missing.mp4', r'missing.mp4: no such file'),
])
def test_videos_that_do_not_match_are_refused(tmp_path, make, message):
    if make is few_images:
        first = write_folder(tmp_path / 'first', noise(6))
    else:
        first = write_clip(tmp_path / 'first.mkv', noise(6), 25)
    output = tmp_path / 'page.html'
    output.write_text('older')
    with pytest.raises(VideoError, match=message):
        write_comparison([first, make(tmp_path)], output)
    assert output.read_text() == 'older' and not list(tmp_path.glob('*.part'))


def test_an_input_beside_two_results(tmp_path):
    """Of 1.5 times its size, and of twice its rate."""
    frames = noise(5, size=(48, 72))
    input_ = write_clip(tmp_path / 'in.mkv', [cv2.resize(frame, (48, 32)) for frame in frames[::2]], 25)
    results = [write_clip(tmp_path / f'{name}.mkv', disturbed(frames, amount), 50)
               for name, amount in (('a', 9), ('b', 3))]
    found = write_comparison([input_, *results], tmp_path / 'page.html')
    data = Page(found.path).data
    assert data['mode'] == 'side-by-side' and data['size'] == [72, 48] and len(data['shown'][0]['pictures']) == 3
    assert [frame['held'][0] for frame in data['shown']] == [False, True, False, True, False]
    assert [(mean.compared, mean.group, mean.num_frames) for mean in found.means] == [
        ('a.mkv against b.mkv', 'all', 5), ('a.mkv against b.mkv', 'given', 3), ('a.mkv against b.mkv', 'between', 2)]
    assert 'in.mkv is 48x32, and is shown 1.5 times as large.' in found.notes


def test_any_rate_holds_frames(tmp_path):
    """A frame is shown until the next one: 25 and 30 a second meet every 0.2 s."""
    frames = noise(7)
    videos = [write_clip(tmp_path / f'{rate}.mp4', frames[:count], rate) for rate, count in ((25, 6), (30, 7))]
    result = write_comparison(videos, tmp_path / 'page.html', any_rate=True)
    data = Page(result.path).data
    # At 0, 1/30, ... 6/30 s, the frames n/25 at or before
    assert [frame['pictures'][0] for frame in data['shown']] == [f'picture-0-{n}' for n in (0, 0, 1, 2, 3, 4, 5)]
    assert [curve is None for curve in data['curves'][0]['psnr']] == [False, True, True, True, True, True, False]


@pytest.mark.parametrize('options, message', [
    ({'output': 'page.mp4'}, r'page\.mp4: the page needs a name that ends in \.html'),
    ({'mode': 'wipe'}, "mode must be one of slider, side-by-side, difference, got 'wipe'"),
    ({'labels': ['a']}, 'expected 2 labels, one for each video, got 1'),
    ({'max_frames': 0}, 'expected max_frames of 1 or more'),
    ({'quality': 101}, 'quality must be 1 to 100, or None for lossless pictures, got 101'),
])
def test_wrong_arguments_are_refused(tmp_path, options, message):
    folder = write_folder(tmp_path / 'a', noise(2))
    options = {'output': 'page.html'} | options
    with pytest.raises(ValueError, match=message):
        write_comparison([folder, folder], tmp_path / options.pop('output'), **options)
    assert [path.name for path in tmp_path.iterdir()] == ['a']


def test_a_folder_that_does_not_exist_is_found_out_before_frames_are_read(tmp_path):
    folder = write_folder(tmp_path / 'a', noise(2))
    (folder / '00000001.png').write_bytes(b'damaged')
    with pytest.raises(FileNotFoundError, match='nowhere'):
        write_comparison([folder, folder], tmp_path / 'nowhere/page.html')


# ---------------------------------------------------------------- long videos

class FakeSource:
    """A video that makes frames on request and counts how many of them are in memory."""

    alive = most_alive = 0

    def __init__(self, num_frames: int, size: tuple[int, int] = (16, 16), value: int = 0):
        self.size, self.value = size, value
        self.info = SimpleNamespace(path=Path('fake'), width=size[1], height=size[0], rate=Fraction(25), bits=8,
                                    num_frames=num_frames, about_frames=num_frames, duration=Fraction(num_frames, 25))

    def frames(self) -> Iterator[TimedFrame]:
        for number in range(self.info.num_frames):
            image = np.full((*self.size, 3), (number + self.value) % 256, np.uint8)
            FakeSource.alive += 1
            FakeSource.most_alive = max(FakeSource.most_alive, FakeSource.alive)
            weakref.finalize(image, self.forget)
            yield TimedFrame(image, Fraction(number, 25))

    @staticmethod
    def forget() -> None:
        FakeSource.alive -= 1

    def __enter__(self) -> 'FakeSource':
        return self

    def __exit__(self, *_: Any) -> None:
        pass


@pytest.fixture
def fake_videos(monkeypatch):
    """Puts fake sources in the place of files."""
    def install(*sources: FakeSource) -> None:
        remaining = iter(sources)
        monkeypatch.setattr(compare, 'open_source', lambda *_, **__: next(remaining))

    return install


def test_few_frames_are_in_memory(tmp_path, fake_videos, monkeypatch):
    monkeypatch.setattr(compare.os, 'sched_getaffinity', lambda _: {0, 1}, raising=False)
    fake_videos(FakeSource(300), FakeSource(300, value=3))
    calls = []
    result = write_comparison(['a', 'b'], tmp_path / 'page.html', max_frames=10,
                              progress=lambda done, total: calls.append((done, total)))
    # Two videos; on two threads four pairs wait, one is begun, one is finished, and each video has read one ahead
    assert FakeSource.most_alive <= 2 * 8
    assert calls == [(n, 300) for n in range(1, 301)]
    assert len(Page(result.path).data['curves'][0]['psnr']) == 300


@pytest.mark.parametrize('limits, expected', [
    ({}, range(100)),
    ({'max_frames': 40}, range(0, 100, 3)),
    ({'max_frames': 33}, range(0, 100, 9)),
    ({'max_frames': 1}, [0]),
])
def test_frames_shown_are_limited(tmp_path, fake_videos, limits, expected):
    fake_videos(FakeSource(100), FakeSource(100, value=3))
    result = write_comparison(['a', 'b'], tmp_path / 'page.html', **limits)
    data = Page(result.path).data
    assert [frame['number'] for frame in data['shown']] == [*expected] and result.num_shown == len(expected)
    assert len(data['times']) == len(data['curves'][0]['ssim']) == 100
    notes = [note for note in result.notes if note.startswith(f'{len(expected)} of 100 frames are shown')]
    assert len(notes) == (len(expected) < 100)


def test_the_page_is_no_larger_than_allowed(tmp_path, fake_videos):
    # A picture takes about 300 bytes as AVIF, and 400 in base64
    fake_videos(FakeSource(60), FakeSource(60, value=3))
    result = write_comparison(['a', 'b'], tmp_path / 'page.html', max_megabytes=0.03)
    pictures = [text for name, text in Page(result.path).scripts.items() if name.startswith('picture')]
    assert len(pictures) == 2 * result.num_shown and result.num_shown in (20, 7)
    assert sum(map(len, pictures)) <= 0.03e6


# ---------------------------------------------------------------- in a browser

RED, GREEN = (200, 30, 30), (30, 200, 30)


@pytest.fixture(scope='module')
def two_colors(tmp_path_factory) -> Path:
    """Six frames of red beside green ones."""
    root = tmp_path_factory.mktemp('colors')
    paths = [write_folder(root / name, plain(6, color)) for name, color in (('red', RED), ('green', GREEN))]
    return write_comparison(paths, root / 'page.html', quality=None).path


def share_of_red(picture: np.ndarray, box: tuple[float, ...], number: int) -> float:
    """Which part of the stage, from the left, shows the red frame of that number; all the rest must show the green."""
    x, y, width, height = map(round, box)
    row = picture[y + height * 3 // 4, x + 1:x + width - 1]
    is_red, is_green = ((np.abs(row - (*color[:2], 30 + 5 * number)) <= 1).all(axis=1) for color in (RED, GREEN))
    left = int(is_red.sum())
    assert is_red[:left].all() and is_green[left + 16:].all()  # the divider, and its shadow
    return left / len(row)


def test_dragging_the_slider(browser, two_colors):
    browser.open(two_colors)
    stage = x, y, width, height = browser.box('#stage')
    assert width / height == pytest.approx(WIDTH / HEIGHT, abs=0.01) and width > 400
    assert share_of_red(browser.screenshot(), stage, 0) == pytest.approx(0.5, abs=0.02)
    browser.drag((x + width * 0.5, y + height * 0.5), (x + width * 0.8, y + height * 0.4))
    assert share_of_red(browser.screenshot(), stage, 0) == pytest.approx(0.8, abs=0.02)
    assert browser.run('divider.getAttribute("aria-valuenow")') == '80'
    # Anywhere on the picture; and a mouse that is not pressed moves nothing
    browser.drag((x + width * 0.1, y + height * 0.9), (x + width * 0.25, y + height * 0.9))
    browser.mouse('mouseMoved', x + width * 0.9, y + height * 0.9, button='none')
    assert share_of_red(browser.screenshot(), stage, 0) == pytest.approx(0.25, abs=0.02)
    # Beyond the end
    browser.drag((x + width * 0.25, y + height * 0.5), (x + width + 40, y + height * 0.5))
    assert browser.run('divide') == 1
    assert not browser.complaints()


def test_dragging_with_a_finger(browser, two_colors):
    browser.open(two_colors, width=390, touch=True)
    assert browser.run('document.documentElement.scrollWidth') == 390
    stage = x, y, width, height = browser.box('#stage')
    browser.touch('touchStart', (x + width * 0.5, y + height * 0.5))
    for part in np.linspace(0.5, 0.7, 8):
        browser.touch('touchMove', (x + width * part, y + height * 0.5))
    browser.touch('touchEnd')
    assert share_of_red(browser.screenshot(), stage, 0) == pytest.approx(0.7, abs=0.03)
    # Two fingers that move apart, to three times their distance
    for kind, part in [('touchStart', 0.05), *(('touchMove', part) for part in np.linspace(0.05, 0.15, 8))]:
        browser.touch(kind, *((x + width * place, y + height * 0.8) for place in (0.5 - part, 0.5 + part)))
    browser.touch('touchEnd')
    assert browser.run('zoom.scale / fittingScale(cells().cells[0])') == pytest.approx(3, abs=0.7)
    assert not browser.complaints()


def test_keys(browser, two_colors):
    browser.open(two_colors)
    stage = browser.box('#stage')
    for key, number in (('ArrowRight', 1), ('ArrowRight', 2), ('ArrowLeft', 1), ('End', 5), ('Home', 0)):
        browser.key(key)
        browser.wait_for(f'current.position === {number}')
        assert share_of_red(browser.screenshot(), stage, number) == pytest.approx(0.5, abs=0.02)
    assert browser.run('byId("place").textContent') == 'frame 0 of 0\u20135, 0:00.000'
    for key, share in (('1', 1), ('2', 0), ('3', 0.5)):
        browser.key(key)
        assert share_of_red(browser.screenshot(), stage, 0) == pytest.approx(share, abs=0.02)
    # Of two frames asked for at once, the later stays, though the earlier is ready last
    assert browser.run("""(async () => {
        const key = data.shown[4].pictures[0], picture = load(key);
        cache.set(key, new Promise(resolve => setTimeout(() => resolve(picture), 100)));
        await Promise.all([show(4), show(0)]);
        return current.position;
    })()""") == 0
    browser.run('divider.focus()')
    for key, part in (('ArrowRight', 0.51), ('End', 1), ('ArrowLeft', 0.99)):
        browser.key(key)
        assert browser.run('divide') == pytest.approx(part) and browser.run('current.position') == 0
    assert not browser.complaints()


def test_playing(browser, two_colors):
    browser.open(two_colors)
    browser.click('#next')
    browser.wait_for('current.position === 1')
    browser.click('#play')
    browser.wait_for('current.position === 5')
    browser.wait_for('current.position === 0')  # from the start again
    browser.click('#play')
    position = browser.run('current.position')
    time.sleep(0.15)  # of which three frames would be shown
    assert browser.run('current.position') <= position + 1 and browser.run('byId("play").textContent') == 'Play'
    assert not browser.complaints()


def test_side_by_side_and_difference(browser, tmp_path):
    colors = {'red': RED, 'green': GREEN, 'gt': (100, 100, 30)}
    paths = [write_folder(tmp_path / name, plain(2, color)) for name, color in colors.items()]
    page = write_comparison(paths[:2], tmp_path / 'page.html', gt=paths[2], quality=None, mode='side-by-side').path
    browser.open(page)
    picture = browser.screenshot()
    middles = browser.run('cells().cells.map(cell => [cell.x + cell.width / 2, cell.y + cell.height / 2])')
    left, top, *_ = browser.box('#stage')
    assert [tuple(picture[round(top + y), round(left + x)]) for x, y in middles] == [*colors.values()]

    # |200 - 100|, |30 - 100|, 0 are 100, 70, 0; twice, and cut off at white
    browser.click('[data-mode=difference]')
    browser.run('byId("right").value = 2; byId("right").dispatchEvent(new Event("change"))')
    left, top, width, height = browser.box('#stage')
    for gain, color in ((0, (100, 70, 0)), (1, (200, 140, 0)), (2, (255, 255, 0))):
        browser.run(f'byId("gain").value = {gain}; byId("gain").dispatchEvent(new Event("change"))')
        assert tuple(browser.screenshot()[round(top + height / 2), round(left + width / 2)]) == color
    browser.click('[data-mode=slider]')
    assert browser.run('divider.hidden') is False
    assert not browser.complaints()


def test_zoom_shows_the_pixels(browser, tmp_path):
    frames = noise(1)
    small = frames[0][::2, ::2]
    paths = [write_folder(tmp_path / 'small', [small]), write_folder(tmp_path / 'large', frames)]
    browser.open(write_comparison(paths, tmp_path / 'page.html', quality=None).path)
    assert browser.run('byId("timeline").hidden')  # of one frame
    assert browser.run('byId("scores").hidden')  # there are none of videos of two sizes
    x, y, width, height = browser.box('#stage')
    browser.mouse('mouseWheel', x + width / 2, y + height / 2, button='none', deltaX=0, deltaY=-800, modifiers=2)
    browser.wait_for('zoom !== null')
    scale = browser.run('zoom.scale')
    for key, image, factor in (('2', frames[0], 1), ('1', small, 2)):
        browser.key(key)
        shown = browser.screenshot()
        # The middle of the stage is the upper left corner of the pixel 24, 32
        for row, column in ((24, 32), (27, 29), (21, 34)):
            left, top = x + width / 2 + (column - 32) * scale, y + height / 2 + (row - 24) * scale
            square = shown[round(top) + 2:round(top + scale) - 2, round(left) + 2:round(left + scale) - 2]
            assert len(square) > 20 and (square == image[row // factor, column // factor]).all()
    # Dragging the picture, not the divider, now moves it
    before = browser.run('zoom.x')
    browser.key('3')
    browser.drag((x + width * 0.2, y + height * 0.8), (x + width * 0.2 + 2 * scale, y + height * 0.8))
    assert browser.run('zoom.x') == pytest.approx(before - 2, abs=0.1) and browser.run('divide') == 0.5
    browser.key('0')
    assert browser.run('zoom') is None
    assert not browser.complaints()


def test_curves(browser, tmp_path):
    gt = noise(30)
    videos = [disturbed(gt, 40), [*disturbed(gt[:29], 20), gt[29]], gt]
    paths = [write_folder(tmp_path / name, video) for name, video in zip(('a', 'b', 'gt'), videos, strict=True)]
    result = write_comparison(paths[:2], tmp_path / 'page.html', gt=paths[2], max_frames=10)
    browser.open(result.path, dark=True)
    assert browser.run('document.querySelectorAll("svg path").length') == 4
    rows = browser.run('[...byId("means").rows].map(row => [...row.cells].map(cell => cell.textContent))')
    assert rows[1:] == [[mean.compared, '30', f'{mean.psnr:.2f}', f'{mean.ssim:.4f}', str(mean.num_equal)]
                        for mean in result.means]
    # A click at frame 16 goes to frame 15, the nearest one that is shown, and the cursor goes there
    browser.run('document.querySelector("svg").scrollIntoView()')
    left, top, _, height = browser.box('svg')
    place = left + browser.run('plots[0].x(16)')
    browser.drag((place, top + height / 2), (place, top + height / 2))
    browser.wait_for('data.shown[current.position].number === 15')
    assert float(browser.run('plots[1].cursor.getAttribute("x1")')) == pytest.approx(browser.run('plots[1].x(15)'))
    values = 'plots[0].values.map(value => value.textContent)'
    psnr = [curve['psnr'] for curve in Page(result.path).data['curves']]
    browser.mouse('mouseMoved', place, top + height / 3, button='none')
    assert browser.run(values) == [f'{curve[16]:.2f} dB (frame 16)' for curve in psnr]
    browser.mouse('mouseMoved', 2, 2, button='none')
    assert browser.run(values) == [f'{curve[15]:.2f} dB' for curve in psnr]
    browser.run('plots[0].readOut(29)')
    assert browser.run(values)[1] == '\u221e dB (frame 29)'
    # The line goes through the values: its points are as far apart as the scores
    y0, y1, y2 = browser.run('[...document.querySelector("svg path").getAttribute("d").matchAll(/ ([0-9.]+)/g)]'
                             '.slice(0, 3).map(match => Number(match[1]))')
    assert (y1 - y0) / (y2 - y0) == pytest.approx((psnr[0][1] - psnr[0][0]) / (psnr[0][2] - psnr[0][0]), rel=0.05)
    # Where there are more frames than pixels
    browser.run('points = [4, 1, 9, Infinity, 2, 6].map((y, x) => ({x, y}))')
    assert browser.run('summarize(points, 2, lowestAndHighest).map(point => point.x)') == [1, 2, 3, 4]
    assert browser.run('summarize(points, 2, mean)') == [{'x': 1, 'y': 14 / 3}, {'x': 4.5, 'y': 4}]
    assert not browser.complaints()
