"""Data sets that a network learns in seconds: the class is in the redness of the patch."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.datasets.base import PatchDataset, Sample
from wsi_pipeline.errors import DatasetError
from wsi_pipeline.geometry import Size


class PaintedDataset(PatchDataset):
    """Patches painted in memory; `broken` ones cannot be read."""

    layout, root = "idc", "painted"
    class_names, positive_class = ("non-IDC", "IDC"), "IDC"
    mpp = 4.0
    findings = ()

    def __init__(self, samples: Iterable[Sample], patch_size: Size, broken: frozenset[str] = frozenset()):
        self.samples, self.patch_size, self.broken = tuple(samples), patch_size, broken

    def read(self, index: int) -> NDArray[np.uint8]:
        sample = self.samples[index]
        if sample.name in self.broken:
            raise DatasetError(f"painted: {sample.name}", "is no readable image", "Remove it.")
        rng = np.random.default_rng(sum(sample.name.encode()) * 131 + len(sample.name))
        pixels = rng.integers(90, 166, (self.patch_size.height, self.patch_size.width, 3), dtype=np.uint8)
        pixels[..., 0] += np.uint8(70 * sample.label)
        return pixels

    def subset(self, indices: Iterable[int]) -> "PaintedDataset":
        return PaintedDataset([self.samples[n] for n in indices], self.patch_size, self.broken)


def painted(cases: int = 8, side: int = 4, patch: int = 16, **more) -> PaintedDataset:
    """Whole cases of `side` x `side` patches, the left half of them positive."""
    samples = [
        Sample(
            name=f"{case}/{x}-{y}.png",
            label=int(x < side / 2),
            group=f"case{case}",
            position=(x * patch, y * patch),
        )
        for case in range(cases)
        for y in range(side)
        for x in range(side)
    ]
    return PaintedDataset(samples, Size(patch, patch), **more)


def write_idc(folder: Path, cases: int = 8, side: int = 4) -> Path:
    """Files of the Kaggle layout: whole cases, the left half of each positive and redder."""
    rng = np.random.default_rng(0)
    for case in range(9000, 9000 + cases):
        for row in range(side):
            for column in range(side):
                label = int(column < side / 2)
                pixels = rng.integers(90, 166, (50, 50, 3), dtype=np.uint8)
                pixels[..., 0] += np.uint8(70 * label)
                name = f"{case}_idx5_x{1 + 50 * column}_y{1 + 50 * row}_class{label}.png"
                path = folder / str(case) / str(label) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return folder
