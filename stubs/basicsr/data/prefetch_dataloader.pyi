from collections.abc import Mapping
from typing import Any

from torch.utils.data import DataLoader

class CUDAPrefetcher:
    loader: Any  # the iterator over the loader
    def __init__(self, loader: DataLoader[Any], opt: Mapping[str, Any]) -> None: ...
    def next(self) -> Any: ...
