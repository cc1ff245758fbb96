"""Choose the fastest precision and memory layout for a device.

A CPU without bfloat16 instructions emulates them and takes eight times as long. `computes_bf16` therefore checks the
hardware.
"""
import os
from collections.abc import Iterable
from functools import cache
from typing import Literal

import torch
from torch import nn

from ..archs.spec import spec_of

Precision = Literal['fp32', 'bf16', 'fp16']
# For autocast
PRECISIONS: dict[str, torch.dtype | None] = {'fp32': None, 'bf16': torch.bfloat16, 'fp16': torch.float16}
# Values of ONEDNN_MAX_CPU_ISA with which oneDNN, PyTorch's convolution library, does not use bfloat16 instructions.
ISA_WITHOUT_BF16 = {'SSE41', 'AVX', 'AVX2', 'AVX2_VNNI', 'AVX2_VNNI_2', 'AVX512_CORE', 'AVX512_CORE_VNNI'}
BF16_CAPABILITY = 8, 0  # NVIDIA compute capability: Ampere


def computes_bf16(device: str | torch.device) -> bool:
    """Return whether a device has instructions for convolutions in bfloat16.

    These are AVX512-BF16, AMX, or NVIDIA GPUs from Ampere on.
    """
    device = torch.device(device)
    if device.type == 'cuda':
        return torch.version.hip is None and torch.cuda.get_device_capability(device) >= BF16_CAPABILITY
    return device.type == 'cpu' and cpu_has_bf16() and onednn_may_use_bf16()


@cache
def cpu_has_bf16() -> bool:
    """Return whether this CPU has AVX512-BF16 or AMX in bfloat16."""
    if hasattr(torch.cpu, 'get_capabilities'):
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in ('avx512_bf16', 'amx_bf16'))
    # Fallback for earlier versions of PyTorch. A CPU with AMX also has AVX512-BF16.
    return getattr(torch.cpu, '_is_avx512_bf16_supported', lambda: False)()


def onednn_may_use_bf16() -> bool:
    """Return whether oneDNN is on and no environment variable disables its bfloat16 instructions."""
    limit = os.environ.get('ONEDNN_MAX_CPU_ISA') or os.environ.get('DNNL_MAX_CPU_ISA') or ''
    return torch.backends.mkldnn.is_available() and limit.upper() not in ISA_WITHOUT_BF16


def fastest_precision(net: nn.Module, devices: Iterable[str | torch.device]) -> Precision:
    """Return 'bf16' if all devices compute it and the network does not need float32, else 'fp32'."""
    suits = not spec_of(net).needs_float32 and all(computes_bf16(device) for device in devices)
    return 'bf16' if suits else 'fp32'


def prefers_channels_last(device: str | torch.device) -> bool:
    """Return whether convolutions are faster in channels_last: True on CPUs; on GPUs the user decides."""
    return torch.device(device).type == 'cpu'
