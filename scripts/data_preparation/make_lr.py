"""Makes low-resolution, and blurred, clips from sharp ones (a folder of clips, an LMDB or a video), in RGB.

    python scripts/data_preparation/make_lr.py --input datasets/reds_train_sharp.lmdb \
        --output datasets/reds_train_sharp_bicubic.lmdb --scale 4

Clip and frame names stay as they are. Frames of a size that is no multiple of the scale are cut at right and bottom.
"""
import argparse
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from script_util import add_output_options, open_writer, positive, run, write

from basicsr_stvsr.data.degradations import Degradation, build_degradation, linear_light_average, mod_crop
from basicsr_stvsr.data.frames import FrameReader, open_color_reader
from basicsr_stvsr.data.lmdb_io import FrameSource, bounded_map, clip_frames


def windows(frames: Iterable[np.ndarray], num_frames: int, radius: int) -> Iterator[list[np.ndarray]]:
    """For each of `num_frames` frames, the frames around it with itself in the middle; holds no more than one window.

    Near the ends of a clip the window shrinks on both sides alike, down to the frame alone: one that went on at one
    side only would shift the blurred frame against the sharp one.
    """
    frames = iter(frames)
    held: deque[np.ndarray] = deque()
    first = 0  # index of held[0]
    for index in range(num_frames):
        reach = min(radius, index, num_frames - 1 - index)
        while first + len(held) <= index + reach:
            held.append(next(frames))
        while first < index - reach:
            held.popleft()
            first += 1
        yield list(held)


def low_resolution_frames(reader: FrameReader, degrade: Degradation, num_blur: int,
                          num_workers: int) -> Iterator[FrameSource]:
    """The frames of all clips, averaged over `num_blur` neighbours and degraded; each is decoded once."""
    for clip in reader.clips:
        sharp = list(clip_frames(reader, clip))
        if sharp[0].in_threads:
            decoded = bounded_map(lambda frame: frame.load(), sharp, num_workers)
        else:
            decoded = (frame.load() for frame in sharp)
        for frame, window in zip(sharp, windows(decoded, len(sharp), num_blur // 2), strict=True):
            yield frame._replace(load=partial(blur_and_degrade, window, degrade), in_threads=True)


def blur_and_degrade(window: list[np.ndarray], degrade: Degradation) -> np.ndarray:
    blurred = linear_light_average(window) if len(window) > 1 else window[0]
    return degrade(mod_crop(blurred, degrade.scale))


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
    parser.add_argument('--blur-frames', type=positive, default=1, metavar='N',
                        help='first average N neighbouring frames in linear light, as motion blur does; N is odd, and '
                        'the frame in the middle is the ground truth')
    add_output_options(parser)
    args = parser.parse_args()
    if args.blur_frames % 2 == 0:
        parser.error(f'--blur-frames must be odd, so that one frame is in the middle; got {args.blur_frames}')
    return args


def main() -> int:
    args = parse_args()
    params = {name: getattr(args, name) for name in ('sigma', 'kernel_size', 'border', 'rounding')}
    given = {name: value for name, value in params.items() if value is not None}
    degrade = build_degradation({'type': args.degradation, **given}, args.scale)
    writer = open_writer(args.output, [args.input], force=args.force)
    with open_color_reader(args.input) as reader:
        num_frames = sum(map(reader.num_frames, reader.clips))
        frames = low_resolution_frames(reader, degrade, args.blur_frames, args.workers)
        write(writer, frames, num_frames=num_frames, num_workers=args.workers)
    return 0


if __name__ == '__main__':
    run(main)
