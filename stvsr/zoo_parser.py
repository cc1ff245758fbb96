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
        verb.set_defaults(run=imported(f'basicsr_stvsr.cli.zoo:run_{name}'))
        return verb

    add('list', 'list the models, and whether their weights are here')
    add('info', 'tell what a model is, and what it reaches').add_argument('name', metavar='NAME')
    fetch = add('fetch', 'get the weights of a model into STVSR_HOME or ~/.cache/basicsr_stvsr, from the '
                'folder STVSR_ZOO if they are there, else from the web; goes on where it was interrupted')
    fetch.add_argument('name', metavar='NAME')
    verify = add('verify', 'compare the weights that are here with their sha256, and try whether they load')
    verify.add_argument('name', nargs='?', metavar='NAME', help='nothing: all of them')
    add_publish_options(add('publish', 'make of a checkpoint the file that is shared, and its model card'))


def add_publish_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('checkpoint', type=Path, metavar='CHECKPOINT', help='models/net_g_*.pth of a training')
    parser.add_argument('--name', metavar='METHOD_TRAINSET_xSCALE', help='(default: of the options)')
    parser.add_argument('--opt', type=Path, metavar='FILE',
                        help='option file of the training (default: the one in its folder)')
    parser.add_argument('--into', type=Path, default=Path(), metavar='FOLDER', help='(default: this one)')
    parser.add_argument('--key', choices=('params', 'params_ema'),
                        help='keep only these, and call them params (default: what there is of both, as it is)')
    parser.add_argument('--half', action='store_true', help='in half precision')
    parser.add_argument('--safetensors', action='store_true', help='.safetensors instead of .pth')
    parser.add_argument('--results', type=Path, nargs='+', default=[], metavar='FILE',
                        help='what `stvsr test` measured: results/<name>/<data set>.json, or by a protocol '
                        'results/<protocol>_<model>/results.json')
    parser.add_argument('--data', metavar='TEXT', help='what it was trained on (default: the name of the data set)')
    parser.add_argument('--licence', metavar='TEXT', help='of the weights (default: not stated)')
    parser.add_argument('--url', help='folder on the web that will serve the file')
