"""Option files for BasicSR's own scripts, which know neither `base` nor `~` in place of a block."""
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from .check import check_options, has_schema
from .loading import in_package, load_options, set_option


def flatten(file: str | Path, changes: Sequence[str] = ()) -> dict[str, Any]:
    """Return the options of a file, with those of its bases, as BasicSR's train.py or test.py takes them.

    Args:
        changes: 'BLOCK:NAME=VALUE', as --force_yml takes them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an option is wrong, or has no counterpart in BasicSR's loop.
    """
    opt = load_options(str(file))
    for change in changes:
        set_option(opt, change, new_blocks=has_schema(opt))
    is_train = bool(opt.get('train'))
    check_options(deepcopy(opt), is_train)
    opt = {name: without_null(value) for name, value in opt.items() if value is not None}
    opt.setdefault('num_gpu', 'auto')
    path = opt['path'] = opt.get('path') or {}
    path.update({key: in_package(value) for key, value in path.items() if key.startswith('pretrain_network')})
    if is_train:
        fit_to_loop(opt)
    elif 'val' not in opt:
        opt['val'] = {}
    if 'val' in opt:
        opt['val'] = {'save_img': False, 'metrics': None, 'suffix': None, **opt['val']}
    return opt


def fit_to_loop(opt: dict[str, Any]) -> None:
    """Add what BasicSR's training loop reads without a default, and remove validations that never happen.

    Raises:
        ValueError: the loop would read an option in another way.
    """
    if opt['train'].get('unit') == 'samples':
        raise ValueError('train.unit is samples, but BasicSR\'s loop counts iterations; set iterations, and divide '
                         'total_iter and the numbers of the scheduler by the batch size')
    has_validation_set = any(name.split('_')[0] == 'val' for name in opt['datasets'])
    if not (has_validation_set and opt.get('val', {}).get('val_freq')):
        opt.pop('val', None)
        opt['datasets'] = {'train': opt['datasets']['train']}
    train_set = opt['datasets']['train']
    opt['datasets']['train'] = {**train_set, **{
        name: train_set.get(name, default) for name, default in (('num_worker_per_gpu', 0), ('batch_size_per_gpu', 1))}}
    opt['logger'].setdefault('use_tb_logger', False)


def without_null(options: Any) -> Any:
    """Return options without those that are `~`, which removes them."""
    if isinstance(options, dict):
        return {name: without_null(value) for name, value in options.items() if value is not None}
    return options
