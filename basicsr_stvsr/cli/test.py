"""`stvsr test --protocol`."""
import argparse
import re
from pathlib import Path

from stvsr.errors import EXIT_FAILED, print_error

from ..models.batch import NonFiniteError
from ..protocols.measure import BASELINES, measure, measure_frames
from ..utils.threads import available_cores
from ..zoo.table import ZOO
from .model import network_source


def run(args: argparse.Namespace) -> int:
    num_worker = max(1, available_cores() - 1) if args.workers is None else args.workers
    if args.label and not args.frames:
        raise ValueError('--label is for --frames')
    try:
        folder = measured(args, num_worker)
    except NonFiniteError as error:
        print_error(error)
        return EXIT_FAILED
    print((folder / 'table.md').read_text())
    print(f'{folder}: results.json, table.md, clips.csv, frames.csv, frames.png, clips.png')
    return 0


def measured(args: argparse.Namespace, num_worker: int) -> Path:
    """Run the protocol; return the folder of the results."""
    where = {'data': args.data, 'into': args.into, 'chosen': args.datasets, 'num_worker': num_worker}
    if args.frames:
        label = args.label or args.frames.resolve().name
        if args.weights:
            raise ValueError('--weights goes with --opt; saved frames need none')
        if label in {*BASELINES, *ZOO} or not re.fullmatch(r'\w[\w.+-]*', label):
            raise ValueError(f'--label {label!r}: expected letters, digits, and . _ + -, but no name of a model')
        return measure_frames(args.protocol, label, args.frames, **where)
    if args.model in BASELINES and not args.weights:
        return measure(args.protocol, args.model, None, None, precision=args.precision, **where)
    chosen = network_source(args)
    return measure(args.protocol, chosen.name, chosen.network, chosen.weights, param_key=chosen.param_key,
                   precision=args.precision, **where)
