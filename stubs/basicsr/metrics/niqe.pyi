from typing import Any

import numpy as np

def calculate_niqe(img: np.ndarray, crop_border: int, input_order: str = 'HWC', convert_to: str = 'y',
                   **kwargs: Any) -> float: ...
