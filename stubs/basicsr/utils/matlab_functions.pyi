from typing import overload

import numpy as np
from torch import Tensor

@overload
def imresize(img: Tensor, scale: float, antialiasing: bool = True) -> Tensor: ...
@overload
def imresize(img: np.ndarray, scale: float, antialiasing: bool = True) -> np.ndarray: ...
