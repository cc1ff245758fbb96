"""Resolve --model, --opt, --weights and --device to a network and its devices."""
import argparse
import os

import torch

from stvsr.parser import DEFAULT_MODEL

from ..zoo.network_source import NetworkSource


def devices_of(text: str) -> list[str]:
    """Return the devices that `--device` names.

    Raises:
        ValueError: a device does not exist.
    """
    num_gpus = torch.cuda.device_count()
    if text == 'auto':  # each torchrun process of a node uses a separate GPU
        return [f'cuda:{int(os.environ.get("LOCAL_RANK", 0)) % num_gpus}' if num_gpus else 'cpu']
    names = text.split(',')
    for name in names:
        try:
            device = torch.device(name)
        except RuntimeError:
            device = None
        if device is None or device.type not in ('cpu', 'cuda', 'mps'):
            raise ValueError(f'--device {name}: expected auto, cpu, cuda, cuda:N, mps, or several of these')
        if device.type == 'mps' and not torch.backends.mps.is_available():
            raise ValueError(f'--device {name}: torch finds no such GPU; only Macs have them')
        if device.type == 'cuda' and (device.index or 0) >= num_gpus:
            raise ValueError(f'--device {name}: there is no such GPU, torch finds {num_gpus}')
    return names


def network_source(args: argparse.Namespace, *, may_be_file: bool = False) -> NetworkSource:
    """Return the network that --model, --opt and --weights select.

    Args:
        may_be_file: whether --model may be a weights file of another tool.

    Raises:
        ValueError: an unknown model, or an option file without a network or without weights.
        FileNotFoundError: a file is missing.
    """
    if args.weights and not args.opt:
        raise ValueError('--weights goes with --opt; other models have weights, or need none')
    if args.opt:
        return NetworkSource.of_options(args.opt, args.weights)
    return NetworkSource.of_name(args.model or DEFAULT_MODEL, may_be_file=may_be_file)
