"""What makes a map of scores an OME-Zarr image: levels, the tissue label and the metadata, in either version."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray

from wsi_pipeline import ngff
from wsi_pipeline.files import atomic_path, sync
from wsi_pipeline.grid import Grid
from wsi_pipeline.heatmap.layers import Layers, Read
from wsi_pipeline.heatmap.store import ATTRIBUTE, DurableStore, image_folder, make_array

Ngff = Literal["0.5", "0.4"]

_CHUNKS = (1, 256, 256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What the image is made of."""

    name: str
    """For people."""
    grid: Grid
    layers: Layers
    read: Read
    """Gives each channel of the layers."""
    tissue: NDArray[np.uint8]
    """[rows, cols], values of `ngff.TISSUE_LABELS`."""
    attributes: dict[str, Any]
    """This package's own."""


def write_image(image: Image, path: Path, version: Ngff) -> None:
    """The whole image, made beside and then renamed to `path`.

    Version 0.4 is Zarr 2 with OME-XML, the form that QuPath and Bio-Formats read; QuPath knows such folders by a name
    that ends in ``.zarr``.
    """
    part = image_folder(path)
    shutil.rmtree(part, ignore_errors=True)
    group = zarr.create_group(DurableStore(part), zarr_format=2 if version == "0.4" else 3)
    _write_tissue(image, group, version)
    _write_levels(image, group)
    channels = image.layers.shown()
    described = ngff.image_attributes(version, image.name, image.grid, channels)
    group.update_attributes({**described, ATTRIBUTE: image.attributes})
    if version == "0.4":
        (part / "OME").mkdir()
        with atomic_path(part / "OME" / "METADATA.ome.xml") as file:
            file.write_bytes(ngff.ome_xml(image.name, image.grid, channels))
    part.replace(path)
    sync(path.parent)


def _write_levels(image: Image, group: zarr.Group) -> None:
    count = image.layers.count
    arrays = [
        make_array(group, str(level), shape=(count, *shape), chunks=_CHUNKS, dtype=np.float32, fill=np.nan)
        for level, shape in enumerate(ngff.level_shapes(image.grid.shape))
    ]
    for channel in range(count):
        values = image.read(channel)
        for level, stored in enumerate(arrays):
            values = ngff.halve_mean(values) if level else values
            stored[channel] = values


def _write_tissue(image: Image, group: zarr.Group, version: Ngff) -> None:
    """The tissue label, with as many levels as the map."""
    labels = group.create_group("labels", attributes=ngff.labels_attributes(version))
    tissue = labels.create_group("tissue", attributes=ngff.tissue_attributes(version, image.grid))
    values = image.tissue
    for level, shape in enumerate(ngff.level_shapes(image.grid.shape)):
        values = ngff.halve_max(values) if level else values
        make_array(tissue, str(level), shape=(1, *shape), chunks=_CHUNKS, dtype=np.uint8, fill=0)[0] = values
