"""BasicSR's testing, with this plugin's classes registered: `python -m basicsr_stvsr.test -opt FILE`."""
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from os import path as osp
from pathlib import Path
from typing import Any, cast

import torch
from basicsr.data import build_dataloader, build_dataset
from basicsr.models import build_model
from basicsr.models.base_model import BaseModel
from basicsr.utils import get_env_info, get_root_logger, get_time_str
from basicsr.utils.options import dict2str
from torch.utils.data import DataLoader

from stvsr.errors import user_errors

from .config.run_options import RunOptions, read_command, start_run
from .data.sample_order import BuiltDataset
from .io.frames import FrameReadError
from .models import basicsr_models
from .models.batch import NonFiniteError
from .models.stvsr_model import STVSRModel
from .training.log_file import details_to_file, log_to_file, open_log_file
from .training.run_summary import name_of, summarize_test
from .utils.cpu_memory import keep_freed_memory
from .utils.distributed import leave_dist
from .utils.new_folder import make_new_folder


def prepare(run: RunOptions) -> tuple[BaseModel, list[DataLoader[Any]]]:
    """Open the data and build the model. The folder of results is made last, so that an error moves nothing away."""
    opt = start_run(run)
    torch.backends.cudnn.benchmark = True
    if opt['num_gpu'] == 0:
        keep_freed_memory()
    logger, memory = log_to_file(opt, logging.INFO)
    with details_to_file(logger):
        logger.info(get_env_info())
        logger.info(dict2str(opt))

        loaders = []
        for _, dataset_opt in sorted(opt['datasets'].items()):
            dataset = build_dataset(dataset_opt)
            loaders.append(build_dataloader(
                dataset, dataset_opt, num_gpu=opt['num_gpu'], dist=opt['dist'], sampler=None,
                seed=opt['manual_seed']))
            logger.info(f'Number of clips in {dataset_opt["name"]}: {len(dataset)}')
        model = build_model(opt)
        if isinstance(model, STVSRModel):
            for loader in loaders:
                model.check_clips(cast(BuiltDataset, loader.dataset))
        basicsr_models.check_data(model, [cast(BuiltDataset, loader.dataset) for loader in loaders])
        if opt['rank'] == 0:
            make_new_folder(Path(opt['path']['results_root']))
            os.makedirs(opt['path']['visualization'], exist_ok=True)
            open_log_file(logger, memory, osp.join(opt['path']['log'], f'test_{opt["name"]}_{get_time_str()}.log'))
    logger.info(summarize_test(opt, model, loaders))
    return model, loaders


def score(model: BaseModel, loaders: list[DataLoader[Any]]) -> None:
    """Score all test sets, and write the results."""
    opt = model.opt
    for loader in loaders:
        get_root_logger().info(f'Testing {name_of(cast(BuiltDataset, loader.dataset))}...')
        model.validation(loader, current_iter=opt['name'], tb_logger=None, save_img=opt['val'].get('save_img', False))
    if isinstance(model, STVSRModel):
        model.scorer.close()


def test(run: RunOptions, *, report_errors: bool = False) -> None:
    """Test a network on data sets, and write the scores.

    Args:
        report_errors: whether wrong options and missing data end the process with a message and status 2, instead of
            an exception.

    Raises:
        ValueError, OSError: an option is wrong, data are missing or damaged, or they do not fit the network.
        NonFiniteError: the network gives values that are not finite.
        SystemExit: status 1: one of the last two, later than at the start, with `report_errors`.
    """
    with user_errors() if report_errors else nullcontext():
        prepared = prepare(run)
    try:
        score(*prepared)
    except (FrameReadError, NonFiniteError) as error:
        if not report_errors:
            raise
        get_root_logger().error(str(error))
        sys.exit(1)
    del prepared  # the model goes before the process group
    leave_dist()


def test_pipeline(root_path: str, argv: Sequence[str] | None = None) -> None:
    """Test as the command line says.

    Args:
        root_path: folder of results/.
        argv: the command line; default: that of this process.
    """
    with user_errors():
        run = read_command('test', root_path, argv)
    test(run, report_errors=True)


if __name__ == '__main__':
    test_pipeline(os.getcwd())
