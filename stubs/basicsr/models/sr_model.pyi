from torch import nn
from torch.optim import Optimizer

from .base_model import BaseModel

class SRModel(BaseModel):
    net_g_ema: nn.Module
    ema_decay: float
    optimizer_g: Optimizer

    def init_training_settings(self) -> None: ...
    def setup_optimizers(self) -> None: ...
