"""Import the modules of a folder (archs, losses, ...) automatically, so that adding a paper only adds files."""
import importlib
import pkgutil
from collections.abc import Iterable

# Modules for `register_everything` to import: (package, path, suffix)
_waiting: list[tuple[str, list[str], str]] = []
_networks_only = False
_FOR_TRAINING = '_dataset', '_loss', '_metric', '_model'


def import_modules(package: str, path: Iterable[str], suffix: str) -> None:
    """Import every module of `package` whose name ends with `suffix`, in alphabetical order.

    Importing a module runs its `@REGISTRY.register()` lines. Imported modules do not run again.

    Args:
        package: dotted name of the package, its `__name__`.
        path: folders of the package, its `__path__`.
        suffix: ending that marks a module to import, as in BasicSR: `_arch`, `_loss`, `_dataset`, `_model`.
    """
    if _networks_only and suffix in _FOR_TRAINING:
        _waiting.append((package, list(path), suffix))
        return
    for name in sorted(module.name for module in pkgutil.iter_modules(path)):
        if name.endswith(suffix):
            importlib.import_module(f'{package}.{name}')


def register_networks_only() -> None:
    """From now on, register only networks and flow estimators; defer data sets, losses, metrics and models."""
    global _networks_only
    _networks_only = True


def register_everything() -> None:
    """Register all classes of this package and of BasicSR, including those deferred by `register_networks_only`."""
    global _networks_only
    from . import compat

    _networks_only = False
    compat.import_basicsr()
    for room in ('archs', 'flow', 'data', 'losses', 'metrics', 'models'):
        importlib.import_module(f'basicsr_stvsr.{room}')
    while _waiting:
        import_modules(*_waiting.pop())
