import logging

initialized_logger: dict[str, bool]

def get_root_logger(logger_name: str = 'basicsr', log_level: int = ..., log_file: str | None = None) -> (
        logging.Logger): ...
def get_env_info() -> str: ...
