"""Measure the overhead of `stvsr restore` over the network, and check that its memory does not grow with the video.

    python scripts/benchmark/benchmark_video.py all --check
    python scripts/benchmark/benchmark_video.py end-to-end --model mbnet-small --tile 128

`end-to-end`: frames per second from video file to video file with a zoo model, divided by those of the network alone
on the same frames and tiles in memory. The two take turns. The network uses one thread, so that on two cores the other
one decodes and encodes.
`media`: frames per second of decoding and encoding, with an identity network that still converts frames to tensors and
back; and without a network, where decoded frames are encoded directly.
`profile`: where `stvsr restore` spends its time, from process start to end: start-up, network, scene cuts, colour and
waiting, and the concurrent work in the decoder and encoder threads.
`memory`: peak memory of restoring videos of 60 and of 600 frames, each in a fresh process. By default this uses bicubic
interpolation and averages instead of a network, so that the rest determines the peak.
`--check` fails if a limit is exceeded; limits are in the script. Videos show a folder of images (`--images`), or by
default a moving photograph, forwards and backwards, enlarged to their size.
"""
import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from fractions import Fraction
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import cv2
import numpy as np
import skimage.data
import torch
from benchmark_util import MIB, add_device_option, describe, in_new_process, memory_growth, resident_peak, seconds
from torch import nn

from basicsr_stvsr.archs.baseline_arch import BicubicAverage
from basicsr_stvsr.archs.spec import NetSpec
from basicsr_stvsr.data.synthetic import CameraPath, cut_sheet, draw
from basicsr_stvsr.inference.windows import restore_stream
from basicsr_stvsr.io.encoding import Encoding, OutputSpec
from basicsr_stvsr.io.frame_source import Source, TimedFrame
from basicsr_stvsr.io.video_info import ColorSpec
from basicsr_stvsr.io.video_reader import open_source
from basicsr_stvsr.io.video_writer import VideoWriter
from basicsr_stvsr.utils.cpu_memory import keep_freed_memory, return_freed_memory
from basicsr_stvsr.video.job import Job
from basicsr_stvsr.video.restorer import RestoreOptions, Restorer
from basicsr_stvsr.video.segments import Segments, Start
from basicsr_stvsr.zoo.table import ZOO, load

RATE = Fraction(25)
NUM_IMAGES = 40  # of the clip
END_TO_END_LIMIT, MEDIA_LIMIT, MEMORY_LIMIT = 0.95, 100, 0.03
NETWORK_LIMIT, LONG = 0.85, 20  # of clips whose frames take longer than so many seconds
LENGTHS = 60, 600  # frames; their memory is compared
CPU = torch.device('cpu')


def clip(images: Path | None, height: int, width: int) -> Iterator[np.ndarray]:
    """Yield endless frames, (height, width, 3), RGB, uint8."""
    if images is None:
        path = CameraPath(centre=(250.0, 180.0), velocity=(2.5, 1.0))
        sheet = cut_sheet(skimage.data.coffee(), path, NUM_IMAGES, 180, 320)
        shown = [draw([sheet], number, 180, 320)[0] for number in range(NUM_IMAGES)]
    else:
        with open_source(images) as source:
            shown = [frame.image for frame in islice(source.frames(), NUM_IMAGES)]
    large = [cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=cv2.INTER_CUBIC)
             for image in shown]
    return cycle(large + large[-2:0:-1])


def write_clip(path: Path, frames: Iterable[np.ndarray], height: int, width: int) -> None:
    spec = OutputSpec(width, height, 8, ColorSpec.untagged(width, height), RATE, 1 / RATE)
    with VideoWriter(path, spec, Encoding('x264', crf=23)) as writer:
        for number, image in enumerate(frames):
            writer.write(image, number / RATE)


@contextmanager
def open_clip(images: Path | None, size: tuple[int, int], num_frame: int) -> Iterator[tuple[Source, Path]]:
    """Open a video file in a temporary folder; yield it, and the folder for outputs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'in.mp4'
        write_clip(path, islice(clip(images, *size), num_frame), *size)
        with open_source(path) as source:
            yield source, Path(folder)


def network(name: str, device: torch.device) -> nn.Module:
    return BicubicAverage(scale=2).to(device) if name == 'bicubic' else load(name, device)


def restore(source: Source, folder: Path, restorer: Restorer, encoding: Encoding) -> None:
    Job(source, folder / 'out.mp4', restorer.net, model='', options=restorer.options, encoding=encoding,
        overwrite=True).run()


def end_to_end(args: argparse.Namespace) -> bool:
    restorer = Restorer(network(args.model, args.device), RestoreOptions(tile=args.tile))
    encoding = Encoding('x264', preset=args.preset)
    with open_clip(args.images, args.size, args.num_frame) as (source, folder):
        given = list(restorer.give(restorer.scenes(source.frames()), {}))
        tiles = restorer.tiles(*args.size)
        calls = {'network alone': lambda: deque(restore_stream(tiles, given, complete=True), maxlen=0),
                 'end to end': lambda: restore(source, folder, restorer, encoding)}
        times: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(args.turns):
            for name in calls if turn % 2 == 0 else reversed(calls):
                times[name].append(seconds(calls[name], args.device))
    for name, values in times.items():
        print(f'{name}: {args.num_frame / statistics.median(values):.2f} given frames a second')
    ratio = statistics.median(alone / whole for alone, whole in zip(*times.values(), strict=True))
    print(f'ratio {ratio:.3f}, limit {END_TO_END_LIMIT}')
    return ratio >= END_TO_END_LIMIT


class Identity(nn.Module):
    """A network that returns its input."""

    spec = NetSpec(scale=1, num_frames=1)

    def forward(self, lq: torch.Tensor) -> torch.Tensor:
        return lq


class Nothing:
    """A restorer that returns frames unchanged."""

    context = 0

    def __call__(self, frames: Iterable[TimedFrame], **_: object) -> Iterator[TimedFrame]:
        return iter(frames)


def media(args: argparse.Namespace) -> bool:
    encoding = Encoding('x264', preset=args.preset)
    with open_clip(args.images, args.size, args.num_frame) as (source, folder):
        segments = Segments(source, folder, OutputSpec.of(source.info), encoding, temporal_scale=1,
                            length=args.num_frame)

        rates: dict[str, list[float]] = {}
        for _ in range(args.turns):
            for name, restorer in (('nothing', Nothing()), ('an identity network', Restorer(Identity()))):
                took = seconds(partial(segments.run, restorer, Start(0), lambda _: None), CPU)
                rates.setdefault(name, []).append(args.num_frame / took)
        bits = 8 * (folder / 'in.mp4').stat().st_size / (args.num_frame / RATE)
    print(f'{source.info.codec}, {float(bits) / 10**6:.1f} Mbit/s -> {encoding.codec} {encoding.preset}')
    for name, values in rates.items():
        print(f'{name} in between: {statistics.median(values):.1f} frames a second')
    print(f'limit of the latter {MEDIA_LIMIT}')
    return statistics.median(rates['an identity network']) >= MEDIA_LIMIT


def profile(args: argparse.Namespace) -> bool:
    if args.model == 'bicubic':
        raise SystemExit('profile takes a model of the zoo')
    with open_clip(args.images, args.size, args.num_frame) as (source, folder):
        command = [sys.executable, str(Path(__file__).with_name('stages.py')), 'restore', str(source.info.path),
                   str(folder / 'large.mp4'), '--model', args.model, '--device', args.device.type]
        command += [] if args.tile is None else ['--tile', str(args.tile)]
        start = time.perf_counter()
        process = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        whole = time.perf_counter() - start
    stages = json.loads(process.stdout.splitlines()[-1])
    if stages.pop('code'):
        raise SystemExit('stvsr restore failed')
    seconds_of = {name.removeprefix('main/'): value for name, value in stages.items() if name.startswith('main/')}
    seconds_of['start-up and end'] = whole - sum(seconds_of.values())
    beside = {f'beside it: {name.partition("/")[2]}': value for name, value in stages.items()
              if not name.startswith('main/')}
    print(f'stvsr restore: {whole:.2f} s, {args.num_frame} frames in')
    print('| stage | seconds | share |\n|---|---|---|')
    for name, value in [*sorted(seconds_of.items(), key=lambda item: -item[1]), *beside.items()]:
        print(f'| {name} | {value:.2f} | {value / whole:.2f} |')
    share = seconds_of['network'] / whole
    print(f'network / wall {share:.3f}, limit {NETWORK_LIMIT} for more than {LONG} s of work')
    return share >= NETWORK_LIMIT or seconds_of['network'] < LONG


def memory_of(num_frame: int, args: argparse.Namespace) -> tuple[int, int]:
    """Return peak memory in bytes of restoring a video in a fresh process, and its growth over a short video before."""
    torch.set_num_threads(1)
    return_freed_memory()
    restorer, encoding = Restorer(network(args.model, args.device)), Encoding('x264', preset=args.preset)
    with open_clip(args.images, args.size, 6) as (source, folder):
        restore(source, folder, restorer, encoding)
    with open_clip(args.images, args.size, num_frame) as (source, folder):
        growth = memory_growth(lambda: restore(source, folder, restorer, encoding), CPU)
    return resident_peak(), growth


def memory(args: argparse.Namespace) -> bool:
    peaks = [in_new_process(memory_of, length, args) for length in LENGTHS]
    for length, (peak, growth) in zip(LENGTHS, peaks, strict=True):
        print(f'{length} frames: {peak / MIB:,.1f} MiB, {growth / MIB:,.1f} of it for this video')
    ratio = peaks[1][0] / peaks[0][0]
    print(f'ratio {ratio:.3f}, limit {1 + MEMORY_LIMIT}')
    return abs(ratio - 1) <= MEMORY_LIMIT


MODES = {'end-to-end': (end_to_end, (180, 320)), 'media': (media, (720, 1280)), 'profile': (profile, (120, 180)),
         'memory': (memory, (180, 320))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=('all', *MODES))
    parser.add_argument('--images', type=Path, help='folder of frames that videos show (default: a photograph)')
    parser.add_argument('--size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'),
                        help='of videos (default: 180 320, for media 720 1280, for profile 120 180)')
    parser.add_argument('--num_frame', type=int, help='of videos (default: 30, for media 240, for profile 7)')
    parser.add_argument('--model', choices=('bicubic', *ZOO),
                        help='(default: fisr-small; profile: mbnet-small; memory: bicubic)')
    parser.add_argument('--tile', type=int, help='longest side of tiles (default: whole frames)')
    parser.add_argument('--preset', default='ultrafast', help='of x264 (default: %(default)s)')
    parser.add_argument('--turns', type=int, default=3, help='timed runs of each (default: %(default)s)')
    add_device_option(parser)
    parser.add_argument('--check', action='store_true', help='fail where the limit is not kept')
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    kept = [run_mode(what, copy(args)) for what in (MODES if args.what == 'all' else [args.what])]
    return int(not all(kept) and args.check)


def run_mode(what: str, args: argparse.Namespace) -> bool:
    """Run a mode and print its results; return whether its limit is kept."""
    run, size = MODES[what]
    args.device, args.size = torch.device(args.device), tuple(args.size or size)
    args.num_frame = args.num_frame or {'media': 240, 'profile': 7}.get(what, 30)
    args.model = args.model or {'memory': 'bicubic', 'profile': 'mbnet-small'}.get(what, 'fisr-small')
    print(f'{what}, {args.size[1]}x{args.size[0]}; {describe(args.device)}')
    return run(args)


if __name__ == '__main__':
    sys.exit(main())
