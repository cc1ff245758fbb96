"""Space-time video super-resolution for BasicSR: importing this package registers its classes with BasicSR."""
from . import compat

compat.apply()  # before anything of basicsr is imported

from . import archs, data, losses, metrics, models  # noqa: E402, F401  (imported for what they register)
from .version import __version__  # noqa: E402

__all__ = ['__version__']
