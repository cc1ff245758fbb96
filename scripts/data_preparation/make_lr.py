"""Create low-resolution, optionally blurred clips from sharp ones (a folder of clips, an LMDB or a video), in RGB.

    python scripts/data_preparation/make_lr.py --input datasets/reds_train_sharp.lmdb \
        --output datasets/reds_train_sharp_bicubic.lmdb --scale 4

Clip and frame names do not change. Frames are cropped at the right and bottom to a multiple of the scale.
"""
import argparse
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from script_util import add_output_options, open_writer, positive, run, write

from basicsr_stvsr.data.degradations import Degradation, build_degradation, linear_light_average, mod_crop
from basicsr_stvsr.data.motion_blur import LONGEST_EXPOSURE, motion_blur
from basicsr_stvsr.io.frames import FrameReader
from basicsr_stvsr.io.lmdb_files import FrameSource, clip_frames
from basicsr_stvsr.io.opening import open_color_reader
from basicsr_stvsr.utils.background import bounded_map

SUB_FRAMES = 7  # as for motion_blur of a data set
Blur = Callable[[list[np.ndarray], int], np.ndarray]  # blurs one frame, given its neighbours and its index among them


def windows(frames: Iterable[np.ndarray], num_frames: int, radius: int, *,
            is_symmetric: bool) -> Iterator[tuple[list[np.ndarray], int]]:
    """Yield a window around each of `num_frames` frames, and the frame's index in it, holding only one window.

    Windows shrink near the ends of a clip. Symmetric ones shrink on both sides alike, down to the frame alone.
    """
    frames = iter(frames)
    held: deque[np.ndarray] = deque()
    first = 0  # index of held[0]
    for index in range(num_frames):
        before, behind = min(radius, index), min(radius, num_frames - 1 - index)
        if is_symmetric:
            before = behind = min(before, behind)
        while first + len(held) <= index + behind:
            held.append(next(frames))
        while first < index - before:
            held.popleft()
            first += 1
        yield list(held), before


def average(window: list[np.ndarray], number: int) -> np.ndarray:
    return linear_light_average(window) if len(window) > 1 else window[number]


def blur_motion(window: list[np.ndarray], number: int, exposure: float, num_frame: int) -> np.ndarray:
    return motion_blur(window, exposure, num_frame=num_frame, which=[number])[0]


def low_resolution_frames(reader: FrameReader, degrade: Degradation, args: argparse.Namespace) -> Iterator[FrameSource]:
    """Yield the frames of all clips, blurred and degraded; each is decoded once."""
    blur, radius = average, args.blur_frames // 2
    if args.exposure:
        blur, radius = partial(blur_motion, exposure=args.exposure, num_frame=args.sub_frames), 1
    for clip in reader.clips:
        sharp = list(clip_frames(reader, clip))
        if sharp[0].in_threads:
            decoded = bounded_map(lambda frame: frame.load(), sharp, args.workers)
        else:
            decoded = (frame.load() for frame in sharp)
        # An asymmetric average would be shifted against the sharp frame. Motion blur is not: without a neighbour, that
        # side has no motion.
        around = windows(decoded, len(sharp), radius, is_symmetric=not args.exposure)
        for frame, (window, number) in zip(sharp, around, strict=True):
            yield frame._replace(load=partial(blur_and_degrade, window, number, blur, degrade), in_threads=True)


def blur_and_degrade(window: list[np.ndarray], number: int, blur: Blur, degrade: Degradation) -> np.ndarray:
    return degrade(mod_crop(blur(window, number), degrade.scale))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--input', type=Path, required=True, help='folder of clips, LMDB or video')
    parser.add_argument('--output', type=Path, required=True, help='<name>.lmdb, or a folder for PNGs')
    parser.add_argument('--scale', type=int, required=True, choices=(1, 2, 3, 4), help='1 only blurs')
    parser.add_argument('--degradation', default='bicubic', choices=('bicubic', 'gaussian', 'blur_bicubic'),
                        help="MATLAB's bicubic, Gaussian blur and sampling, or Gaussian blur and bicubic "
                        '(default: %(default)s)')
    blur = parser.add_argument_group('options of the blur (defaults: of gaussian; of blur_bicubic)')
    blur.add_argument('--sigma', type=float, help='standard deviation in pixels (1.6; 2)')
    blur.add_argument('--kernel-size', type=int, help='odd number of taps (13; 5)')
    blur.add_argument('--border', choices=('reflect', 'replicate', 'symmetric'), help='(reflect; replicate)')
    blur.add_argument('--rounding', choices=('round', 'floor'), help='only of gaussian (round)')
    motion = parser.add_argument_group('motion blur, before all else; the sharp frame stays the ground truth')
    kind = motion.add_mutually_exclusive_group()
    kind.add_argument('--exposure', type=float, metavar='E',
                      help='as an exposure of E times the time between two frames records it, 0 < E <= 2, of frames '
                      'interpolated along optical flow')
    kind.add_argument('--blur-frames', type=positive, default=1, metavar='N',
                      help='as the average of N neighbouring frames, N odd; for clips of a high frame rate')
    motion.add_argument('--sub-frames', type=positive, metavar='N',
                        help=f'with --exposure: number of interpolated frames, odd (default: {SUB_FRAMES})')
    add_output_options(parser)
    args = parser.parse_args()
    if args.blur_frames % 2 == 0:
        parser.error(f'--blur-frames must be odd, so that one frame is in the middle; got {args.blur_frames}')
    if args.sub_frames and not args.exposure:
        parser.error('--sub-frames needs --exposure')
    args.sub_frames = args.sub_frames or SUB_FRAMES
    if args.sub_frames % 2 == 0:
        parser.error(f'--sub-frames must be odd, so that one frame is in the middle; got {args.sub_frames}')
    if args.exposure is not None and not 0 < args.exposure <= LONGEST_EXPOSURE:
        parser.error(f'--exposure must be > 0 and <= {LONGEST_EXPOSURE}; got {args.exposure}')
    return args


def main() -> int:
    args = parse_args()
    params = {name: getattr(args, name) for name in ('sigma', 'kernel_size', 'border', 'rounding')}
    given = {name: value for name, value in params.items() if value is not None}
    degrade = build_degradation({'type': args.degradation, **given}, args.scale)
    writer = open_writer(args.output, [args.input], force=args.force)
    if args.workers > 1:
        cv2.setNumThreads(1)  # in each worker
    with open_color_reader(args.input) as reader:
        num_frames = sum(map(reader.num_frames, reader.clips))
        frames = low_resolution_frames(reader, degrade, args)
        write(writer, frames, num_frames=num_frames, num_workers=args.workers)
    return 0


if __name__ == '__main__':
    run(main)
