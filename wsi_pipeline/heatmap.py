"""The heatmap of one slide: an OME-Zarr store, written block by block, that survives a kill at any moment.

Work happens in ``<path>.partial``; only `Heatmap.finish` renames it to its final name, so whatever stands there is
whole. A block of cells is one chunk of level 0 and has one writer. Every file is written beside, synced and renamed,
and a block counts as done only after its chunk is on the disk.

Finishing holds one class of the map at a time as an array: at most some 8000 x 8000 cells, 256 MB.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec
from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

from wsi_pipeline import ngff
from wsi_pipeline.errors import ConfigError, OutputError, ResultsMismatchError
from wsi_pipeline.files import SPACE_HINT, atomic_path, sync
from wsi_pipeline.geometry import Box, FieldOfView, Mpp
from wsi_pipeline.grid import Block, Grid

Ngff = Literal["0.5", "0.4"]

ATTRIBUTE = "wsi_pipeline"
"""Key of this package's own attributes, beside those of OME-Zarr."""

_PLAIN = (1, 256, 256)
"""Chunks of every array but level 0 of the working store, whose chunks are the blocks."""

_START_OVER = "Start over with --overwrite, or choose another folder with --out."
_IDENTITY_WORDS = {"slide": "slide", "bundle": "model", "settings": "settings"}


class _DurableStore(LocalStore):
    """A folder in which a file is whole and on the disk when its write returns.

    Both methods work on zarr's own thread and hand nothing to others: where one write fails, no other one that was
    begun along with it goes on behind the caller's back.
    """

    async def set(self, key: str, value: Buffer) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as part:
            part.write_bytes(value.to_bytes())

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        if not (self.root / key).exists():
            await self.set(key, value)


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
        self.attributes = _own_attributes(group)
        self.class_names = tuple(self.attributes["class_names"])
        self._group, self._done = group, done

    @classmethod
    def create(
        cls,
        path: str | Path,
        grid: Grid,
        *,
        class_names: Sequence[str],
        identity: Mapping[str, str],
        provenance: Mapping[str, Any],
        name: str,
        tissue: NDArray[np.bool_],
        overwrite: bool = False,
    ) -> "Heatmap":
        """Begin a heatmap, or go on with the one that an earlier run left, finished or not.

        The caller holds the output folder (`locks.folder_lock`): two writers of one heatmap are not guarded here.

        Args:
            path: Where the finished map will stand.
            grid: The cells.
            class_names: What the network tells apart; one channel each.
            identity: Digests of ``slide``, ``bundle`` and ``settings``; an earlier run's must be the same.
            provenance: JSON-able facts for the attributes; on resuming they replace the earlier run's.
            name: Name of the image for people.
            tissue: [rows, cols], True on tissue. Cells that belong to the run always count as tissue.
            overwrite: Throw earlier results away first.

        Raises:
            ResultsMismatchError: where the earlier results are of another slide, model, settings or grid, or damaged.
            OutputError: where nothing can be written.
        """
        path = Path(path)
        attributes = _as_json(
            {
                "identity": dict(identity),
                "class_names": list(class_names),
                "name": name,
                "grid": _describe_grid(grid),
                "provenance": dict(provenance),
                "complete": False,
            }
        )
        working = _working(path)
        with _writing(path):
            shutil.rmtree(_part_04(path), ignore_errors=True)
            if overwrite:
                _discard(path)
                _discard(working)
            if path.exists():
                finished = cls.open(path)
                _check_same(path, finished.attributes, attributes)
                # Left where a run was killed after its last rename.
                shutil.rmtree(working, ignore_errors=True)
                return finished
            group, done = _resume(path, attributes) or _begin(working, grid, attributes)
        return cls(path, group, grid, tissue | _cell_mask(grid), done)

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
        with _reading(path):
            group = zarr.open_group(LocalStore(path, read_only=True), mode="r")
            if not isinstance(group.attrs.get(ATTRIBUTE), dict) or not _own_attributes(group)["complete"]:
                raise ResultsMismatchError(path, "is no finished heatmap of wsi-pipeline", _START_OVER)
            label = np.asarray(_array(group, "labels/tissue/0")[0])
            visited = ~np.isnan(np.asarray(_array(group, "0")[0]))
            cells = np.argwhere(visited | (label == ngff.UNREAD_LABEL)).astype(np.int32)
            grid = _rebuild_grid(_own_attributes(group)["grid"], cells)
            return cls(path, group, grid, label != 0, np.ones(_block_shape(grid), np.uint8))

    @property
    def complete(self) -> bool:
        """Whether the map is finished and stands under its final name."""
        return bool(self.attributes["complete"])

    @property
    def version(self) -> Ngff:
        """The OME-Zarr version that the map has; while it is being worked on, always 0.5."""
        return "0.4" if self._group.metadata.zarr_format == 2 else "0.5"

    def pending(self) -> list[Block]:
        """The blocks that are not done yet, top to bottom, left to right."""
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
        with _writing(self.path):
            # A block without any probability gets a file as well: a missing file always means a missing block.
            scored = _array(self._group, "0").with_config({"write_empty_chunks": True})
            scored[:, top:bottom, left:right] = tile
            _array(self._group, "done")[...] = done
        self._done = done

    def probability(self, class_name: str) -> NDArray[np.float32]:
        """float32, [rows, cols]: probability of a class, NaN where a cell was not visited or could not be read.

        Raises:
            ConfigError: where the heatmap has no such class.
            ResultsMismatchError: where the store is damaged.
        """
        if class_name not in self.class_names:
            raise ConfigError(self.path, f"has no class {class_name!r}", f"It has: {', '.join(self.class_names)}.")
        with _reading(self.path):
            return np.asarray(_array(self._group, "0")[self.class_names.index(class_name)], np.float32)

    def unread(self) -> NDArray[np.bool_]:
        """[rows, cols]: True where a cell belongs to the run but has no probability, because it could not be read."""
        return _cell_mask(self.grid) & np.isnan(self.probability(self.class_names[0]))

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
                raise ResultsMismatchError(self.path, why, _START_OVER)
            return
        if missing := len(self.pending()):
            raise OutputError(self.path, f"{missing} blocks of cells are missing", "Run again: it resumes.")
        working = _working(self.path)
        counts = {"in_run": len(self.grid.cells), "unread": int(self.unread().sum())}
        facts = {**self.attributes["provenance"], **_as_json(provenance or {})}
        attributes = {**self.attributes, "provenance": facts, "cells": counts, "complete": True}
        with _writing(self.path):
            if version == "0.4":
                _write_04(self, attributes, self.path)
                shutil.rmtree(working)
            else:
                _write_image(self, self._group, version, attributes, first_level=1)
                working.replace(self.path)
                sync(self.path.parent)
        self.attributes = attributes
        self._group = zarr.open_group(LocalStore(self.path, read_only=True), mode="r")


def write_ngff_04(heatmap: Heatmap, path: str | Path) -> None:
    """Write a heatmap as NGFF 0.4 on Zarr 2 with OME-XML, the form that QuPath and Bio-Formats read.

    Args:
        heatmap: A finished one.
        path: Where to; must not be there yet. QuPath knows such folders by a name that ends in ``.zarr``.

    Raises:
        OutputError: where something stands at `path` already, the map is not finished, or it cannot be written.
    """
    path = Path(path)
    if path.exists():
        raise OutputError(path, "is there already", "Remove it, or choose another name.")
    if not heatmap.complete:
        raise OutputError(heatmap.path, "is not finished yet", "Run again: it resumes.")
    with _writing(path):
        _write_04(heatmap, heatmap.attributes, path)


def _write_04(heatmap: Heatmap, attributes: dict[str, Any], path: Path) -> None:
    part = _part_04(path)
    shutil.rmtree(part, ignore_errors=True)
    group = zarr.create_group(_DurableStore(part), zarr_format=2)
    _write_image(heatmap, group, "0.4", attributes, first_level=0)
    (part / "OME").mkdir()
    with atomic_path(part / "OME" / "METADATA.ome.xml") as file:
        file.write_bytes(ngff.ome_xml(heatmap.attributes["name"], heatmap.grid, heatmap.class_names))
    part.replace(path)
    sync(path.parent)


def _begin(working: Path, grid: Grid, attributes: dict[str, Any]) -> tuple[zarr.Group, NDArray[np.uint8]]:
    """A fresh working folder. ``done`` comes last: without it, nothing was ever stored there."""
    if working.exists():
        shutil.rmtree(working)
    group = zarr.create_group(_DurableStore(working), zarr_format=3, attributes={ATTRIBUTE: attributes})
    classes, side = len(attributes["class_names"]), grid.block_side
    shape, chunks = (classes, *grid.shape), (classes, side, side)
    _make_array(group, "0", shape=shape, chunks=chunks, dtype=np.float32, fill=np.nan)
    done = np.zeros(_block_shape(grid), np.uint8)
    group.create_array("done", shape=done.shape, chunks=done.shape, dtype=np.uint8, fill_value=0)
    return group, done


def _resume(path: Path, attributes: dict[str, Any]) -> tuple[zarr.Group, NDArray[np.uint8]] | None:
    """What an earlier run left, None where it left nothing.

    Raises:
        ResultsMismatchError: where it was about something else, or is damaged.
    """
    working = _working(path)
    if not (working / "done" / "zarr.json").exists():
        return None
    with _reading(path):
        group = zarr.open_group(_DurableStore(working), mode="r+")
        _check_same(path, _own_attributes(group), attributes)
        done = np.array(_array(group, "done")[...], np.uint8)
    for row, col in np.argwhere(done):
        done[row, col] = (working / "0" / "c" / "0" / str(row) / str(col)).is_file()
    for stray in working.rglob(".*-part-*"):
        stray.unlink()
    # The attributes may say complete: a run that was killed between its last two steps repeats them.
    group.update_attributes({ATTRIBUTE: attributes})
    return group, done


def _check_same(path: Path, earlier: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse results that are not of the same slide, model, settings, classes and cells."""
    before = earlier.get("identity") or {}
    words = [word for key, word in _IDENTITY_WORDS.items() if before.get(key) != now["identity"].get(key)]
    if not words and earlier.get("class_names") != now["class_names"]:
        words = ["set of classes"]
    if not words and earlier.get("grid") != now["grid"]:
        words = ["grid of cells"]
    if words:
        why = f"results that are already there were made with another {' and another '.join(words)}"
        raise ResultsMismatchError(path, why, "Replace them with --overwrite, or choose another folder with --out.")


def _write_image(
    heatmap: Heatmap, group: zarr.Group, version: Ngff, attributes: dict[str, Any], *, first_level: int
) -> None:
    """Levels from `first_level` on, the tissue label, and last of all the attributes."""
    _write_tissue(heatmap, group, version)
    shapes = list(enumerate(ngff.level_shapes(heatmap.grid.shape)))
    classes = len(heatmap.class_names)
    arrays = {
        level: _make_array(group, str(level), shape=(classes, *shape), chunks=_PLAIN, dtype=np.float32, fill=np.nan)
        for level, shape in shapes[first_level:]
    }
    for channel, class_name in enumerate(heatmap.class_names):
        values = heatmap.probability(class_name)
        for level, _ in shapes:
            values = ngff.halve_mean(values) if level else values
            if level in arrays:
                arrays[level][channel] = values
    image = ngff.image_attributes(version, heatmap.attributes["name"], heatmap.grid, heatmap.class_names)
    group.update_attributes({**image, ATTRIBUTE: attributes})


def _write_tissue(heatmap: Heatmap, group: zarr.Group, version: Ngff) -> None:
    """The tissue label, with as many levels as the map."""
    labels = group.create_group("labels", overwrite=True, attributes=ngff.labels_attributes(version))
    tissue = labels.create_group("tissue", attributes=ngff.tissue_attributes(version, heatmap.grid))
    values = np.where(heatmap.unread(), ngff.UNREAD_LABEL, heatmap.tissue).astype(np.uint8)
    for level, shape in enumerate(ngff.level_shapes(heatmap.grid.shape)):
        values = ngff.halve_max(values) if level else values
        _make_array(tissue, str(level), shape=(1, *shape), chunks=_PLAIN, dtype=np.uint8, fill=0)[0] = values


def _make_array(
    group: zarr.Group,
    name: str,
    *,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: type[np.generic],
    fill: float,
) -> zarr.Array[Any]:
    """An empty array of the axes c, y, x in the group's Zarr format, in place of any that is there."""
    if group.metadata.zarr_format == 2:
        # zlib needs no native library in the Java readers this form is for; Blosc does.
        form: dict[str, Any] = {
            "compressors": {"id": "zlib", "level": 1},
            "chunk_key_encoding": {"name": "v2", "separator": "/"},
        }
    else:
        codec = BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")
        form = {"compressors": codec, "dimension_names": ["c", "y", "x"]}
    return group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        dtype=dtype,
        fill_value=fill,
        overwrite=True,
        **form,
    )


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    node = group[name]
    if not isinstance(node, zarr.Array):
        raise TypeError(f"{name} is no array")
    return node


def _own_attributes(group: zarr.Group) -> dict[str, Any]:
    own = group.attrs[ATTRIBUTE]
    if not isinstance(own, dict):
        raise TypeError(f"{ATTRIBUTE} is no object")
    return dict(own)


def _as_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """The same as it will be read back; NaN is refused here, because other readers choke on it."""
    parsed: dict[str, Any] = json.loads(json.dumps(dict(value), allow_nan=False))
    return parsed


def _working(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


def _part_04(path: Path) -> Path:
    """Where the older form is written before it is whole; never resumed, always written anew."""
    return path.with_name(f"{path.name}.ngff-0.4.partial")


def _discard(path: Path) -> None:
    """Remove a folder that must never be seen half removed."""
    trash = path.with_name(f"{path.name}.discarded")
    if trash.exists():
        shutil.rmtree(trash)
    if path.exists():
        path.replace(trash)
        shutil.rmtree(trash)


def _block_shape(grid: Grid) -> tuple[int, int]:
    rows, cols = grid.shape
    return -(-rows // grid.block_side), -(-cols // grid.block_side)


def _cell_mask(grid: Grid) -> NDArray[np.bool_]:
    """[rows, cols]: the cells that belong to the run."""
    mask = np.zeros(grid.shape, np.bool_)
    mask[grid.cells[:, 0], grid.cells[:, 1]] = True
    return mask


def _describe_grid(grid: Grid) -> dict[str, Any]:
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


def _rebuild_grid(description: Mapping[str, Any], cells: NDArray[np.int32]) -> Grid:
    return Grid(
        mpp=Mpp(*description["mpp"]),
        view=FieldOfView(**description["view"]),
        cell_um=description["cell_um"],
        extent=Box(*description["extent_px"]),
        block_side=description["block_side"],
        cells=cells,
    )


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Tell of a failed write by the name of the map, not of one of its many files."""
    try:
        yield
    except OutputError as error:
        raise OutputError(path, error.why, error.hint) from error
    except OSError as error:
        raise OutputError(path, f"cannot be written ({error.strerror or error})", SPACE_HINT) from error


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Tell of a damaged store."""
    try:
        yield
    except (ResultsMismatchError, OutputError):
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ResultsMismatchError(path, f"earlier results cannot be read ({reason})", _START_OVER) from error
