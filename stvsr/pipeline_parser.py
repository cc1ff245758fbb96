"""Command-line parser of training and testing with an option file: BasicSR's flags, and a few more."""
import argparse
import os

from .arguments import Parser


def make_pipeline_parser(action: str, prog: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of `train` or `test`.

    Args:
        prog: name of the program in its help; default: that of this process.
    """
    parser = Parser(
        prog=prog,
        description=f'{action.capitalize()} with BasicSR.',
        epilog=f'example:\n  stvsr {action} -opt options/{action}_mbnet_small.yml\n'
        f'  python basicsr/{action}.py -opt options/{action}_mbnet_small.yml',
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('-opt', required=True, help='option file (YAML): a path, or the name of one that comes with '
                        'the package, such as train_mbnet')
    launcher = 'pytorch' if 'TORCHELASTIC_RUN_ID' in os.environ else 'none'  # set by torchrun
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm'], default=launcher,
                        help='job launcher; torchrun is recognised (default: %(default)s)')
    parser.add_argument('--auto_resume', action='store_true',
                        help='continue from the newest training state, if there is one')
    parser.add_argument('--debug', action='store_true', help='log, validate and save every few steps')
    parser.add_argument('--local_rank', type=int, default=0, help='ignored; old launchers pass it')
    parser.add_argument('--force_yml', nargs='+', default=[], metavar='BLOCK:NAME=VALUE', help='override options')
    if action == 'train':
        parser.add_argument('--check', action='store_true',
                            help='take a trial step, print what the training needs, write nothing')
    return parser
