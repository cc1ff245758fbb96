"""BasicSR's training loop, with this plugin's classes registered: `python -m basicsr_stvsr.train -opt FILE`."""
import datetime
import logging
import os
import time
from os import path as osp
from typing import Any

import torch
from basicsr.data.prefetch_dataloader import CPUPrefetcher, CUDAPrefetcher
from basicsr.models import build_model
from basicsr.train import create_train_val_dataloader, init_tb_loggers
from basicsr.utils import (
    AvgTimer,
    MessageLogger,
    check_resume,
    get_env_info,
    get_root_logger,
    get_time_str,
    make_exp_dirs,
    mkdir_and_rename,
)
from basicsr.utils.options import copy_opt_file, dict2str

from .options import parse_options, user_errors


def load_resume_state(opt: dict[str, Any]) -> dict[str, Any] | None:
    """Loads the training state to go on from: the newest one with --auto_resume, else path.resume_state, if any.

    BasicSR's own looks under ./experiments whatever the options say, and needs a GPU.
    """
    path = opt['path'].get('resume_state')
    if opt['auto_resume'] and osp.isdir(opt['path']['training_states']):
        iterations = [int(name.removesuffix('.state')) for name in os.listdir(opt['path']['training_states'])
                      if name.removesuffix('.state').isdigit()]
        if iterations:
            path = osp.join(opt['path']['training_states'], f'{max(iterations)}.state')
    if path is None:
        return None
    opt['path']['resume_state'] = path
    state = torch.load(path, map_location='cpu', weights_only=True)
    check_resume(opt, state['iter'])
    return state


def make_prefetcher(opt: dict[str, Any], train_loader: torch.utils.data.DataLoader) -> CPUPrefetcher | CUDAPrefetcher:
    """Wraps the loader as `datasets.train.prefetch_mode` says: absent or 'cpu', or 'cuda'."""
    mode = opt['datasets']['train'].get('prefetch_mode')
    if mode not in (None, 'cpu', 'cuda'):
        raise ValueError(f"datasets.train.prefetch_mode must be absent, 'cpu' or 'cuda', but is {mode!r}")
    if mode == 'cuda':
        if not opt['datasets']['train'].get('pin_memory'):
            raise ValueError("datasets.train.prefetch_mode 'cuda' needs datasets.train.pin_memory: true")
        return CUDAPrefetcher(train_loader, opt)
    return CPUPrefetcher(train_loader)


def train_pipeline(root_path: str) -> None:
    """Trains as the option file on the command line says; experiments/ goes under `root_path`."""
    with user_errors():
        opt, args = parse_options(root_path, is_train=True)
        opt['root_path'] = root_path
        torch.backends.cudnn.benchmark = True

        resume_state = load_resume_state(opt)
        if resume_state is None:
            make_exp_dirs(opt)
            if opt['logger'].get('use_tb_logger') and 'debug' not in opt['name'] and opt['rank'] == 0:
                mkdir_and_rename(osp.join(root_path, 'tb_logger', opt['name']))
        copy_opt_file(args.opt, opt['path']['experiments_root'])

        log_file = osp.join(opt['path']['log'], f'train_{opt["name"]}_{get_time_str()}.log')
        logger = get_root_logger(logger_name='basicsr', log_level=logging.INFO, log_file=log_file)
        logger.info(get_env_info())
        logger.info(dict2str(opt))
        tb_logger = init_tb_loggers(opt)

        train_loader, train_sampler, val_loaders, total_epochs, total_iters = create_train_val_dataloader(opt, logger)
        model = build_model(opt)
        start_epoch, current_iter = 0, 0
        if resume_state:
            model.resume_training(resume_state)
            start_epoch, current_iter = resume_state['epoch'], resume_state['iter']
            logger.info(f'Resuming training from epoch: {start_epoch}, iter: {current_iter}.')
        prefetcher = make_prefetcher(opt, train_loader)

    msg_logger = MessageLogger(opt, current_iter, tb_logger)
    logger.info(f'Start training from epoch: {start_epoch}, iter: {current_iter}')
    data_timer, iter_timer = AvgTimer(), AvgTimer()
    start_time = time.time()
    val_freq = opt['val']['val_freq'] if opt.get('val') else 0

    for epoch in range(start_epoch, total_epochs + 1):
        train_sampler.set_epoch(epoch)
        prefetcher.reset()
        train_data = prefetcher.next()
        while train_data is not None and current_iter < total_iters:
            data_timer.record()
            current_iter += 1
            model.update_learning_rate(current_iter, warmup_iter=opt['train'].get('warmup_iter', -1))
            model.feed_data(train_data)
            model.optimize_parameters(current_iter)
            iter_timer.record()
            if current_iter == 1:
                msg_logger.reset_start_time()
            if current_iter % opt['logger']['print_freq'] == 0:
                msg_logger({
                    'epoch': epoch, 'iter': current_iter, 'lrs': model.get_current_learning_rate(),
                    'time': iter_timer.get_avg_time(), 'data_time': data_timer.get_avg_time(),
                    **model.get_current_log()})
            if current_iter % opt['logger']['save_checkpoint_freq'] == 0:
                logger.info('Saving models and training states.')
                model.save(epoch, current_iter)
            if val_freq and current_iter % val_freq == 0 and current_iter < total_iters:
                for val_loader in val_loaders:
                    model.validation(val_loader, current_iter, tb_logger, opt['val']['save_img'])
            data_timer.start()
            iter_timer.start()
            train_data = prefetcher.next()

    logger.info(f'End of training. Time consumed: {datetime.timedelta(seconds=int(time.time() - start_time))}')
    logger.info('Save the latest model.')
    model.save(epoch=-1, current_iter=-1)  # BasicSR's mark for 'latest'
    if val_freq:
        for val_loader in val_loaders:
            model.validation(val_loader, current_iter, tb_logger, opt['val']['save_img'])
    if tb_logger:
        tb_logger.close()
    if opt['dist']:
        torch.distributed.destroy_process_group()


if __name__ == '__main__':
    train_pipeline(os.getcwd())
