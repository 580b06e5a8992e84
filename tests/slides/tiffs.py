"""TIFF slides made for the tests, with known pixels."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

WIDTH, HEIGHT, TILE = 700, 530, 128
APERIO = "Aperio Image Library v11.2.1\n700x530 [0,0 700x530] (128x128) JPEG/RGB Q=95|AppMag = 40|MPP = 0.2500"


def picture(width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """RGB [height, width, 3]: smooth waves that JPEG keeps well, one colour per quadrant."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    red = 150 + 70 * np.sin(x / 23) * np.cos(y / 31)
    green = 120 + 60 * np.sin((x + y) / 40)
    blue = 40 + 170 * x / width
    return np.stack([red, green, blue], axis=-1).round().astype(np.uint8)


def reductions(base: NDArray[np.uint8], factors: Sequence[int]) -> list[NDArray[np.uint8]]:
    """The pyramid of `base`: averages over whole blocks, remainders dropped."""
    levels = []
    for f in factors:
        height, width = base.shape[0] // f, base.shape[1] // f
        blocks = base[: height * f, : width * f].reshape(height, f, width, f, -1)
        levels.append(blocks.mean(axis=(1, 3)).round().astype(np.uint8))
    return levels


def write_pyramid(
    path: Path,
    *,
    base: NDArray[np.uint8] | None = None,
    factors: Sequence[int] = (1, 2, 4),
    mpp: float | None = 0.25,
    aperio: bool = False,
    reduced: bool = True,
    **options: Any,
) -> Path:
    """A pyramid whose levels are pages; tiles with JPEG of quality 95 where `options` say nothing else."""
    base = picture() if base is None else base
    options = {"tile": (TILE, TILE), "compression": "jpeg", "compressionargs": {"level": 95}} | options
    resolution = {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as writer:
        for n, level in enumerate(reductions(base, factors)):
            if level.shape[2] == 1:
                level = level[..., 0]  # noqa: PLW2901
            # JPEG rings where a tile is padded with black, so the tiles are padded here.
            jpeg_tiles = options["tile"] and options["compression"] == "jpeg"
            writer.write(
                _tiles(level, options["tile"]) if jpeg_tiles else level,
                shape=level.shape,
                dtype=level.dtype,
                photometric="rgb" if level.ndim == 3 else "minisblack",
                subfiletype=int(n > 0 and reduced),
                metadata=None,
                description=APERIO if aperio else None,
                software=False,
                **resolution,
                **options,
            )
    return path


def _tiles(level: NDArray[np.uint8], tile: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    """The tiles of a level, row by row; those over its edge repeat the last pixels."""
    (height, width), (down, across) = level.shape[:2], tile
    margin = [(0, -height % down), (0, -width % across), (0, 0)][: level.ndim]
    padded = np.pad(level, margin, mode="edge")
    for y in range(0, height, down):
        for x in range(0, width, across):
            yield np.ascontiguousarray(padded[y : y + down, x : x + across])


def break_tile(path: Path, index: int, page: int = 0) -> None:
    """Overwrite the bytes of one tile with bytes that are no JPEG."""
    with tifffile.TiffFile(path) as tiff:
        offset, length = tiff.pages[page].dataoffsets[index], tiff.pages[page].databytecounts[index]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xaa" * length)
