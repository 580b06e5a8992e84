"""The heatmap as the rest of the program sees it."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray

from wsi_pipeline import ngff
from wsi_pipeline.errors import OutputError, ResultsMismatchError
from wsi_pipeline.grid import Block, Grid
from wsi_pipeline.heatmap.image import Image, Ngff, write_image
from wsi_pipeline.heatmap.layers import Layers, Refine, refine_channels
from wsi_pipeline.heatmap.store import (
    ATTRIBUTE,
    COMPUTED_BY,
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
from wsi_pipeline.heatmap.stored import StoredMap
from wsi_pipeline.heatmap.working import as_json, begin, block_shape, describe_grid, rebuild_grid, require_same, resume
from wsi_pipeline.manifest import Identity


class BlockScores(NamedTuple):
    """A block with what the network says of its cells, in the order of ``block.cells``."""

    block: Block
    scores: NDArray[np.float32]
    """float32, [cells of the block, classes]; a row of NaN for a cell that could not be read."""
    spread: NDArray[np.float32] | None = None
    """float32, [cells of the block], NaN likewise; for a map made with a spread, and for no other."""
    evaluated: int | None = None
    """Cells that the network looked at, where others were interpolated; None where it looked at all."""


class Heatmap(StoredMap):
    """Probability per class and cell of one slide: `create` makes or resumes one, `open` reads a finished one."""

    def __init__(self, path: Path, group: zarr.Group, grid: Grid, tissue: NDArray[np.bool_], done: NDArray[np.uint8]):
        super().__init__(path, group, grid, tissue)
        self._done = done

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
        positive_class: str | None = None,
        spread: bool = False,
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
            provenance: JSON-able facts for the attributes; on resuming they replace the earlier run's, but for the
                engines (see `note_engine`).
            name: Name of the image for people.
            tissue: [rows, cols], True on tissue. Cells that belong to the run always count as tissue.
            positive_class: The class that the map is about; None for the last.
            spread: Whether each block comes with the spread of its probability.
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
                "positive_class": positive_class or class_names[-1],
                "spread": spread,
                "refined": False,
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

    def pending(self) -> list[Block]:
        """The blocks that are not done yet, top to bottom, left to right.

        A block that was written by this object is done, even where cells of it could not be read.
        """
        return [block for block in self.grid.blocks() if not self._done[block.index]]

    def note_engine(self, facts: Mapping[str, str]) -> None:
        """Note what computes the blocks that come now. What computed those of an earlier run stays noted beside it.

        Nothing is noted where nothing is left to compute.

        Args:
            facts: ``engine`` and ``precision``, such as `inference.Predictor.facts`.

        Raises:
            OutputError: where it cannot be written.
        """
        noted = self.attributes["provenance"].get(COMPUTED_BY, [])
        if self.complete or dict(facts) in noted or (noted and not self.pending()):
            return
        provenance = {**self.attributes["provenance"], COMPUTED_BY: [*noted, dict(facts)]}
        self.attributes = {**self.attributes, "provenance": provenance}
        with writing(self.path):
            self._group.update_attributes({ATTRIBUTE: self.attributes})

    def write(self, block: Block, scores: NDArray[np.float32], spread: NDArray[np.float32] | None = None) -> None:
        """Store one block; see `write_blocks`."""
        self.write_blocks([BlockScores(block, scores, spread)])

    def write_blocks(self, blocks: Sequence[BlockScores]) -> None:
        """Store blocks. When this returns, they are on the disk.

        Args:
            blocks: Some of `pending` with their results.

        Raises:
            OutputError: where one cannot be written (disk full); what was stored by earlier calls is kept.
            ValueError: where scores have another shape, or a spread is missing or unasked for.
        """
        done = self._done.copy()
        with writing(self.path):
            self._count_evaluated(blocks)
            for one in blocks:
                (top, bottom), (left, right) = one.block.rows, one.block.cols
                array(self._group, "0")[:, top:bottom, left:right] = self._tile(one)
                done[one.block.index] = 1
            array(self._group, "done")[...] = done
        self._done = done

    def _count_evaluated(self, blocks: Sequence[BlockScores]) -> None:
        """Note what the network looked at, so that it is known of a resumed map, too."""
        counts = {one.block.index: one.evaluated for one in blocks if one.evaluated is not None}
        if counts:
            stored = array(self._group, "evaluated")
            values = np.array(stored[...])
            for index, count in counts.items():
                values[index] = count
            stored[...] = values

    def _tile(self, one: BlockScores) -> NDArray[np.float32]:
        """The block's part of the map, [channels, rows, cols]."""
        block, scores, spread, _ = one
        columns = scores if spread is None else np.column_stack([scores, spread])
        if scores.shape != (len(block.cells), len(self.class_names)) or columns.shape[1] != self._layers.count:
            beside = "no spread" if spread is None else f"{spread.shape} spread"
            raise ValueError(
                f"{scores.shape} scores for {len(block.cells)} cells, {len(self.class_names)} classes, with {beside}"
            )
        (top, bottom), (left, right) = block.rows, block.cols
        tile = np.full((columns.shape[1], bottom - top, right - left), np.nan, np.float32)
        tile[:, block.cells[:, 0] - top, block.cells[:, 1] - left] = columns.T
        return tile

    def finish(
        self,
        *,
        refine: Refine | None = None,
        provenance: Mapping[str, Any] | None = None,
        version: Ngff = "0.5",
    ) -> None:
        """Make the image of the scores: levels, the tissue label and the metadata; then give it its final name.

        A finished map is left as it is.

        Args:
            refine: A second stage: makes a map of the positive class's probability, float32 [rows, cols], into
                another with the same NaN. The map before it is kept, see `unrefined`.
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
        image = self._image(refine, provenance or {})
        with writing(self.path):
            write_image(image, self.path, version)
        # What cannot be removed now, the next run removes.
        shutil.rmtree(working_folder(self.path), ignore_errors=True)
        self.attributes, self._layers = image.attributes, image.layers
        self._group = open_finished(self.path)

    def _image(self, refine: Refine | None, provenance: Mapping[str, Any]) -> Image:
        unread = self.unread()
        evaluated = int(np.asarray(array(self._group, "evaluated")[...]).sum())
        looked_at = {"evaluated": evaluated} if evaluated else {}
        attributes = {
            **self.attributes,
            "provenance": {**self.attributes["provenance"], **as_json(provenance)},
            "cells": {"in_run": len(self.grid.cells), "unread": int(unread.sum())} | looked_at,
            "refined": refine is not None,
            "complete": True,
        }
        layers = Layers.of(attributes)
        return Image(
            name=attributes["name"],
            grid=self.grid,
            layers=layers,
            read=self._channel if refine is None else refine_channels(self._channel, layers, refine),
            tissue=np.where(unread, ngff.UNREAD_LABEL, self.tissue).astype(np.uint8),
            attributes=attributes,
        )
