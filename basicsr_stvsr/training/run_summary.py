"""Summary that a training or a test prints before it starts; the log file has the details."""
from collections.abc import Sequence
from typing import Any, cast

import torch
from basicsr.models.base_model import BaseModel
from torch import nn
from torch.utils.data import DataLoader

from stvsr.printable import counted

from ..data.sample_order import BuiltDataset


def summarize_training(opt: dict[str, Any], model: BaseModel, train_set: BuiltDataset,
                       val_loaders: Sequence[DataLoader[Any]], *, start_iter: int, last_iter: int,
                       global_batch: int, epoch_length: int) -> str:
    """Return one line for each thing to check before a long training.

    Args:
        opt: all options.
        start_iter: iterations that were done before.
        last_iter: the iteration that ends the training.
        global_batch: samples per iteration, over all processes.
        epoch_length: samples per epoch.
    """
    processes = f' ({opt["world_size"]} processes)' if opt['world_size'] > 1 else ''
    iterations = f'{epoch_length / global_batch:,.1f}'.removesuffix('.0')
    lines = {
        'network': describe_networks(model),
        'data': f'{name_of(train_set)}: {counted(len(train_set), "sample")}, batches of {global_batch}{processes}',
        'validation': describe_validation(opt, val_loaders),
        'device': describe_device(model.device, opt['num_gpu']),
        'precision': describe_precision(getattr(model, 'amp', opt['train'].get('amp'))),
        'schedule': f'iterations {start_iter:,} to {last_iter:,}, {iterations} in an epoch; '
                    + ', '.join(describe_optimizer(model)),
        'output': opt['path']['experiments_root'],
    }
    return table(f'Training {opt["name"]}', lines)


def summarize_test(opt: dict[str, Any], model: BaseModel, loaders: Sequence[DataLoader[Any]]) -> str:
    """Return the summary of a test, like `summarize_training`."""
    lines = {
        'network': describe_networks(model),
        'weights': (opt.get('path') or {}).get('pretrain_network_g') or 'none',
        'data': describe_sets(loaders),
        'device': describe_device(model.device, opt['num_gpu']),
        'precision': (opt.get('val') or {}).get('precision', 'fp32'),
        'output': opt['path']['results_root'],
    }
    return table(f'Testing {opt["name"]}', lines)


def table(title: str, lines: dict[str, str]) -> str:
    return '\n'.join([title, *(f'  {name:11} {text}' for name, text in lines.items())])


def describe_networks(model: BaseModel) -> str:
    """Describe the generator, and the discriminator if any, with their numbers of parameters."""
    networks = filter(None, (model.net_g, getattr(model, 'net_d', None)))
    return ', '.join(describe_network(model.get_bare_model(net)) for net in networks)


def describe_network(net: nn.Module) -> str:
    return f'{type(net).__name__} ({sum(parameter.numel() for parameter in net.parameters()):,} parameters)'


def name_of(dataset: BuiltDataset) -> str:
    name: str = dataset.opt['name']
    return name


def describe_sets(loaders: Sequence[DataLoader[Any]]) -> str:
    sets = [cast(BuiltDataset, loader.dataset) for loader in loaders]
    return ', '.join(f'{name_of(each)}: {counted(len(each), "clip")}' for each in sets) or 'none'


def describe_validation(opt: dict[str, Any], loaders: Sequence[DataLoader[Any]]) -> str:
    val_freq = (opt.get('val') or {}).get('val_freq')
    return f'{describe_sets(loaders)}; every {val_freq:,} iterations' if val_freq and loaders else 'none'


def describe_device(device: torch.device, num_gpu: int) -> str:
    if device.type == 'cuda':
        return f'{torch.cuda.get_device_name(device)}{f" and {num_gpu - 1} more" if num_gpu > 1 else ""}'
    return f'CPU, {counted(torch.get_num_threads(), "thread")}'


def describe_precision(amp: str | None) -> str:
    return 'fp32' if amp in (None, 'none') else amp


def describe_optimizer(model: BaseModel) -> list[str]:
    """Describe optimiser, learning rate and schedule of the generator."""
    optimizer = model.optimizers[0]
    rate = optimizer.param_groups[0].get('initial_lr', optimizer.param_groups[0]['lr'])
    schedulers = [type(scheduler).__name__ for scheduler in model.schedulers[:1]]
    return [type(optimizer).__name__, f'learning rate {rate:g}', *schedulers]
