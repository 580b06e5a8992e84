"""The folder in which a heatmap is worked on: begun, gone on with, or refused."""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from wsi_pipeline.errors import ResultsMismatchError
from wsi_pipeline.files import remove_parts
from wsi_pipeline.geometry import Box, FieldOfView, Mpp
from wsi_pipeline.grid import Grid
from wsi_pipeline.heatmap.layers import Layers
from wsi_pipeline.heatmap.store import (
    ATTRIBUTE,
    COMPUTED_BY,
    START_OVER,
    DurableStore,
    array,
    make_array,
    own_attributes,
    reading,
    working_folder,
)
from wsi_pipeline.manifest import Identity


def begin(path: Path, grid: Grid, attributes: dict[str, Any]) -> tuple[zarr.Group, NDArray[np.uint8]]:
    """A fresh working folder. ``done`` comes last: without it, nothing was ever stored there.

    Returns:
        Its group, and which blocks are done, uint8, one entry a block: none.
    """
    folder = working_folder(path)
    if folder.exists():
        rmtree(folder)
    group = zarr.create_group(DurableStore(folder), zarr_format=3, attributes={ATTRIBUTE: attributes})
    channels, side = Layers.of(attributes).count, grid.block_side
    shape, chunks = (channels, *grid.shape), (channels, side, side)
    make_array(group, "0", shape=shape, chunks=chunks, dtype=np.float32, fill=np.nan)
    done = np.zeros(block_shape(grid), np.uint8)
    # Of adaptive maps: cells of each block that the network looked at.
    group.create_array("evaluated", shape=done.shape, chunks=done.shape, dtype=np.int32, fill_value=0)
    group.create_array("done", shape=done.shape, chunks=done.shape, dtype=np.uint8, fill_value=0)
    return group, done


def resume(path: Path, grid: Grid, attributes: dict[str, Any]) -> tuple[zarr.Group, NDArray[np.uint8]] | None:
    """What an earlier run left, None where it left nothing.

    Returns:
        Its group, and which blocks are done: those that were written and hold a probability for each of their cells.

    Raises:
        ResultsMismatchError: where it was about something else, or is damaged.
    """
    folder = working_folder(path)
    if not (folder / "done" / "zarr.json").exists():
        return None
    with reading(path):
        group = zarr.open_group(DurableStore(folder), mode="r+")
        earlier = own_attributes(group)
        require_same(path, earlier, attributes)
        done = np.array(array(group, "done")[...], np.uint8)
        # NaN where a cell could not be read, and where the file of a block is gone: both are tried again.
        lacking = grid.cell_mask() & np.isnan(np.asarray(array(group, "0")[0]))
    for block in grid.blocks():
        if lacking[slice(*block.rows), slice(*block.cols)].any():
            done[block.index] = 0
    remove_parts(folder, below=True)
    # What computed the blocks that stay; of an earlier run nothing else does.
    noted = {key: value for key, value in earlier.get("provenance", {}).items() if key == COMPUTED_BY and done.any()}
    group.update_attributes({ATTRIBUTE: {**attributes, "provenance": attributes["provenance"] | noted}})
    return group, done


def require_same(path: Path, earlier: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse results that are not of the same slide, model, settings, classes and cells.

    Raises:
        ResultsMismatchError: where something differs, or cannot be read.
    """
    with reading(path):
        Identity(**now["identity"]).require_same(Identity(**earlier["identity"]), path)
    words = {"class_names": "set of classes", "positive_class": "positive class", "spread": "kind of prediction"}
    for key, word in (words | {"grid": "grid of cells"}).items():
        if earlier.get(key) != now[key]:
            why = f"results that are already there were made with another {word}"
            raise ResultsMismatchError(path, why, START_OVER)


def block_shape(grid: Grid) -> tuple[int, int]:
    """Rows and columns of blocks."""
    rows, cols = grid.shape
    return -(-rows // grid.block_side), -(-cols // grid.block_side)


def describe_grid(grid: Grid) -> dict[str, Any]:
    """The grid as JSON: everything but the cells themselves, of which it has number and digest."""
    extent = grid.extent
    return {
        "mpp": [grid.mpp.x, grid.mpp.y],
        "view": {"size_px": grid.view.size_px, "mpp": grid.view.mpp},
        "cell_um": grid.cell_um,
        "extent_px": [extent.x, extent.y, extent.width, extent.height],
        "shape": list(grid.shape),
        "step_px": list(grid.step),
        "block_side": grid.block_side,
        "cells": len(grid.cells),
        "cells_sha256": sha256(np.ascontiguousarray(grid.cells, "<i4").tobytes()).hexdigest(),
    }


def rebuild_grid(description: Mapping[str, Any], cells: NDArray[np.int32]) -> Grid:
    """The grid that `describe_grid` described, with its cells, [n, 2]."""
    return Grid(
        mpp=Mpp(*description["mpp"]),
        view=FieldOfView(**description["view"]),
        cell_um=description["cell_um"],
        extent=Box(*description["extent_px"]),
        block_side=description["block_side"],
        cells=cells,
    )


def as_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """The same as it will be read back; NaN is refused here, because other readers choke on it.

    Raises:
        ValueError: where a number is NaN or infinite.
        TypeError: where something has no form in JSON.
    """
    parsed: dict[str, Any] = json.loads(json.dumps(dict(value), allow_nan=False))
    return parsed
