"""Run the main workflow end to end on a few clips: data, training, test, pictures. `make demo` runs it.

    python scripts/demo/run_demo.py                  # clips made from photographs, see make_demo_clips.py
    python scripts/demo/run_demo.py --clip my.mp4    # your own video
"""
import argparse
import json
import math
import multiprocessing
import os
import runpy
import shlex
import shutil
import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np

from basicsr_stvsr.config.loading import load_options
from basicsr_stvsr.io.frames import FrameReader, FrameReadError
from basicsr_stvsr.io.opening import open_color_reader
from basicsr_stvsr.utils.processes import server_context

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / 'datasets/demo'
OUTPUT = ROOT / 'demo_output'
SCALE = 4

TRAIN_OPTION = 'options/demo/train_mbnet_small.yml'
BASELINE = 'bicubic + averaging'
TEST_OPTIONS = {
    BASELINE: 'options/demo/test_bicubic.yml',
    'MBNet small': 'options/demo/test_mbnet_small.yml',
}
METRICS = ('psnr', 'ssim', 'niqe')
MEANING = '''
VSR   frames that the network was given, enlarged by 4
VFI   frames between them, which it had to make
PSNR  distance from the true frames in dB; higher is better; 3 dB more halve the mean squared error
SSIM  likeness to the true frames, at most 1; higher is better
NIQE  how unnatural a frame looks, without the true one; lower is better

The training started from the weights that ship with the package. In so few iterations it hardly changes the scores:
the gain over the baseline was there before. It shows how to train; a real training takes hours.
'''
NEXT = '''
What to try next:
  your own video, 4 times larger, at twice the rate:  {python} -m basicsr_stvsr restore my.mp4 large.mp4
  this demo with your own video:                      make demo CLIP=my.mp4
  a longer training:                                  {python} scripts/demo/run_demo.py --total_iter 1000
'''

# Limits on the used part of a user's video, so that any video takes minutes; the first limit reached applies.
MAX_FRAMES, MAX_PIXELS = 300, 150e6
MIN_FRAMES = 24  # if larger frames allow fewer than these, they are downscaled
MIN_SHORT_SIDE, MIN_LONG_SIDE = 128, 192  # pixels: gt_size of the training; two blocks of 96, which NIQE needs
TEST_SHARE = 0.2
MIN_CLIP_FRAMES = 3  # two input frames, and one between them

FPS = 10  # of the comparison: slow enough to see the frames


def run(script: str, *args: str | Path | float) -> None:
    """Run a script of the repository; end the demo if it fails."""
    command = [script, *map(str, args)]
    print(f'$ python {shlex.join(command)}', flush=True)
    code = start(command)
    if code:
        sys.exit(f'\nThe demo stopped: {script} ended with code {code}; its output is above.')


def start(command: list[str]) -> int | None:
    """Run `python *command` in a process that has imported the package, which takes seconds; return its exit code."""
    process = server_context('basicsr_stvsr.train').Process(target=execute, args=(command,))
    process.start()
    process.join()
    return process.exitcode


def execute(command: list[str]) -> None:
    multiprocessing.set_start_method(None, force=True)  # the default again, for processes that the script starts
    os.chdir(ROOT)
    sys.argv, sys.path[0] = command, str(ROOT / Path(command[0]).parent)
    runpy.run_path(command[0], run_name='__main__')


def make_clips() -> None:
    run('scripts/demo/make_demo_clips.py', '--output', DATA / 'clips')


def cut_video(video: Path) -> None:
    """Split the beginning of the user's video at scene cuts into clips; the last part is for testing."""
    try:
        with open_color_reader(video) as reader:
            copy_beginning(reader, DATA / 'video')
    except FrameReadError as error:
        sys.exit(f'The demo stopped: {error}')
    run('scripts/data_preparation/extract_frames.py', '--input', DATA / 'video', '--output', DATA / 'scenes')
    hold_out(DATA / 'scenes', DATA / 'clips')


def copy_beginning(reader: FrameReader, output: Path) -> None:
    """Write as many frames of a video as the limits allow to <output>/<clip>/.

    If the limits allow too few frames, average squares of pixels. Crop rows and columns to a multiple of the scale. End
    the demo if there are too few frames, or if they are too small.
    """
    clip = reader.clips[0]
    available, (full_height, full_width) = reader.num_frames(clip), reader.frame_size(clip)
    side = math.ceil(math.sqrt(MIN_FRAMES * full_height * full_width / MAX_PIXELS))  # of a square, in pixels
    height, width = (length // (side * SCALE) * SCALE for length in (full_height, full_width))
    if min(height, width) < MIN_SHORT_SIDE or max(height, width) < MIN_LONG_SIDE:
        shrunk = f', cropped and reduced to {width}x{height}' if side > 1 else ''
        sys.exit(f'The demo stopped: the frames of {reader.path} are {full_width}x{full_height}{shrunk}; it needs '
                 f'at least {MIN_LONG_SIDE}x{MIN_SHORT_SIDE} or {MIN_SHORT_SIDE}x{MIN_LONG_SIDE}.')
    if available < 2 * MIN_CLIP_FRAMES:
        sys.exit(f'The demo stopped: {reader.path} has {available} frames; it needs at least {2 * MIN_CLIP_FRAMES}, '
                 'some to train on and some to test on.')

    num_frames = min(available, MAX_FRAMES, int(MAX_PIXELS / (height * width)))
    resized = f', reduced to {width}x{height}' if side > 1 else ''
    print(f'{reader.path}: taking the first {num_frames} of {available} frames, {full_width}x{full_height}{resized}')
    folder = output / clip
    folder.mkdir(parents=True)
    for index in range(num_frames):
        frame = reader.frame(clip, index)[:height * side, :width * side]
        frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(folder / f'{index:08d}.png'), frame)


def hold_out(scenes: Path, output: Path) -> None:
    """Move the last fifth of every scene to <output>/test/<scene>/, and the rest to <output>/train/<scene>/.

    A scene too short for both is used for training.
    """
    found, longest = set(), 0
    for scene in sorted(scenes.iterdir()):
        frames = sorted(scene.iterdir())
        longest = max(longest, len(frames))
        num_test = max(round(TEST_SHARE * len(frames)), MIN_CLIP_FRAMES)
        first_test = len(frames) - num_test if len(frames) - num_test >= MIN_CLIP_FRAMES else len(frames)
        for split, part in (('train', frames[:first_test]), ('test', frames[first_test:])):
            if len(part) < MIN_CLIP_FRAMES:
                continue
            found.add(split)
            folder = output / split / scene.name
            folder.mkdir(parents=True)
            for frame in part:
                frame.rename(folder / frame.name)
            print(f'{split}: frames {part[0].stem} to {part[-1].stem} of {scene.name}')
    if found != {'train', 'test'}:
        sys.exit(f'The demo stopped: it needs a video with a scene of at least {2 * MIN_CLIP_FRAMES} frames; '
                 f'between the cuts found in this one, the longest has {longest}.')


def write_lmdbs() -> None:
    for split in ('train', 'test'):
        run('scripts/data_preparation/create_lmdb.py', '--dataset', 'folder', '--input', DATA / 'clips' / split,
            '--output', DATA / f'{split}_GT.lmdb', '--verify')


def make_lr() -> None:
    for split in ('train', 'test'):
        run('scripts/data_preparation/make_lr.py', '--input', DATA / f'{split}_GT.lmdb',
            '--output', DATA / f'{split}_LRx{SCALE}.lmdb', '--scale', SCALE)


def train(total_iter: int | None) -> None:
    # The learning rate decays over all iterations; BasicSR's scheduler has none after its last period.
    forced = () if total_iter is None else (
        '--force_yml', f'train:total_iter={total_iter}', f'train:scheduler:periods=[{total_iter}]')
    run('basicsr/train.py', '-opt', TRAIN_OPTION, *forced)


def test() -> None:
    for option in TEST_OPTIONS.values():
        run('basicsr/test.py', '-opt', option)


class Result:
    """Results of basicsr/test.py for an option file."""

    def __init__(self, option: str):
        opt = load_options(str(ROOT / option))
        dataset, = (dataset['name'] for dataset in opt['datasets'].values())
        self.name = opt['name']
        folder = ROOT / 'results' / self.name
        self.scores = json.loads((folder / f'{dataset}.json').read_text(encoding='utf-8'))['average']
        self.frames = folder / 'visualization' / dataset

    def frame(self, clip: str, frame_name: str) -> np.ndarray:
        path = self.frames / clip / f'{frame_name}_{self.name}.png'
        image = cv2.imread(str(path))
        if image is None:
            sys.exit(f'The demo stopped: {path} was not written; val: save_img must be true in the test options.')
        return image


def format_table(scores: dict[str, dict[str, dict[str, float | None]]]) -> str:
    """Format `{method: {metric: {'vsr': ..., 'vfi': ...}}}` as a table with a line per method; None: no scores."""
    def cell(metric: str, value: float | None) -> str:
        return f'{"none":>8}' if value is None else f'{value:8.{4 if metric == "ssim" else 2}f}'

    titles = ''.join(f'{metric.upper():>8}' for metric in METRICS)
    lines = [
        f'{"":22}{"VSR (frames given)":^24}   {"VFI (frames between)":^24}',
        f'{"":22}{titles}   {titles}',
    ]
    for method, values in scores.items():
        cells = [''.join(cell(metric, values[metric][kind]) for metric in METRICS) for kind in ('vsr', 'vfi')]
        lines.append(f'{method:22}' + '   '.join(cells))
    return '\n'.join(lines)


def label(image: np.ndarray, text: str) -> np.ndarray:
    """Draw the image below a strip with a text."""
    size = max(0.45, image.shape[1] / 640)
    height = 2 * round(22 * size)  # even, for H.264
    strip = np.zeros((height, image.shape[1], 3), np.uint8)
    cv2.putText(strip, text, (6, int(0.68 * height)), cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), 1, cv2.LINE_AA)
    return np.vstack([strip, image])


def zoom(image: np.ndarray, top: int, left: int) -> np.ndarray:
    """Enlarge a third of the image to the full size without smoothing."""
    height, width = image.shape[:2]
    crop = image[top:top + height // 3, left:left + width // 3]
    return cv2.resize(crop, (width, height), interpolation=cv2.INTER_NEAREST)


def worst_part(image: np.ndarray, truth: np.ndarray) -> tuple[int, int]:
    """Return top and left of the third of the image that differs most from the truth."""
    height, width = image.shape[0] // 3, image.shape[1] // 3
    sums = cv2.integral(cv2.absdiff(image, truth).astype(np.float32).mean(axis=2))
    boxes = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = np.unravel_index(boxes.argmax(), boxes.shape)
    return int(top), int(left)


class Comparison:
    """The views of every test frame: input, one view per method, ground truth."""

    def __init__(self, results: dict[str, Result]):
        self.results = results
        self.gt = open_color_reader(DATA / 'test_GT.lmdb')
        self.lq = open_color_reader(DATA / f'test_LRx{SCALE}.lmdb')

    def views(self, clip: str, index: int) -> dict[str, np.ndarray]:
        """Return title -> frame; where the network got no frame (odd indices), the input is the previous one."""
        frame_name = self.gt.frame_name(clip, index)
        given = self.lq.frame(clip, index - index % 2)
        enlarged = cv2.resize(given, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_NEAREST)
        return {
            'LR input' if index % 2 == 0 else 'LR input before': enlarged,
            **{method: result.frame(clip, frame_name) for method, result in self.results.items()},
            'ground truth': self.gt.frame(clip, index),
        }

    def picture(self, clip: str) -> np.ndarray:
        """Draw a given and an interpolated frame, whole and enlarged, with views side by side.

        The enlarged part is the one where the baseline is farthest from the truth.
        """
        middle = max(2, self.gt.num_frames(clip) // 4 * 2)  # even, with a frame between it and the previous one
        rows = []
        for kind, index in (('VSR', middle), ('VFI', middle - 1)):
            views = self.views(clip, index)
            truth = views['ground truth']
            corner = worst_part(views[BASELINE], truth)
            titles = [f'{kind}: {title}' + (f' {cv2.PSNR(image, truth):.1f} dB' if title in TEST_OPTIONS else '')
                      for title, image in views.items()]
            rows.append(np.hstack([label(image, title) for title, image in zip(titles, views.values(), strict=True)]))
            rows.append(np.hstack([zoom(image, *corner) for image in views.values()]))
        return np.vstack(rows)

    def video_frames(self) -> Iterable[np.ndarray]:
        """Yield the frames of all test clips one after another, with views in two columns."""
        for clip in self.gt.clips:
            for index in range(last_frame(self.gt, clip) + 1):
                a, b, c, d = (label(image, title) for title, image in self.views(clip, index).items())
                yield np.vstack([np.hstack([a, b]), np.hstack([c, d])])


def last_frame(reader: FrameReader, clip: str) -> int:
    """Return the last frame of a clip with a result; nothing follows the last one of an even number of frames."""
    return (reader.num_frames(clip) - 1) // 2 * 2


def write_video(path: Path, frames: Iterable[np.ndarray]) -> None:
    """Write BGR frames of one even size as H.264."""
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=FPS, options={'crf': '16'})
        stream.pix_fmt = 'yuv420p'
        for image in frames:
            if not stream.codec_context.is_open:
                stream.height, stream.width = image.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format='bgr24')))
        container.mux(stream.encode())


def show() -> None:
    """Print the table; write the picture and the video."""
    results = {method: Result(option) for method, option in TEST_OPTIONS.items()}
    comparison = Comparison(results)
    OUTPUT.mkdir(exist_ok=True)
    picture, video = OUTPUT / 'side_by_side.png', OUTPUT / 'side_by_side.mp4'
    cv2.imwrite(str(picture), comparison.picture(comparison.gt.clips[0]))
    write_video(video, comparison.video_frames())

    print(format_table({method: result.scores for method, result in results.items()}))
    print(MEANING)
    print(f'picture: {picture}, enlarged where {BASELINE} is farthest from the truth\nvideo:   {video}\n'
          f'report:  {ROOT / "experiments" / load_options(str(ROOT / TRAIN_OPTION))["name"] / "report.html"}, of the '
          'training')
    print(NEXT.format(python=os.path.relpath(sys.executable)))


def user_path(text: str) -> Path:
    return Path(os.path.expanduser(text))


def is_within(path: Path, folder: Path) -> bool:
    """Whether removing `folder` would remove `path` (a file or a link), or the target of the link."""
    places = path.resolve(), path.parent.resolve() / path.name
    return any(place.is_relative_to(folder.resolve()) for place in places)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--clip', type=user_path, help='your own video, instead of the clips made from photographs')
    parser.add_argument('--total_iter', type=int, help='iterations of the training (default: as in its option file)')
    args = parser.parse_args()
    if args.clip is not None and not args.clip.is_file():
        parser.error(f'--clip {args.clip}: no such file')
    for folder in (DATA, OUTPUT):
        if args.clip is not None and is_within(args.clip, folder):
            parser.error(f'--clip {args.clip}: the demo replaces the contents of {folder}; move the file elsewhere')
    if args.total_iter is not None and args.total_iter < 1:
        parser.error(f'--total_iter must be at least 1, got {args.total_iter}')

    steps = [
        ('Make clips of known camera motion', make_clips) if args.clip is None else
        (f'Cut {args.clip.name} into clips', partial(cut_video, args.clip.resolve())),
        ('Write the frames to LMDBs', write_lmdbs),
        ('Make the low-resolution frames', make_lr),
        ('Train the small network', partial(train, args.total_iter)),
        ('Test it, and bicubic enlargement with frame averaging', test),
        ('Compare', show),
    ]
    start = time.monotonic()
    shutil.rmtree(DATA, ignore_errors=True)
    for number, (title, step) in enumerate(steps, 1):
        step_start = time.monotonic()
        print(f'\n=== {number}/{len(steps)}  {title}', flush=True)
        step()
        print(f'--- {time.monotonic() - step_start:.0f} s', flush=True)
    print(f'\nDone in {time.monotonic() - start:.0f} s.')


if __name__ == '__main__':
    main()
