from collections.abc import Callable

from .sr_model import SRModel

class VideoBaseModel(SRModel):
    dist_validation: Callable[..., None]
