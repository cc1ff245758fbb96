"""BasicSR's testing, with this plugin's classes registered: `python -m basicsr_stvsr.test -opt FILE`."""
import logging
import os
from collections.abc import Sequence
from os import path as osp

import torch
from basicsr.data import build_dataloader, build_dataset
from basicsr.models import build_model
from basicsr.utils import get_env_info, get_time_str, make_exp_dirs
from basicsr.utils.options import dict2str

from .config.loading import parse_options, user_errors
from .models.stvsr_model import STVSRModel
from .training.log_file import details_to_file, log_to_file, open_log_file
from .training.run_summary import summarize_test
from .utils.cpu_memory import keep_freed_memory
from .utils.distributed import leave_dist


def test_pipeline(root_path: str, argv: Sequence[str] | None = None) -> None:
    """Run the test of the option file on the command line; results/ is created in `root_path`.

    Args:
        argv: command line; None: that of this process.
    """
    with user_errors():
        opt, _ = parse_options(root_path, is_train=False, argv=argv)
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
                    model.check_clips(loader.dataset)
            # Only now, so that an invalid test does not move older results away.
            make_exp_dirs(opt)
            if opt['rank'] == 0:
                open_log_file(logger, memory, osp.join(opt['path']['log'], f'test_{opt["name"]}_{get_time_str()}.log'))
        logger.info(summarize_test(opt, model, loaders))

    for loader in loaders:
        logger.info(f'Testing {loader.dataset.opt["name"]}...')
        model.validation(loader, current_iter=opt['name'], tb_logger=None, save_img=opt['val'].get('save_img', False))
    if isinstance(model, STVSRModel):
        model.scorer.close()
    del model
    leave_dist()


if __name__ == '__main__':
    test_pipeline(os.getcwd())
