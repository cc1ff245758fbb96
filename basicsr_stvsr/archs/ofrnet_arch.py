"""OFRNet: coarse-to-fine optical flow with one small unit shared by all levels.

Paper: Deep Video Super-Resolution using HR Optical Flow Estimation (TIP 2020). MBNet names this network as its
NET_flow.  Official code: github.com/LongguangWang/SOF-VSR (MIT).  Written from the paper; checked against numeric
outputs of the official network.
The paper's flow p->q lies on q's grid and samples p: it is our flow_qp.
Shapes: B pairs, C channels of an image, F features, H x W pixels.
"""
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from .arch_util import at_least_float32, check_size_multiple, upsample, warp
from .spec import PartSpec


class ShuffleResBlock(nn.Module):
    """Pass half of the channels through a separable convolution, keep the other half, and shuffle the channels."""

    def __init__(self, num_feat: int):
        super().__init__()
        half = num_feat // 2
        self.body = nn.Sequential(
            nn.Conv2d(half, half, 1, bias=False),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False),
            nn.Conv2d(half, half, 1, bias=False),
            nn.LeakyReLU(0.1, inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, dim=1)
        return F.channel_shuffle(torch.cat((kept, self.body(changed)), dim=1), 2)


class FlowUnit(nn.Module):
    """The recurrent unit: frame b, frame a and the current flow_ab -> a correction of that flow, (B, 2, H, W)."""

    def __init__(self, in_channels: int, num_feat: int, num_res: int):
        super().__init__()
        self.head = nn.Conv2d(2 * in_channels + 2, num_feat, 3, padding=1, bias=False)
        self.body = nn.Sequential(*[ShuffleResBlock(num_feat) for _ in range(num_res)])
        self.tail = nn.Conv2d(num_feat, 2, 3, padding=1, bias=False)

    def forward(self, b: Tensor, a: Tensor, flow_ab: Tensor) -> Tensor:
        feat = self.head(torch.cat((b, a, flow_ab), dim=1))
        return self.tail(self.body(F.leaky_relu(feat, 0.1)))


@ARCH_REGISTRY.register()
class OFRNet(nn.Module):
    """Estimate flow at `num_level` scales; each level refines the upsampled flow of the previous one.

    Args:
        in_channels: channels of one image. The source works on luma; MBNet never says so, hence RGB (our choice).
        num_feat: width of the unit (SOF-VSR, TIP version).
        num_res: residual blocks of the unit. The source has 3; 14 gives 765,760 parameters, the 0.76 M that MBNet
            prints, and is our reading of it.
        num_level: number of levels, each twice as fine as the previous one; the finest has the input's size.
        flow_unit: pixels in one unit of the network's raw output. The source normalises its flow by 31 / (size - 1),
            which is 15.5 pixels for any size.
    """

    def __init__(self, *, in_channels: int = 3, num_feat: int = 320, num_res: int = 14, num_level: int = 3,
                 flow_unit: float = 15.5):
        super().__init__()
        self.num_level, self.flow_unit = num_level, flow_unit
        self.part_spec = PartSpec(size_multiple=2**(num_level - 1))
        self.unit = FlowUnit(in_channels, num_feat, num_res)

    def forward(self, a: Tensor, b: Tensor) -> list[Tensor]:
        """Estimate flow_ab: `warp(b, flow_ab)` looks like a.

        Args:
            a, b: (B, C, H, W), 0-1.

        Returns:
            Flows from coarse to fine, each (B, 2, H / 2^k, W / 2^k) in pixels of its grid; float32 even if the images
                have half precision.
        """
        check_size_multiple(a, self.part_spec.size_multiple, 'OFRNet')
        batch, _, h, w = a.shape
        flow_ab, flows_ab = None, []
        for level in reversed(range(self.num_level)):
            small_a, small_b = F.avg_pool2d(a, 2**level), F.avg_pool2d(b, 2**level)
            if flow_ab is None:
                zero = a.new_zeros(batch, 2, h // 2**level, w // 2**level)
                flow_ab = at_least_float32(self.unit(small_b, small_a, zero))
            else:
                # Between levels the flow stays in the network's raw unit, as the unit's input expects.
                flow_ab = 2 * upsample(flow_ab, 2)
                warped_b = warp(small_b, flow_ab * self.flow_unit)
                flow_ab = flow_ab + self.unit(warped_b, small_a, flow_ab.to(a.dtype))
            flows_ab.append(flow_ab * self.flow_unit)
        return flows_ab
