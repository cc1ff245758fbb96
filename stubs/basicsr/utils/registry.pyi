from collections.abc import Callable, Iterator, KeysView
from typing import Any, TypeVar, overload

T = TypeVar('T')

class Registry:
    _name: str
    _obj_map: dict[str, Any]

    def __init__(self, name: str) -> None: ...
    @overload
    def register(self, obj: None = None, suffix: str | None = None) -> Callable[[T], T]: ...
    @overload
    def register(self, obj: Callable[..., Any], suffix: str | None = None) -> None: ...
    def get(self, name: str, suffix: str = 'basicsr') -> Any: ...
    def __contains__(self, name: object) -> bool: ...
    def __iter__(self) -> Iterator[tuple[str, Any]]: ...
    def keys(self) -> KeysView[str]: ...

DATASET_REGISTRY: Registry
ARCH_REGISTRY: Registry
MODEL_REGISTRY: Registry
LOSS_REGISTRY: Registry
METRIC_REGISTRY: Registry
