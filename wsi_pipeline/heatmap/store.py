"""Folders, arrays and attributes of a heatmap on the disk, and what is said where they fail."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec
from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

from wsi_pipeline.errors import OutputError, ResultsMismatchError
from wsi_pipeline.files import SPACE_HINT, atomic_path

ATTRIBUTE = "wsi_pipeline"
"""Key of this package's own attributes, beside those of OME-Zarr."""

COMPUTED_BY = "computed_by"
"""Key of a map's provenance under which the engines that computed it are noted."""

START_OVER = "Start over with --overwrite, or choose another folder with --out."


class DurableStore(LocalStore):
    """A folder in which a file is whole and on the disk when its write returns.

    Both methods work on zarr's own thread and hand nothing to others: where one write fails, no other one that was
    begun along with it goes on behind the caller's back.
    """

    async def set(self, key: str, value: Buffer) -> None:
        """Write a file, whole or not at all."""
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as part:
            part.write_bytes(value.to_bytes())

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write a file unless it is there."""
        if not (self.root / key).exists():
            await self.set(key, value)


def open_finished(path: Path) -> zarr.Group:
    """The group of a finished map, for reading."""
    return zarr.open_group(LocalStore(path, read_only=True), mode="r")


def working_folder(path: Path) -> Path:
    """Where a map is worked on until it is finished."""
    return path.with_name(f"{path.name}.partial")


def image_folder(path: Path) -> Path:
    """Where the image is written before it is whole; never resumed, always written anew."""
    return path.with_name(f"{path.name}.image.partial")


def sweep(path: Path) -> None:
    """Remove what a killed run may have left and no run goes on with."""
    for folder in (image_folder(path), _trash(path), _trash(working_folder(path))):
        shutil.rmtree(folder, ignore_errors=True)


def remove(path: Path) -> None:
    """Remove a map and all of its working folders."""
    sweep(path)
    for folder in (path, working_folder(path)):
        if folder.exists():
            folder.replace(_trash(folder))  # so that it is never seen half removed
    sweep(path)


def _trash(path: Path) -> Path:
    return path.with_name(f"{path.name}.discarded")


def make_array(
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


def array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """An array of the group.

    Raises:
        KeyError: where there is none.
        TypeError: where it is something else.
    """
    node = group[name]
    if not isinstance(node, zarr.Array):
        raise TypeError(f"{name} is no array")
    return node


def own_attributes(group: zarr.Group) -> dict[str, Any]:
    """What this package has noted about a map.

    Raises:
        KeyError: where it has noted nothing.
        TypeError: where something else stands there.
    """
    own = group.attrs[ATTRIBUTE]
    if not isinstance(own, dict):
        raise TypeError(f"{ATTRIBUTE} is no object")
    return dict(own)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Tell of a failed write by the name of the map, not of one of its many files.

    Raises:
        OutputError: where something within cannot be written.
    """
    try:
        yield
    except OutputError as error:
        raise OutputError(path, error.why, error.hint) from error
    except OSError as error:
        raise OutputError(path, f"cannot be written ({error.strerror or error})", SPACE_HINT) from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Tell of a damaged store.

    Raises:
        ResultsMismatchError: where something within cannot be read.
    """
    try:
        yield
    except (ResultsMismatchError, OutputError):
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ResultsMismatchError(path, f"earlier results cannot be read ({reason})", START_OVER) from error
