"""The verbs of `stvsr zoo`: what there is, getting it, checking it, and making more of it."""
import argparse
import sys
from collections.abc import Callable
from pathlib import Path

EXAMPLE = '''\
example:
  stvsr zoo list
  stvsr zoo info fstrn-small
  stvsr zoo verify
  stvsr zoo publish experiments/X/models/net_g_latest.pth --name MBNet_vimeo90k_x4 --results results/test_X/vid4.json'''
FAILED = 1  # exit code


def add_zoo_commands(parser: argparse.ArgumentParser) -> None:
    """Gives a parser, that of `stvsr zoo`, its verbs; each sets `run`, which takes what was parsed."""
    parser.description, parser.epilog = 'The model zoo: networks with weights.', EXAMPLE
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    verbs = parser.add_subparsers(title='verbs', required=True, metavar='VERB')

    def add(name: str, run: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=about, description=f'{about[0].upper()}{about[1:]}.')
        verb.set_defaults(run=run)
        return verb

    add('list', run_list, 'list the models, and whether their weights are here')
    add('info', run_info, 'tell what a model is, and what it reaches').add_argument('name', metavar='NAME')
    fetch = add('fetch', run_fetch, 'get the weights of a model into STVSR_HOME or ~/.cache/basicsr_stvsr, from the '
                'folder STVSR_ZOO if they are there, else from the web; goes on where it was interrupted')
    fetch.add_argument('name', metavar='NAME')
    verify = add('verify', run_verify, 'compare the weights that are here with their sha256, and try whether they load')
    verify.add_argument('name', nargs='?', metavar='NAME', help='nothing: all of them')
    add_publish_options(add('publish', run_publish, 'make of a checkpoint the file that is shared, and its model card'))


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
    parser.add_argument('--licence', metavar='TEXT', help='of the weights (default: not told)')
    parser.add_argument('--url', help='folder on the web where the file will lie')


# ---------------------------------------------------------------- verbs

def run_list(args: argparse.Namespace) -> int:
    from .zoo import ZOO
    from .zoo_page import megabytes

    width = max(map(len, ZOO)) + 2
    for name, entry in ZOO.items():
        state = ('fetched' if entry.url else 'in the package') if entry.path.is_file() else 'not here'
        print(f'{name:{width}}{entry.parameters:>12,} parameters {megabytes(entry):>11}  {state:16}{entry.about}')
    return 0


def run_info(args: argparse.Namespace) -> int:
    from .zoo import entry_of
    from .zoo_page import cells, facts

    entry = entry_of(args.name)
    shown = {fact: text.replace('`', '') for fact, text in facts(args.name, entry).items()}
    for title, scores in ('measured', entry.measured), ('published', entry.published):
        lines = ['{}, {}, frames {}: {} dB, SSIM {}'.format(*cells(score)) for score in scores]
        shown |= {title: '\n'.join(lines)} if lines else {}
    width = max(map(len, shown)) + 2
    for fact, text in shown.items():
        text = text.replace('\n', '\n' + ' ' * width)
        print(f'{fact:{width}}{text}')
    return 0


def run_fetch(args: argparse.Namespace) -> int:
    from .zoo import entry_of
    from .zoo_files import fetch

    entry_of(args.name)  # where there is none, nothing was begun
    try:
        print(fetch(args.name, show_progress=True))
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return FAILED
    return 0


def run_verify(args: argparse.Namespace) -> int:
    from .zoo import ZOO, entry_of
    from .zoo_files import verify

    failed = False
    for name in [args.name] if args.name else ZOO:
        entry = entry_of(name)
        if not args.name and entry.url and not entry.path.is_file():
            print(f'{name}: not fetched')
            continue
        try:
            print(f'{name}: {verify(name)} is whole')
        except (OSError, ValueError) as error:
            print(f'error: {name}: {error}', file=sys.stderr)
            failed = True
    return FAILED if failed else 0


def run_publish(args: argparse.Namespace) -> int:
    from .zoo_page import NOT_TOLD, basicsr_row, source
    from .zoo_publish import publish

    done = publish(args.checkpoint, name=args.name, opt=args.opt, into=args.into, key=args.key, half=args.half,
                   as_safetensors=args.safetensors, results=args.results, data=args.data,
                   licence=args.licence or NOT_TOLD, url=args.url)
    print(f'{done.path}: {done.entry.size / 1e6:.2f} MB, sha256 {done.entry.sha256}\n{done.card}: the model card\n')
    print(f"The row for BasicSR's docs/ModelZoo.md:\n\n{basicsr_row(done.entry)}\n")
    print(f'The row for basicsr_stvsr/zoo.py:\n\n{source(done.name, done.entry)}')
    return 0
