"""A context feature from the frames alone, in place of one from the VSR network (MBNet, Table 1, row 2).

MBNet says 'a pre-trained ResNet'; the extractor here is that of Depth-Aware Video Frame Interpolation (DAIN, CVPR
2019), https://arxiv.org/abs/1904.00830, official code https://github.com/baowenbo/DAIN, MIT.
Shapes: B clips, h x w low resolution.
"""
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from .spec import PartSpec
from .weight_files import load_weights, read_state_dict


class BasicBlock(nn.Module):
    """Residual block of two convolutions without normalisation; only the first is dilated (official code)."""

    def __init__(self, num_feat: int, dilation: int):
        super().__init__()
        self.conv1 = nn.Conv2d(num_feat, num_feat, 3, padding=dilation, dilation=dilation, bias=False)
        self.conv2 = nn.Conv2d(num_feat, num_feat, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.conv2(F.relu(self.conv1(x))))


class ContextExtractor(nn.Module):
    """A frame (B, 3, h, w) -> (B, 195, h, w): the frame and three stages of features."""

    out_channels = 3 + 3 * 64

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 7, padding=3, bias=False)
        self.block1 = BasicBlock(64, dilation=4)
        self.block2 = BasicBlock(64, dilation=8)

    def forward(self, frame: Tensor) -> Tensor:
        feat1 = F.relu(self.stem(frame))
        feat2 = self.block1(feat1)
        feat3 = self.block2(feat2)
        return torch.cat([frame, feat1, feat2, feat3], dim=1)


# Names of the extractor's weights in DAIN's checkpoint, which contains all of DAIN.
DAIN_NAMES = {
    'ctxNet.block1.0.weight': 'stem.weight',
    'ctxNet.block2.conv1.weight': 'block1.conv1.weight',
    'ctxNet.block2.conv2.weight': 'block1.conv2.weight',
    'ctxNet.block3.conv1.weight': 'block2.conv1.weight',
    'ctxNet.block3.conv2.weight': 'block2.conv2.weight',
}


@ARCH_REGISTRY.register()
class ContextResNet(nn.Module):
    """Extract one context feature from both LR frames; how the two are fused is our choice.

    Args:
        num_feat: channels of the feature.
        pretrained: file with initial weights, saved from this class or published by DAIN's authors (best.pth; only the
            extractor is loaded from it, the fusion is initialised randomly).

    Raises:
        FileNotFoundError: `pretrained` does not exist.
        ValueError: `pretrained` holds something else.
    """

    def __init__(self, *, num_feat: int = 64, pretrained: str | None = None):
        super().__init__()
        self.part_spec = PartSpec(feature_channels=num_feat)
        self.extractor = ContextExtractor()
        self.fuse = nn.Conv2d(2 * self.extractor.out_channels, num_feat, 1)
        if pretrained is not None:
            self.load_pretrained(pretrained)

    def load_pretrained(self, path: str) -> None:
        state = read_state_dict(path, what='ContextResNet or DAIN', published='best.pth of baowenbo/DAIN on GitHub')
        if any(name.startswith('ctxNet.') for name in state):
            context = {DAIN_NAMES.get(name, name): value for name, value in state.items() if name.startswith('ctxNet.')}
            load_weights(self.extractor, context, path=path, what="DAIN's context extractor")
        else:
            load_weights(self, state, path=path, what='ContextResNet')

    def forward(self, lq_pair: Tensor) -> Tensor:
        """Extract the feature: (B, 6, h, w), two RGB frames in 0-1 -> (B, num_feat, h, w)."""
        if lq_pair.shape[1] != 6:
            raise ValueError(f'ContextResNet needs two RGB frames (B, 6, h, w), but got {tuple(lq_pair.shape)}')
        contexts = [self.extractor(frame) for frame in lq_pair.chunk(2, dim=1)]
        return self.fuse(torch.cat(contexts, dim=1))
