"""The commands of `stvsr`, one module per command, imported when the command runs. The parser is in package `stvsr`."""
from stvsr.main import main

__all__ = ['main']
