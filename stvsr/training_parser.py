"""Subcommands that write option files: `stvsr init` and `stvsr options`."""
import argparse
from pathlib import Path

from .imported import imported

SYSTEMS = 'mbnet', 'fisr', 'fstrn', 'hoffr', 'adaptive-gan'
INIT_EXAMPLE = '''\
example:
  stvsr init mbnet --data clips/ --output my.yml
  stvsr train -opt my.yml --check
  stvsr train -opt my.yml'''
OPTIONS_EXAMPLE = '''\
example:
  stvsr options flatten options/ablations/mbnet_baseline.yml --output flat.yml
  python -m basicsr_stvsr.run BasicSR/basicsr/train.py -opt flat.yml'''


def add_init_options(parser: argparse.ArgumentParser) -> None:
    parser.epilog = INIT_EXAMPLE
    parser.add_argument('system', choices=SYSTEMS, help='what to train: the small network of this system')
    parser.add_argument('--data', type=Path, required=True, metavar='PATH',
                        help='your clips: a folder of folders of frames, an LMDB, a video, or a folder of videos')
    parser.add_argument('--output', type=Path, default=Path('my.yml'), metavar='FILE',
                        help='the option file; the names of the clips are written beside it (default: %(default)s)')
    parser.add_argument('--from', dest='start', default='small-weights', metavar='WEIGHTS',
                        help='small-weights: those that ship with the package; scratch: random ones; or a checkpoint '
                        '(default: %(default)s)')
    parser.add_argument('--overwrite', action='store_true', help='replace existing files')


def add_options_commands(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of `stvsr options` to a parser; each sets `run`, which takes the parsed arguments."""
    parser.description, parser.epilog = 'Work with option files.', OPTIONS_EXAMPLE
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    verbs = parser.add_subparsers(title='verbs', required=True, metavar='VERB')
    about = "write an option file without `base`, for BasicSR's own scripts"
    flatten = verbs.add_parser('flatten', help=about, description=f'{about[0].upper()}{about[1:]}.')
    flatten.set_defaults(run=imported('basicsr_stvsr.cli.options:run_flatten'), parser=flatten)
    flatten.add_argument('file', type=Path, metavar='FILE', help='the option file')
    flatten.add_argument('--output', type=Path, metavar='FILE', help='(default: print it)')
    flatten.add_argument('--overwrite', action='store_true', help='replace an existing file')
    flatten.add_argument('--force_yml', nargs='+', default=[], metavar='BLOCK:NAME=VALUE', help='override options')
