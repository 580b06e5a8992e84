"""What makes a map of scores an OME-Zarr image: levels, the tissue label and the metadata; and the 0.4 form of it."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray

from wsi_pipeline import ngff
from wsi_pipeline.files import atomic_path, sync
from wsi_pipeline.grid import Grid
from wsi_pipeline.heatmap.store import ATTRIBUTE, DurableStore, make_array, working_folder_04

Ngff = Literal["0.5", "0.4"]

_PLAIN = (1, 256, 256)
"""Chunks of every array but level 0 of the working store, whose chunks are the blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What the image is made of."""

    name: str
    """For people."""
    grid: Grid
    class_names: tuple[str, ...]
    probability: Callable[[str], NDArray[np.float32]]
    """Reads one class, [rows, cols], NaN where nothing is known."""
    tissue: NDArray[np.uint8]
    """[rows, cols], values of `ngff.TISSUE_LABELS`."""
    attributes: dict[str, Any]
    """This package's own."""


def write_image(image: Image, group: zarr.Group, version: Ngff, *, first_level: int) -> None:
    """Levels from `first_level` on, the tissue label, and last of all the attributes."""
    _write_tissue(image, group, version)
    shapes = list(enumerate(ngff.level_shapes(image.grid.shape)))
    classes = len(image.class_names)
    arrays = {
        level: make_array(group, str(level), shape=(classes, *shape), chunks=_PLAIN, dtype=np.float32, fill=np.nan)
        for level, shape in shapes[first_level:]
    }
    for channel, class_name in enumerate(image.class_names):
        values = image.probability(class_name)
        for level, _ in shapes:
            values = ngff.halve_mean(values) if level else values
            if level in arrays:
                arrays[level][channel] = values
    described = ngff.image_attributes(version, image.name, image.grid, image.class_names)
    group.update_attributes({**described, ATTRIBUTE: image.attributes})


def write_image_04(image: Image, path: Path) -> None:
    """A whole image as NGFF 0.4 on Zarr 2 with OME-XML at `path`, the form that QuPath and Bio-Formats read.

    QuPath knows such folders by a name that ends in ``.zarr``.
    """
    part = working_folder_04(path)
    shutil.rmtree(part, ignore_errors=True)
    group = zarr.create_group(DurableStore(part), zarr_format=2)
    write_image(image, group, "0.4", first_level=0)
    (part / "OME").mkdir()
    with atomic_path(part / "OME" / "METADATA.ome.xml") as file:
        file.write_bytes(ngff.ome_xml(image.name, image.grid, image.class_names))
    part.replace(path)
    sync(path.parent)


def _write_tissue(image: Image, group: zarr.Group, version: Ngff) -> None:
    """The tissue label, with as many levels as the map."""
    labels = group.create_group("labels", overwrite=True, attributes=ngff.labels_attributes(version))
    tissue = labels.create_group("tissue", attributes=ngff.tissue_attributes(version, image.grid))
    values = image.tissue
    for level, shape in enumerate(ngff.level_shapes(image.grid.shape)):
        values = ngff.halve_max(values) if level else values
        make_array(tissue, str(level), shape=(1, *shape), chunks=_PLAIN, dtype=np.uint8, fill=0)[0] = values
