"""The phantom as a file: a tiled JPEG pyramid that is written while it is painted, whole or not at all."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import OutputError
from wsi_pipeline.geometry import Size
from wsi_pipeline.phantom.model import BLOCK_PX, Phantom

TILE_PX = 256
"""Side of the file's tiles. A block holds 4 x 4 of them, and is one tile of the next level."""

FACTOR = 4
"""Each level is so many times smaller than the one before."""

SMALLEST_PX = 1000
"""Levels are added until the longer side is at most this."""

_BIG_TIFF_PX = 2**31
"""Slides with more pixels than this might pass the 4 GB of a classic TIFF."""

_MAX_WORKERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Painted:
    """One block, ready for the file."""

    row: int
    col: int
    tiles: tuple[tuple[bytes, ...], ...]
    """Its level-0 tiles by row."""
    next_tile: bytes
    """It as a tile of level 1."""
    small: NDArray[np.uint8]
    """It at level 2: RGB [64, 64, 3]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Aside:
    """What the coarser levels need, put aside while level 0 is written."""

    spill: IO[bytes]
    """The tiles of level 1, one after another."""
    lengths: list[int]
    """Their lengths in bytes."""
    small: NDArray[np.uint8]
    """Level 2: RGB, of whole blocks."""


def write_phantom(
    path: Path,
    size: Size,
    *,
    seed: int = 0,
    mpp: float = 0.25,
    pen: bool = True,
    quality: int = 85,
    progress: Callable[[int, int], None] | None = None,
) -> Phantom:
    """Paint a phantom into a tiled, pyramidal JPEG TIFF (levels 1, 4, 16 ...; BigTIFF where it is large).

    Memory does not grow with the slide, but for its level of a 256th of the pixels. The file appears under its name
    when it is complete.

    Args:
        path: Where to write; its folder must exist.
        size: Level-0 pixels.
        seed: Which specimen.
        mpp: µm per level-0 pixel.
        pen: Whether a pen has marked the specimen.
        quality: JPEG quality, 1 to 100.
        progress: Called with (blocks done, blocks in all).

    Returns:
        The phantom, which knows its true masks.

    Raises:
        OutputError: where the file cannot be written.
        ResolutionError: where `mpp` is not a microscope's.
    """
    phantom = Phantom(size=size, seed=seed, mpp=mpp, pen=pen)
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    try:
        with TemporaryFile(dir=path.parent) as spill:
            _write_levels(partial, phantom, quality, spill, progress)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise OutputError(
            path, f"the slide cannot be written ({error.strerror or error})", "Check the folder and its free space."
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return phantom


def level_sizes(size: Size) -> tuple[Size, ...]:
    """Sizes of the pyramid's levels, finest first."""
    sizes = [size]
    while max(sizes[-1].width, sizes[-1].height) > SMALLEST_PX:
        sizes.append(Size(max(1, sizes[-1].width // FACTOR), max(1, sizes[-1].height // FACTOR)))
    return tuple(sizes)


def _write_levels(
    path: Path, phantom: Phantom, quality: int, spill: IO[bytes], progress: Callable[[int, int], None] | None
) -> None:
    from tifffile import TiffWriter

    small = np.full((_count(phantom.size.height) * 64, _count(phantom.size.width) * 64, 3), 255, np.uint8)
    aside = _Aside(spill=spill, lengths=[], small=small)
    big = phantom.size.width * phantom.size.height > _BIG_TIFF_PX
    with TiffWriter(path, bigtiff=big) as tiff:
        for level, size in enumerate(level_sizes(phantom.size)):
            if level == 0:
                tiles = _finest_tiles(phantom, quality, aside, progress)
            elif level == 1:
                tiles = _spilt_tiles(aside, _count(phantom.size.width), size)
            else:
                small = small if level == 2 else _reduced(small, FACTOR)
                tiles = _tiles_of(small[: size.height, : size.width], quality)
            per_cm = 1e4 / (phantom.mpp * FACTOR**level)
            tiff.write(
                tiles,
                shape=(size.height, size.width, 3),
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": quality},
                subfiletype=1 if level else 0,
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                description=_description(phantom) if level == 0 else None,
                software="wsi_pipeline",
                metadata=None,
            )


def _spilt_tiles(aside: _Aside, across: int, size: Size) -> Iterator[bytes]:
    """Level-1 tiles row by row; the last blocks may lie wholly in the rest that the level drops."""
    aside.spill.seek(0)
    for n, length in enumerate(aside.lengths):
        tile = aside.spill.read(length)
        if (n % across) * TILE_PX < size.width and (n // across) * TILE_PX < size.height:
            yield tile


def _description(phantom: Phantom) -> str:
    return (
        f"wsi_pipeline phantom, {phantom.size} px at {phantom.mpp:g} um/px, seed {phantom.seed}: "
        "drawn tissue, no patient's"
    )


def _finest_tiles(
    phantom: Phantom,
    quality: int,
    aside: _Aside,
    progress: Callable[[int, int], None] | None,
) -> Iterator[bytes]:
    """Level-0 tiles row by row; what the coarser levels need is put aside."""
    across, down = _count(phantom.size.width), _count(phantom.size.height)
    tile_cols, tile_rows = ceil(phantom.size.width / TILE_PX), ceil(phantom.size.height / TILE_PX)
    waiting: list[_Painted] = []
    for done, painted in enumerate(_painted_blocks(phantom, quality, across, down), start=1):
        aside.spill.write(painted.next_tile)
        aside.lengths.append(len(painted.next_tile))
        y, x = painted.row * 64, painted.col * 64
        aside.small[y : y + 64, x : x + 64] = painted.small
        waiting.append(painted)
        if progress is not None:
            progress(done, across * down)
        if painted.col < across - 1:
            continue
        for row in range(min(FACTOR, tile_rows - painted.row * FACTOR)):
            for block in waiting:
                yield from block.tiles[row][: tile_cols - block.col * FACTOR]
        waiting.clear()


def _painted_blocks(phantom: Phantom, quality: int, across: int, down: int) -> Iterator[_Painted]:
    """All blocks row by row, painted by a few threads (numpy releases the interpreter) that never run far ahead."""
    workers = min(_MAX_WORKERS, os.cpu_count() or 1)
    phantom.layout.prepare()
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[Future[_Painted]] = deque()
        for row in range(down):
            for col in range(across):
                pending.append(pool.submit(_paint, phantom, quality, row, col))
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _paint(phantom: Phantom, quality: int, row: int, col: int) -> _Painted:
    pixels = phantom.block(row, col)
    tiles = list(_tiles_of(pixels, quality))
    quarter = _reduced(pixels, FACTOR)
    return _Painted(
        row=row,
        col=col,
        tiles=tuple(tuple(tiles[n : n + FACTOR]) for n in range(0, len(tiles), FACTOR)),
        next_tile=_jpeg(quarter, quality),
        small=_reduced(quarter, FACTOR),
    )


def _tiles_of(pixels: NDArray[np.uint8], quality: int) -> Iterator[bytes]:
    for y in range(0, pixels.shape[0], TILE_PX):
        for x in range(0, pixels.shape[1], TILE_PX):
            tile = pixels[y : y + TILE_PX, x : x + TILE_PX]
            missing = TILE_PX - tile.shape[0], TILE_PX - tile.shape[1]
            yield _jpeg(np.pad(tile, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge"), quality)


def _jpeg(tile: NDArray[np.uint8], quality: int) -> bytes:
    from imagecodecs import jpeg8_encode

    encoded = jpeg8_encode(
        np.ascontiguousarray(tile), level=quality, colorspace="RGB", outcolorspace="YCBCR", subsampling=(2, 2)
    )
    return bytes(encoded)


def _reduced(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Means of squares of pixels; a rest at the right or the bottom is dropped, but never the last pixel."""
    pixels = np.pad(pixels, [(0, max(0, factor - side)) for side in pixels.shape[:2]] + [(0, 0)], mode="edge")
    rows, cols = pixels.shape[0] // factor, pixels.shape[1] // factor
    squares = pixels[: rows * factor, : cols * factor].reshape(rows, factor, cols, factor, 3)
    mean = squares.sum(axis=(1, 3), dtype=np.uint32) / factor**2
    reduced: NDArray[np.uint8] = np.rint(mean).astype(np.uint8)
    return reduced


def _count(length: int) -> int:
    return ceil(length / BLOCK_PX)
