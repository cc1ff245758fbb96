"""Optimisers for adversarial training."""
from typing import Any, cast

from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict, build_optim_wrapper
from torch import nn

from ..registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class NetworkOptimWrapperConstructor:
    """Build a separate optimiser for every network.

    Args:
        optim_wrapper_cfg: name of the network in the model -> mmengine config for one optimiser, for example
            net_g=dict(optimizer=dict(type='Adam', lr=1e-4)), net_d=dict(...).
        paramwise_cfg: must be None; put it into the config of each network.
    """

    def __init__(self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: dict[str, Any] | None = None):
        if paramwise_cfg is not None:
            raise ValueError('optim_wrapper.paramwise_cfg must be in the block of a network, such as '
                             'optim_wrapper.net_g.paramwise_cfg')
        self.configs = optim_wrapper_cfg

    def __call__(self, model: nn.Module) -> OptimWrapperDict:
        model = cast(nn.Module, model.module) if is_model_wrapper(model) else model
        missing = [name for name in self.configs if not isinstance(getattr(model, name, None), nn.Module)]
        if missing:
            raise ValueError(f'optim_wrapper.{missing[0]}: {type(model).__name__} has no network of this name; its '
                             f'networks are {", ".join(name for name, _ in model.named_children())}')
        return OptimWrapperDict(**{
            name: build_optim_wrapper(getattr(model, name), config) for name, config in self.configs.items()})
