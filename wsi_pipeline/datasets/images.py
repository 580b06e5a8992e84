"""Many patches at once, all of one size."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from wsi_pipeline.datasets.base import PatchDataset
from wsi_pipeline.datasets.broken import all_in_one
from wsi_pipeline.errors import DatasetError
from wsi_pipeline.geometry import Size

WHITE = 255


def load_images(
    dataset: PatchDataset,
    indices: Sequence[int] | NDArray[np.integer] | None = None,
    *,
    size: Size | None = None,
) -> NDArray[np.uint8]:
    """Read patches into memory.

    Args:
        dataset: Where from.
        indices: Which, in this order; None for all.
        size: Of every patch; None for the data set's own.

    Returns:
        RGB uint8 [n, height, width, 3].

    Raises:
        DatasetError: where some cannot be decoded: after all were tried, the first are named, and all counted.
    """
    chosen = range(len(dataset)) if indices is None else indices
    size = size or dataset.patch_size
    images = np.empty((len(chosen), size.height, size.width, 3), np.uint8)
    for place, pixels in _read_all(dataset, chosen, "patches"):
        images[place] = fit_size(pixels, size)
    return images


def check_readable(dataset: PatchDataset, indices: Sequence[int] | NDArray[np.integer]) -> None:
    """Decode patches and forget them, so that a broken one is told before hours of work and not after.

    Raises:
        DatasetError: as `load_images`.
    """
    for _ in _read_all(dataset, indices, "checking"):
        pass


def _read_all(
    dataset: PatchDataset, chosen: Sequence[int] | NDArray[np.integer], what: str
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Each patch as its place in `chosen` and its pixels.

    Raises:
        DatasetError: as `load_images`.
    """
    found = np.zeros(len(chosen), np.bool_)
    with tqdm(total=len(chosen), desc=what, unit="patch", disable=None, leave=False) as bar:
        try:
            for place, pixels in dataset.read_each(chosen):
                found[place] = True
                bar.update()
                yield place, pixels
        except DatasetError:
            _raise_all(dataset, np.asarray(chosen)[~found].tolist(), len(chosen))
            raise


def _raise_all(dataset: PatchDataset, rest: Sequence[int], tried: int) -> None:
    """Try what was not read yet one by one.

    Raises:
        DatasetError: where some cannot be decoded.
    """
    errors: dict[str, DatasetError] = {}
    for index in tqdm(rest, desc="broken patches", unit="patch", disable=None, leave=False):
        try:
            dataset.read(index)
        except DatasetError as error:
            errors[dataset.samples[index].name] = error
    if errors:
        raise all_in_one(dataset.root, errors, tried)


def fit_size(pixels: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """A patch of exactly `size`: too large a side is cut to its middle, too small a one is continued in white.

    The white is to the right and below, where a case ends.

    Args:
        pixels: RGB [height, width, 3].
        size: Wanted.

    Returns:
        RGB uint8 [size.height, size.width, 3]; a view where nothing had to be added.
    """
    top, left = max(0, pixels.shape[0] - size.height) // 2, max(0, pixels.shape[1] - size.width) // 2
    cut = pixels[top : top + size.height, left : left + size.width]
    if cut.shape[:2] == (size.height, size.width):
        return cut
    out = np.full((size.height, size.width, 3), WHITE, np.uint8)
    out[: cut.shape[0], : cut.shape[1]] = cut
    return out
