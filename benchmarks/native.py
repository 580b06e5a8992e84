"""A slide's native JPEG tiles and nothing around them: how fast decoding alone can be on this machine."""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from imagecodecs import jpeg8_decode
from numpy.typing import NDArray

from benchmarks.measure import Row
from wsi_pipeline.grid import Grid
from wsi_pipeline.slides import open_slide

_TOGETHER = 32
"""Tiles that a thread takes at a time."""

_YCBCR = 6

_LEAST_S = 1.0
"""A shorter burst says little."""


class NativeTiles:
    """The tiles of one level of a TIFF that the fields of view of a grid's cells touch."""

    def __init__(self, path: Path, level: int, touched: NDArray[np.bool_]) -> None:
        """Find the tiles.

        Args:
            path: A tiled JPEG TIFF whose levels are pages.
            level: Which of them.
            touched: [rows, cols] of tiles, see `touched_tiles`.
        """
        with tifffile.TiffFile(path) as tiff:
            page: Any = tiff.pages[level]
            if not page.is_tiled or page.compression != tifffile.COMPRESSION.JPEG:
                raise SystemExit(f"{path}: its pixels are no JPEG tiles, there is nothing to compare with")
            self.shape = int(page.tilelength), int(page.tilewidth)
            wanted = np.flatnonzero(touched.ravel())
            self._offsets = np.array(page.dataoffsets)[wanted]
            self._lengths = np.array(page.databytecounts)[wanted]
            self._colours: dict[str, Any] = {"tables": page.jpegtables}
            if page.photometric == _YCBCR:
                self._colours |= {"colorspace": "YCBCR", "outcolorspace": "RGB"}
        self._file = os.open(path, os.O_RDONLY)
        self._own = threading.local()

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def pixels(self) -> int:
        """Of all the tiles."""
        return len(self) * self.shape[0] * self.shape[1]

    def decode(self, number: int) -> NDArray[np.uint8]:
        """Pixels of a tile, in memory that the thread's next tile takes over."""
        if not hasattr(self._own, "pixels"):
            self._own.pixels = np.empty((*self.shape, 3), np.uint8)
        data = os.pread(self._file, int(self._lengths[number]), int(self._offsets[number]))
        decoded: NDArray[np.uint8] = jpeg8_decode(data, out=self._own.pixels, **self._colours)
        return decoded

    def decode_all(self, threads: int) -> float:
        """Seconds to decode each tile once."""

        def some(first: int) -> None:
            for number in range(first, min(first + _TOGETHER, len(self))):
                self.decode(number)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(int, range(threads)))  # the threads are there
            started = time.perf_counter()
            list(pool.map(some, range(0, len(self), _TOGETHER)))
            return time.perf_counter() - started

    def close(self) -> None:
        """Release the file."""
        os.close(self._file)


def touched_tiles(grid: Grid, scale: float, tile: tuple[int, int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which tiles of a level the fields of view touch.

    Args:
        grid: The cells.
        scale: Level-0 pixels per pixel of the level.
        tile: Rows and columns of a tile.
        size: Rows and columns of the level.

    Returns:
        bool [rows, cols] of tiles.
    """
    first = grid.windows(grid.cells)[:, ::-1] * (np.array([grid.scale.y, grid.scale.x]) / scale)
    side = grid.view.size_px * np.array([grid.scale.y, grid.scale.x]) / scale
    count = -(-np.array(size) // np.array(tile))
    low = np.floor(first / tile).astype(int)
    high = np.floor((first + side - 1e-6) / tile).astype(int)
    touched = np.zeros(count, np.bool_)
    for row in range(int((high - low)[:, 0].max(initial=0)) + 1):
        for col in range(int((high - low)[:, 1].max(initial=0)) + 1):
            here = np.minimum(low + np.array([row, col]), high).clip(0, count - 1)
            touched[here[:, 0], here[:, 1]] = True
    return touched


def open_native(path: Path, grid: Grid) -> NativeTiles:
    """The tiles that a run reads for this grid."""
    with open_slide(path) as slide:
        level = slide.info.level_for(grid.scale)
        scale, size = slide.info.levels[level].scale, slide.info.levels[level].size
    if not len(grid.cells):
        raise SystemExit(f"{path}: there is no tissue to measure with")
    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages[level]
        tile = int(page.tilelength), int(page.tilewidth)
    return NativeTiles(path, level, touched_tiles(grid, scale.x, tile, (size.height, size.width)))


def decode_burst(tiles: NativeTiles, cells: int, threads: int) -> Callable[[], Row]:
    """One repetition: each tile once, and all of them again until `_LEAST_S` have passed."""

    def once() -> Row:
        seconds, passes = 0.0, 0
        while seconds < _LEAST_S:
            seconds += tiles.decode_all(threads)
            passes += 1
        rate = passes / seconds
        return {"cells_per_s": cells * rate, "mpx_per_s": tiles.pixels * rate / 1e6, "seconds": seconds}

    return once
