"""`stvsr restore`."""
import argparse
import signal
import sys
import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn

from stvsr.errors import EXIT_FAILED

from ..archs.spec import spec_of
from ..io.encoding import Encoding, default_codec
from ..io.video_reader import open_source
from ..utils.cpu_memory import keep_freed_memory
from ..utils.processes import ending_signals
from ..utils.progress import say
from ..video.batch import Ranks, outputs_of
from ..video.job import Job, RestoreError
from ..video.restorer import RestoreOptions
from ..zoo.table import entry_of
from .model import Chosen, build_model, chosen_model, devices_of
from .progress import ProgressBar

CPU_TILE = 256  # pixels


def run(args: argparse.Namespace) -> int:
    devices = devices_of(args.device)
    if args.tile is None and 'cpu' in devices:  # running out of memory kills the process without a message
        args.tile = CPU_TILE
    options = RestoreOptions(tile=args.tile or None, tile_overlap=args.tile_overlap, precision=args.precision,
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
    with Ranks() as ranks:
        if 'cpu' in devices:
            keep_freed_memory()
        chosen = chosen_model(args)
        net = build_model(args, chosen, devices[0] if len(devices) == 1 else 'cpu')
        if len(devices) > 1 and spec_of(net).recurrent:
            raise ValueError(f'--device: {type(net).__name__} goes from frame to frame, which one device does')
        if args.into:
            args.into.mkdir(parents=True, exist_ok=True)
        restore = Restoring(args, options, chosen, net, devices, several=bool(args.into))
        for ending in ending_signals():
            signal.signal(ending, signal.default_int_handler)
        for number in ranks.share(len(inputs)):
            ranks.add('failed', not restore(inputs[number], outputs[number]))
        ranks.wait()
        failed = ranks.add('failed') if ranks.rank == 0 else 0
    if failed and args.into:
        print(f'{failed} of {len(inputs)} failed', file=sys.stderr)
    return EXIT_FAILED if failed else 0


class Restoring:
    """Restore videos one after another with one network.

    Args:
        args: of the command.
        options: how to restore frames.
        chosen: the model.
        net: the network, on its device; with several devices, only a description.
        devices: where networks run.
        several: whether there are several videos. Then existing outputs are skipped, and a video that fails is reported
            before going on with the next.
    """

    def __init__(self, args: argparse.Namespace, options: RestoreOptions, chosen: Chosen, net: nn.Module,
                 devices: Sequence[str], *, several: bool):
        self.args, self.options, self.net, self.several = args, options, net, several
        self.name = chosen.fingerprint()  # reads the weights
        self.devices = devices
        # Printed once, with the first video
        self.licence = f'weights of {args.model}: {entry_of(args.model).licence}' if args.model else None
        self.builders = [partial(build_model, args, chosen, device) for device in devices] if len(devices) > 1 else []

    def __call__(self, source: Path, output: Path) -> bool:
        """Restore one video; return whether the output exists."""
        with ProgressBar(output, as_json=self.args.json, named=self.several) as progress:
            if self.several and not self.args.overwrite and output.exists():
                progress.end('skipped', f'{output}: is there already, and passed over')
                return True
            try:
                self._restore(source, output, progress)
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
                progress.end('failed', f'error: {source} -> {output}: {name}{error}')
                return False
            progress.end('done')
        return True

    def _restore(self, path: Path, output: Path, progress: ProgressBar) -> None:
        args = self.args
        encoding = Encoding(args.codec or default_codec(output), args.crf, args.preset)
        with open_source(path, deinterlace=args.deinterlace, rate=args.rate) as source:
            job = Job(source, output, self.net, model=self.name, options=self.options, encoding=encoding,
                      builders=self.builders, devices=self.devices, overwrite=args.overwrite)
            if self.licence:
                say(self.licence)
                self.licence = None
            told = list(job.warnings)
            for warning in told:
                say(f'warning: {warning}')
            job.run(resume=args.resume, on_progress=progress)
            for warning in job.warnings[len(told):]:
                say(f'warning: {warning}')
