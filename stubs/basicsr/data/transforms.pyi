from typing import Any

import numpy as np

def mod_crop(img: np.ndarray, scale: int) -> np.ndarray: ...
# Frames, or a pair of frames and flows
def augment(imgs: list[np.ndarray], hflip: bool = True, rotation: bool = True, flows: list[np.ndarray] | None = None,
            return_status: bool = False) -> Any: ...
