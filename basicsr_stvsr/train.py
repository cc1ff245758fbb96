"""BasicSR's training loop, with this plugin's classes registered: `python -m basicsr_stvsr.train -opt FILE`."""
import datetime
import itertools
import logging
import os
import pickle
import re
import sys
import time
from argparse import Namespace
from logging.handlers import MemoryHandler
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

from .distributed import leave_dist
from .options import parse_options, save_options, user_errors


def load_resume_state(opt: dict[str, Any]) -> dict[str, Any] | None:
    """Loads the training state to go on from: the newest one with --auto_resume, else path.resume_state, if any.

    BasicSR's own looks under ./experiments whatever the options say, needs a GPU, and dies of a file that a killed run
    has left unfinished.
    """
    paths, optional = [opt['path'].get('resume_state')], False
    if opt['auto_resume'] and osp.isdir(opt['path']['training_states']):
        states = [name for name in os.listdir(opt['path']['training_states']) if re.fullmatch(r'\d+\.state', name)]
        if states:
            states.sort(key=lambda name: int(name.removesuffix('.state')), reverse=True)
            paths, optional = [osp.join(opt['path']['training_states'], name) for name in states], True
    for path in filter(None, paths):
        try:
            state = torch.load(path, map_location='cpu', weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            if not optional:
                raise ValueError(f'path.resume_state: {path} cannot be read as a training state: {error}') from error
            print(f'warning: {path} cannot be read as a training state and is left out: {error}', file=sys.stderr)
            continue
        opt['path']['resume_state'] = path
        check_resume(opt, state['iter'])
        return state
    return None


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


def log_to_file(opt: dict[str, Any]) -> tuple[logging.Logger, MemoryHandler]:
    """Sets up BasicSR's logger; what it is told is kept until there is a folder for the log, see `open_log_file`."""
    logger = get_root_logger(logger_name='basicsr')
    memory = MemoryHandler(capacity=10**6, flushLevel=logging.CRITICAL + 1)
    memory.setFormatter(logger.handlers[0].formatter)
    if opt['rank'] == 0:
        logger.setLevel(logging.INFO)
        logger.addHandler(memory)
    return logger, memory


def open_log_file(logger: logging.Logger, memory: MemoryHandler, path: str) -> None:
    file = logging.FileHandler(path, 'w')
    file.setFormatter(memory.formatter)
    memory.setTarget(file)
    memory.flush()
    logger.removeHandler(memory)
    logger.addHandler(file)


def make_folders(opt: dict[str, Any], args: Namespace, is_new: bool) -> None:
    """Makes the folders of the experiment, of which a new run moves older ones of the same name away; rank 0 only."""
    if is_new:
        make_exp_dirs(opt)
        if opt['logger'].get('use_tb_logger') and 'debug' not in opt['name']:
            mkdir_and_rename(osp.join(opt['root_path'], 'tb_logger', opt['name']))
    copy_opt_file(args.opt, opt['path']['experiments_root'])
    save_options(args.given, osp.join(opt['path']['experiments_root'], 'options.yml'))


def train_pipeline(root_path: str) -> None:
    """Trains as the option file on the command line says; experiments/ goes under `root_path`."""
    with user_errors():
        opt, args = parse_options(root_path, is_train=True)
        opt['root_path'] = root_path
        torch.backends.cudnn.benchmark = True
        logger, memory = log_to_file(opt)
        logger.info(get_env_info())
        logger.info(dict2str(opt))

        # Data and network before any folder: a mistyped path must not move an older experiment away.
        resume_state = load_resume_state(opt)
        train_loader, train_sampler, val_loaders, _, total_iters = create_train_val_dataloader(opt, logger)
        if len(train_loader) == 0:
            raise ValueError(f'datasets.train has {len(train_loader.dataset)} windows, which is less than one batch of '
                             f'{train_loader.batch_size}; raise datasets.train.dataset_enlarge_ratio')
        model = build_model(opt)
        start_epoch, current_iter = 0, 0
        if resume_state:
            model.resume_training(resume_state)
            start_epoch, current_iter = resume_state['epoch'], resume_state['iter']
            logger.info(f'Resuming training from epoch: {start_epoch}, iter: {current_iter}.')
        prefetcher = make_prefetcher(opt, train_loader)

        if opt['rank'] == 0:
            make_folders(opt, args, is_new=resume_state is None)
            open_log_file(logger, memory, osp.join(opt['path']['log'], f'train_{opt["name"]}_{get_time_str()}.log'))
        if opt['dist']:
            torch.distributed.barrier()
        tb_logger = init_tb_loggers(opt)

    msg_logger = MessageLogger(opt, current_iter, tb_logger)
    logger.info(f'Start training from epoch: {start_epoch}, iter: {current_iter}')
    data_timer, iter_timer = AvgTimer(), AvgTimer()
    start_time = time.time()
    val_freq = opt['val']['val_freq'] if opt.get('val') else 0

    # BasicSR computes the number of epochs as if the last, incomplete batch of each were used, and stops too early.
    for epoch in itertools.count(start_epoch):
        if current_iter >= total_iters:
            break
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
    del model
    leave_dist()


if __name__ == '__main__':
    train_pipeline(os.getcwd())
