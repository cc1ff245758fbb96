"""Resolve --model, --opt, --weights and --device to a network and its devices."""
import argparse
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from ..archs.arch_util import compile_network
from ..config.loading import load_options
from ..zoo.table import build, check_file, entry_of, load_network


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
            raise ValueError(f'--device {name}: expected auto, cpu, cuda, cuda:N, or several of these') from None
        if device.type == 'cuda' and (device.index or 0) >= num_gpus:
            raise ValueError(f'--device {name}: there is no such GPU, torch finds {num_gpus}')
    return names


class Chosen(NamedTuple):
    """The model selected by the command line.

    Attributes:
        name: of the zoo model, or of the option file.
        network: its `network_g`.
        weights: path of the weights; None: the network has none.
        param_key: which weights of that file; None: the best.
    """
    name: str
    network: dict[str, Any]
    weights: Path | None
    param_key: str | None

    def fingerprint(self) -> str:
        """Return a string that identifies the network and its weights."""
        facts = json.dumps([self.network, self.param_key], sort_keys=True, default=str)
        digest = hashlib.sha256(facts.encode())
        if self.weights:
            digest.update(self.weights.read_bytes())
        return f'{self.network["type"]} {digest.hexdigest()}'


def network_of(opt: dict[str, Any], file: str | Path) -> dict[str, Any]:
    """Return the `network_g` of an option file; raise ValueError if it has none."""
    if not opt.get('network_g'):
        raise ValueError(f'{file} has no network_g')
    return opt['network_g']


def chosen_model(args: argparse.Namespace) -> Chosen:
    """Return the model that --model, --opt and --weights select.

    Raises:
        ValueError: an unknown model, or an option file without a network or without weights.
        FileNotFoundError: a file is missing.
    """
    if args.weights and not args.opt:
        raise ValueError('--weights goes with --opt; other models have weights, or need none')
    if args.model:
        return Chosen(args.model, dict(entry_of(args.model).network), check_file(args.model), None)
    opt = load_options(str(args.opt))
    network, path = network_of(opt, args.opt), opt.get('path') or {}
    if args.weights:
        return Chosen(args.opt.stem, network, args.weights, None)
    if named := path.get('pretrain_network_g'):
        return Chosen(args.opt.stem, network, Path(named), path.get('param_key_g'))
    if any(True for _ in build(network).parameters()):
        raise ValueError(f'{args.opt} names no weights for {network["type"]}; give them with --weights')
    return Chosen(args.opt.stem, network, None, None)


def build_model(args: argparse.Namespace, chosen: Chosen, device: str) -> nn.Module:
    """Build the network on a device, with the memory layout and compilation that the options request."""
    net = load_network(chosen.network, chosen.weights, device, chosen.param_key, args.channels_last)
    if args.compile and (problem := compile_network(net, torch.device(device))):
        print(f'warning: --compile is off: {problem}', file=sys.stderr)
    return net
