"""Batches for the training: cut from one array in memory, or decoded by worker processes where that is too large."""

from collections.abc import Callable

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from wsi_pipeline.datasets import load_images
from wsi_pipeline.datasets.base import PatchDataset
from wsi_pipeline.errors import ConfigError, DatasetError
from wsi_pipeline.feed import end_with_parent, worker_context
from wsi_pipeline.geometry import Size
from wsi_pipeline.machine import available_cores, available_memory
from wsi_pipeline.models.card import Triple
from wsi_pipeline.training.batches import Batch, Batches, DecodedPatches, MemoryPatches, collate
from wsi_pipeline.training.recipe import DataSettings, Recipe
from wsi_pipeline.training.sampling import Draw, Indices, Pool, draw_epoch, every, shown_of_classes, truncate

COLOUR_SAMPLE = 4000
"""About so many patches tell mean and deviation of the colours."""


class PatchData(pl.LightningDataModule):
    """The training and validation patches of one training.

    Args:
        dataset: All patches.
        train: Indices of its samples that train.
        validation: Those that validate; None or empty for none.
        recipe: Settings.

    Raises:
        DatasetError: where a part is empty or of one class, an index is in both parts, or a file cannot be decoded.
        ConfigError: where the recipe wants windows across patches that this data set does not have.
    """

    def __init__(self, dataset: PatchDataset, train: Indices, validation: Indices | None, recipe: Recipe) -> None:
        super().__init__()
        validation = np.empty(0, np.int64) if validation is None else validation
        check_parts(dataset, train, validation)
        train = training_part(dataset, train, recipe)
        used = np.union1d(train, validation)
        fits = fits_memory(dataset, len(used), recipe.data)
        check_offsets(dataset, recipe, fits=fits)
        self._dataset = dataset.subset(used.tolist())
        self._recipe = recipe
        self.train, self.validation = np.searchsorted(used, train), np.searchsorted(used, validation)
        self.side = min(dataset.patch_size.width, dataset.patch_size.height)
        self.pool = Pool.of(self._dataset.samples, size=dataset.patch_size, classes=len(dataset.class_names))
        self.images = load_images(self._dataset, size=dataset.patch_size) if fits else None
        self._memory = None if self.images is None else MemoryPatches(self.images, self.pool, self.side)

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return len(Batches(self._epoch, self._recipe.optimisation.batch_size, whole=True, share=(0, 1), singly=False))

    def class_counts(self) -> NDArray[np.float64]:
        """[classes]: patches of each that an epoch shows, on average."""
        return shown_of_classes(self.pool, self.train, self._recipe.augmentation.patches_per_case)

    def colours(self) -> tuple[Triple, Triple]:
        """Mean and standard deviation of RGB in 0..1 over training patches evenly picked."""
        rows = self.train[:: max(1, len(self.train) // COLOUR_SAMPLE)]
        counts = np.zeros((3, 256))
        for row in rows:
            image = self._dataset.read(int(row)) if self.images is None else self.images[row]
            counts += [np.bincount(image[..., channel].ravel(), minlength=256) for channel in range(3)]
        values, share = np.arange(256) / 255, counts / counts.sum(axis=1, keepdims=True)
        mean = share @ values
        std = np.maximum(np.sqrt(share @ values**2 - mean**2), 1e-3)
        return _triple(mean), _triple(std)

    def _epoch(self, epoch: int) -> Draw:
        change, side = self._recipe.augmentation, self.side
        return draw_epoch(
            self.pool,
            self.train,
            offsets=change.offsets,
            per_case=change.patches_per_case,
            crop=Size(side, side),
            random_crop=change.random_crop,
            seed=(self._recipe.seed, epoch),
        )

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches in random order, augmented later on the device."""
        return self._loader(self._epoch, self._recipe.optimisation.batch_size, whole=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Every validation patch once."""
        draw = every(self.validation, self.pool, Size(self.side, self.side))
        return self._loader(lambda _: draw, self._recipe.optimisation.batch_size, whole=False)

    def _loader(self, draw: Callable[[int], Draw], batch_size: int, *, whole: bool) -> DataLoader[Batch]:
        share = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler = Batches(draw, batch_size, whole=whole, share=share, singly=self.images is None)
        sampler.set_epoch(self.trainer.current_epoch if self.trainer else 0)  # workers begin before Lightning does
        if self._memory is not None:
            if self.trainer:
                self._memory.to(self.trainer.strategy.root_device)
            return DataLoader(self._memory, sampler=sampler, batch_size=None)
        workers = self._recipe.data.workers
        workers = len(available_cores()) if workers is None else workers
        return DataLoader(
            DecodedPatches(self._dataset, self.pool, self.side),
            batch_sampler=sampler,
            num_workers=workers,
            collate_fn=collate,
            persistent_workers=workers > 0,
            multiprocessing_context=worker_context() if workers else None,
            worker_init_fn=end_with_parent,
            pin_memory=torch.cuda.is_available(),
        )

    def on_before_batch_transfer(self, batch: Batch | DatasetError, dataloader_idx: int) -> Batch:
        """Raise what a worker met.

        Raises:
            DatasetError: where a file could not be decoded.
        """
        del dataloader_idx
        if isinstance(batch, DatasetError):
            raise batch
        return batch


def training_part(dataset: PatchDataset, train: Indices, recipe: Recipe) -> Indices:
    """Those of the training samples that are used."""
    return truncate(dataset.labels, train, recipe.seed) if recipe.data.balance == "truncate" else train


def check_offsets(dataset: PatchDataset, recipe: Recipe, *, fits: bool) -> None:
    """Refuse windows across patches where there can be none.

    Args:
        dataset: All patches.
        recipe: Settings.
        fits: Whether those that are used are decoded into memory.

    Raises:
        ConfigError: where the recipe wants them, and the patches do not fit into memory or are no squares.
    """
    if not recipe.augmentation.offsets:
        return
    where, size = "augmentation.offsets", dataset.patch_size
    if not fits:
        hint = "Set data.cache to memory where they fit there, or this to 0."
        raise ConfigError(where, "needs the decoded patches in memory", hint)
    if size.width != size.height:
        raise ConfigError(where, f"needs square patches, not {size}", "Set it to 0.")


def check_parts(dataset: PatchDataset, train: Indices, validation: Indices) -> None:
    """Refuse parts that nothing can be learnt from.

    Raises:
        DatasetError: naming the data set and what is wrong.
    """
    both = np.intersect1d(train, validation)
    if len(both):
        name = dataset.samples[both[0]].name
        raise DatasetError(f"{dataset.root}: {name}", "is in training and validation", "Split the patches anew.")
    for part, indices in (("training", train), ("validation", validation)):
        classes = np.unique(dataset.labels[indices])
        if part == "training" and len(classes) < 2:
            why = f"class {dataset.class_names[classes[0]]!r} only" if len(classes) else "no patch"
            raise DatasetError(dataset.root, f"{part} has {why}", "Training needs patches of at least two classes.")


def fits_memory(dataset: PatchDataset, count: int, settings: DataSettings) -> bool:
    """Whether so many decoded patches may be held in one array."""
    if settings.cache != "auto":
        return settings.cache == "memory"
    size = dataset.patch_size.width * dataset.patch_size.height * 3 * count
    return size <= min(settings.memory_gb * 1e9, available_memory() / 2)


def _triple(values: NDArray[np.float64]) -> Triple:
    red, green, blue = (round(float(value), 4) for value in values)
    return red, green, blue
