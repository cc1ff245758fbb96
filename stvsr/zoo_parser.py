"""Subcommands of `stvsr zoo`: list, describe, fetch, verify and publish models."""
import argparse
from pathlib import Path

from .imported import imported

EXAMPLE = '''\
example:
  stvsr zoo list
  stvsr zoo info fstrn-small
  stvsr zoo verify
  stvsr zoo publish experiments/X/models/net_g_latest.pth --name MBNet_vimeo90k_x4 --results results/test_X/vid4.json'''


def add_zoo_commands(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of `stvsr zoo` to a parser; each sets `run`, which takes the parsed arguments."""
    parser.description, parser.epilog = 'The model zoo: networks with weights.', EXAMPLE
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    verbs = parser.add_subparsers(title='verbs', required=True, metavar='VERB')

    def add(name: str, about: str) -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=about, description=f'{about[0].upper()}{about[1:]}.')
        verb.set_defaults(run=imported(f'basicsr_stvsr.cli.zoo:run_{name}'), parser=verb)
        return verb

    add('list', 'list the models, and where their weights are')
    add('info', 'describe a model, with its scores').add_argument('name', metavar='NAME')
    fetch = add('fetch', 'download the weights of a model into STVSR_HOME or ~/.cache/basicsr_stvsr, or copy '
                'them from the folder STVSR_ZOO; continues interrupted downloads')
    fetch.add_argument('name', metavar='NAME')
    verify = add('verify', 'check the sha256 of the weights on this machine, and load them')
    verify.add_argument('name', nargs='?', metavar='NAME', help='(default: all)')
    add_publish_options(add('publish', 'make a weights file to share, with its model card, from a checkpoint'))


def add_publish_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('checkpoint', type=Path, metavar='CHECKPOINT', help='models/net_g_*.pth of a training')
    parser.add_argument('--name', metavar='METHOD_TRAINSET_xSCALE', help='name of the file (default: from the options)')
    parser.add_argument('--opt', type=Path, metavar='FILE',
                        help='option file of the training (default: the one in its folder)')
    parser.add_argument('--into', type=Path, default=Path(), metavar='FOLDER',
                        help='folder for the files (default: this one)')
    parser.add_argument('--key', choices=('params', 'params_ema'),
                        help='keep only these, as params (default: keep both parameter sets unchanged)')
    parser.add_argument('--half', action='store_true', help='store in half precision')
    parser.add_argument('--safetensors', action='store_true', help='write .safetensors instead of .pth')
    parser.add_argument('--results', type=Path, nargs='+', default=[], metavar='FILE',
                        help='scores by `stvsr test`: results/<name>/<data set>.json, or of a protocol '
                        'results/<protocol>_<model>/results.json')
    parser.add_argument('--data', metavar='TEXT', help='training data (default: the name of the data set)')
    parser.add_argument('--licence', metavar='TEXT', help='licence of the weights (default: not stated)')
    parser.add_argument('--url', help='web address of the folder that will serve the file')
