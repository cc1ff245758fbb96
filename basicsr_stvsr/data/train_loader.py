"""Batches for training, without end."""
import os
import signal
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from basicsr.data.prefetch_dataloader import CUDAPrefetcher, PrefetchDataLoader
from torch.utils.data import DataLoader, Dataset

from .sampling import SampleStream, SeededDataset


def make_train_loader(opt: Mapping[str, Any], dataset: Dataset, start: int = 0) -> DataLoader:
    """The batches of this process, by the options of `datasets.train`.

    Args:
        opt: all options.
        dataset: data set of single samples.
        start: number of samples that all processes together have seen before.

    Raises:
        ValueError: the data set is smaller than a batch of all processes.
    """
    dataset_opt = opt['datasets']['train']
    shares = num_shares(opt)
    batches = SampleStream(
        len(dataset), dataset_opt['batch_size_per_gpu'] * shares, rank=opt['rank'], world_size=opt['world_size'],
        seed=opt['manual_seed'], enlarge_ratio=dataset_opt.get('dataset_enlarge_ratio', 1),
        shuffle=dataset_opt.get('use_shuffle', True), start=start)
    if batches.epoch_length < batches.global_batch:
        share = f' ({batches.batch_size} on each of {opt["world_size"]} processes)' if opt['world_size'] > 1 else ''
        raise ValueError(f'datasets.train has {batches.epoch_length} windows, which is less than one batch of '
                         f'{batches.global_batch}{share}; raise datasets.train.dataset_enlarge_ratio')
    arguments = dict(
        dataset=SeededDataset(dataset), batch_sampler=batches,
        num_workers=dataset_opt.get('num_worker_per_gpu', 0) * shares, worker_init_fn=ignore_signals,
        pin_memory=bool(dataset_opt.get('pin_memory')) and opt['num_gpu'] > 0,
        # Its own, so that opening the loader draws nothing from the generator of the training
        generator=torch.Generator().manual_seed(opt['manual_seed']))
    if dataset_opt.get('prefetch_mode') == 'cpu':
        return PrefetchDataLoader(num_prefetch_queue=dataset_opt.get('num_prefetch_queue', 1), **arguments)
    return DataLoader(**arguments)


def num_shares(opt: Mapping[str, Any]) -> int:
    """For how many GPUs this process loads: without torchrun one process serves them all, as in BasicSR."""
    return 1 if opt['dist'] else max(opt['num_gpu'], 1)


def fetch(loader: DataLoader, opt: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The batches of a loader, brought to the GPU ahead of time with prefetch_mode 'cuda'."""
    if opt['datasets']['train'].get('prefetch_mode') != 'cuda':
        yield from loader
        return
    prefetcher = CUDAPrefetcher(loader, opt)
    while (batch := prefetcher.next()) is not None:
        yield batch


def ignore_signals(_worker_id: int) -> None:
    """Lets a worker go on reading while the training finishes its step after SIGTERM or Ctrl-C, which reach all.

    The second SIGTERM ends it: the main process sends one to what is left of its workers when it ends itself.
    """
    asked = []

    def on_sigterm(*_: Any) -> None:
        if asked:
            os._exit(1)
        asked.append(True)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, on_sigterm)
