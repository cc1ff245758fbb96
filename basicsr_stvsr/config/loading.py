"""Read option files and the command line, with BasicSR's flags and names, but safely.

BasicSR's own parser loads YAML with a loader that runs code named in the file. It also reads `2e-4` as text and
evaluates the values of `--force_yml`.
"""
import re
import stat
from os import path as osp
from pathlib import Path
from typing import Any

import yaml

from ..utils.expansion import expanded_size
from .block import nearest, shortened, shown

MOST_BYTES = 2**20  # of an option file
MOST_VALUES = 100_000  # of an option file, with what its aliases repeat
MOST_BASES = 50


class OptionLoader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """PyYAML's safe loader that reads `2e-4` as a number and rejects duplicate keys in a block.

    In YAML 1.1 `2e-4` is text, and PyYAML keeps the last of several equal keys.
    """

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != '<<':
                line = key.start_mark.line + 1
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        problem=f'{shortened(key.value)} stands in this block already, in line {seen[key.value]}',
                        problem_mark=key.start_mark)
                seen[key.value] = line
        return node

    def refuse_tag(self, node: yaml.Node) -> None:
        raise yaml.constructor.ConstructorError(
            problem=f'the tag {short_tag(node)} is not allowed: an option file holds values and runs no code',
            problem_mark=node.start_mark)


    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:  # such as month 13
            raise yaml.constructor.ConstructorError(
                problem=f'{shown(node.value)} cannot be read as {short_tag(node)}', problem_mark=node.start_mark
            ) from error

    def construct_number(self, node: yaml.Node) -> int:
        """Return a whole number; numbers of thousands of digits take Python long, and cannot be shown."""
        number: int = self.construct_yaml_int(node)
        if abs(number) >= 2**63:
            raise yaml.constructor.ConstructorError(problem='the number has more than 64 bits',
                                                    problem_mark=node.start_mark)
        return number


def short_tag(node: yaml.Node) -> str:
    return shortened(node.tag.replace('tag:yaml.org,2002:', '!!'))


OptionLoader.add_constructor('tag:yaml.org,2002:int', OptionLoader.construct_number)
OptionLoader.add_implicit_resolver(
    'tag:yaml.org,2002:float', re.compile(r'^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$'), list('-+0123456789'))
OptionLoader.add_constructor(None, OptionLoader.refuse_tag)


def load_yaml(text: str, where: str) -> Any:
    """Read YAML.

    Args:
        text: the YAML.
        where: source of the text, for messages.

    Raises:
        ValueError: the text is not YAML, asks to run code, or is too large. The message gives line and column.
    """
    try:
        loader = OptionLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if expanded_size(node, parts_of) > MOST_VALUES:
            raise yaml.constructor.ConstructorError(
                problem=f'more than {MOST_VALUES:,} values, with those that aliases repeat',
                problem_mark=node.start_mark)
        return unshared(loader.construct_document(node))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        context = f' ({error.context})' if error.context else ''
        place = f'line {mark.line + 1}, column {mark.column + 1}'
        raise ValueError(f'{where}, {place}: {error.problem}{context}') from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError(f'{where} is not YAML: {shortened(" ".join(str(error).split()), 200)}') from error


def parts_of(node: yaml.Node) -> list[yaml.Node]:
    """Return the nodes that a YAML node directly contains."""
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def unshared(value: Any) -> Any:
    """Copy a value so that every `*name` gets its own block: programs and BasicSR's data sets modify their options."""
    if isinstance(value, dict):
        return {key: unshared(item) for key, item in value.items()}
    return [unshared(item) for item in value] if isinstance(value, list) else value


def options_folder() -> Path:
    """Return the folder of the option files that come with the package: its own, or in a checkout the one beside it."""
    package = Path(__file__).parents[1]
    inside = package / 'options'
    return inside if inside.is_dir() else package.parent / 'options'


def find_options(path: str | Path) -> Path:
    """Return the path of an option file.

    If there is no such file, look among the files that come with the package: `train_mbnet`, `options/train_mbnet.yml`
    and `ablations/hoffr_no_db` are found from everywhere.
    """
    path = Path(path)
    if path.exists() or path.is_absolute():
        return path
    inside = Path(*path.parts[1:]) if path.parts[:1] == ('options',) else path
    packaged = options_folder() / (inside if inside.suffix else f'{inside}.yml')
    return packaged if packaged.is_file() else path


def load_options(path: str) -> dict[str, Any]:
    """Read an option file; `find_options` finds it.

    A file may start with `base: FILE`, a path relative to its own. It then states only the differences to that file, as
    the ablations do. `merge_options` merges the two.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not YAML, asks to run code, or does not hold blocks.
    """
    return load_with_bases(find_options(path), ())


def load_with_bases(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """Read an option file; `above` lists the files that lead to it through `base`."""
    named = f', which {above[-1]} names as its base,' if above else ''
    if not path.exists():
        others = [str(file) for file in path.parent.glob('*.yml')]
        if not path.suffix:
            others += [file.stem for file in options_folder().glob('*.yml')]
        raise FileNotFoundError(f'option file {path}{named} does not exist. {nearest(path, others)}'.strip())
    if path.resolve() in (file.resolve() for file in above):
        raise ValueError(f'option file {path}{named} is based on itself')
    if len(above) == MOST_BASES:
        raise ValueError(f'option file {path}{named} is based on a chain of more than {MOST_BASES} files')
    try:
        opt = load_yaml(read_small(path, named), str(path))
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


def read_small(path: Path, named: str = '') -> str:
    """Return the text of an option file.

    Raises:
        ValueError: it is a folder or a device, or too large.
        UnicodeDecodeError: it is not UTF-8 text.
    """
    mode, size = path.stat().st_mode, path.stat().st_size
    if not stat.S_ISREG(mode):  # reading a pipe may never end
        kind = 'a folder' if stat.S_ISDIR(mode) else 'a device or a pipe'
        raise ValueError(f'{path}{named} is {kind}; an option file is needed')
    if size > MOST_BYTES:
        raise ValueError(f'{path}{named} has {size:,} bytes, but option files have at most {MOST_BYTES:,}')
    with open(path, encoding='utf-8') as file:
        return file.read(MOST_BYTES)


def merge_options(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Merge `changes` into `base`, block by block. Lists, and blocks of another `type`, replace the old ones."""
    merged = dict(base)
    for name, value in changes.items():
        old: Any = merged.get(name)
        same_kind = isinstance(old, dict) and isinstance(value, dict) and value.get('type') in (None, old.get('type'))
        merged[name] = merge_options(old, value) if same_kind else value
    return merged


def set_option(opt: dict[str, Any], assignment: str, new_blocks: bool = False) -> None:
    """Apply one `--force_yml` entry, such as `train:optim_g:lr=1e-4`. The value is read as YAML.

    Args:
        opt: options, changed in place.
        assignment: the entry.
        new_blocks: whether to create missing blocks; for options that are checked afterwards.

    Raises:
        ValueError: the entry has another form, or names a missing block.
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
    """Set each data set's name in the file, phase ('val' for 'val_2') and scale, and expand '~' in its paths.

    Data sets that are turned off (null) are left out.
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
    """Fill in the folders of checkpoints, logs and images. The file may set `path.experiments_root`."""
    path = opt['path'] = opt.get('path') or {}
    for key, value in path.items():
        if value is not None and ('resume_state' in key or 'pretrain_network' in key):
            path[key] = in_package(osp.expanduser(value))
    if opt['is_train']:
        root = folder_of(path.get('experiments_root') or osp.join(root_path, 'experiments', opt['name']))
        path.update(
            experiments_root=root, models=osp.join(root, 'models'), training_states=osp.join(root, 'training_states'))
    else:
        root = folder_of(path.get('results_root') or osp.join(root_path, 'results', opt['name']))
        path['results_root'] = root
    path.update(log=root, visualization=osp.join(root, 'visualization'))


def in_package(path: str) -> str:
    """Return the path of weights that ship with the package, from any folder; leave others unchanged."""
    shipped = Path(__file__).parents[2] / path
    return str(shipped) if path.startswith('basicsr_stvsr/') and not osp.exists(path) and shipped.is_file() else path


def folder_of(path: str) -> str:
    """Expand '~' and drop a trailing slash: BasicSR renames the folder by appending to its path."""
    return osp.normpath(osp.expanduser(path))
