"""Networks with weights, by name: the table, and what fetches, describes and publishes weights."""
from .table import ZOO, Entry, build, load, load_network

__all__ = ['ZOO', 'Entry', 'build', 'load', 'load_network']
