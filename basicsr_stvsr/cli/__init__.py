"""The commands of `stvsr`, one module each, which is imported when its command runs. The parser is in `stvsr`."""
from stvsr.main import main

__all__ = ['main']
