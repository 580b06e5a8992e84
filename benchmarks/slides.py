"""The slides that the benchmarks run on. Each is made once and kept in the benchmarks' work folder.

* `phantom_slide`: the drawn breast specimen of `wsi_pipeline.phantom` at 40x;
* `tissue_slide`: real tissue, a case of IDC patches enlarged to 40x (`benchmarks.tissue`);
* `repeated_slide`: of any size within seconds, from a handful of tiles that were encoded once.
"""

from collections.abc import Iterator
from math import ceil, pi, sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.pyramid import (
    FACTOR,
    TILE_PX,
    PyramidLevel,
    encode,
    in_order,
    level_size,
    reduced,
    tile_count,
    write_pyramid,
)
from wsi_pipeline.files import make_folder
from wsi_pipeline.geometry import Scale, Size
from wsi_pipeline.phantom import Phantom, write_phantom

MPP = 0.25
"""µm/px of all slides: 40x."""

CELL_PX = 50
"""Side of a cell at `MPP`. Sides of slides are whole numbers of cells, so that every program lays the same grid."""

TISSUE_PART = 0.3
"""Part of a repeated slide that is tissue."""

PHANTOM_TISSUE_PART = 0.65
"""About this part of a phantom is tissue."""

_PALETTE_BLOCK_PX = 1024


def parse_size(text: str) -> Size:
    """``WIDTHxHEIGHT``, or one number for a square, rounded to whole cells."""
    parts = [max(1, round(int(part) / CELL_PX)) * CELL_PX for part in text.lower().split("x")]
    return Size(parts[0], parts[-1])


def phantom_slide(work: Path, *, size: Size | None = None, cells: int | None = None, seed: int = 0) -> Path:
    """A phantom of a size, or of about so many cells of tissue (20,000 where neither is given)."""
    if size is None:
        side = sqrt((cells or 20_000) / PHANTOM_TISSUE_PART) * CELL_PX
        size = parse_size(str(round(side)))
    path = slide_place(work, f"phantom-{size.width}x{size.height}-{seed}")
    if not path.exists():
        print(f"drawing {path.name} …")
        write_phantom(path, size, seed=seed, mpp=MPP, pen=False)
    return path


def repeated_slide(work: Path, size: Size) -> Path:
    """A slide of a few tiles of drawn tissue, again and again in a disc of `TISSUE_PART` of it, glass around.

    Every tile has its own bytes in the file, so that reading it is reading as much as any slide of its size. There is
    no more to be seen than in one square of 1024 px: it is for speed and memory alone.
    """
    path = slide_place(work, f"repeated-{size.width}x{size.height}")
    if path.exists():
        return path
    print(f"making {path.name} …")
    palette = _palette()
    chosen = _layout(size, len(palette))
    encoded = [encode(tile) for tile in palette]
    levels = [PyramidLevel(size=size, factor=1, tiles=(encoded[n] for n in chosen.ravel()))]
    factor = FACTOR
    while max(size.width, size.height) > 1000 * factor // FACTOR and factor <= TILE_PX:
        levels.append(
            PyramidLevel(size=level_size(size, factor), factor=factor, tiles=_coarse(palette, chosen, factor, size))
        )
        factor *= FACTOR
    write_pyramid(path, levels, mpp=MPP, description="wsi_pipeline benchmark: a few drawn tiles again and again")
    return path


def slide_place(work: Path, name: str) -> Path:
    """Where a slide of a name lies; the folder is made."""
    make_folder(work / "slides")
    return work / "slides" / f"{name}.tiff"


def _palette() -> NDArray[np.uint8]:
    """uint8 [17, 256, 256, 3]: glass, and 16 tiles from where a phantom is tumour."""
    phantom = Phantom(size=Size(8192, 8192), pen=False)
    blocks = _PALETTE_BLOCK_PX
    inside = phantom.tumour_mask(Scale(blocks, blocks)) & phantom.tissue_mask(Scale(blocks, blocks))
    row, col = np.argwhere(inside)[len(np.argwhere(inside)) // 2]
    pixels = phantom.block(int(row), int(col))
    per_side = blocks // TILE_PX
    tiles = pixels.reshape(per_side, TILE_PX, per_side, TILE_PX, 3).swapaxes(1, 2).reshape(-1, TILE_PX, TILE_PX, 3)
    glass = np.full((1, TILE_PX, TILE_PX, 3), 242, np.uint8)
    return np.concatenate([glass, tiles])


def _layout(size: Size, palette: int) -> NDArray[np.int64]:
    """[rows, cols] of tiles: which of the palette each is."""
    rows, cols = tile_count(size.height), tile_count(size.width)
    y, x = np.mgrid[0:rows, 0:cols] + 0.5
    radius = sqrt(TISSUE_PART / pi)
    y_px, x_px = y * TILE_PX / size.height - 0.5, x * TILE_PX / size.width - 0.5
    tissue = np.hypot(y_px, x_px) < radius
    drawn = np.random.default_rng(0).integers(1, palette, (rows, cols))
    return np.where(tissue, drawn, 0)


def _coarse(palette: NDArray[np.uint8], chosen: NDArray[np.int64], factor: int, size: Size) -> Iterator[bytes]:
    """Tiles of the level that is `factor` times smaller, put together from the palette made as much smaller."""
    small = np.stack([reduced(tile, factor) for tile in palette])
    side = TILE_PX // factor
    level = level_size(size, factor)

    def tile(at: tuple[int, int]) -> bytes:
        part = chosen[at[0] * factor : (at[0] + 1) * factor, at[1] * factor : (at[1] + 1) * factor]
        missing = factor - part.shape[0], factor - part.shape[1]
        part = np.pad(part, ((0, missing[0]), (0, missing[1])), mode="edge")
        return encode(small[part].swapaxes(1, 2).reshape(factor * side, factor * side, 3))

    across, down = ceil(level.width / TILE_PX), ceil(level.height / TILE_PX)
    return in_order(tile, ((row, col) for row in range(down) for col in range(across)))
