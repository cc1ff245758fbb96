"""How a room (archs, losses, ...) finds its own files, so that a new paper is added by adding files."""
import importlib
import pkgutil
from collections.abc import Iterable


def import_modules(package: str, path: Iterable[str], suffix: str) -> None:
    """Imports every module of `package` whose name ends with `suffix`, in alphabetical order.

    Importing a module runs its `@REGISTRY.register()` lines; a module that is already imported is not run again.

    Args:
        package: dotted name of the room, its `__name__`.
        path: folders of the room, its `__path__`.
        suffix: ending that marks a module to import, as BasicSR has it: `_arch`, `_loss`, `_dataset`, `_model`.
    """
    for name in sorted(module.name for module in pkgutil.iter_modules(path)):
        if name.endswith(suffix):
            importlib.import_module(f'{package}.{name}')
