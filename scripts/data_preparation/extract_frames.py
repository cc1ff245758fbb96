"""Extract frames from videos, with one clip per scene.

    python scripts/data_preparation/extract_frames.py --input holiday.mp4 --output datasets/holiday
    -> datasets/holiday/holiday_000/00000000.png, ...

Also accepts folders of clips, to split clips with more than one scene.
"""
import argparse
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from script_util import add_output_options, open_writer, positive, run, write

from basicsr_stvsr.inference.scene_cuts import THRESHOLD, mark_cuts
from basicsr_stvsr.io.frames import FrameReader
from basicsr_stvsr.io.lmdb_files import LOSSLESS, FrameSource
from basicsr_stvsr.io.opening import open_color_reader
from basicsr_stvsr.utils.progress import say


class SceneFrame(NamedTuple):
    scene: int
    index: int  # within the scene
    frame: np.ndarray


def long_scenes(marked: Iterable[tuple[np.ndarray, bool]], min_length: int, clip: str) -> Iterator[SceneFrame]:
    """Number scenes and their frames. Skip scenes shorter than `min_length` frames with a message.

    Args:
        marked: frames, and whether a scene begins with them.
        min_length: minimum length of a scene; this many frames are buffered.
        clip: name of the clip, for messages.
    """
    scene = length = 0
    held = []  # buffered frames of a scene that is still too short

    def report_short(end: int) -> None:
        if held:
            say(f'{clip}: skipped frames {end - len(held)} to {end - 1}, a scene of fewer than {min_length} frames')

    number = -1
    for number, (frame, is_cut) in enumerate(marked):
        if is_cut:
            report_short(number)
            if not held:
                scene += 1
            length, held = 0, []
        held.append(frame)
        length += 1
        if length >= min_length:
            for index, ready in enumerate(held, start=length - len(held)):
                yield SceneFrame(scene, index, ready)
            held = []
    report_short(number + 1)


def scene_frames(readers: list[FrameReader], args: argparse.Namespace) -> Iterator[FrameSource]:
    for reader in readers:
        for clip in reader.clips:
            frames = (reader.frame(clip, index) for index in range(reader.num_frames(clip)))
            if args.no_split:
                marked = ((frame, False) for frame in frames)
            else:
                marked = mark_cuts(frames, threshold=args.threshold)
            # LMDB keys may contain neither white space nor non-ASCII letters.
            name = re.sub(r'[^A-Za-z0-9_./-]+', '_', clip)
            for scene, index, frame in long_scenes(marked, args.min_length, clip):
                key = f'{name}/{index:08d}' if args.no_split else f'{name}_{scene:03d}/{index:08d}'
                yield FrameSource(key, f'{reader.path}, clip {clip!r}', lambda frame=frame: frame)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--input', type=Path, required=True, nargs='+', help='videos, or folders of videos or clips')
    parser.add_argument('--output', type=Path, required=True, help='folder of clips, or <name>.lmdb')
    parser.add_argument('--min-length', type=positive, default=3, metavar='N',
                        help='leave out scenes of less than N frames (default: %(default)s)')
    parser.add_argument('--no-split', action='store_true', help='one clip for each video, whatever it shows')
    parser.add_argument('--threshold', type=float, default=THRESHOLD,
                        help='how much a cut stands out from the changes around it; larger finds fewer cuts '
                        '(default: %(default)s)')
    parser.add_argument('--ext', default='png', choices=[suffix[1:] for suffix in LOSSLESS],
                        help='image format in a folder (default: %(default)s)')
    add_output_options(parser)
    args = parser.parse_args()
    if args.threshold <= 0:
        parser.error(f'--threshold must be positive, got {args.threshold}')
    return args


def main() -> int:
    args = parse_args()
    writer = open_writer(args.output, args.input, force=args.force, suffix=f'.{args.ext}')
    readers = [open_color_reader(path) for path in args.input]
    num_frames = sum(reader.num_frames(clip) for reader in readers for clip in reader.clips)
    write(writer, scene_frames(readers, args), num_frames=num_frames, num_workers=args.workers)
    return 0


if __name__ == '__main__':
    run(main)
