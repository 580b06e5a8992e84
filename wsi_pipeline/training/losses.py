"""Losses on soft labels: class shares of a window that straddles patches, smoothed or mixed ones."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_pipeline.training.recipe import OptimisationSettings

_SMALLEST = 1e-6
"""1 - p in the focal loss is at least this: a power below 1 has no slope at 0."""


def soft_loss(
    logits: Tensor, targets: Tensor, *, weights: Tensor, smoothing: float = 0.0, gamma: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Cross-entropy, or the focal loss of Lin et al. (ICCV 2017) where `gamma` is above 0.

    Args:
        logits: float32 [n, classes].
        targets: float32 [n, classes], shares that sum to 1.
        weights: float32 [classes].
        smoothing: This part of each target is spread evenly over the classes (Szegedy et al., CVPR 2016).
        gamma: How much easy patches are played down.

    Returns:
        Sum over the patches, and the sum of their weights: divided they are the mean.
    """
    targets = targets * (1 - smoothing) + smoothing / targets.shape[1]
    log_p = functional.log_softmax(logits, dim=1)
    weighted = targets * weights
    loss = -weighted * log_p
    if gamma:
        loss = loss * (-torch.expm1(log_p)).clamp_min(_SMALLEST) ** gamma
    return loss.sum(), weighted.sum()


def class_weights(counts: Tensor, settings: OptimisationSettings) -> Tensor:
    """Of each class, float32 [classes]: 1, or such that all classes weigh the same together ("balanced").

    Args:
        counts: [classes] patches that an epoch shows; a class of which there are none weighs 0.
        settings: Their `class_weights`.
    """
    if settings.class_weights == "none":
        return torch.ones(len(counts))
    there = counts > 0
    return torch.where(there, counts.sum() / (there.sum() * torch.where(there, counts, 1)), 0.0).float()


def penalty(network: nn.Module, *, l1: float, l2: float) -> Tensor | float:
    """Weight penalties on the kernels (convolutions and linear layers, not norms and biases) that train."""
    kernels = [p for p in network.parameters() if p.ndim > 1 and p.requires_grad]
    value: Tensor | float = 0.0
    if l1:
        value = value + l1 * torch.stack([p.abs().sum() for p in kernels]).sum()
    if l2:
        value = value + l2 * torch.stack([p.square().sum() for p in kernels]).sum()
    return value
