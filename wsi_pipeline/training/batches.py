"""Patches as batches: cut from one array in memory, or decoded one by one, and which of them make a batch."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from wsi_pipeline.datasets import fit_size
from wsi_pipeline.datasets.base import PatchDataset
from wsi_pipeline.errors import DatasetError
from wsi_pipeline.training.sampling import Draw, Pool

Batch = tuple[Tensor, Tensor]
"""Patches uint8 [n, side, side, 3] and class shares float32 [n, classes]."""


class MemoryPatches(Dataset[Batch]):
    """Windows of patches that lie in one array. An item is a whole batch.

    Args:
        images: uint8 [n, height, width, 3].
        pool: Their labels and neighbours, row by row.
        side: Of the windows, px.
    """

    def __init__(self, images: NDArray[np.uint8], pool: Pool, side: int) -> None:
        self._images, self._pool, self._side = torch.from_numpy(images), pool, side
        self._neighbours = torch.from_numpy(pool.neighbours)

    def to(self, device: torch.device) -> None:
        """Keep the pixels on a GPU where they take at most a quarter of its memory: batches are then cut there."""
        if device.type == "cuda" and self._images.numel() < torch.cuda.mem_get_info(device)[1] / 4:
            self._images, self._neighbours = self._images.to(device), self._neighbours.to(device)

    def __getitem__(self, draw: Draw) -> Batch:
        return self._cut(draw), torch.from_numpy(self._pool.targets(draw))

    def _cut(self, draw: Draw) -> Tensor:
        """Windows uint8 [n, side, side, 3]; pixel by pixel from the patch it lies in, all at once."""
        _, height, width, _ = self._images.shape
        device = self._images.device
        rows = torch.from_numpy(draw.rows).to(device)
        if not draw.offset.any() and (height, width) == (self._side, self._side):
            return self._images[rows]
        x, y = (
            torch.from_numpy(draw.offset).to(device).T[:, :, None] + torch.arange(self._side, device=device)
        ).unbind()
        quarter = (y // height)[:, :, None] * 2 + (x // width)[:, None, :]
        patch = self._neighbours[rows[:, None, None], quarter]
        pixel = (patch * height + (y % height)[:, :, None]) * width + (x % width)[:, None, :]
        return self._images.view(-1, 3)[pixel]


class DecodedPatches(Dataset[Any]):
    """Windows of patches that are decoded one by one, in worker processes. An item is one patch, of (row, x, y).

    Where a patch cannot be decoded, the item is the error.

    Args:
        dataset: Its sample n is row n of the pool.
        pool: Their labels.
        side: Of the windows, px.
    """

    def __init__(self, dataset: PatchDataset, pool: Pool, side: int) -> None:
        self._dataset, self._pool, self._side = dataset, pool, side

    def __getitem__(self, item: tuple[int, int, int]) -> Batch | DatasetError:
        row, x, y = item
        try:
            image = fit_size(self._dataset.read(row), self._pool.size)
        except DatasetError as error:
            return error  # an error that is raised here would come out as another one
        window = np.array(image[y : y + self._side, x : x + self._side])
        target = np.zeros(self._pool.classes, np.float32)
        target[self._pool.labels[row]] = 1
        return torch.from_numpy(window), torch.from_numpy(target)


class Batches(Sampler[Any]):
    """The batches of an epoch, of which each device gets its share. What is drawn depends on seed and epoch only.

    Args:
        draw: Patches of an epoch, counted from 0.
        batch_size: Over all devices together.
        whole: Leave out a last batch that is not full.
        share: (rank, devices): this device takes every so many-th row of a batch.
        singly: Yield lists of (row, x, y) instead of a `Draw`.
    """

    def __init__(
        self, draw: Callable[[int], Draw], batch_size: int, *, whole: bool, share: tuple[int, int], singly: bool
    ) -> None:
        self._draw, self._share, self._singly, self._epoch = draw, share, singly, 0
        count = len(draw(0))
        self._batch_size = min(batch_size, count)
        self._count = count // self._batch_size if whole else -(-count // self._batch_size)

    @property
    def sampler(self) -> "Batches":
        """Where Lightning looks for `set_epoch` when this is a loader's `batch_sampler`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls it before each."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        draw, (rank, devices) = self._draw(self._epoch), self._share
        for n in range(self._count):
            mine = draw.part(slice(n * self._batch_size, (n + 1) * self._batch_size)).part(slice(rank, None, devices))
            yield list(zip(mine.rows.tolist(), *mine.offset.T.tolist(), strict=True)) if self._singly else mine


def collate(items: list[Batch | DatasetError]) -> Batch | DatasetError:
    """A batch of items of `DecodedPatches`; the first error where one could not be decoded.

    One of several devices may have no share in a small last batch.
    """
    good: list[Batch] = []
    for item in items:
        if isinstance(item, DatasetError):
            return item
        good.append(item)
    if not good:
        return torch.empty(0, dtype=torch.uint8), torch.empty(0)
    patches, targets = zip(*good, strict=True)
    return torch.stack(patches), torch.stack(targets)
