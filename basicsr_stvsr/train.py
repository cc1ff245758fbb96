"""BasicSR's training loop, with this plugin's classes registered: `python -m basicsr_stvsr.train -opt FILE`."""
import datetime
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from os import path as osp
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from basicsr.data import build_dataloader, build_dataset
from basicsr.models import build_model
from basicsr.models.base_model import BaseModel
from basicsr.train import init_tb_loggers
from basicsr.utils import get_env_info, get_root_logger, get_time_str
from basicsr.utils.options import dict2str
from torch.utils.data import DataLoader

from stvsr.errors import user_errors

from .compat import provide_wandb_ids
from .config.run_options import RunOptions, read_command, save_options, start_run
from .data.sample_order import BuiltDataset, SampleStream
from .io.frames import FrameReadError
from .models import basicsr_models
from .models.batch import NonFiniteError
from .models.model_files import TrainingState
from .models.stvsr_model import STVSRModel
from .training.loader import make_train_loader, num_shares, open_batches
from .training.log import TrainingLog
from .training.log_file import details_to_file, log_to_file, open_log_file
from .training.run_summary import summarize_training
from .training.state import find_resume_state
from .utils.atomic_files import CheckpointError
from .utils.cpu_memory import keep_freed_memory
from .utils.distributed import any_rank, gather, leave_dist, on_first_rank
from .utils.new_folder import make_new_folder
from .utils.processes import ending_signals
from .utils.random_state import restore_rng_of_rank

# Job schedulers may restart the run after this exit status: 'temporary failure' of sysexits.h.
EXIT_STOPPED = 75


class StopRequest:
    """Record SIGTERM, SIGINT and SIGHUP within its block instead of ending the process; a second SIGINT still ends it.

    SIGHUP comes when the terminal is closed, and stays ignored under nohup.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def __enter__(self) -> 'StopRequest':
        self.before = {number: signal.signal(number, self.note) for number in (signal.SIGINT, *ending_signals())}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def note(self, number: int, _frame: Any) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)

    def __bool__(self) -> bool:
        return self.received is not None


class Position:
    """Progress of a training, in optimiser steps and in samples of all processes together."""

    iter: int
    samples: int

    def __init__(self, opt: dict[str, Any], batches: SampleStream, resume_state: TrainingState | None):
        self.iter, self.samples = (resume_state['iter'], resume_state['samples']) if resume_state else (0, 0)
        self.batches = batches
        self.last_iter = int(opt['train']['total_iter'])
        if opt['train'].get('unit') == 'samples':
            self.last_iter = self.iter + math.ceil((self.last_iter - self.samples) / batches.global_batch)

    @property
    def epoch(self) -> int:
        return self.samples // self.batches.epoch_length

    def advance(self) -> None:
        self.iter += 1
        self.samples += self.batches.global_batch


# ---------------------------------------------------------------- setup

def open_data(opt: dict[str, Any]) -> tuple[BuiltDataset, list[DataLoader[Any]]]:
    """Return the training set, and loaders of the validation sets."""
    train_set, val_loaders = None, []
    for name, dataset_opt in opt['datasets'].items():
        dataset = build_dataset(dataset_opt)
        get_root_logger().info(f'Number of samples in {dataset_opt["name"]} (datasets.{name}): {len(dataset)}')
        if dataset_opt['phase'] == 'train':
            train_set = dataset
        elif dataset_opt['phase'] == 'val':
            val_loaders.append(build_dataloader(dataset, dataset_opt))
    if train_set is None:
        raise ValueError('datasets.train is missing: set the data to train on')
    return train_set, val_loaders


def make_folders(opt: dict[str, Any], run: RunOptions, is_new: bool) -> None:
    """Make the folders of the experiment. A new run moves older ones of the same name away."""
    folder = Path(opt['path']['experiments_root'])
    text = run.file.read_text() if run.file else None  # before the folder that it may be in is moved
    if is_new:
        make_new_folder(folder)
        for name in ('models', 'training_states', 'visualization'):
            os.makedirs(opt['path'][name], exist_ok=True)
        if opt['logger'].get('use_tb_logger') and 'debug' not in opt['name']:
            make_new_folder(Path(opt['root_path']) / 'tb_logger' / opt['name'])
    if run.file and text is not None:
        (folder / run.file.name).write_text(text)
    save_options(run, folder / 'options.yml')


# ---------------------------------------------------------------- the loop

class Training:
    """The training loop.

    Args:
        opt: all options.
        model: the model to train.
        batches: endless iterator.
        position: progress of the training, updated by the loop.
        val_loaders: validation sets.
        log: logs the training.
        tb_logger: SummaryWriter for validations, or None.
    """

    def __init__(self, opt: dict[str, Any], model: BaseModel, batches: Iterator[dict[str, Any]], position: Position,
                 val_loaders: list[DataLoader[Any]], log: TrainingLog, tb_logger: Any):
        self.opt, self.model, self.batches, self.position = opt, model, batches, position
        self.val_loaders, self.log, self.tb_logger = val_loaders, log, tb_logger
        self.saved_iter: int | None = None

    def run(self, stop: StopRequest) -> bool:
        """Train to the last iteration, or to the end of the step in which any process is asked to stop.

        Returns:
            whether it was stopped; the same on all ranks.

        Raises:
            CheckpointError: a checkpoint could not be written.
            NonFiniteError: too many consecutive losses were not finite; a checkpoint was saved.
            FrameReadError: a frame of the data is damaged; a checkpoint was saved if there is one process.
        """
        position, logger, start_time = self.position, get_root_logger(), time.time()
        logger.info(f'Start training from epoch: {position.epoch}, iter: {position.iter}')
        val_freq = self.opt['val'].get('val_freq') if self.opt.get('val') else None
        if isinstance(self.model, STVSRModel):
            self.model.stop_requested = lambda: bool(stop)
        while position.iter < position.last_iter:
            self.step()
            if position.iter % self.opt['logger']['save_checkpoint_freq'] == 0:
                self.save()
            if val_freq and position.iter % val_freq == 0 and position.iter < position.last_iter:
                self.validate()
            if any_rank(bool(stop), self.model.device):
                self.save()
                return True
        logger.info(f'End of training. Time consumed: {datetime.timedelta(seconds=int(time.time() - start_time))}')
        self.save()
        logger.info('Save the latest model.')
        self.model.save(epoch=-1, current_iter=-1)  # BasicSR's value for 'latest'
        if val_freq:
            self.validate()
        return any_rank(bool(stop), self.model.device)

    def step(self) -> None:
        """Run one iteration, and log it if due."""
        model, position = self.model, self.position
        start = time.perf_counter()
        try:
            batch = next(self.batches)
        except FrameReadError:
            if self.opt['world_size'] == 1:  # other ranks are in their step, and would wait
                self.save()
            raise
        data_time = time.perf_counter() - start
        epoch = position.epoch
        position.advance()
        model.feed_data(batch)
        model.update_learning_rate(position.iter, warmup_iter=self.opt['train'].get('warmup_iter', -1))
        try:
            model.optimize_parameters(position.iter)
        except NonFiniteError:
            self.save()
            raise
        self.log.count_iteration(position.iter, data_time=data_time, iter_time=time.perf_counter() - start)
        if position.iter % self.opt['logger']['print_freq'] == 0:
            self.log.log(position.iter, epoch=epoch, lrs=model.get_current_learning_rate(),
                         values=model.get_current_log())

    def save(self) -> None:
        """Save a checkpoint for `--auto_resume`, unless this iteration already has one."""
        if self.saved_iter != self.position.iter:
            get_root_logger().info('Saving models and training states.')
            self.model.save(self.position.epoch, self.position.iter)
            self.saved_iter = self.position.iter

    def validate(self) -> None:
        for loader in self.val_loaders:
            self.model.validation(loader, self.position.iter, self.tb_logger, self.opt['val'].get('save_img', False))
        if isinstance(self.model, STVSRModel):
            self.log.validation(self.position.iter, self.model.validation_results, clips=self.model.clip_results,
                                samples=self.model.sample_frames)
        else:  # BasicSR's models keep no results
            self.log.validation(self.position.iter, {})


class Prepared(NamedTuple):
    """A training that is about to start."""

    opt: dict[str, Any]
    model: BaseModel
    loader: DataLoader[Any]
    val_loaders: list[DataLoader[Any]]
    position: Position
    resume_state: TrainingState | None
    log: TrainingLog
    tb_logger: Any  # SummaryWriter, or None


def prepare(run: RunOptions) -> Prepared | None:
    """Open the data and build the model; make the experiment's folder last, so that an error moves nothing away.

    Returns:
        the training; None where the run only takes a trial step (`check`).
    """
    opt = start_run(run)
    opt['root_path'] = str(run.root)
    torch.backends.cudnn.benchmark = True
    if opt['num_gpu'] == 0:
        keep_freed_memory()
    logger, memory = log_to_file(opt, logging.WARNING if run.check else logging.INFO)
    with details_to_file(logger):
        logger.info(get_env_info())
        logger.info(dict2str(opt))

        resume_state = find_resume_state(opt)
        train_set, val_loaders = open_data(opt)
        model = build_model(opt)
        if isinstance(model, STVSRModel):
            model.check_data(train_set, [cast(BuiltDataset, loader.dataset) for loader in val_loaders])
        basicsr_models.check_data(model, [train_set, *(cast(BuiltDataset, loader.dataset) for loader in val_loaders)])
        if resume_state:
            take_over(opt, model, resume_state)
        loader = make_train_loader(opt, train_set, start=resume_state['samples'] if resume_state else 0)
        position = Position(opt, cast(SampleStream, loader.batch_sampler), resume_state)
        if run.check:
            with open_batches(loader, opt) as batches:
                check(opt, model, batches, position, val_loaders)
            del model
            leave_dist()
            return None

        summary = summarize_training(
            opt, model, train_set, val_loaders, start_iter=position.iter, last_iter=position.last_iter,
            global_batch=position.batches.global_batch, epoch_length=position.batches.epoch_length)
        on_first_rank(lambda: make_folders(opt, run, is_new=resume_state is None))
        if opt['rank'] == 0:
            open_log_file(logger, memory, osp.join(opt['path']['log'], f'train_{opt["name"]}_{get_time_str()}.log'))
        if (opt['logger'].get('wandb') or {}).get('project'):
            provide_wandb_ids()
        tb_logger = init_tb_loggers(opt)
        log = TrainingLog(opt, start_iter=position.iter, total_iter=position.last_iter, tb_logger=tb_logger,
                          summary=summary)
    logger.info(summary)
    if resume_state:
        logger.info(f'Resuming training from epoch: {resume_state["epoch"]}, iter: {resume_state["iter"]}.')
    return Prepared(opt, model, loader, val_loaders, position, resume_state, log, tb_logger)


def train(run: RunOptions, *, report_errors: bool = False) -> None:
    """Train as the options say.

    Args:
        report_errors: whether wrong options and missing data end the process with a message and status 2, instead of
            an exception.

    Raises:
        ValueError, OSError: an option is wrong, or data or weights are missing; nothing was written.
        SystemExit: status 1: the training diverged, a frame is damaged, or a checkpoint could not be written; 75: a
            signal stopped it, and `auto_resume` continues from there.
    """
    with user_errors() if report_errors else nullcontext():
        prepared = prepare(run)
    if prepared is None:
        return
    opt, position = prepared.opt, prepared.position
    stopped_by = run_to_the_end(prepared)
    del prepared  # the model goes before the process group
    leave_dist()
    if stopped_by:
        if opt['rank'] == 0:
            with suppress(OSError):  # the terminal may be gone
                print(f'Stopped by {stopped_by.name} after iteration {position.iter} of {position.last_iter}, and '
                      'saved; --auto_resume continues from there.', file=sys.stderr)
        sys.exit(EXIT_STOPPED)


def run_to_the_end(prepared: Prepared) -> signal.Signals | None:
    """Run the loop; return the signal that stopped it, the same on all ranks."""
    opt, model, loader, val_loaders, position, resume_state, log, tb_logger = prepared
    try:
        with StopRequest() as stop, log, open_batches(loader, opt) as batches:
            training = Training(opt, model, batches, position, val_loaders, log, tb_logger)
            if resume_state and 'rng' in resume_state:
                restore_rng_of_rank(resume_state['rng'])
            is_stopped = training.run(stop)
    except (CheckpointError, FrameReadError, NonFiniteError) as error:
        get_root_logger().error(str(error))
        sys.exit(1)
    finally:
        if tb_logger:
            tb_logger.close()
    if isinstance(model, STVSRModel):
        model.scorer.close()
    return min(filter(None, gather(stop.received))) if is_stopped else None


def train_pipeline(root_path: str, argv: Sequence[str] | None = None) -> None:
    """Train as the command line says.

    Args:
        root_path: folder of experiments/.
        argv: the command line; default: that of this process.
    """
    with user_errors():
        run = read_command('train', root_path, argv)
    train(run, report_errors=True)


def take_over(opt: dict[str, Any], model: BaseModel, resume_state: TrainingState) -> None:
    """Load a training state into the model, and its seed into the sample order."""
    # BasicSR's states have neither samples nor seed.
    resume_state.setdefault('samples', resume_state['iter'] * opt['world_size'] * num_shares(opt)
                            * opt['datasets']['train']['batch_size_per_gpu'])
    opt['manual_seed'] = resume_state.get('seed', opt['manual_seed'])
    model.resume_training(resume_state)


# ---------------------------------------------------------------- --check

def check(opt: dict[str, Any], model: BaseModel, batches: Iterator[dict[str, Any]], position: Position,
          val_loaders: list[DataLoader[Any]]) -> None:
    """Try one step, then time two more, and print what the training will need; write nothing.

    Validate on the first clip of each data set, too.

    Raises:
        ValueError, OSError: it does not fit into GPU memory, no step succeeded, or validation is not possible.
    """
    skipped_before = getattr(model, 'skipped', 0)  # BasicSR's models do not skip steps
    net = model.get_bare_model(model.net_g)
    times, waits = [], []
    for number in range(1, 4):
        start = time.perf_counter()
        batch = next(batches)
        waits.append(time.perf_counter() - start)
        model.update_learning_rate(number, warmup_iter=opt['train'].get('warmup_iter', -1))
        try:
            model.feed_data(batch)
            model.optimize_parameters(number)
        except torch.OutOfMemoryError as error:
            raise ValueError(f'a training step does not fit into GPU memory: {str(error).splitlines()[0]} See '
                             'batch_size_per_gpu, train.accumulate, train.amp, checkpoint of the network') from error
        except NonFiniteError as error:
            raise ValueError(str(error)) from error
        log = model.get_current_log()
        times.append(time.perf_counter() - start)
        if number == 1:
            losses = ', '.join(f'{name} {value:.4g}' for name, value in log.items())
    skipped = getattr(model, 'skipped', 0) - skipped_before
    if skipped == len(times):
        raise ValueError(f'all {skipped} steps were skipped, because losses or gradients were not finite; the warnings '
                         'above name the samples')
    validation = ''.join(try_validation(model, val_loaders))
    if opt['rank'] != 0:
        return
    iter_time, wait = sum(times[1:]) / 2, sum(waits[1:]) / 2
    num_left = position.last_iter - position.iter
    duration = datetime.timedelta(seconds=int(num_left * iter_time))
    shapes = ', '.join(f'{name} {tuple(value.shape)}' for name, value in batch.items() if torch.is_tensor(value))
    num_parameters = sum(parameter.numel() for parameter in net.parameters())
    skipped_line = f'\nskipped     {skipped} of {len(times)} steps: losses or gradients not finite' if skipped else ''
    print(f'''\
network     {type(net).__name__}, {num_parameters:,} parameters
batch       {shapes}, on each of {opt["world_size"]} processes
first step  {losses}{skipped_line}
memory      {describe_memory(model.device)}
time        {iter_time:.3g} s per iteration, including {wait:.2g} s of waiting for data; the first took {times[0]:.3g} s
duration    {duration} for {num_left:,} iterations, without validation{validation}
Nothing was written.''')


def try_validation(model: BaseModel, val_loaders: list[DataLoader[Any]]) -> Iterator[str]:
    """Score one clip of each validation set; yield a line of the report for each."""
    if not isinstance(model, STVSRModel) or not model.opt.get('val'):
        return
    for loader in val_loaders:
        dataset = cast(BuiltDataset, loader.dataset)
        start = time.perf_counter()
        try:
            clip, scores = model.try_validation(dataset)
        except ValueError as error:
            raise ValueError(f'datasets.{dataset.opt.get("key", dataset.opt["name"])}: no validation on its first '
                             f'clip: {error}') from error
        means = ', '.join(f'{name} {sum(score for _, score in values) / len(values):.4g}'
                          for name, values in scores.items() if values)
        yield (f'\nvalidation  {means or "no scores"}, clip {clip!r} of {dataset.opt["name"]}, in '
               f'{time.perf_counter() - start:.3g} s')
    model.scorer.close()


def describe_memory(device: torch.device) -> str:
    if device.type == 'cuda':
        free, total = torch.cuda.mem_get_info(device)
        return (f'{torch.cuda.max_memory_reserved(device) / 2**30:.2f} GiB of the {total / 2**30:.1f} GiB of '
                f'{torch.cuda.get_device_name(device)}, {free / 2**30:.1f} GiB of them free')
    try:
        import resource
    except ImportError:  # Windows
        return 'not measured on this system'
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)
    return f'{peak / 2**30:.2f} GiB at most in this process, without its workers'


if __name__ == '__main__':
    train_pipeline(os.getcwd())
