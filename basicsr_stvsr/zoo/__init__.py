"""Model zoo: the table of pretrained networks, and functions to fetch, describe and publish weights."""
from .table import ZOO, Entry, build, load, load_network

__all__ = ['ZOO', 'Entry', 'build', 'load', 'load_network']
