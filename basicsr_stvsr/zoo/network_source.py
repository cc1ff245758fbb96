"""Where a network comes from: a model of the zoo, or an option file with weights."""
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..archs.arch_util import compile_network
from ..config.loading import load_options
from .table import build, check_file, entry_of, load_network


@dataclass(frozen=True)
class NetworkSource:
    """The options of a network, and its weights.

    Attributes:
        name: of the zoo model, or of the option file.
        network: `network_g` of an option file.
        weights: path of the weights; None: the network has none.
        param_key: which weights of that file; None: the best.
    """
    name: str
    network: dict[str, Any]
    weights: Path | None
    param_key: str | None = None

    @classmethod
    def of_zoo(cls, name: str) -> 'NetworkSource':
        """Return a model of the zoo.

        Raises:
            ValueError: an unknown model, or damaged weights.
            FileNotFoundError: the weights are missing.
        """
        return cls(name, dict(entry_of(name).network), check_file(name))

    @classmethod
    def of_options(cls, file: Path, weights: Path | None = None) -> 'NetworkSource':
        """Return the network of an option file.

        Args:
            weights: a checkpoint; default: `path.pretrain_network_g` of the file.

        Raises:
            ValueError: the file has no network, or names no weights for it.
            FileNotFoundError: the file is missing.
        """
        opt = load_options(str(file))
        network, path = network_of(opt, file), opt.get('path') or {}
        if weights:
            return cls(file.stem, network, weights)
        if named := path.get('pretrain_network_g'):
            return cls(file.stem, network, Path(named), path.get('param_key_g'))
        if any(True for _ in build(network).parameters()):
            raise ValueError(f'{file} names no weights for {network["type"]}; give them with --weights')
        return cls(file.stem, network, None)

    def fingerprint(self) -> str:
        """Return a string that identifies the network and its weights."""
        facts = json.dumps([self.network, self.param_key], sort_keys=True, default=str)
        digest = hashlib.sha256(facts.encode())
        if self.weights:
            digest.update(self.weights.read_bytes())
        return f'{self.network["type"]} {digest.hexdigest()}'

    def load(self, device: str, *, channels_last: bool | None = None, compile: bool = False) -> nn.Module:
        """Build the network on a device, in evaluation mode.

        Args:
            channels_last: memory layout of the convolutions; default: the faster one.
            compile: whether to compile it; if that is not possible, a warning on stderr says why.
        """
        net = load_network(self.network, self.weights, device, self.param_key, channels_last)
        if compile and (problem := compile_network(net, torch.device(device))):
            print(f'warning: --compile is off: {problem}', file=sys.stderr)
        return net


def network_of(opt: dict[str, Any], file: str | Path) -> dict[str, Any]:
    """Return the `network_g` of an option file; raise ValueError if it has none."""
    network: dict[str, Any] | None = opt.get('network_g')
    if not network:
        raise ValueError(f'{file} has no network_g')
    return network
