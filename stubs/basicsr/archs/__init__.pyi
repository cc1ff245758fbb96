from typing import Any

from torch import nn

def build_network(opt: dict[str, Any]) -> nn.Module: ...
