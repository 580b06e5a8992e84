"""What a person sees of a training: a bar for the epoch at hand at a terminal, and a line for each that is through."""

import logging
import time
from typing import Any

import lightning.pytorch as pl
from tqdm import tqdm

from wsi_pipeline.training.module import Classifier

log = logging.getLogger(__name__)


class EpochLines(pl.Callback):
    """A tqdm bar over the batches, quiet where stderr is no terminal, and a log line for each epoch.

    Args:
        epochs: How many there will be at most.
        leaky: What it trains on is split by patch, which every line says.
    """

    def __init__(self, epochs: int, *, leaky: bool) -> None:
        self._epochs, self._started = epochs, 0.0
        self._title = f"{'LEAKY split, ' if leaky else ''}epoch"
        self._bar: tqdm[Any] | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar."""
        del pl_module
        self._started = time.perf_counter()
        if trainer.is_global_zero:
            text = f"{self._title} {trainer.current_epoch + 1} of {self._epochs}"
            self._bar = tqdm(
                total=int(trainer.num_training_batches), desc=text, unit="batch", leave=False, disable=None
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance the bar."""
        del trainer, pl_module, batch, batch_idx
        if self._bar is not None:
            self._bar.update()
            if not self._bar.disable and outputs is not None:
                self._bar.set_postfix(loss=f"{float(outputs['loss']):.4f}", refresh=False)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Close the bar and say how the epoch went: the history has its row when the checkpoint is written."""
        del checkpoint
        if not trainer.is_global_zero or self._bar is None or not isinstance(pl_module, Classifier):
            return
        self._close()
        row = pl_module.history[-1]
        shown = (
            ("train_loss", "loss"), ("validation_loss", "validation loss"), ("validation_accuracy", "accuracy"),
            ("validation_auroc", "AUROC"),
        )  # fmt: skip
        text = ", ".join(f"{name} {row[key]:.4f}" for key, name in shown if row[key] == row[key])
        took = time.perf_counter() - self._started
        log.info("%s %d of %d: %s, %.0f s", self._title, row["epoch"], self._epochs, text, took)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave no bar behind."""
        del trainer, pl_module, exception
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
