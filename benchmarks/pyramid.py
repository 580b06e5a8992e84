"""Tiled JPEG pyramids from tiles that are already encoded: how the benchmarks' slides get into a file."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TypeVar

import numpy as np
from imagecodecs import jpeg8_encode
from numpy.typing import NDArray
from tifffile import TiffWriter

from wsi_pipeline.files import atomic_path
from wsi_pipeline.geometry import Size

TILE_PX = 256
"""Side of the files' tiles."""

FACTOR = 4
"""Each level is so many times smaller than the one before."""

QUALITY = 85
"""JPEG quality, that of many scanners."""

_BIG_TIFF_PX = 2**31
"""Slides with more pixels than this might pass the 4 GB of a classic TIFF."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class PyramidLevel:
    """One level, to be written once."""

    size: Size
    factor: int
    """Level-0 pixels to one of its pixels."""
    tiles: Iterable[bytes]
    """Its JPEG tiles, row by row."""
    full_colour: bool = False
    """Whether the tiles keep the colour of each pixel (4:4:4) and not of each square of four (4:2:0)."""


def level_size(size: Size, factor: int) -> Size:
    """Size of a level; a rest at the right or the bottom is dropped."""
    return Size(max(1, size.width // factor), max(1, size.height // factor))


def write_pyramid(path: Path, levels: Sequence[PyramidLevel], *, mpp: float, description: str) -> None:
    """Write a generic tiled TIFF (BigTIFF where it is large) that appears under its name when it is complete.

    Args:
        path: Where to write.
        levels: Finest first.
        mpp: µm per pixel of the first level.
        description: What the picture is.

    Raises:
        OutputError: where the file cannot be written.
    """
    big = levels[0].size.width * levels[0].size.height > _BIG_TIFF_PX
    with atomic_path(path) as part, TiffWriter(part, bigtiff=big) as tiff:
        for n, level in enumerate(levels):
            per_cm = 1e4 / (mpp * level.factor)
            tiff.write(
                iter(level.tiles),
                shape=(level.size.height, level.size.width, 3),
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": QUALITY},
                subsampling=(1, 1) if level.full_colour else (2, 2),
                subfiletype=int(n > 0),
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                description=description if n == 0 else None,
                software="wsi_pipeline",
                metadata=None,
            )


def encode(tile: NDArray[np.uint8], *, quality: int = QUALITY, full_colour: bool = False) -> bytes:
    """A tile uint8 [256, 256, 3] as JPEG."""
    sampling = (1, 1) if full_colour else (2, 2)
    pixels = np.ascontiguousarray(tile)
    return bytes(jpeg8_encode(pixels, level=quality, colorspace="RGB", outcolorspace="YCBCR", subsampling=sampling))


def tiles_of(pixels: NDArray[np.uint8], *, quality: int = QUALITY, full_colour: bool = False) -> Iterator[bytes]:
    """A picture that fits into memory as tiles, row by row; those over its edge repeat the last pixels."""
    height, width = pixels.shape[:2]

    def tile(at: tuple[int, int]) -> bytes:
        part = pixels[at[0] : at[0] + TILE_PX, at[1] : at[1] + TILE_PX]
        missing = TILE_PX - part.shape[0], TILE_PX - part.shape[1]
        whole = np.pad(part, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
        return encode(whole, quality=quality, full_colour=full_colour)

    places = ((y, x) for y in range(0, height, TILE_PX) for x in range(0, width, TILE_PX))
    return in_order(tile, places)


def in_order(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Results in the order of the items, from as many threads as there are cores, which never run far ahead."""
    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 3 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def reduced(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Means of squares of `factor` pixels, uint8 [H // factor, W // factor, 3]; a rest is dropped."""
    rows, cols = pixels.shape[0] // factor, pixels.shape[1] // factor
    squares = pixels[: rows * factor, : cols * factor].reshape(rows, factor, cols, factor, 3)
    mean = squares.mean(axis=(1, 3), dtype=np.float32)
    small: NDArray[np.uint8] = np.rint(mean).astype(np.uint8)
    return small


def tile_count(length: int) -> int:
    """Tiles along a side."""
    return ceil(length / TILE_PX)
