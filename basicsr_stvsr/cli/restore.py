"""`stvsr restore`."""
import argparse
import signal
import sys
import traceback

import torch

from stvsr.errors import EXIT_FAILED

from ..archs.spec import spec_of
from ..utils.processes import ending_signals
from ..utils.progress import say
from ..video.batch import Ranks, outputs_of
from ..video.job import Progress, RestoreError
from ..video.restorer import RestoreOptions
from ..zoo.restore_video import LoadedNetwork, VideoOptions, load, restore_video
from ..zoo.table import entry_of
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
        inputs = args.paths
        outputs = outputs_of(inputs, args.into, codec=args.codec, suffix=args.suffix)
    elif len(args.paths) == 2:
        inputs, outputs = args.paths[:1], args.paths[1:]
    else:
        raise ValueError(f'expected an input and an output, or inputs and --into FOLDER, but got {len(args.paths)} '
                         'path(s)')
    network = network_source(args)
    videos = [
        VideoOptions(source=source, output=output, network=network, devices=devices, channels_last=args.channels_last,
                     compile=args.compile, restoring=restoring, codec=args.codec, crf=args.crf, preset=args.preset,
                     audio=args.audio, deinterlace=args.deinterlace, strict=args.strict, stream=args.stream,
                     rate=args.rate, resume=args.resume, overwrite=args.overwrite)
        for source, output in zip(inputs, outputs, strict=True)]
    with Ranks() as ranks:
        loaded = load(videos[0])
        if len(devices) > 1 and spec_of(loaded.net).recurrent:
            raise ValueError(f'--device: {type(loaded.net).__name__} goes from frame to frame, which one device does')
        if args.into:
            args.into.mkdir(parents=True, exist_ok=True)
        restore = Restoring(args, loaded)
        for ending in ending_signals():
            signal.signal(ending, signal.default_int_handler)
        for number in ranks.share(len(videos)):
            ranks.add('failed', not restore(videos[number]))
        ranks.wait()
        failed = ranks.add('failed') if ranks.rank == 0 else 0
    if failed and args.into:
        print(f'{failed} of {len(inputs)} failed', file=sys.stderr)
    return EXIT_FAILED if failed else 0


class Restoring:
    """Restore videos one after another with one network, and report how that goes.

    With several videos (--into), existing outputs are skipped, and a video that fails is reported before going on with
    the next.
    """

    def __init__(self, args: argparse.Namespace, loaded: LoadedNetwork):
        self.loaded, self.several = loaded, bool(args.into)
        self.as_json = args.json
        # Printed once, with the first video
        self.licence = f'weights of {args.model}: {entry_of(args.model).licence}' if args.model else None

    def __call__(self, video: VideoOptions) -> bool:
        """Restore one video; return whether the output exists."""
        with ProgressBar(video.output, as_json=self.as_json, named=self.several) as progress:
            if self.several and not video.overwrite and video.output.exists():
                progress.end('skipped', f'{video.output}: is there already, and passed over')
                return True
            try:
                self._restore(video, progress)
            except RestoreError as error:
                if not isinstance(error.__cause__, OSError | torch.OutOfMemoryError):  # unexpected: show where
                    traceback.print_exception(error.__cause__)
                progress.end('failed', f'error: {error}')
                return False
            except KeyboardInterrupt as interrupt:
                progress.end('interrupted', *interrupt.args, tell=False)
                raise
            except Exception as error:
                if not self.several:
                    progress.end('refused', str(error), tell=False)
                    raise
                name = '' if isinstance(error, OSError | ValueError) else f'{type(error).__name__}: '
                progress.end('failed', f'error: {video.source} -> {video.output}: {name}{error}')
                return False
            progress.end('done')
        return True

    def _restore(self, video: VideoOptions, progress: ProgressBar) -> None:
        def show(frame: Progress) -> None:
            self._show_licence()
            progress(frame)

        def warn(warning: str) -> None:
            self._show_licence()
            say(f'warning: {warning}')

        restore_video(video, loaded=self.loaded, on_progress=show, on_warning=warn)

    def _show_licence(self) -> None:
        if self.licence:
            say(self.licence)
            self.licence = None
