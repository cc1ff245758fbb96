"""Makes basicsr 1.4.2 import on today's torch and torchvision, and at once; the only place that patches anything.

Every patch looks first whether the thing is broken, and leaves a working installation alone.
"""
import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from types import ModuleType
from typing import Any

import torch

# A Library object takes its definitions with it when it is collected, so it lives as long as the process.
_libraries: list[torch.library.Library] = []

# The operators whose schemas torchvision expects from its C++ extension while it is being imported.
_TORCHVISION_SCHEMAS = (
    'nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
    'qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
)


def import_torchvision() -> None:
    """Imports torchvision, also where its CUDA wheel sits beside a CPU-only torch.

    There its C++ operators do not load and the import dies with 'operator torchvision::nms does not exist'. With the
    two schemas declared, all of torchvision that is written in Python works; the operators themselves (nms,
    deform_conv2d) stay unavailable.

    Raises:
        RuntimeError: torchvision is broken in another way than the one described here.
    """
    try:
        importlib.import_module('torchvision')
    except RuntimeError as error:
        if 'torchvision::nms does not exist' not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition('.')[0] == 'torchvision']:
            del sys.modules[name]
        library = torch.library.Library('torchvision', 'DEF')
        for schema in _TORCHVISION_SCHEMAS:
            library.define(schema)
        _libraries.append(library)
        importlib.import_module('torchvision')


def alias_functional_tensor() -> None:
    """Gives basicsr.data.degradations the module `functional_tensor`, which torchvision 0.17 dropped."""
    name = 'torchvision.transforms.functional_tensor'
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        sys.modules[name] = importlib.import_module('torchvision.transforms.functional')


class _DeferredPackage(ModuleType):
    """A package whose __init__ runs when something that it defines is first asked for; its modules import before."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') and name != '__all__':  # what Python itself asks every module for
            raise AttributeError(f'module {self.__name__!r} has no attribute {name!r}')
        self.run()
        return getattr(self, name)

    def run(self) -> None:
        apply()
        self.__class__ = ModuleType
        self.__spec__.loader.exec_module(self)


def defer_basicsr() -> None:
    """Lets `from basicsr.utils.registry import ...` run that module alone.

    The __init__ of basicsr imports all of its modules, and with them torchvision and SciPy. That takes longer than
    importing torch. It now runs when something is first imported from the package itself. Does nothing if basicsr is
    already imported.
    """
    if 'basicsr' in sys.modules:
        return
    root = _defer('basicsr', None)
    for room in ('archs', 'data', 'losses', 'metrics', 'models', 'ops', 'utils'):
        setattr(root, room, _defer(f'basicsr.{room}', root.__path__))


def _defer(name: str, path: Sequence[str] | None) -> _DeferredPackage:
    package = module_from_spec(PathFinder.find_spec(name, path))
    package.__class__ = _DeferredPackage
    sys.modules[name] = package
    return package


def import_basicsr() -> None:
    """Imports all of basicsr, also what was deferred."""
    apply()
    importlib.import_module('basicsr')
    for name, module in list(sys.modules.items()):
        if name.partition('.')[0] == 'basicsr' and isinstance(module, _DeferredPackage):
            module.run()


def apply() -> None:
    """Applies every patch that this installation needs; calling it again does nothing."""
    import_torchvision()
    alias_functional_tensor()
