"""Where a network comes from: a model's name, an option file with weights, or a weights file of another tool."""
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..archs.arch_util import compile_network, to_channels_last
from ..archs.image_network import SUFFIXES, load_image_network
from ..config.loading import load_options
from ..inference.precision import prefers_channels_last
from .table import ZOO, build, check_file, load_network

IMAGE_NETWORK = 'ImageNetwork'  # a weights file of another tool
# Networks without weights
WITHOUT_WEIGHTS: dict[str, dict[str, Any]] = {'dis': {'type': 'DISInterpolation'}}


def is_image_network(name: str) -> bool:
    """Return whether a model's name is that of a weights file of another tool."""
    return name.lower().endswith(SUFFIXES)


@dataclass(frozen=True)
class NetworkSource:
    """The options of a network, and its weights.

    Attributes:
        name: of the model, of the option file, or of the weights file of another tool.
        network: `network_g` of an option file.
        weights: path of the weights; None: the network has none.
        param_key: which weights of that file; None: the best.
    """
    name: str
    network: dict[str, Any]
    weights: Path | None
    param_key: str | None = None

    @classmethod
    def of_name(cls, name: str, *, may_be_file: bool = False) -> 'NetworkSource':
        """Return a model of the zoo, or one without weights.

        Args:
            name: of the model.
            may_be_file: whether the name may be that of a weights file of another tool.

        Raises:
            ValueError: an unknown model, or damaged weights.
            FileNotFoundError: the weights are missing.
        """
        if may_be_file and is_image_network(name):
            if not Path(name).is_file():
                raise FileNotFoundError(f'{name} does not exist; expected the weights of a network')
            return cls(Path(name).name, {'type': IMAGE_NETWORK}, Path(name))
        if name in WITHOUT_WEIGHTS:
            return cls(name, WITHOUT_WEIGHTS[name], None)
        if name not in ZOO:
            raise ValueError(f'no model {name!r}, expected one of {", ".join((*ZOO, *WITHOUT_WEIGHTS))}; or give an '
                             'option file and weights')
        return cls(name, dict(ZOO[name].network), check_file(name))

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

    @property
    def licence(self) -> str | None:
        """Licence of the weights, if it is known."""
        return ZOO[self.name].licence if self.name in ZOO else None

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
        if self.network['type'] == IMAGE_NETWORK:
            assert self.weights is not None
            net: nn.Module = load_image_network(self.weights).to(device)
            if prefers_channels_last(device) if channels_last is None else channels_last:
                net = to_channels_last(net)
        else:
            net = load_network(self.network, self.weights, device, self.param_key, channels_last)
        if compile and (problem := compile_network(net, torch.device(device))):
            print(f'warning: --compile is off: {problem}', file=sys.stderr)
        return net


def network_of(opt: dict[str, Any], file: str | Path) -> dict[str, Any]:
    """Return the `network_g` of an option file, with its `arch_spec`; raise ValueError if it has none."""
    network: dict[str, Any] | None = opt.get('network_g')
    if not network:
        raise ValueError(f'{file} has no network_g')
    return {**network, 'arch_spec': opt['arch_spec']} if opt.get('arch_spec') else network
