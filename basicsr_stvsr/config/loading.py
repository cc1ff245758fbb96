"""Option files and the command line: BasicSR's flags and names, read safely.

BasicSR's own parser loads YAML with a loader that runs code named in the file, takes `2e-4` for text and evaluates what
`--force_yml` is given. This one does not.
"""
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from os import path as osp
from pathlib import Path
from typing import Any

import yaml

from .block import nearest, shown


class OptionLoader(yaml.SafeLoader):
    """PyYAML's safe loader that reads `2e-4` as a number, and refuses a key that stands twice in one block.

    YAML 1.1 takes `2e-4` for text; of a key that stands twice PyYAML takes the last.
    """

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != '<<':
                line = key.start_mark.line + 1
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        problem=f'{key.value} stands in this block already, in line {seen[key.value]}',
                        problem_mark=key.start_mark)
                seen[key.value] = line
        return node

    def refuse_tag(self, node: yaml.Node) -> None:
        tag = node.tag.replace('tag:yaml.org,2002:', '!!')
        raise yaml.constructor.ConstructorError(
            problem=f'the tag {tag} is not allowed: an option file holds values and runs no code',
            problem_mark=node.start_mark)


OptionLoader.add_implicit_resolver(
    'tag:yaml.org,2002:float', re.compile(r'^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$'), list('-+0123456789'))
OptionLoader.add_constructor(None, OptionLoader.refuse_tag)


def load_yaml(text: str, where: str) -> Any:
    """Reads YAML.

    Args:
        text: the YAML.
        where: where it stands, for messages.

    Raises:
        ValueError: it is not YAML, or asks for code to be run; the message tells line and column.
    """
    try:
        return unshared(yaml.load(text, Loader=OptionLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        context = f' ({error.context})' if error.context else ''
        place = f'line {mark.line + 1}, column {mark.column + 1}'
        raise ValueError(f'{where}, {place}: {error.problem}{context}') from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError(f'{where} is not YAML: {" ".join(str(error).split())}') from error


def unshared(value: Any) -> Any:
    """A copy in which every `*name` has a block of its own: programs change options, BasicSR's data sets their own."""
    if isinstance(value, dict):
        return {key: unshared(item) for key, item in value.items()}
    return [unshared(item) for item in value] if isinstance(value, list) else value


@contextmanager
def user_errors() -> Iterator[None]:
    """Turns what is wrong with options and data into a message without traceback, and exit code 2.

    For the time of setting up, where ValueError and OSError (FileNotFoundError, FrameReadError) speak of what the user
    gave; later on, and for any other error, the traceback is what one needs.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)


def load_options(path: str) -> dict[str, Any]:
    """Reads an option file.

    A file may open with `base: FILE`, a path relative to its own: it then states only what differs from that file, as
    the ablations do. See `merge_options` for how the two are put together.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not YAML, asks for code to be run, or does not hold blocks.
    """
    return load_with_bases(Path(path), ())


def load_with_bases(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """`load_options`; `above` are the files that lead to this one by their `base`."""
    named = f', which {above[-1]} names as its base,' if above else ''
    if not path.exists():
        others = [str(file) for file in path.parent.glob('*.yml')]
        raise FileNotFoundError(f'option file {path}{named} does not exist. {nearest(path, others)}'.strip())
    if path.resolve() in (file.resolve() for file in above):
        raise ValueError(f'option file {path}{named} is based on itself')
    if path.is_dir():
        raise ValueError(f'{path}{named} is a folder; an option file is needed')
    try:
        opt = load_yaml(path.read_text(encoding='utf-8'), str(path))
    except UnicodeDecodeError as error:
        raise ValueError(f'{path}{named} is not UTF-8 text (byte {error.start + 1}); is it an option file?') from error
    if not isinstance(opt, dict):
        seen = 'is empty' if opt is None else f'holds {type(opt).__name__}'
        raise ValueError(f'{path}{named} must hold option blocks (name: value), but {seen}')
    base = opt.pop('base', None)
    if base is None:
        return opt
    if not isinstance(base, str):
        raise ValueError(f'{path}: base must be the path of an option file, but is {shown(base)}')
    return merge_options(load_with_bases(path.parent / base, (*above, path)), opt)


def merge_options(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Puts `changes` over `base`: block by block; a block of another `type` replaces the old one, and so do lists."""
    merged = dict(base)
    for name, value in changes.items():
        old = merged.get(name)
        same_kind = isinstance(old, dict) and isinstance(value, dict) and value.get('type') in (None, old.get('type'))
        merged[name] = merge_options(old, value) if same_kind else value
    return merged


def set_option(opt: dict[str, Any], assignment: str, new_blocks: bool = False) -> None:
    """Applies one `--force_yml` entry, such as `train:optim_g:lr=1e-4`; the value is read as YAML.

    Args:
        opt: options, changed in place.
        assignment: the entry.
        new_blocks: whether to make blocks that are not there; for options that are checked afterwards.

    Raises:
        ValueError: the entry has another form, or names a block that does not exist.
    """
    path, separator, value = assignment.partition('=')
    *blocks, name = (key.strip() for key in path.split(':'))
    if not separator or not name or not all(blocks):
        raise ValueError(f'--force_yml takes block:name=value, but got {assignment!r}')
    for i, block in enumerate(blocks):
        if new_blocks and opt.get(block) is None:
            opt[block] = {}
        if not isinstance(opt.get(block), dict):
            raise ValueError(f'--force_yml {assignment}: the options have no block {":".join(blocks[:i + 1])}. '
                             f'{nearest(block, opt)}'.strip())
        opt = opt[block]
    opt[name] = load_yaml(value, f'--force_yml {assignment}')


def complete_datasets(opt: dict[str, Any]) -> None:
    """Gives every data set its name in the file, its phase ('val' of 'val_2'), the scale, and paths without '~'.

    A data set that is turned off (null) is left out.
    """
    opt['datasets'] = {name: dataset for name, dataset in opt['datasets'].items() if dataset}
    for name, dataset in opt['datasets'].items():
        dataset['key'], dataset['phase'] = name, name.split('_')[0]
        if 'scale' in opt:
            dataset['scale'] = opt['scale']
        for key, value in dataset.items():
            if key.startswith('dataroot') and value is not None:
                dataset[key] = osp.expanduser(value)


def complete_paths(opt: dict[str, Any], root_path: str) -> None:
    """Fills in where checkpoints, logs and pictures go; `path.experiments_root` may be given in the file."""
    path = opt['path'] = opt.get('path') or {}
    for key, value in path.items():
        if value is not None and ('resume_state' in key or 'pretrain_network' in key):
            path[key] = osp.expanduser(value)
            # Weights that ship with the package are found from any folder.
            in_package = Path(__file__).parents[2] / value
            if value.startswith('basicsr_stvsr/') and not osp.exists(value) and in_package.is_file():
                path[key] = str(in_package)
    if opt['is_train']:
        root = folder_of(path.get('experiments_root') or osp.join(root_path, 'experiments', opt['name']))
        path.update(
            experiments_root=root, models=osp.join(root, 'models'), training_states=osp.join(root, 'training_states'))
    else:
        root = folder_of(path.get('results_root') or osp.join(root_path, 'results', opt['name']))
        path['results_root'] = root
    path.update(log=root, visualization=osp.join(root, 'visualization'))


def folder_of(path: str) -> str:
    """Without '~', and without a slash at the end, behind which BasicSR would look for the name to move it to."""
    return osp.normpath(osp.expanduser(path))
