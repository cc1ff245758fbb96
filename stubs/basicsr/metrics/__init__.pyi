from . import niqe as niqe
from . import psnr_ssim as psnr_ssim
from .psnr_ssim import calculate_psnr as calculate_psnr
from .psnr_ssim import calculate_ssim as calculate_ssim
