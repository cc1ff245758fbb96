import torch
from basicsr.archs import build_network
from conftest import TINY_NET
from torch.utils.flop_counter import FlopCounterMode

from basicsr_stvsr.zoo.info import FlopCounter


def test_operations_are_counted_as_torch_counts_them():
    net, lq = build_network(dict(TINY_NET)), torch.rand(1, 2, 3, 32, 32)
    with torch.no_grad(), FlopCounter() as ours, FlopCounterMode(display=False) as torchs:
        net(lq)
    assert ours.total == torchs.get_total_flops() > 1e6
