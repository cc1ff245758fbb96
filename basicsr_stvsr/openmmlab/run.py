"""Run mmengine's Runner from the command line, like the tools of OpenMMLab's projects.

    python -m basicsr_stvsr.openmmlab.run train options/mmengine/fstrn_small.py
    python -m basicsr_stvsr.openmmlab.run test options/mmengine/fstrn_small.py work_dirs/fstrn_small/iter_3800.pth
    python -m basicsr_stvsr.openmmlab.run export work_dirs/fstrn_small/iter_3800.pth fstrn.pth
"""
import argparse
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError

from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from stvsr.errors import user_errors

from ..config.loading import find_options
from ..io.frames import FrameReadError
from .checkpoint import export_weights


def read_command(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m basicsr_stvsr.openmmlab.run', description=__doc__.split(',')[0])
    actions = parser.add_subparsers(dest='action', required=True)
    for action in ('train', 'test'):
        command = actions.add_parser(action, help=f'{action} by a config')
        command.add_argument('config', help='config of mmengine, .py or .yaml: a path, or one that comes with the '
                             'package, such as mmengine/fstrn_small.py')
        if action == 'train':
            command.add_argument('--resume', action='store_true', help='resume from the newest checkpoint')
        else:
            command.add_argument('checkpoint', nargs='?',
                                 help="checkpoint of the Runner (default: the weights of the config's model.path)")
        command.add_argument('--work-dir', help='folder of checkpoints and logs (default: work_dirs/<config>)')
        command.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
        command.add_argument('--cfg-options', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE',
                             help='override the config')
    command = actions.add_parser('export', help='write the weights of a checkpoint as a file of BasicSR')
    command.add_argument('checkpoint')
    command.add_argument('output')
    return parser.parse_args(argv)


def make_config(args: argparse.Namespace) -> Config:
    """Build the config for the Runner of a command."""
    config = Config.fromfile(find_options(args.config))
    if args.action == 'train':
        config.resume = args.resume or config.get('resume', False)
    else:  # needs no losses
        config.model.update(train=None, network_d=None)
    if args.action == 'test' and args.checkpoint:
        config.load_from, config.model.path = args.checkpoint, None
    config.launcher = args.launcher
    config.work_dir = args.work_dir or config.get('work_dir') or str(Path('work_dirs') / Path(args.config).stem)
    config.merge_from_dict(args.cfg_options)
    return config


def main(argv: Sequence[str] | None = None) -> None:
    args = read_command(argv)
    with user_errors():
        if args.action == 'export':
            export_weights(args.checkpoint, args.output)
            return
        runner = Runner.from_cfg(make_config(args))
    with user_errors((FileNotFoundError, FrameReadError, UnpicklingError)):  # mmengine opens files only now
        if args.action == 'train':
            runner.train()
        else:
            runner.test()


if __name__ == '__main__':
    main()
