"""`stvsr restore`."""
import argparse
import json
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from stvsr.errors import EXIT_FAILED
from stvsr.printable import counted

from ..archs.spec import spec_of
from ..io.pipes import PIPE
from ..utils.processes import ending_signals
from ..utils.progress import say
from ..video.job import Progress, RestoreError
from ..video.many_videos import Ranks, each_video, outputs_of
from ..video.pipeline import Shape
from ..video.plan import describe_plan, plan
from ..video.restorer import RestoreOptions
from ..zoo.network_source import NetworkSource
from ..zoo.restore_video import LoadedNetwork, VideoOptions, comparison_page, load, opened, restore_video
from .model import devices_of, network_source
from .progress import ProgressBar

CPU_TILE = 256  # pixels


def run(args: argparse.Namespace) -> int:
    devices = devices_of(args.device)
    if args.tile is None and 'cpu' in devices:  # running out of memory kills the process without a message
        args.tile = CPU_TILE
    restoring = RestoreOptions(tile=args.tile or None, tile_overlap=args.tile_overlap, precision=args.precision,
                               detect_cuts=not args.no_cuts, at_cut=args.at_cut, even=args.even)
    if args.suffix and not args.into:
        raise ValueError('--suffix goes with --into')
    if args.into:
        inputs = each_video(args.paths)
        outputs = outputs_of(inputs, args.into, codec=args.codec, suffix=args.suffix)
        clips = outputs_of(inputs, args.compare_clip, suffix='.mp4') if args.compare_clip else [None] * len(inputs)
        if both := set(clips) & set(outputs):
            raise ValueError(f'--compare-clip: {both.pop()} is also an output; expected another folder than --into')
    elif len(args.paths) == 2:
        inputs, outputs, clips = args.paths[:1], args.paths[1:], [args.compare_clip]
    else:
        raise ValueError(f'expected an input and an output, or inputs and --into FOLDER, but got {len(args.paths)} '
                         'path(s)')
    if PIPE in outputs and (args.json or args.dry_run):
        raise ValueError('--json and --dry-run print on standard output, which is the output video here')
    network = network_source(args, may_be_file=True)
    interpolator = NetworkSource.of_name(args.interpolate) if args.interpolate else None
    width, height = args.size or (None, args.height)
    shape = Shape(args.scale, width, height, args.fps, args.only)
    videos = [
        VideoOptions(source=source, output=output, network=network, interpolator=interpolator, shape=shape,
                     start=args.start, duration=args.duration, compare_clip=clip, compare=args.compare,
                     devices=devices, channels_last=args.channels_last, compile=args.compile, restoring=restoring,
                     codec=args.codec, crf=args.crf, preset=args.preset, audio=args.audio,
                     deinterlace=args.deinterlace, strict=args.strict, stream=args.stream,
                     background=args.background, rate=args.rate, pipe_format=args.pipe_format, resume=args.resume,
                     overwrite=args.overwrite)
        for source, output, clip in zip(inputs, outputs, clips, strict=True)]
    with Ranks() as ranks:
        loaded = load(videos[0])
        if len(devices) > 1 and spec_of(loaded.net).recurrent:
            raise ValueError(f'--device: {type(loaded.net).__name__} is recurrent, so it runs on one device only')
        folders = [folder for folder in (args.into, args.into and args.compare_clip) if folder]
        if args.dry_run:
            with made_for_now(folders):
                failed = sum(not show_plan(video, loaded, args) for video in videos)
            return EXIT_FAILED if failed else 0
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        restore = Restoring(args, loaded, [network, *([interpolator] if interpolator else [])])
        for ending in ending_signals():
            signal.signal(ending, signal.default_int_handler)
        for number in ranks.share(len(videos)):
            ranks.add('failed', not restore(videos[number]))
        ranks.wait()
        failed = ranks.add('failed') if ranks.rank == 0 else 0
    if failed and args.into:
        print(f'{failed} of {len(inputs)} failed', file=sys.stderr)
    return EXIT_FAILED if failed else 0


@contextmanager
def made_for_now(folders: Sequence[Path]) -> Iterator[None]:
    """Make folders that do not exist, and remove them at the end."""
    made: list[Path] = []
    try:
        for folder in folders:
            made[:0] = [path for path in (folder, *folder.parents) if not path.exists()]
            folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for path in made:
            path.rmdir()


def show_plan(video: VideoOptions, loaded: LoadedNetwork, args: argparse.Namespace) -> bool:
    """Print what would be done; return whether it can be. With --into, print what cannot, and go on."""
    models = [video.network.name, *([video.interpolator.name] if video.interpolator else [])]
    if args.into and not video.overwrite and video.output.exists():
        say(f'{video.output} exists already and would be skipped')
        return True
    try:
        with opened(video, loaded) as job:
            facts = plan(job, ', interpolated by '.join(models))
    except (OSError, ValueError) as error:
        if not args.into:
            raise
        say(f'error: {video.source} -> {video.output}: {error}')
        return False
    if args.json:
        print(json.dumps(facts))
        return True
    for name, text in describe_plan(facts).items():
        print(f'{name:10}{text}')
    if args.into:
        print()
    return True


class Restoring:
    """Restore videos one after another with one network, and report how that goes.

    With several videos (--into), existing outputs are skipped, and a video that fails is reported before going on with
    the next.
    """

    def __init__(self, args: argparse.Namespace, loaded: LoadedNetwork, networks: Sequence[NetworkSource]):
        self.loaded, self.several = loaded, bool(args.into)
        self.as_json = args.json
        # Printed once, with the first video
        self.licences = [f'weights of {network.name}: {network.licence}' for network in networks if network.licence]

    def __call__(self, video: VideoOptions) -> bool:
        """Restore one video; return whether the output exists."""
        with ProgressBar(video.output, as_json=self.as_json, named=self.several) as progress:
            if self.several and not video.overwrite and video.output.exists():
                progress.end('skipped', f'{video.output} exists already and is skipped')
                return True
            try:
                self._restore(video, progress)
            except RestoreError as error:
                if not isinstance(error.__cause__, OSError | torch.OutOfMemoryError):  # unexpected: show where
                    traceback.print_exception(error.__cause__)
                progress.end('failed', f'error: {error}')
                return False
            except KeyboardInterrupt as interrupt:
                progress.end('interrupted', *interrupt.args, shown=False)
                raise
            except Exception as error:
                if not self.several:
                    progress.end('refused', str(error), shown=False)
                    raise
                name = '' if isinstance(error, OSError | ValueError) else f'{type(error).__name__}: '
                progress.end('failed', f'error: {video.source} -> {video.output}: {name}{error}')
                return False
        return True

    def _restore(self, video: VideoOptions, progress: ProgressBar) -> None:
        def show(frame: Progress) -> None:
            self._show_licences()
            progress(frame)

        def warn(warning: str) -> None:
            self._show_licences()
            say(f'warning: {warning}')

        spec = restore_video(video, loaded=self.loaded, on_progress=show, on_compared=progress.compare, on_warning=warn)
        page = comparison_page(video.output) if video.compare else None
        rate = f', {float(spec.rate):.6g} a second' if spec.rate else ''
        progress.end('done', f'{video.output}: {counted(progress.frames, "frame")}, {spec.width}x{spec.height}{rate}; '
                     f'{progress.seconds:.1f} s, {progress.frames_per_second:.3g} frames a second'
                     + (f'; comparison: {page}' if page else ''),
                     frames=progress.frames, width=spec.width, height=spec.height,
                     rate=str(spec.rate) if spec.rate else None, seconds=round(progress.seconds, 2),
                     comparison=str(page) if page else None)

    def _show_licences(self) -> None:
        while self.licences:
            say(self.licences.pop(0))
