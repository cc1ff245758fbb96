from typing import Any

from .base_model import BaseModel

def build_model(opt: dict[str, Any]) -> BaseModel: ...
