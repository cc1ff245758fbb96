"""The options of a training or a test: those of an option file and those of the command line."""
import random
import shlex
import sys
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from basicsr.utils.dist_util import get_dist_info
from basicsr.utils.misc import set_random_seed

from stvsr.pipeline_parser import make_pipeline_parser

from ..utils.distributed import gather, init_dist
from .check import check_options, has_schema
from .loading import complete_datasets, complete_paths, find_options, load_options, set_option


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of one run. `train` and `test` take them.

    Attributes:
        action: 'train' or 'test'.
        options: contents of an option file, merged with its `base`; checked when the run starts.
        root: folder of experiments/ (training) or results/ (test).
        file: the option file, a copy of which is kept with the experiment; None: there is none.
        launcher: launcher of several processes: 'none', 'pytorch' (torchrun) or 'slurm'.
        auto_resume: whether a training continues from its newest training state, if there is one.
        debug: whether to log, validate and save every few steps.
        check: whether a training only takes a trial step, prints what it needs, and writes nothing.
        command: how the run was started, for the record.
    """
    action: Literal['train', 'test']
    options: dict[str, Any]
    root: Path
    file: Path | None = None
    launcher: Literal['none', 'pytorch', 'slurm'] = 'none'
    auto_resume: bool = False
    debug: bool = False
    check: bool = False
    command: str = ''

    @property
    def is_train(self) -> bool:
        return self.action == 'train'

    @classmethod
    def from_file(cls, action: Literal['train', 'test'], file: str | Path, *, root: str | Path,
                  changes: Sequence[str] = (), launcher: Literal['none', 'pytorch', 'slurm'] = 'none',
                  auto_resume: bool = False, debug: bool = False, check: bool = False, command: str = '',
                  ) -> 'RunOptions':
        """Read an option file.

        Args:
            file: its path, or the name of one that comes with the package, such as `train_mbnet`.
            changes: 'BLOCK:NAME=VALUE', as --force_yml takes them.
            launcher, auto_resume, debug, check, command: see the attributes.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file or a change cannot be read.
        """
        file = find_options(file)
        options = load_options(str(file))
        for change in changes:
            set_option(options, change, new_blocks=has_schema(options))
        return cls(action=action, options=options, root=Path(root), file=file, launcher=launcher,
                   auto_resume=auto_resume, debug=debug, check=check, command=command)


def read_command(action: Literal['train', 'test'], root: str | Path, argv: Sequence[str] | None = None) -> RunOptions:
    """Read the command line of a training or a test, and the option file that it names.

    Args:
        root: folder of experiments/ or results/.
        argv: the command line; default: that of this process.

    Raises:
        FileNotFoundError, ValueError: as `RunOptions.from_file`.
        SystemExit: a wrong flag.
    """
    args = make_pipeline_parser(action).parse_args(argv)
    return RunOptions.from_file(
        action, args.opt, root=root, changes=args.force_yml, launcher=args.launcher, auto_resume=args.auto_resume,
        debug=args.debug, check=getattr(args, 'check', False),
        command=shlex.join(sys.argv if argv is None else [f'stvsr {action}', *argv]))


def start_run(run: RunOptions) -> dict[str, Any]:
    """Check the options of a run, fill in defaults, and set up processes, seeds and paths as BasicSR does.

    Returns:
        the options as BasicSR's data sets and models take them.

    Raises:
        ValueError: an option is wrong; the message names all of them.
    """
    is_train = run.is_train
    opt = check_options(deepcopy(run.options), is_train)

    if opt.setdefault('num_gpu', 'auto') == 'auto':
        opt['num_gpu'] = torch.cuda.device_count()
    opt['dist'] = run.launcher != 'none'
    if opt['dist']:
        # Without GPUs, tensors are in main memory. nccl cannot access it, but BasicSR's files always name nccl.
        backend = {} if opt['num_gpu'] else {'backend': 'gloo'}
        init_dist(run.launcher, **{**(opt.get('dist_params') or {}), **backend})
    opt['rank'], opt['world_size'] = get_dist_info()
    if opt.get('manual_seed') is None:
        opt['manual_seed'] = gather(random.randint(1, 10000))[0]  # the same for all, who share the samples
    set_random_seed(opt['manual_seed'] + opt['rank'])

    opt['is_train'], opt['auto_resume'] = is_train, run.auto_resume
    if run.debug and not opt['name'].startswith('debug'):
        opt['name'] = f'debug_{opt["name"]}'
    complete_datasets(opt)
    complete_paths(opt, str(run.root))
    if not is_train:
        opt['val'] = opt.get('val') or {}
    metrics = (opt.get('val') or {}).get('metrics')
    if metrics:  # `niqe: ~` turns a metric off
        opt['val']['metrics'] = {name: metric for name, metric in metrics.items() if metric}
    if is_train and 'debug' in opt['name']:
        opt['logger'].update(print_freq=1, save_checkpoint_freq=8)
        (opt.get('val') or {}).update(val_freq=8)
    return opt


def save_options(run: RunOptions, path: str | Path) -> None:
    """Write the options of a run as one file, with those of its `base` and the changes by --force_yml."""
    with open(path, 'w', encoding='utf-8') as file:
        file.write(f'# {time.asctime()}: {run.command}\n')
        yaml.safe_dump(run.options, file, sort_keys=False, allow_unicode=True)
