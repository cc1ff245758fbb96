from .img_util import imwrite as imwrite
from .logger import get_env_info as get_env_info
from .logger import get_root_logger as get_root_logger
from .misc import check_resume as check_resume
from .misc import get_time_str as get_time_str
from .misc import make_exp_dirs as make_exp_dirs
from .misc import mkdir_and_rename as mkdir_and_rename
