"""Space-time video super-resolution for BasicSR: importing this package registers its classes with BasicSR."""
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

__all__ = ['__version__', 'restore']


def __getattr__(name: str) -> Any:
    if name == 'restore':  # with what decodes video, which few imports of this package need
        from .zoo.restore import restore
        return restore
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
