"""A network in training, as Lightning wants it: what a step does, what is measured, what is optimised."""

import math
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import BinaryAUROC, MulticlassAccuracy

from wsi_pipeline.errors import TrainingError
from wsi_pipeline.models.card import Triple
from wsi_pipeline.training.augment import Augmentation, mix_up
from wsi_pipeline.training.batches import Batch
from wsi_pipeline.training.losses import class_weights, penalty, soft_loss
from wsi_pipeline.training.recipe import OptimisationSettings, Recipe
from wsi_pipeline.training.schedules import freeze, named_stages, trained_at
from wsi_pipeline.training.teacher import Teacher


class Normalise(nn.Module):
    """Patches as the network takes them, exactly as inference does it: normalised, then resized.

    Args:
        mean: Of RGB in 0..1.
        std: Of RGB in 0..1.
        input_px: Side the patches are resized to.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Triple, std: Triple, input_px: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        self.input_px = input_px

    def forward(self, patches: Tensor) -> Tensor:
        """From 0..255 [n, 3, h, w], any type, to normalised float32 [n, 3, input_px, input_px]."""
        values = (patches.float() / 255 - self.mean) / self.std
        return resize(values.contiguous(memory_format=torch.channels_last), self.input_px)


def resize(patches: Tensor, side: int) -> Tensor:
    """[n, 3, h, w] to [n, 3, side, side], bilinear with antialiasing."""
    if patches.shape[-1] == side:
        return patches
    return functional.interpolate(patches, (side, side), mode="bilinear", antialias=True, align_corners=False)


class Classifier(pl.LightningModule):
    """A patch classifier in training.

    Args:
        network: Maps float [n, 3, side, side] to logits [n, classes].
        recipe: Settings.
        normalise: What the network takes.
        counts: [classes] patches of each class that an epoch shows.
        positive: Index of the class whose AUROC is measured.
        steps: Batches of an epoch.
        teacher: Whose word counts beside the labels.
    """

    _weights: Tensor

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        normalise: Normalise,
        *,
        counts: Tensor,
        positive: int,
        steps: int,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.normalise = normalise
        self.history: list[dict[str, float]] = []
        """A row for each epoch that is through, with the columns of ``history.csv``."""
        self._recipe, self._settings, self._steps, self._positive = recipe, recipe.optimisation, steps, positive
        self._augment, self._teacher = Augmentation(recipe.augmentation), teacher
        self.register_buffer("_weights", class_weights(counts, recipe.optimisation), persistent=False)
        self._train_metrics = _metrics(len(counts))
        self._validation_metrics = _metrics(len(counts))
        self._auroc = BinaryAUROC(validate_args=False)
        self._plateau: torch.optim.lr_scheduler.ReduceLROnPlateau | None = None
        self._plateau_state: dict[str, Any] | None = None

    def forward(self, patches: Tensor) -> Tensor:
        """Logits float32 [n, classes] of patches uint8 [n, h, w, 3]."""
        logits: Tensor = self.network(self.normalise(patches.permute(0, 3, 1, 2)))
        return logits.float()

    def on_train_epoch_start(self) -> None:
        """Freeze what this epoch does not train."""
        if self._settings.stages:
            names = tuple(named_stages(self.network))
            freeze(self.network, trained_at(self._settings.stages, self.current_epoch + 1, names))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed all chance of this step (augmentation, dropout) from the recipe: it depends on nothing before."""
        del batch, batch_idx
        torch.manual_seed(step_seed(self._recipe.seed, self.global_step, self.global_rank))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch.

        Raises:
            TrainingError: where it is not finite.
        """
        del batch_idx
        patches, targets = batch
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            if patches.shape[1] > self.normalise.input_px and self._teacher is None:
                # Augmentation is cheaper on small patches; a teacher wants them as they are.
                small = resize(patches.permute(0, 3, 1, 2).float(), self.normalise.input_px)  # no GPU resizes bytes
                patches = small.round().to(torch.uint8).permute(0, 2, 3, 1)
            shown = self._augment(patches)
            if self._settings.mixup:
                shown, targets = mix_up(shown, targets, self._settings.mixup)
            if self._teacher is not None:  # it sees what the network sees (Beyer et al., CVPR 2022)
                targets = self._teacher.blend(shown, targets, mixed=self.trainer.precision == "bf16-mixed")
            inputs = self.normalise(shown)
        logits = self.network(inputs).float()
        total, weight = self._loss(logits, targets, smoothing=self._settings.label_smoothing)
        loss = total / weight
        self._train_metrics["loss"].update(loss.detach(), weight)
        if self._labels_stay:
            self._train_metrics["accuracy"].update(logits.detach(), targets.argmax(1))
        if self._settings.l1 or self._settings.l2:
            loss = loss + penalty(self.network, l1=self._settings.l1, l2=self._settings.l2)
        if not math.isfinite(loss.item()):
            raise TrainingError(
                "training",
                f"the loss became {loss.item()} in epoch {self.current_epoch + 1}",
                "Lower optimisation.lr, set optimisation.clip to 1, or set precision to 32.",
            )
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure a batch; the loss is that of the training without smoothing, mixing and penalties."""
        del batch_idx
        patches, targets = batch
        if not len(patches):  # one of several devices, in a small last batch
            return
        logits, labels = self(patches), targets.argmax(1)
        total, weight = self._loss(logits, targets, smoothing=0.0)
        self._validation_metrics["loss"].update(total / weight, weight)
        self._validation_metrics["accuracy"].update(logits, labels)
        self._auroc.update(logits.softmax(1)[:, self._positive], (labels == self._positive).long())

    @property
    def _labels_stay(self) -> bool:
        """Whether there is an accuracy in training: mixed patches and a teacher's word are no labels."""
        return not self._settings.mixup and self._teacher is None

    def _loss(self, logits: Tensor, targets: Tensor, *, smoothing: float) -> tuple[Tensor, Tensor]:
        gamma = self._settings.gamma if self._settings.loss == "focal" else 0.0
        return soft_loss(logits, targets, weights=self._weights, smoothing=smoothing, gamma=gamma)

    def on_validation_epoch_end(self) -> None:
        """Log what was measured; early stopping and checkpoints look at it."""
        found = {f"validation_{key}": metric.compute() for key, metric in self._validation_metrics.items()}
        found["validation_auroc"] = self._auroc.compute()
        self._validation_metrics.reset()
        self._auroc.reset()
        self.log_dict(found)

    def on_train_epoch_end(self) -> None:
        """Write the epoch's row of the history, and lower the learning rate where the loss has come to a plateau."""
        measured = {key: metric for key, metric in self._train_metrics.items() if key == "loss" or self._labels_stay}
        train = {f"train_{key}": metric.compute() for key, metric in measured.items()}
        self._train_metrics.reset()
        found = {key: float(value) for key, value in {**self.trainer.callback_metrics, **train}.items()}
        optimizer = self.trainer.optimizers[0]
        row = {key: found.get(key, math.nan) for key in HISTORY[1:-1]}
        self.history.append({"epoch": self.current_epoch + 1, **row, "lr": optimizer.param_groups[0]["lr"]})
        self.log_dict({**train, "lr": self.history[-1]["lr"]})
        if self._plateau is not None:
            watched = found.get("validation_loss", math.nan)
            self._plateau.step(found["train_loss"] if math.isnan(watched) else watched)

    def configure_optimizers(self) -> Any:
        """The recipe's optimizer and schedule. The plateau schedule is stepped by hand, so that checkpoints hold it."""
        optimizer = build_optimizer(self.network, self._settings, self.device)
        if self._settings.schedule == "plateau":
            self._plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, factor=self._settings.plateau_factor, patience=self._settings.plateau_patience
            )
            if self._plateau_state is not None:
                self._plateau.load_state_dict(self._plateau_state)
        if self._settings.schedule != "one_cycle":
            return optimizer
        total = self._settings.epochs * self._steps + 1  # its first rate is no step
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            self._settings.lr,
            total_steps=total,
            pct_start=max(self._settings.warmup, 2 / total),  # it cannot rise in less than a step
            cycle_momentum=self._settings.optimizer != "sgd",  # whose momentum is the recipe's
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the history and the plateau schedule."""
        checkpoint["history"] = self.history
        checkpoint["plateau"] = self._plateau.state_dict() if self._plateau is not None else None

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the history and the plateau schedule."""
        self.history = list(checkpoint["history"])
        self._plateau_state = checkpoint["plateau"]
        if self._plateau is not None and self._plateau_state is not None:
            self._plateau.load_state_dict(self._plateau_state)


HISTORY = (
    "epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "validation_auroc", "lr",
)  # fmt: skip
"""Columns of ``history.csv``."""


def step_seed(*parts: int) -> int:
    """A seed for the step of a training, of 64 bits."""
    high, low = np.random.SeedSequence(parts).generate_state(2)
    return int(high) << 31 | int(low) >> 1


def build_optimizer(network: nn.Module, settings: OptimisationSettings, device: torch.device) -> torch.optim.Optimizer:
    """The recipe's optimizer over all weights; weight decay on kernels only, not on norms and biases."""
    groups = [
        {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    fused = device.type in {"cpu", "cuda"} and settings.clip is None  # Lightning clips no fused one
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=settings.momentum > 0)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=settings.lr, fused=fused)


def _metrics(classes: int) -> MetricCollection:
    accuracy = MulticlassAccuracy(classes, average="micro", validate_args=False)
    return MetricCollection({"loss": MeanMetric(), "accuracy": accuracy}, compute_groups=False)
