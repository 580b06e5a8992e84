"""A real-tissue slide at 40x: a reassembled case of IDC patches (4 µm/px), enlarged 16 times, fine texture added.

Its 2.5x level holds the case's own pixels (as the best JPEG keeps them); the finer levels are those pixels, enlarged
so that every 16 x 16 pixels of level 0 have a real pixel for their mean, and covered with a texture of zero mean,
stronger where the tissue is dark. So the file is as large and as hard to decode as a 40x slide of the same section, and
a model at 4 µm/px sees real tissue in it. Where the case has no patch it is white.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import correlate1d, gaussian_filter

from benchmarks.pyramid import (
    FACTOR,
    TILE_PX,
    PyramidLevel,
    encode,
    in_order,
    level_size,
    reduced,
    tile_count,
    tiles_of,
    write_pyramid,
)
from benchmarks.slides import CELL_PX, MPP, slide_place
from wsi_pipeline.geometry import Box, Size
from wsi_pipeline.slides.patch_slide import NO_PATCH, PatchSlide

ENLARGED = 16
"""Level-0 pixels to a real pixel, each way: 4 µm/px to 0.25 µm/px."""

BLOCK_PX = TILE_PX * FACTOR
"""Side of the squares that level 0 is painted in: a tile of the next level."""

TEXTURE = 40.0
"""Standard deviation of the texture where the tissue is black, in grey levels."""

REAL_QUALITY = 100
"""JPEG quality of the levels that hold real pixels; their colour is kept for each pixel."""

_MARGIN = 4
"""Real pixels around a block that its interpolation looks at."""

_GRAINS_UM = (0.4, 1.2)
"""Sizes of the texture's grains: chromatin and fibres."""


def tissue_slide(work: Path, case: str | Path, *, cells: int | None = None) -> Path:
    """The slide of a case, or of the square of it that holds the most tissue and about so many cells.

    Args:
        work: The benchmarks' work folder.
        case: A zip or folder with every patch of a case, see `wsi_pipeline.slides.patch_slide`.
        cells: Bound on the cells, None for the whole case.

    Raises:
        WsiPipelineError: where there is no such case, or the slide cannot be written.
    """
    name = Path(case).stem
    path = slide_place(work, f"tissue-{name}-{cells or 'whole'}")
    if path.exists():
        return path
    print(f"enlarging {name} to {path.name} …")
    real, covered = read_case(case)
    if cells is not None:
        real, covered = _densest(real, covered, cells)
    enlarged = Enlarged(real=real, covered=covered)
    with TemporaryFile(dir=path.parent) as spill:
        write_pyramid(
            path,
            list(_levels(enlarged, spill)),
            mpp=MPP,
            description=f"wsi_pipeline benchmark: IDC case {name} at 4 um/px, enlarged {ENLARGED} times, texture added",
        )
    return path


def read_case(case: str | Path) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Pixels of a case, uint8 [H, W, 3], and where it has any, bool [H, W]."""
    with PatchSlide(case) as slide:
        size = slide.info.size
        whole = Box(0, 0, size.width, size.height)
        return slide.read_level(0, whole), slide.label_pixels(whole) != NO_PATCH


def _densest(
    real: NDArray[np.uint8], covered: NDArray[np.bool_], cells: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The square for so many cells that is covered most; its sides are whole cells."""
    cells_across = max(1, round(np.sqrt(cells)))
    side = max(1, cells_across * CELL_PX // ENLARGED)
    height, width = covered.shape
    side = min(side, height, width)
    summed = np.zeros((height + 1, width + 1), np.int64)
    np.cumsum(np.cumsum(covered, axis=0, dtype=np.int64), axis=1, out=summed[1:, 1:])
    held = summed[side:, side:] - summed[:-side, side:] - summed[side:, :-side] + summed[:-side, :-side]
    y, x = np.unravel_index(int(held.argmax()), held.shape)
    return real[y : y + side, x : x + side], covered[y : y + side, x : x + side]


@dataclass(frozen=True, kw_only=True)
class Enlarged:
    """A case at level 0, painted square by square."""

    real: NDArray[np.uint8]
    """[H, W, 3] at 4 µm/px."""
    covered: NDArray[np.bool_]
    """[H, W]."""

    @property
    def size(self) -> Size:
        """Level-0 pixels: whole cells, so that a rest of less than a cell is dropped."""
        height, width = (side * ENLARGED // CELL_PX * CELL_PX for side in self.covered.shape)
        return Size(width, height)

    def block(self, row: int, col: int) -> NDArray[np.uint8] | None:
        """RGB uint8 [1024, 1024, 3] of a square, white beyond the slide; None where it is white altogether."""
        side = BLOCK_PX // ENLARGED
        y, x = row * side, col * side
        if not self.covered[y : y + side, x : x + side].any():
            return None
        around = self._source[y : y + side + 2 * _MARGIN, x : x + side + 2 * _MARGIN]
        fine = np.stack([_enlarge(around[..., n], side) for n in range(3)], axis=2)
        darkness = 1 - fine.mean(axis=2) / 255
        fine += (self._texture * np.maximum(darkness, 0))[..., None]
        pixels: NDArray[np.uint8] = np.rint(fine).clip(0, 255).astype(np.uint8)
        pixels[~self._covered_block(y, x, side)] = 255
        return pixels

    def _covered_block(self, y: int, x: int, side: int) -> NDArray[np.bool_]:
        part = np.zeros((side, side), np.bool_)
        found = self.covered[y : y + side, x : x + side]
        part[: found.shape[0], : found.shape[1]] = found
        return np.kron(part, np.ones((ENLARGED, ENLARGED), np.bool_))

    @cached_property
    def _source(self) -> NDArray[np.float32]:
        """The real pixels, sharpened so that the means of what is interpolated from them are the real pixels again."""
        beyond = [(_MARGIN, _MARGIN + BLOCK_PX // ENLARGED)] * 2 + [(0, 0)]
        wanted = np.pad(self.real, beyond, mode="edge").astype(np.float32)
        source = wanted.copy()
        for _ in range(3):
            source += wanted - _blurred(source)
        return source

    @cached_property
    def _texture(self) -> NDArray[np.float32]:
        """float32 [1024, 1024] of zero mean in each 16 x 16 pixels, the same for every block."""
        rng, grains = np.random.default_rng(0), np.zeros((BLOCK_PX, BLOCK_PX))
        for grain in _GRAINS_UM:
            layer = gaussian_filter(rng.standard_normal(grains.shape), grain / MPP / 2, mode="wrap")
            grains += layer / layer.std()
        squares = grains.reshape(BLOCK_PX // ENLARGED, ENLARGED, BLOCK_PX // ENLARGED, ENLARGED)
        even = (squares - squares.mean(axis=(1, 3), keepdims=True)).reshape(grains.shape)
        texture: NDArray[np.float32] = (even / even.std() * TEXTURE).astype(np.float32)
        return texture


def _enlarge(around: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """One channel, `side` pixels with a margin, to 16 times the size without it (Keys' cubic interpolation)."""
    box = (_MARGIN, _MARGIN, _MARGIN + side, _MARGIN + side)
    large = (side * ENLARGED, side * ENLARGED)
    return np.asarray(Image.fromarray(np.ascontiguousarray(around)).resize(large, Image.Resampling.BICUBIC, box))


def _blurred(source: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the means of 16 x 16 interpolated pixels are: a small, separable filter."""
    impulse = np.zeros((1, 2 * _MARGIN + 1), np.float32)
    impulse[0, _MARGIN] = 1
    wide = (impulse.shape[1] * ENLARGED, 1)
    answer = np.asarray(Image.fromarray(impulse).resize(wide, Image.Resampling.BICUBIC))
    weights = answer.reshape(-1, ENLARGED).mean(axis=1)
    rows = correlate1d(source, weights, axis=0, mode="nearest")
    found: NDArray[np.float32] = correlate1d(rows, weights, axis=1, mode="nearest")
    return found


def _levels(enlarged: Enlarged, spill: IO[bytes]) -> Iterator[PyramidLevel]:
    """Level 0 is painted while it is written, and puts the tiles of level 1 aside; the rest comes from real pixels."""
    size, lengths = enlarged.size, list[int]()
    yield PyramidLevel(size=size, factor=1, tiles=_finest(enlarged, spill, lengths))
    yield PyramidLevel(size=level_size(size, FACTOR), factor=FACTOR, tiles=_spilt(spill, lengths, size))
    real, factor = enlarged.real, ENLARGED
    while True:
        level = level_size(size, factor)
        pixels = real[: level.height, : level.width]
        tiles = tiles_of(pixels, quality=REAL_QUALITY, full_colour=True)
        yield PyramidLevel(size=level, factor=factor, tiles=tiles, full_colour=True)
        if max(level.width, level.height) <= 1000:
            return
        real, factor = reduced(real, FACTOR), factor * FACTOR


def _finest(enlarged: Enlarged, spill: IO[bytes], lengths: list[int]) -> Iterator[bytes]:
    size = enlarged.size
    across, down = -(-size.width // BLOCK_PX), -(-size.height // BLOCK_PX)
    cols, rows = tile_count(size.width), tile_count(size.height)
    white = encode(np.full((TILE_PX, TILE_PX, 3), 255, np.uint8))

    def paint(at: tuple[int, int]) -> tuple[list[bytes], bytes]:
        pixels = enlarged.block(*at)
        if pixels is None:
            return [white] * FACTOR**2, white
        places = [(y, x) for y in range(0, BLOCK_PX, TILE_PX) for x in range(0, BLOCK_PX, TILE_PX)]
        tiles = [encode(pixels[y : y + TILE_PX, x : x + TILE_PX]) for y, x in places]
        return tiles, encode(reduced(pixels, FACTOR))

    strip: list[list[bytes]] = []
    painted = in_order(paint, ((row, col) for row in range(down) for col in range(across)))
    for n, (tiles, next_tile) in enumerate(painted):
        spill.write(next_tile)
        lengths.append(len(next_tile))
        strip.append(tiles)
        if len(strip) < across:
            continue
        for row in range(min(FACTOR, rows - n // across * FACTOR)):
            line = [tile for block in strip for tile in block[row * FACTOR : (row + 1) * FACTOR]]
            yield from line[:cols]
        strip.clear()


def _spilt(spill: IO[bytes], lengths: list[int], size: Size) -> Iterator[bytes]:
    """Tiles of level 1; the last blocks may lie wholly in the rest that the level drops."""
    spill.seek(0)
    across, level = -(-size.width // BLOCK_PX), level_size(size, FACTOR)
    for n, length in enumerate(lengths):
        tile = spill.read(length)
        if n % across < tile_count(level.width) and n // across < tile_count(level.height):
            yield tile
