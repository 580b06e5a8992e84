"""A small trainer for patch classifiers: read it top to bottom.

AdamW with a one-cycle schedule, flips and quarter turns, stain and brightness jitter, an exponential moving average
of the weights; then, on the validation cases only, temperature and threshold.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from wsi_pipeline.errors import InferenceError
from wsi_pipeline.training.patches import PatchSet

log = logging.getLogger(__name__)

# Ruifrok & Johnston 2001: haematoxylin, eosin, and a residual, as optical densities of RGB.
_STAINS = torch.nn.functional.normalize(
    torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]]), dim=1
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Settings of a training."""

    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 2e-3
    """Peak of the one-cycle schedule."""
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    stain_jitter: float = 0.15
    """Standard deviation of the factor on each stain's density; its additive part is a third of it."""
    ema_decay: float = 0.998
    seed: int = 0


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 [n, side, side, 3] to float32 [n, 3, side, side], channels last."""
    return ((images.permute(0, 3, 1, 2).float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def augment(images: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """One of the 8 symmetries for each quarter of the batch, and HED jitter (Tellez et al. 2018) for each patch.

    Args:
        images: uint8 [n, side, side, 3].
        recipe: Its `stain_jitter`.
        generator: Source of chance.
    """
    parts = []
    for part in images.chunk(4):
        turn, flip = (int(torch.randint(high, (), generator=generator)) for high in (4, 2))
        turned = torch.rot90(part, turn, (1, 2))
        parts.append(turned.flip(2) if flip else turned)
    turned = torch.cat(parts)
    n = len(turned)
    density = -torch.log((turned.float() + 1) / 256) @ torch.linalg.inv(_STAINS)
    factor = 1 + recipe.stain_jitter * torch.randn(n, 1, 1, 3, generator=generator)
    shift = recipe.stain_jitter / 3 * torch.randn(n, 1, 1, 3, generator=generator)
    rgb = torch.exp(-((density * factor + shift) @ _STAINS)) * 256 - 1
    return rgb.clamp(0, 255).to(torch.uint8)


def fit(
    network: nn.Module, train: PatchSet, validation: PatchSet, recipe: Recipe, *, mean: Tensor, std: Tensor
) -> nn.Module:
    """Train on the CPU (bfloat16 autocast) and return the averaged network.

    Classes are weighted so that both weigh the same.

    Raises:
        InferenceError: where the loss stops being finite.
    """
    from sklearn.metrics import roc_auc_score

    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    network = network.to(memory_format=torch.channels_last)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay), use_buffers=True)
    share = torch.bincount(torch.from_numpy(train.labels), minlength=2) / len(train.labels)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    steps = recipe.epochs * (len(train.labels) // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps, pct_start=0.2)
    for epoch in range(recipe.epochs):
        started, losses = time.perf_counter(), []
        network.train()
        for images, labels in tqdm(_batches(train, recipe, generator), desc=f"epoch {epoch + 1}", disable=None):
            with torch.autocast("cpu", torch.bfloat16):
                logits = network(normalise(augment(images, recipe, generator), mean, std))
            loss = functional.cross_entropy(
                logits.float(), labels, weight=0.5 / share, label_smoothing=recipe.label_smoothing
            )
            if not torch.isfinite(loss):
                raise InferenceError("training", f"the loss became {loss.item()}", "Lower the learning rate.")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            average.update_parameters(network)
            losses.append(loss.item())
        logits_np = predict_logits(average.module, validation.images, mean, std)
        log.info(
            "epoch %d of %d: loss %.4f, validation AUROC %.4f, %.0f s",
            epoch + 1,
            recipe.epochs,
            np.mean(losses),
            roc_auc_score(validation.labels, logits_np[:, 1] - logits_np[:, 0]),
            time.perf_counter() - started,
        )
    return average.module


def _batches(train: PatchSet, recipe: Recipe, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    order = torch.randperm(len(train.labels), generator=generator)
    for rows in order.split(recipe.batch_size):
        if len(rows) == recipe.batch_size:
            yield torch.from_numpy(train.images[rows.numpy()]), torch.from_numpy(train.labels[rows.numpy()])


@torch.inference_mode()
def predict_logits(
    network: nn.Module, images: NDArray[np.uint8], mean: Tensor, std: Tensor, batch_size: int = 256
) -> NDArray[np.float64]:
    """Logits [n, classes] of patches uint8 [n, side, side, 3], in float32 arithmetic."""
    network.eval()
    parts = [
        network(normalise(torch.from_numpy(images[start : start + batch_size]), mean, std))
        for start in range(0, len(images), batch_size)
    ]
    return torch.cat(parts).double().numpy()
