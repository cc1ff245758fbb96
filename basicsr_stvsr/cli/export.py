"""`stvsr export`."""
import argparse
import sys

from stvsr.errors import EXIT_FAILED, print_error

from ..export.onnx_export import CheckError, export_network
from ..zoo.table import load_network
from .model import network_source


def run(args: argparse.Namespace) -> int:
    chosen = network_source(args)
    net = load_network(chosen.network, chosen.weights, param_key=chosen.param_key)
    try:
        checked = export_network(net, args.output, name=args.model or type(net).__name__, weights=chosen.weights,
                                 check=not args.no_check, overwrite=args.overwrite)
    except CheckError as error:
        print_error(error)
        return EXIT_FAILED
    for each in checked or ():
        print(f'{each.batch} x {each.height}x{each.width}: differs from torch by at most {each.largest:.1e}')
    if checked is None:
        reason = 'as you asked' if args.no_check else 'onnxruntime is not installed'
        print(f'warning: {args.output} was not checked: {reason}', file=sys.stderr)
    print(args.output)
    return 0
