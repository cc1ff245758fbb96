"""The mmengine side: registries of the scope `basicsr_stvsr`, which mmengine imports by this module's name.

A config with `default_scope = 'basicsr_stvsr'`, or a type `basicsr_stvsr.FSTRN`, finds here what is registered with
BasicSR, ours and BasicSR's own, and the classes of `openmmlab`. Beside that folder, only `zoo.complexity` imports
mmengine.
"""
from collections.abc import Callable
from typing import Any

from basicsr.utils.registry import Registry as BasicSRRegistry

try:
    from mmengine import registry as roots
except ModuleNotFoundError as error:
    raise ModuleNotFoundError('mmengine is missing, for which these registries are; it comes by `pip install '
                              "'basicsr_stvsr[mm]'`", name=error.name) from error

SCOPE = 'basicsr_stvsr'

# (name, what stands under it) -> what mmengine calls with the keys of a config
Adapter = Callable[[str, Callable[..., Any]], Callable[..., Any]]


def as_it_is(_name: str, entry: Callable[..., Any]) -> Callable[..., Any]:
    return entry


class SharedRegistry(roots.Registry):
    """A registry of mmengine that also holds what stands in registries of BasicSR.

    Names are looked up when something is asked for, so that classes that were registered with BasicSR later on are
    found as well. A name that two of them have is that of the first.

    Args:
        parent: mmengine's own registry of this kind.
    """

    def __init__(self, parent: roots.Registry):
        super().__init__(parent.name, parent=parent, scope=SCOPE, locations=['basicsr_stvsr.openmmlab'])
        self.shared: list[tuple[BasicSRRegistry, Adapter]] = []

    def share(self, registry: BasicSRRegistry, adapt: Adapter = as_it_is) -> None:
        """Takes in a registry of BasicSR."""
        self.shared.append((registry, adapt))

    def import_from_location(self) -> None:  # mmengine calls it whenever a name is asked for
        super().import_from_location()
        for registry, adapt in self.shared:
            for name, entry in registry:
                if name not in self.module_dict:
                    self.register_module(name=name, module=adapt(name, entry))


# One for each of mmengine's: where a scope lacks one, mmengine warns whenever something of that kind is built.
_REGISTRIES = {name: SharedRegistry(root) for name, root in vars(roots).items() if isinstance(root, roots.Registry)}

DATA_SAMPLERS = _REGISTRIES['DATA_SAMPLERS']
DATASETS = _REGISTRIES['DATASETS']
METRICS = _REGISTRIES['METRICS']
MODELS = _REGISTRIES['MODELS']
OPTIM_WRAPPER_CONSTRUCTORS = _REGISTRIES['OPTIM_WRAPPER_CONSTRUCTORS']
PARAM_SCHEDULERS = _REGISTRIES['PARAM_SCHEDULERS']
