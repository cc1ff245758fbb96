"""Networks with weights, by name.

One table: what to build, and where its weights lie. Those of the small networks ship with the package; see the model
card beside them for what they were trained on, and what they are worth.
"""
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from basicsr.archs import build_network
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from .archs.checkpoint import check_hash, load_weights, read_state_dict

WEIGHTS = Path(__file__).parent / 'weights'


@dataclass(frozen=True)
class Entry:
    """A network of the zoo.

    Attributes:
        network: its `network_g`.
        weights: name of the file, which ends in the beginning of its sha256.
        about: what it does, in a line.
    """
    network: Mapping[str, Any]
    weights: str
    about: str


ZOO = {
    'mbnet-small': Entry(
        {'type': 'MBNet', 'scale': 4, 'num_iters': 2, 'feedback': 'vfi', 'vfi_feature': 'vsr',
         'flow_net': {'type': 'OFRNet', 'num_feat': 64, 'num_res': 4, 'flow_unit': 4.0},
         'refine_net': {'type': 'PACFlowNet', 'num_feat': 12, 'guide_channels': 4},
         'vsr_net': {'type': 'RDN', 'num_feat': 32, 'num_grow': 16, 'num_blocks': 4, 'num_layers': 4, 'residual': True},
         'vfi_net': {'type': 'GridNet', 'channels': [12, 24, 48], 'residual': True}},
        'MBNet_small_clips_x4-e3072f98.pth', 'x4 in space, x2 in time'),
    'fisr-small': Entry(
        {'type': 'FISRNet', 'num_feat': [6, 8, 16], 'residual': True},
        'FISR_small_clips_x2-939ed9bf.pth', 'x2 in space, x2 in time'),
    'fstrn-small': Entry(
        {'type': 'FSTRN', 'num_feat': 32, 'num_frb': 20, 'up_kernel': 'pixelshuffle'},
        'FSTRN_small_clips_x4-f232100f.pth', 'x4 in space, of luma'),
    'hoffr-small': Entry(
        {'type': 'HOFFR', 'num_feat': 32, 'num_block': 5, 'num_rcab': 2, 'reduction': 8, 'num_flow_feat': 16},
        'HOFFR_small_clips_x4-fb749adc.pth', 'x4 in space, of frames blurred by motion, which it sharpens'),
    'adaptive-gan-small': Entry(
        {'type': 'VSRResNet', 'scale': 4, 'num_feat': 32, 'num_block': 4, 'add_center': True},
        'AdaptiveGAN_small_clips_x4-0197b860.pth', 'x4 in space, of luma; sharper, and further from the truth'),
}


def load(name: str, device: str | torch.device = 'cpu') -> nn.Module:
    """Builds a network of the zoo with its weights, in evaluation mode.

    Raises:
        ValueError: there is no such network, or the file of its weights is damaged.
        FileNotFoundError: the file of its weights is missing.
    """
    if name not in ZOO:
        raise ValueError(f'no model {name!r} in the zoo, expected one of {", ".join(ZOO)}; or give an option file and '
                         'weights')
    entry = ZOO[name]
    path = WEIGHTS / entry.weights
    check_hash(path)
    return load_network(entry.network, path, device)


def load_network(network: Mapping[str, Any], weights: str | Path | None, device: str | torch.device = 'cpu') -> (
        nn.Module):
    """Builds a network from its options, with weights, in evaluation mode.

    Args:
        network: `network_g` of an option file.
        weights: a checkpoint of a training, or weights alone; None: as the network is built, for those that have none.

    Raises:
        ValueError: there is no such network, an option is wrong, or the file does not hold these weights.
        FileNotFoundError: there is no such file.
    """
    name = network.get('type')
    if name not in ARCH_REGISTRY:
        raise ValueError(f'network_g: type {name!r} is not in ARCH_REGISTRY')
    try:
        net = build_network(dict(network))
    except TypeError as error:  # an argument that it does not have
        raise ValueError(f'network_g: {error}') from error
    if weights is not None:
        load_weights(net, read_state_dict(weights, what=name), path=weights, what=name)
    return net.eval().requires_grad_(False).to(device)
