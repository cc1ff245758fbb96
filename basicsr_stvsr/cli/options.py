"""`stvsr options`."""
import argparse

import yaml

from ..config.flatten import flatten
from ..utils.atomic_files import replace_file

HEADER = '''\
# {file}, with the files that it is based on, for BasicSR's own scripts:
#   python -m basicsr_stvsr.run BasicSR/basicsr/{action}.py -opt THIS_FILE
'''


def run_flatten(args: argparse.Namespace) -> int:
    if args.output and args.output.exists() and not args.overwrite:
        raise ValueError(f'{args.output} exists; use --overwrite to replace it')
    options = flatten(args.file, args.force_yml)
    header = HEADER.format(file=args.file, action='train' if options.get('train') else 'test')
    text = header + yaml.safe_dump(options, sort_keys=False, allow_unicode=True, width=120)
    if args.output:
        replace_file(args.output, text.encode())
    else:
        print(text, end='')
    return 0
