"""The network of a deep ensemble (Lakshminarayanan et al. 2017): several that answer as one."""

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_pipeline.models.card import Card


class Member(nn.Module):
    """One bundle's network with what its card says goes before and after it; its `context` is left out."""

    mean: Tensor
    std: Tensor
    bias: Tensor

    def __init__(self, network: nn.Module, card: Card) -> None:
        super().__init__()
        self.network = network
        self.side = card.input_px
        self.temperature = card.temperature
        self.register_buffer("mean", torch.tensor(card.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(card.std)[:, None, None], persistent=False)
        self.register_buffer("bias", torch.tensor(card.bias or (0.0,) * len(card.class_names)), persistent=False)

    def forward(self, rgb: Tensor) -> Tensor:
        """From RGB in 0..1, [n, 3, h, w], to the logarithms of calibrated probabilities, float32 [n, classes]."""
        x = ((rgb - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        if x.shape[-1] != self.side:
            x = functional.interpolate(x, (self.side, self.side), mode="bilinear", antialias=True, align_corners=False)
        logits: Tensor = self.network(x)
        return torch.log_softmax(logits.float() / self.temperature + self.bias, 1)


class Ensemble(nn.Module):
    """The mean of its members' calibrated probabilities. Takes RGB in 0..1: each member normalises for itself."""

    def __init__(self, members: Sequence[Member]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, rgb: Tensor) -> Tensor:
        """From RGB in 0..1, [n, 3, h, w], to the logarithm of the mean probability, float32 [n, classes].

        Its softmax is that mean, so that the ensemble can be calibrated like any network.
        """
        return torch.logsumexp(self._log_probabilities(rgb), 1) - log(len(self.members))

    def member_probabilities(self, rgb: Tensor) -> Tensor:
        """From RGB in 0..1, [n, 3, h, w], to each member's calibrated probabilities, float32 [n, members, classes]."""
        return self._log_probabilities(rgb).exp()

    def _log_probabilities(self, rgb: Tensor) -> Tensor:
        return torch.stack([member(rgb) for member in self.members], 1)
