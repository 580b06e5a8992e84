"""Lightning's trainer: devices, precision, averaging, early stopping, checkpoints and logs as a recipe wants them."""

from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch.optim.swa_utils import get_ema_multi_avg_fn

from wsi_pipeline.errors import TrainingError
from wsi_pipeline.files import atomic_path, make_folder
from wsi_pipeline.training.progress import EpochLines
from wsi_pipeline.training.recipe import Recipe

Device = Literal["auto", "cpu", "cuda", "mps"]

LAST, BEST = "last.ckpt", "best.ckpt"


def make_trainer(
    recipe: Recipe, folder: Path, device: Device, devices: int | Literal["auto"], *, validates: bool
) -> pl.Trainer:
    """Lightning's trainer as a recipe wants it, with checkpoints and logs in `folder` and nothing elsewhere.

    Args:
        recipe: Settings.
        folder: Of the training.
        device: Where to train.
        devices: How many GPUs; "auto" for all.
        validates: Whether there are validation patches.

    Raises:
        TrainingError: where the device is not there.
    """
    settings = recipe.optimisation
    accelerator = choose_device(device)
    count = (torch.cuda.device_count() if accelerator == "cuda" else 1) if devices == "auto" else devices
    strategy = "auto"
    if count > 1:
        strategy = "ddp_find_unused_parameters_true" if settings.stages else "ddp"
    return pl.Trainer(
        accelerator=accelerator,
        devices=count,
        strategy=strategy,
        precision=_precision(recipe, accelerator),
        max_epochs=settings.epochs,
        gradient_clip_val=settings.clip,
        deterministic=accelerator == "cuda",  # a CPU is, and is slower when told so
        benchmark=False,
        callbacks=_callbacks(recipe, folder, validates=validates),
        plugins=[_WholeFiles()],
        logger=[
            CSVLogger(folder / "logs", name="csv"),
            TensorBoardLogger(folder / "logs", name="tensorboard", default_hp_metric=False),
        ],
        default_root_dir=folder,
        use_distributed_sampler=False,
        sync_batchnorm=count > 1 and accelerator == "cuda",
        num_sanity_val_steps=0,
        limit_val_batches=None if validates else 0,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )


def _callbacks(recipe: Recipe, folder: Path, *, validates: bool) -> list[pl.Callback]:
    settings = recipe.optimisation
    found: list[pl.Callback] = [EpochLines(settings.epochs, leaky=recipe.split.kind == "leaky")]
    if settings.ema_decay is not None:
        found.append(_Averaging(multi_avg_fn=warm_average(settings.ema_decay)))
    if validates and settings.patience is not None:
        found.append(_Patience("validation_loss", patience=settings.patience, check_on_train_epoch_end=True))
    if validates and settings.keep == "best":
        found.append(_checkpoint(folder, BEST, monitor="validation_loss"))
    return [*found, _checkpoint(folder, LAST)]  # last, so that it holds the state of the others


class _Averaging(WeightAveraging):
    """Averages that are kept where the network trains. Lightning would copy it while it is still on the CPU."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        pl_module.to(trainer.strategy.root_device)
        super().setup(trainer, pl_module, stage)


class _WholeFiles(TorchCheckpointIO):
    """Checkpoints that replace the one before when they are whole.

    Lightning moves them from the folder for temporary files, and where that is another disk, a move is a copy.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: object | None = None
    ) -> None:
        del storage_options
        make_folder(Path(path).parent)
        with atomic_path(Path(path)) as part:
            torch.save(checkpoint, part)


class _Checkpoint(ModelCheckpoint):
    """Remembers the best epoch also where its folder was moved since."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        here, paths = Path(str(self.dirpath)), ("best_model_path", "kth_best_model_path", "last_model_path")
        moved = {name: str(here / Path(state_dict[name]).name) for name in paths if state_dict[name]}
        best = {str(here / Path(path).name): value for path, value in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **moved, "best_k_models": best, "dirpath": self.dirpath})


class _Patience(EarlyStopping):
    """Ends a training at once that had lost patience when it was interrupted."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        del pl_module
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience


def _checkpoint(folder: Path, name: str, monitor: str | None = None) -> _Checkpoint:
    return _Checkpoint(
        folder,
        filename=name.removesuffix(".ckpt"),
        monitor=monitor,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )


def warm_average(decay: float) -> Any:
    """Exponential moving average of the weights whose decay rises to `decay`, so that short trainings average too."""

    def update(averaged: Any, current: Any, updates: torch.Tensor | int) -> None:
        now = min(decay, (1 + int(updates)) / (10 + int(updates)))
        get_ema_multi_avg_fn(now)(averaged, current, updates)

    return update


def choose_device(device: Device) -> str:
    """Where to train, by the name of the device's kind; "auto" takes a GPU where there is one.

    Raises:
        TrainingError: where it is not there.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there[device]:
        raise TrainingError(f"device {device!r}", "is not there", "Use --device auto.")
    return device


def wait_for_others() -> None:
    """Where several processes train together, wait until all of them have come here."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def _precision(recipe: Recipe, accelerator: str) -> Literal["bf16-mixed", "32-true"]:
    if recipe.precision == "auto":
        fast = {"cuda": torch.cuda.is_available() and torch.cuda.is_bf16_supported(), "cpu": _cpu_has_bf16()}
        return "bf16-mixed" if fast.get(accelerator) else "32-true"
    return "bf16-mixed" if recipe.precision == "bf16" else "32-true"


def _cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; without that, mixed precision is slower than float32."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # older torch has no public way
    return any(bool(getattr(torch.cpu, probe, lambda: False)()) for probe in probes)


def hardware(trainer: pl.Trainer) -> str:
    """Device and precision, for people."""
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    return f"{trainer.world_size} x {name}{threads}, {trainer.precision}"
