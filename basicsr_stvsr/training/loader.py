"""Endless batches for training."""
import math
import multiprocessing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from basicsr.data.prefetch_dataloader import CUDAPrefetcher
from torch.utils.data import DataLoader

from ..data.sample_order import SampleStream, SeededDataset, SizedDataset
from ..io.frames import FrameReadError
from ..utils.processes import ignore_signals
from ..utils.threads import limit_opencv_in_workers


def make_train_loader(opt: Mapping[str, Any], dataset: SizedDataset, start: int = 0) -> DataLoader[Any]:
    """Build the loader of this process from the options of `datasets.train`.

    Args:
        opt: all options.
        dataset: data set of single samples.
        start: number of samples that all processes together have seen before.

    Raises:
        ValueError: the data set is smaller than the batch of all processes.
    """
    dataset_opt = opt['datasets']['train']
    shares = num_shares(opt)
    batches = SampleStream(
        len(dataset), dataset_opt['batch_size_per_gpu'] * shares, rank=opt['rank'], world_size=opt['world_size'],
        seed=opt['manual_seed'], enlarge_ratio=dataset_opt.get('dataset_enlarge_ratio', 1),
        shuffle=dataset_opt.get('use_shuffle', True), start=start)
    if batches.epoch_length < batches.global_batch:
        share = f' ({batches.batch_size} on each of {opt["world_size"]} processes)' if opt['world_size'] > 1 else ''
        raise ValueError(f'datasets.train has {batches.epoch_length} windows, fewer than one batch of '
                         f'{batches.global_batch}{share}; raise datasets.train.dataset_enlarge_ratio')
    num_workers, ready = dataset_opt.get('num_worker_per_gpu', 0) * shares, {}
    if dataset_opt.get('prefetch_mode') == 'cpu':
        # BasicSR fetches batches in a thread, which draws random numbers in parallel to the training and outlives it.
        num_workers = max(num_workers, 1)
        ready = {'prefetch_factor': 2 + math.ceil(dataset_opt.get('num_prefetch_queue', 1) / num_workers)}
    return DataLoader(
        SeededDataset(dataset), batch_sampler=batches, num_workers=num_workers, worker_init_fn=_prepare_worker, **ready,
        pin_memory=bool(dataset_opt.get('pin_memory')) and opt['num_gpu'] > 0,
        # A separate generator, so that opening the loader does not draw from that of the training
        generator=torch.Generator().manual_seed(opt['manual_seed']))


def num_shares(opt: Mapping[str, Any]) -> int:
    """Return for how many GPUs this process loads; without torchrun one process serves all, as in BasicSR."""
    return 1 if opt['dist'] else max(opt['num_gpu'], 1)


@contextmanager
def open_batches(loader: DataLoader[Any], opt: Mapping[str, Any]) -> Iterator[Iterator[dict[str, Any]]]:
    """Iterate over a loader, then end its workers. With prefetch_mode 'cuda', copy batches to the GPU ahead of time.

    Workers that ignore signals must be ended explicitly. Otherwise the interpreter waits for them forever at exit,
    especially after an exception, because its traceback keeps the iterator alive.
    """
    others = multiprocessing.active_children()
    if opt['datasets']['train'].get('prefetch_mode') == 'cuda':
        prefetcher = CUDAPrefetcher(loader, opt)
        iterator, batches = prefetcher.loader, iter(prefetcher.next, None)
    else:
        iterator = batches = iter(loader)
    workers = [process for process in multiprocessing.active_children() if process not in others]
    try:
        yield batches
    except FrameReadError as error:  # from a worker, its message is a traceback, which ends with the error
        line = str(error).strip().splitlines()[-1]
        raise FrameReadError(line.removeprefix(f'{FrameReadError.__module__}.{FrameReadError.__name__}: ')) from error
    finally:
        if workers:
            iterator._shutdown_workers()  # called by __del__, which may run late
        for worker in workers:
            worker.kill()  # a worker that hangs in its sample


def _prepare_worker(_worker_id: int) -> None:
    """Let a worker keep reading while the training finishes its step after SIGTERM or Ctrl-C; use one thread."""
    ignore_signals()
    limit_opencv_in_workers()
