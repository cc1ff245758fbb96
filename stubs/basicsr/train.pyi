from typing import Any

def init_tb_loggers(opt: dict[str, Any]) -> Any: ...  # SummaryWriter, or None
