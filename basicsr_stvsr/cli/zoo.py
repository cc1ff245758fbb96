"""The subcommands of `stvsr zoo`."""
import argparse

from stvsr.errors import EXIT_FAILED, print_error

from ..zoo import table
from ..zoo.cards import NOT_TOLD, basicsr_row, cells, facts, megabytes, source
from ..zoo.fetch import fetch, verify
from ..zoo.publish import publish
from ..zoo.table import entry_of


def run_list(args: argparse.Namespace) -> int:
    width = max(map(len, table.ZOO)) + 2
    for name, entry in table.ZOO.items():
        state = ('fetched' if entry.url else 'in the package') if entry.path.is_file() else 'not here'
        print(f'{name:{width}}{entry.parameters:>12,} parameters {megabytes(entry):>11}  {state:16}{entry.about}')
    by_licence: dict[str, list[str]] = {}
    for name, entry in table.ZOO.items():
        by_licence.setdefault(entry.licence, []).append(name)
    for licence, names in by_licence.items():
        print(f'weights of {", ".join(names)}: {licence}')
    return 0


def run_info(args: argparse.Namespace) -> int:
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
    entry_of(args.name)  # fail early on an unknown name
    try:
        print(fetch(args.name, show_progress=True))
    except (OSError, ValueError) as error:
        print_error(error)
        return EXIT_FAILED
    return 0


def run_verify(args: argparse.Namespace) -> int:
    failed = False
    for name in [args.name] if args.name else table.ZOO:
        entry = entry_of(name)
        if not args.name and entry.url and not entry.path.is_file():
            print(f'{name}: not fetched')
            continue
        try:
            print(f'{name}: {verify(name)} is whole')
        except (OSError, ValueError) as error:
            print_error(f'{name}: {error}')
            failed = True
    return EXIT_FAILED if failed else 0


def run_publish(args: argparse.Namespace) -> int:
    done = publish(args.checkpoint, name=args.name, opt=args.opt, into=args.into, key=args.key, half=args.half,
                   as_safetensors=args.safetensors, results=args.results, data=args.data,
                   licence=args.licence or NOT_TOLD, url=args.url)
    print(f'{done.path}: {done.entry.size / 1e6:.2f} MB, sha256 {done.entry.sha256}\n{done.card}: the model card\n')
    print(f"The row for BasicSR's docs/ModelZoo.md:\n\n{basicsr_row(done.entry)}\n")
    print(f'The row for basicsr_stvsr/zoo/table.py:\n\n{source(done.name, done.entry)}')
    return 0
