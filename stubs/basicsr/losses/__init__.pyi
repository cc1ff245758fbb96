from typing import Any

from torch import nn

def build_loss(opt: dict[str, Any]) -> nn.Module: ...
