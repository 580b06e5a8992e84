"""The heatmap as the rest of the program sees it."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from wsi_pipeline import ngff
from wsi_pipeline.errors import ConfigError, OutputError, ResultsMismatchError
from wsi_pipeline.files import sync
from wsi_pipeline.grid import Block, Grid
from wsi_pipeline.heatmap.image import Image, Ngff, write_image, write_image_04
from wsi_pipeline.heatmap.store import (
    ATTRIBUTE,
    START_OVER,
    array,
    open_finished,
    own_attributes,
    reading,
    remove,
    sweep,
    working_folder,
    writing,
)
from wsi_pipeline.heatmap.working import as_json, begin, block_shape, describe_grid, rebuild_grid, require_same, resume
from wsi_pipeline.manifest import Identity


class Heatmap:
    """Probability per class and cell of one slide: `create` makes or resumes one, `open` reads a finished one."""

    path: Path
    """Where the finished heatmap stands, or will."""
    grid: Grid
    """The cells: size, shape, origin, resolution, and which of them belong to the run."""
    class_names: tuple[str, ...]
    """The classes, in the order of the channels."""
    tissue: NDArray[np.bool_]
    """[rows, cols]: True where a cell is tissue."""
    attributes: dict[str, Any]
    """Identity, grid, provenance, counts of cells, and whether the map is complete: all that is stored beside it."""

    def __init__(self, path: Path, group: zarr.Group, grid: Grid, tissue: NDArray[np.bool_], done: NDArray[np.uint8]):
        self.path, self.grid, self.tissue = path, grid, tissue
        self.attributes = own_attributes(group)
        self.class_names = tuple(self.attributes["class_names"])
        self._group, self._done = group, done

    @classmethod
    def create(
        cls,
        path: str | Path,
        grid: Grid,
        *,
        class_names: Sequence[str],
        identity: Identity,
        provenance: Mapping[str, Any],
        name: str,
        tissue: NDArray[np.bool_],
        overwrite: bool = False,
    ) -> "Heatmap":
        """Begin a heatmap, or go on with the one that an earlier run left, finished or not.

        Cells that could not be read are tried again, because the slide or the way to it may have been mended: in an
        interrupted map their blocks are pending once more, and a finished map that has such cells is thrown away and
        begun anew.

        The caller holds the output folder (`locks.folder_lock`): two writers of one heatmap are not guarded here.

        Args:
            path: Where the finished map will stand.
            grid: The cells.
            class_names: What the network tells apart; one channel each.
            identity: What the map depends on; an earlier run's must be the same.
            provenance: JSON-able facts for the attributes; on resuming they replace the earlier run's.
            name: Name of the image for people.
            tissue: [rows, cols], True on tissue. Cells that belong to the run always count as tissue.
            overwrite: Throw earlier results away first.

        Raises:
            ResultsMismatchError: where the earlier results are of another slide, model, settings or grid, or damaged.
            OutputError: where nothing can be written.
        """
        path = Path(path)
        attributes = as_json(
            {
                "identity": asdict(identity),
                "class_names": list(class_names),
                "name": name,
                "grid": describe_grid(grid),
                "provenance": dict(provenance),
                "complete": False,
            }
        )
        with writing(path):
            sweep(path)
            if overwrite:
                remove(path)
            if path.exists():
                finished = cls.open(path)
                require_same(path, finished.attributes, attributes)
                # Left where a run was killed after its last rename.
                shutil.rmtree(working_folder(path), ignore_errors=True)
                if not finished.unread().any():
                    return finished
                remove(path)
            group, done = resume(path, grid, attributes) or begin(path, grid, attributes)
        return cls(path, group, grid, tissue | grid.cell_mask(), done)

    @staticmethod
    def discard(path: str | Path) -> None:
        """Remove a heatmap, finished or not, with its working folders; nothing else. It need not be there.

        Raises:
            OutputError: where it cannot be removed.
        """
        with writing(Path(path)):
            remove(Path(path))

    @classmethod
    def open(cls, path: str | Path) -> "Heatmap":
        """A finished heatmap, in either form, for reading.

        Raises:
            OutputError: where there is none.
            ResultsMismatchError: where it is no finished heatmap of this package, or is damaged.
        """
        path = Path(path)
        if not path.exists():
            raise OutputError(path, "there is no heatmap", "Run the slide first, or check the path.")
        with reading(path):
            group = open_finished(path)
            if not isinstance(group.attrs.get(ATTRIBUTE), dict) or not own_attributes(group)["complete"]:
                raise ResultsMismatchError(path, "is no finished heatmap of wsi-pipeline", START_OVER)
            label = np.asarray(array(group, "labels/tissue/0")[0])
            visited = ~np.isnan(np.asarray(array(group, "0")[0]))
            cells = np.argwhere(visited | (label == ngff.UNREAD_LABEL)).astype(np.int32)
            grid = rebuild_grid(own_attributes(group)["grid"], cells)
            return cls(path, group, grid, label != 0, np.ones(block_shape(grid), np.uint8))

    @property
    def complete(self) -> bool:
        """Whether the map is finished and stands under its final name."""
        return bool(self.attributes["complete"])

    @property
    def version(self) -> Ngff:
        """The OME-Zarr version that the map has; while it is being worked on, always 0.5."""
        return "0.4" if self._group.metadata.zarr_format == 2 else "0.5"

    def pending(self) -> list[Block]:
        """The blocks that are not done yet, top to bottom, left to right.

        A block that was written by this object is done, even where cells of it could not be read.
        """
        return [block for block in self.grid.blocks() if not self._done[block.index]]

    def write(self, block: Block, scores: NDArray[np.float32]) -> None:
        """Store a block. When this returns, the block is on the disk.

        Args:
            block: One of `pending`.
            scores: float32, [cells of the block, classes], in the order of ``block.cells``; a row of NaN for a cell
                that could not be read.

        Raises:
            OutputError: where it cannot be written (disk full); every earlier block is kept.
            ValueError: where the scores have another shape.
        """
        if scores.shape != (len(block.cells), len(self.class_names)):
            raise ValueError(f"{scores.shape} scores for {len(block.cells)} cells, {len(self.class_names)} classes")
        (top, bottom), (left, right) = block.rows, block.cols
        tile = np.full((len(self.class_names), bottom - top, right - left), np.nan, np.float32)
        tile[:, block.cells[:, 0] - top, block.cells[:, 1] - left] = scores.T
        done = self._done.copy()
        done[block.index] = 1
        with writing(self.path):
            array(self._group, "0")[:, top:bottom, left:right] = tile
            array(self._group, "done")[...] = done
        self._done = done

    def probability(self, class_name: str) -> NDArray[np.float32]:
        """float32, [rows, cols]: probability of a class, NaN where a cell was not visited or could not be read.

        Raises:
            ConfigError: where the heatmap has no such class.
            ResultsMismatchError: where the store is damaged.
        """
        if class_name not in self.class_names:
            raise ConfigError(self.path, f"has no class {class_name!r}", f"It has: {', '.join(self.class_names)}.")
        with reading(self.path):
            return np.asarray(array(self._group, "0")[self.class_names.index(class_name)], np.float32)

    def unread(self) -> NDArray[np.bool_]:
        """[rows, cols]: True where a cell belongs to the run but has no probability, because it could not be read."""
        return self.grid.cell_mask() & np.isnan(self.probability(self.class_names[0]))

    def finish(self, *, provenance: Mapping[str, Any] | None = None, version: Ngff = "0.5") -> None:
        """Add the levels, the tissue label and the metadata, then give the map its final name.

        A finished map is left as it is.

        Args:
            provenance: Further facts, added to those given to `create`.
            version: OME-Zarr version of the result.

        Raises:
            OutputError: where blocks are still missing, or the disk is full (run again: it resumes).
            ResultsMismatchError: where the map is finished already, in the other version.
        """
        if self.complete:
            if self.version != version:
                why = f"is there already as OME-Zarr {self.version}, not {version}"
                raise ResultsMismatchError(self.path, why, START_OVER)
            return
        if missing := len(self.pending()):
            raise OutputError(self.path, f"{missing} blocks of cells are missing", "Run again: it resumes.")
        unread = self.unread()
        counts = {"in_run": len(self.grid.cells), "unread": int(unread.sum())}
        facts = {**self.attributes["provenance"], **as_json(provenance or {})}
        attributes = {**self.attributes, "provenance": facts, "cells": counts, "complete": True}
        image = Image(
            name=attributes["name"],
            grid=self.grid,
            class_names=self.class_names,
            probability=self.probability,
            tissue=np.where(unread, ngff.UNREAD_LABEL, self.tissue).astype(np.uint8),
            attributes=attributes,
        )
        working = working_folder(self.path)
        with writing(self.path):
            if version == "0.4":
                write_image_04(image, self.path)
                shutil.rmtree(working)
            else:
                write_image(image, self._group, version, first_level=1)
                working.replace(self.path)
                sync(self.path.parent)
        self.attributes = attributes
        self._group = open_finished(self.path)
