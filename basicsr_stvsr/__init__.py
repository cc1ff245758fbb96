"""Space-time video super-resolution for BasicSR. Importing this package registers its classes with BasicSR."""
import importlib
from typing import Any

from .utils import threads

threads.limit_spinning()  # before torch is imported

from stvsr import mode  # noqa: E402

from . import compat, discovery  # noqa: E402

if mode.needs_networks_only:
    compat.defer_basicsr()
    discovery.register_networks_only()
    from . import archs  # noqa: F401  (imported for what it registers)
else:
    discovery.register_everything()
from .version import __version__  # noqa: E402

__all__ = ['NetSpec', 'RestoreOptions', '__version__', 'list_models', 'load_network', 'restore']

# Imported on first use: they decode video, which few imports of this package need.
_MODULES = {'NetSpec': 'archs.spec', 'RestoreOptions': 'video.restorer', 'list_models': 'zoo.api',
            'load_network': 'zoo.api', 'restore': 'zoo.api'}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f'{__name__}.{_MODULES[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
