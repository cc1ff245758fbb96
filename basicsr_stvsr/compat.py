"""Makes basicsr 1.4.2 import on today's torch and torchvision; the only place that patches anything.

Every patch looks first whether the thing is broken, and leaves a working installation alone.
"""
import importlib
import sys

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


def apply() -> None:
    """Applies every patch that this installation needs; calling it again does nothing."""
    import_torchvision()
    alias_functional_tensor()
