"""`stvsr test --protocol`."""
import argparse
import re

from ..protocols.measure import BASELINES, measure, measure_frames
from ..utils.threads import available_cores
from ..zoo.table import ZOO
from .model import network_source


def run(args: argparse.Namespace) -> int:
    num_worker = max(1, available_cores() - 1) if args.workers is None else args.workers
    where = {'data': args.data, 'into': args.into, 'chosen': args.datasets, 'num_worker': num_worker}
    if args.label and not args.frames:
        raise ValueError('--label is for --frames')
    if args.frames:
        label = args.label or args.frames.resolve().name
        if args.weights:
            raise ValueError('--weights goes with --opt; saved frames need none')
        if label in {*BASELINES, *ZOO} or not re.fullmatch(r'\w[\w.+-]*', label):
            raise ValueError(f'--label {label!r}: expected letters, digits, and . _ + -, but no name of a model')
        folder = measure_frames(args.protocol, label, args.frames, **where)
    elif args.model in BASELINES and not args.weights:
        folder = measure(args.protocol, args.model, None, None, precision=args.precision, **where)
    else:
        chosen = network_source(args)
        folder = measure(args.protocol, chosen.name, chosen.network, chosen.weights, param_key=chosen.param_key,
                         precision=args.precision, **where)
    print((folder / 'table.md').read_text())
    print(f'{folder}: results.json, table.md, clips.csv, frames.csv, frames.png, clips.png')
    return 0
