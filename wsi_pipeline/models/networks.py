"""Networks of this project's own, beside the residual ones."""

import torch
from torch import Tensor, nn

from wsi_pipeline.errors import BundleError
from wsi_pipeline.models.colour import SevenChannels
from wsi_pipeline.models.resnet import ResNet, resnet18, resnet50


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut path (He et al. 2016), with ELU (Clevert et al. 2016).

    The shortcut is the input itself, or a 1x1 convolution of it where shape changes.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ELU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        same = stride == 1 and inputs == outputs
        self.shortcut: nn.Module = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )
        self.activation = nn.ELU()

    def forward(self, x: Tensor) -> Tensor:
        """From [n, inputs, h, w] to [n, outputs, h / stride, w / stride]."""
        out: Tensor = self.activation(self.path(x) + self.shortcut(x))
        return out


class Residual7(nn.Module):
    """Four residual blocks over seven colour channels: 50 px come down to 50, 25, 13 and 7; 1.2 million weights.

    Takes RGB in 0..1 (a card's mean 0 and std 1): the other channels and the normalisation are made here.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.channels = SevenChannels()
        self.stem = nn.Sequential(nn.Conv2d(7, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ELU())
        self.blocks = nn.Sequential(
            ResidualBlock(32, 32, stride=1),
            ResidualBlock(32, 64, stride=2),
            ResidualBlock(64, 128, stride=2),
            ResidualBlock(128, 256, stride=2),
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(256, classes))

    def forward(self, rgb: Tensor) -> Tensor:
        """From RGB in 0..1, [n, 3, h, w], to logits [n, classes]."""
        logits: Tensor = self.head(self.blocks(self.stem(self.channels(rgb))))
        return logits


class PlainCnn(nn.Module):
    """The baseline: four stages of two 3x3 convolutions, max pooling between them; 1.2 million weights."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stages = nn.Sequential(_stage(3, 32), _stage(32, 64), _stage(64, 128), _stage(128, 256))
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(256, classes))

    def forward(self, x: Tensor) -> Tensor:
        """From normalised [n, 3, h, w], sides at least 8, to logits [n, classes]."""
        *first, last = self.stages
        for stage in first:
            x = self.pool(stage(x))
        logits: Tensor = self.head(last(x))
        return logits


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Resnet50Dense(nn.Module):
    """A ResNet-50 trunk, global average pooling, a dense layer and one sigmoid, given out as the logits [0, z].

    The softmax of [0, z] is the sigmoid of z, and its cross-entropy the binary cross-entropy.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        if classes != 2:
            raise BundleError(
                "architecture 'resnet50-dense'",
                f"has one sigmoid, for 2 classes and not {classes}",
                "Use torchvision/resnet50.",
            )
        self.trunk: ResNet = resnet50(1)
        features = self.trunk.features
        self.trunk.fc = nn.Identity()
        self.head = nn.Sequential(
            nn.Linear(features, 256), nn.ReLU(), nn.BatchNorm1d(256), nn.Dropout(0.5), nn.Linear(256, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """From normalised [n, 3, h, w] to logits [n, 2], the first of them 0. In training n must be above 1."""
        z = self.head(self.trunk(x))
        return torch.cat([torch.zeros_like(z), z], 1)


def resnet18_50px(classes: int) -> nn.Module:
    """ResNet-18 without its early max pooling, so that 50 px end as 4 x 4 positions and not as 2 x 2.

    Names and shapes of the weights are torchvision's own.
    """
    network = resnet18(classes)
    network.maxpool = nn.Identity()
    return network
