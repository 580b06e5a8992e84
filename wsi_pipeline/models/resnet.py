"""Residual networks (He et al. 2016), with torchvision's names and shapes of the weights.

Why not torchvision's own classes: importing them takes torch's whole compiler along, which is more than a second of
the few that a run needs to its first cell. Its weights fit as they are, and the tests hold both to the same outputs.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: of ResNet-18 and ResNet-34."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _shortcut(inputs, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        """From [n, inputs, h, w] to [n, planes, h / stride, w / stride]."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        found: Tensor = self.relu(out + shortcut)
        return found


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolutions beside a shortcut: of ResNet-50."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        outputs = planes * self.expansion
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """From [n, inputs, h, w] to [n, 4 * planes, h / stride, w / stride]."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        found: Tensor = self.relu(out + shortcut)
        return found


class ResNet(nn.Module):
    """A stem, four layers of blocks, global average pooling and a dense layer `fc`."""

    def __init__(self, block: type[BasicBlock | Bottleneck], blocks: Sequence[int], classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool: nn.Module = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _layer(block, 64, 64, blocks[0], 1)
        self.layer2 = _layer(block, 64 * block.expansion, 128, blocks[1], 2)
        self.layer3 = _layer(block, 128 * block.expansion, 256, blocks[2], 2)
        self.layer4 = _layer(block, 256 * block.expansion, 512, blocks[3], 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc: nn.Module = nn.Linear(512 * block.expansion, classes)
        self.features = 512 * block.expansion
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """From normalised [n, 3, h, w] to logits [n, classes]."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits


def resnet18(classes: int) -> ResNet:
    """11 million weights."""
    return ResNet(BasicBlock, (2, 2, 2, 2), classes)


def resnet34(classes: int) -> ResNet:
    """21 million weights."""
    return ResNet(BasicBlock, (3, 4, 6, 3), classes)


def resnet50(classes: int) -> ResNet:
    """24 million weights."""
    return ResNet(Bottleneck, (3, 4, 6, 3), classes)


def _layer(block: Callable[[int, int, int], nn.Module], inputs: int, planes: int, count: int, stride: int) -> nn.Module:
    outputs = planes * (Bottleneck.expansion if block is Bottleneck else BasicBlock.expansion)
    return nn.Sequential(block(inputs, planes, stride), *(block(outputs, planes, 1) for _ in range(count - 1)))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def _initialise(network: nn.Module) -> None:
    """He et al. 2015 for the convolutions; batch norms start at 1 and 0 as they come.

    On the meta device there is nothing to draw, and trying would import torch's compiler.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
