"""Space-time video super-resolution for BasicSR: importing this package registers its classes with BasicSR."""
from typing import Any

from . import threads

threads.limit_spinning()  # before torch is imported

from . import compat  # noqa: E402

compat.apply()  # before anything of basicsr is imported

from . import archs, data, losses, metrics, models  # noqa: E402, F401  (imported for what they register)
from .version import __version__  # noqa: E402

__all__ = ['__version__', 'restore']


def __getattr__(name: str) -> Any:
    if name == 'restore':  # with what decodes video, which few imports of this package need
        from .video.restorer import restore
        return restore
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
