"""Estimate the optical flow between LR frames before training, in both directions, into an LMDB for FlowFiles.

    python scripts/data_preparation/precompute_flow.py --input datasets/clips_GT.lmdb --scale 2 --every 2 \
        --strides 1 2 --flow DISFlow --output datasets/clips_flow.lmdb

The teacher of MBNet's L^FLOW, between ground-truth frames, for `dataroot_flow`:

    python scripts/data_preparation/precompute_flow.py --input datasets/clips --preset fine \
        --output datasets/clips_gt_flow.lmdb

Repeat the command to resume a stopped run.
"""
import argparse
import hashlib
import inspect
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from script_util import positive, run

from basicsr_stvsr.archs.weight_files import sha256_of
from basicsr_stvsr.data.degradations import build_degradation, mod_crop
from basicsr_stvsr.flow import FLOW_REGISTRY, FlowEstimator, build_flow
from basicsr_stvsr.flow.flow_lmdb import FlowLmdbWriter, read_settings
from basicsr_stvsr.flow.stored_flow import flow_key
from basicsr_stvsr.io.frames import FrameReader
from basicsr_stvsr.io.opening import open_color_reader
from basicsr_stvsr.utils.background import bounded_map
from basicsr_stvsr.utils.progress import progress_bar
from basicsr_stvsr.utils.threads import available_cores

ESTIMATORS = {name: source for name, source in FLOW_REGISTRY if issubclass(source, FlowEstimator)}
ARGUMENTS = ('weights', 'upscale', 'device', 'preset')  # of flow estimators


class Task(NamedTuple):
    key: str
    first: np.ndarray
    second: np.ndarray


def frame_pairs(num_frames: int, steps: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield both directions of all frame pairs that are one of `steps` apart, in decoding order."""
    for last in range(num_frames):
        for step in steps:
            if last >= step:
                yield last - step, last
                yield last, last - step


def missing_tasks(reader: FrameReader, steps: list[int], scale: int, writer: FlowLmdbWriter) -> Iterator[Task]:
    """Yield the frame pairs without a stored flow. Each frame of a pair is decoded once; others are skipped."""
    degrade = build_degradation(None, scale)
    for clip in reader.clips:
        held: dict[int, np.ndarray] = {}
        for pair in frame_pairs(reader.num_frames(clip), steps):
            key = flow_key(clip, *(reader.frame_name(clip, index) for index in pair))
            if key in writer:
                continue
            held = {index: frame for index, frame in held.items() if index >= max(pair) - max(steps)}
            for index in pair:
                if index not in held:
                    held[index] = degrade(mod_crop(reader.frame(clip, index), scale))
            yield Task(key, *(held[index] for index in pair))


def describe_frames(reader: FrameReader) -> dict[str, Any]:
    """Return facts that identify the clips, without decoding them."""
    names = hashlib.sha256()
    num_frames = 0
    for clip in reader.clips:
        for index in range(reader.num_frames(clip)):
            names.update(f'{clip}/{reader.frame_name(clip, index)}\n'.encode())
            num_frames += 1
    return {'path': str(reader.path.resolve()), 'clips': len(reader.clips), 'frames': num_frames,
            'names': names.hexdigest()[:16]}


def describe_estimator(args: argparse.Namespace, estimator: FlowEstimator) -> dict[str, Any]:
    """Return the settings that affect the flow. A run may resume on another device, so it is omitted."""
    settings = {'type': args.flow, 'upscale': estimator.upscale}
    if hasattr(estimator, 'preset'):
        settings['preset'] = estimator.preset
    if args.weights:
        settings |= {'weights': args.weights.name, 'sha256': sha256_of(args.weights)}
    return settings


def estimator_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return `--flow` and its arguments as options.

    Raises:
        ValueError: the estimator does not have an argument, or needs another.
    """
    parameters = inspect.signature(ESTIMATORS[args.flow]).parameters
    given = {name: getattr(args, name) for name in ARGUMENTS if getattr(args, name) is not None}
    unknown = [name for name in given if name not in parameters]
    missing = [name for name, parameter in parameters.items() if parameter.default is parameter.empty
               and name not in given]
    for names, verb in ((unknown, 'takes no'), (missing, 'needs')):
        if names:
            raise ValueError(f'--flow {args.flow} {verb} {", ".join(f"--{name}" for name in names)}')
    return {'type': args.flow, **given}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--input', type=Path, required=True, help='LR frames: folder of clips, LMDB or video')
    parser.add_argument('--output', type=Path, required=True, help='<name>.lmdb')
    parser.add_argument('--scale', type=int, default=1, choices=(1, 2, 3, 4),
                        help='the input is ground truth, and LR frames are made of it first, bicubic')
    parser.add_argument('--color', default='rgb', choices=('rgb', 'yuv'),
                        help='what the files hold (default: %(default)s)')
    parser.add_argument('--every', type=positive, default=1, metavar='N',
                        help='LR frames of a window are N frames of the input apart; 2 where the input has the full '
                        'frame rate (default: %(default)s)')
    parser.add_argument('--strides', type=positive, nargs='+', default=[1], metavar='N',
                        help='distances of the LR frames of a pair; FISR trains with 1 and 2 (default: 1)')
    parser.add_argument('--workers', type=positive, metavar='N',
                        help='frame pairs at once (default: as many as cores up to 8, or 1 for a network)')
    parser.add_argument('--force', action='store_true',
                        help='begin from the start, and replace the output if it exists')
    group = parser.add_argument_group('estimator')
    group.add_argument('--flow', default='DISFlow', choices=sorted(ESTIMATORS), help='default: %(default)s')
    group.add_argument('--upscale', type=positive, metavar='N',
                       help='enlarge frames by this factor before estimating (default: 2 for PWCFlow, else 1)')
    group.add_argument('--preset', choices=('medium', 'fast', 'ultrafast', 'fine'), help='of DISFlow (default: medium)')
    group.add_argument('--weights', type=Path, help='file with the weights of a network')
    group.add_argument('--device', help='where a network runs, such as cuda (default: cpu)')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    estimator = build_flow(estimator_options(args))
    steps = sorted({args.every * stride for stride in args.strides})
    num_workers = args.workers or (1 if args.weights else min(8, available_cores()))
    if num_workers > 1:
        cv2.setNumThreads(1)  # in each worker

    with closing(open_color_reader(args.input, args.color, 'rgb')) as reader:
        settings = {
            'input': describe_frames(reader), 'color': args.color, 'scale': args.scale, 'steps': steps,
            'flow': describe_estimator(args, estimator)}
        if read_settings(args.output) == settings and not args.force:
            print(f'{args.output} is complete already.')
            return 0
        total = sum(1 for clip in reader.clips for _ in frame_pairs(reader.num_frames(clip), steps))
        if not total:
            raise ValueError(f'{args.input}: no clip has {min(steps) + 1} frames, so there are no pairs')
        try:
            with FlowLmdbWriter(args.output, settings, overwrite=args.force) as writer:
                tasks = missing_tasks(reader, steps, args.scale, writer)
                flows = bounded_map(lambda task: (task.key, estimator(task.first, task.second)), tasks, num_workers)
                for key, flow in progress_bar(flows, unit='flow', about=f'Writing {args.output}', total=total,
                                              done=len(writer)):
                    writer.put(key, flow)
        except FileExistsError as error:
            raise FileExistsError(f'{error}; --force starts over') from None
    print(f'Wrote {total} flows to {args.output}.')
    return 0


if __name__ == '__main__':
    run(main)
