from typing import Any

import numpy as np

def calculate_psnr(img: np.ndarray, img2: np.ndarray, crop_border: int, input_order: str = 'HWC',
                   test_y_channel: bool = False, **kwargs: Any) -> float: ...
def calculate_ssim(img: np.ndarray, img2: np.ndarray, crop_border: int, input_order: str = 'HWC',
                   test_y_channel: bool = False, **kwargs: Any) -> float: ...
