"""All maps of a result as OME-Zarr 0.4, the form that QuPath and Bio-Formats read."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline import ngff
from wsi_pipeline.errors import OutputError
from wsi_pipeline.export.results import Result
from wsi_pipeline.files import SPACE_HINT
from wsi_pipeline.heatmap import Heatmap
from wsi_pipeline.heatmap.image import Image, write_image
from wsi_pipeline.heatmap.layers import Layers


def write_ome_zarr(result: Result, folder: Path, name: str) -> list[Path]:
    """Write ``<name>.ome.zarr``: every channel, level and the tissue label, and this package's own attributes.

    `Heatmap.open` reads it like any other map.

    Raises:
        OutputError: where it cannot be written.
        ResultsMismatchError: where the heatmap is damaged.
    """
    path = folder / f"{name}.ome.zarr"
    fresh = folder / f".{name}.new.ome.zarr"
    heatmap = result.heatmap
    image = Image(
        name=heatmap.attributes["name"],
        grid=heatmap.grid,
        layers=Layers.of(heatmap.attributes),
        read=read_channel(heatmap),
        tissue=np.where(heatmap.unread(), ngff.UNREAD_LABEL, heatmap.tissue).astype(np.uint8),
        attributes=heatmap.attributes,
    )
    try:
        Heatmap.discard(fresh)
        write_image(image, fresh, "0.4")
        Heatmap.discard(path)
        fresh.replace(path)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(path, f"cannot be written ({error.strerror or error})", SPACE_HINT) from error
    finally:
        Heatmap.discard(fresh)
    return [path]


def read_channel(heatmap: Heatmap) -> Callable[[int], NDArray[np.float32]]:
    """Gives the channels of a map by their number, float32 [rows, cols]: classes, then spread, then unrefined."""
    classes = len(heatmap.class_names)

    def read(number: int) -> NDArray[np.float32]:
        if number < classes:
            return heatmap.probability(heatmap.class_names[number])
        further = [values for values in (heatmap.spread(), heatmap.unrefined()) if values is not None]
        return further[number - classes]

    return read
