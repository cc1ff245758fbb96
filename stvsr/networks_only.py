"""Importing this module first makes basicsr_stvsr register networks only; for processes that get no command line."""
from . import mode

mode.needs_networks_only = True
