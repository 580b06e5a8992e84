"""EfficientNet-Lite0: EfficientNet-B0 (Tan & Le, ICML 2019) without squeeze and excitation, with ReLU6.

As the TensorFlow original it pads to the right and below where a stride meets an even side: its ImageNet weights want
that.
"""

import math

from torch import Tensor, nn
from torch.nn import functional

_STAGES = (
    # expansion, channels, blocks, stride, kernel
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
_STEM, _HEAD = 32, 1280
_DEPTH_DROP = 0.2
"""Chance that the last block is left out for a patch in training; it rises to that from the first block on."""


class InvertedResidual(nn.Module):
    """Expanded by a 1x1 convolution, a depthwise one, and reduced by another 1x1; the input added where it fits.

    In training the path is left out for a patch with the chance `drop` (stochastic depth, Huang et al., ECCV 2016).
    """

    def __init__(self, inputs: int, outputs: int, *, expansion: int, kernel: int, stride: int, drop: float) -> None:
        super().__init__()
        wide = inputs * expansion
        parts = [_convolution(inputs, wide, 1)] if expansion > 1 else []
        parts += [_convolution(wide, wide, kernel, stride, groups=wide), _convolution(wide, outputs, 1, act=False)]
        self.path = nn.Sequential(*parts)
        self.adds = stride == 1 and inputs == outputs
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        """From [n, inputs, h, w] to [n, outputs, h / stride, w / stride], rounded up."""
        out: Tensor = self.path(x)
        if not self.adds:
            return out
        if self.training and self.drop:
            out = out * functional.dropout(out.new_ones(len(out), 1, 1, 1), self.drop)
        return x + out


class EfficientNetLite0(nn.Module):
    """A stem, seven stages, a wide 1x1 convolution, global average pooling and a dense layer `fc`."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = _convolution(3, _STEM, 3, 2)
        total = sum(stage[2] for stage in _STAGES)
        stages, inputs, done = [], _STEM, 0
        for expansion, outputs, blocks, stride, kernel in _STAGES:
            stage = nn.Sequential()
            for n in range(blocks):
                drop = _DEPTH_DROP * done / total
                step = stride if n == 0 else 1
                stage.append(
                    InvertedResidual(inputs, outputs, expansion=expansion, kernel=kernel, stride=step, drop=drop)
                )
                inputs, done = outputs, done + 1
            stages.append(stage)
        self.stages = nn.Sequential(*stages)
        self.head = _convolution(inputs, _HEAD, 1)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2))
        self.fc = nn.Linear(_HEAD, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:  # as in `resnet`, but depthwise ones too
                outputs = module.weight[0, 0].numel() * module.out_channels // module.groups
                nn.init.normal_(module.weight, 0, math.sqrt(2 / outputs))

    def forward(self, x: Tensor) -> Tensor:
        """From normalised [n, 3, h, w] to logits [n, classes]."""
        logits: Tensor = self.fc(self.pool(self.head(self.stages(self.stem(x)))))
        return logits


class SamePadding(nn.Module):
    """What a convolution needs around its input for ceil(side / stride) outputs, the odd pixel right and below."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """From [n, c, h, w] to the same with zeros around."""
        height, width = self._lacking(x.shape[2]), self._lacking(x.shape[3])
        return functional.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))

    def _lacking(self, side: int) -> int:
        return (side - 1) // self.stride * self.stride + self.kernel - side


def _convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, *, groups: int = 1, act: bool = True
) -> nn.Sequential:
    """Convolution, batch norm and, where asked for, ReLU6."""
    parts: list[nn.Module] = [] if stride == 1 else [SamePadding(kernel, stride)]
    padding = kernel // 2 if stride == 1 else 0
    parts.append(nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False))
    parts.append(nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01))
    if act:
        parts.append(nn.ReLU6(inplace=True))
    return nn.Sequential(*parts)
