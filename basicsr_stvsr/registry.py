"""Registries of the mmengine scope `basicsr_stvsr`; mmengine imports this module by name.

A config with `default_scope = 'basicsr_stvsr'`, or a type `basicsr_stvsr.FSTRN`, finds all classes registered with
BasicSR, by this package or by BasicSR, and the classes of `openmmlab`. Apart from that folder, only `zoo.complexity`
imports mmengine.
"""
from collections.abc import Callable
from typing import Any

from basicsr.utils.registry import Registry as BasicSRRegistry

try:
    from mmengine import registry as roots
except ModuleNotFoundError as error:
    raise ModuleNotFoundError('these registries need mmengine; install it with `pip install mmengine`',
                              name=error.name) from error

SCOPE = 'basicsr_stvsr'

# (name, registered object) -> what mmengine calls with the keys of a config
Adapter = Callable[[str, Callable[..., Any]], Callable[..., Any]]


def as_it_is(_name: str, entry: Callable[..., Any]) -> Callable[..., Any]:
    return entry


class SharedRegistry(roots.Registry):
    """An mmengine registry that also holds the entries of BasicSR registries.

    Lookup happens on each request, so classes registered with BasicSR later are found too. If two registries share a
    name, the first one wins.

    Args:
        parent: mmengine's root registry of this kind.
    """

    def __init__(self, parent: roots.Registry):
        super().__init__(parent.name, parent=parent, scope=SCOPE, locations=['basicsr_stvsr.openmmlab'])
        self.shared: list[tuple[BasicSRRegistry, Adapter]] = []

    def share(self, registry: BasicSRRegistry, adapt: Adapter = as_it_is) -> None:
        """Add the entries of a BasicSR registry."""
        self.shared.append((registry, adapt))

    def import_from_location(self) -> None:  # mmengine calls it on every lookup
        super().import_from_location()
        for registry, adapt in self.shared:
            for name, entry in registry:
                if name not in self.module_dict:
                    self.register_module(name=name, module=adapt(name, entry))


# One for each of mmengine's, because mmengine warns on every build if a scope lacks one.
_REGISTRIES = {name: SharedRegistry(root) for name, root in vars(roots).items() if isinstance(root, roots.Registry)}

DATA_SAMPLERS = _REGISTRIES['DATA_SAMPLERS']
DATASETS = _REGISTRIES['DATASETS']
METRICS = _REGISTRIES['METRICS']
MODELS = _REGISTRIES['MODELS']
OPTIM_WRAPPER_CONSTRUCTORS = _REGISTRIES['OPTIM_WRAPPER_CONSTRUCTORS']
PARAM_SCHEDULERS = _REGISTRIES['PARAM_SCHEDULERS']
