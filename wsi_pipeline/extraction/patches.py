"""Patches of one slide to files: read in blocks by a few threads, each with the slide open for itself."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import OutputError, SlideReadError
from wsi_pipeline.extraction.labels import first_window
from wsi_pipeline.extraction.rules import SlideSpec
from wsi_pipeline.files import SPACE_HINT, make_folder
from wsi_pipeline.geometry import Box
from wsi_pipeline.grid import Grid
from wsi_pipeline.slides import Slide, open_slide

SMALLEST_READ_PX = 256
"""A box that cannot be read is halved until it spans no more level-0 pixels than this: one native tile."""

MAX_WORKERS = 8

_PNG_LEVEL = 4
"""Compression of the files; higher levels take longer and save about 2 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchNames:
    """Where patches go: ``<folder>/<label>/<case>_idx5_x<X>_y<Y>_class<label>.png``, X and Y 1-based."""

    folder: Path
    case: str
    size_px: int

    def path(self, row: int, col: int, label: int) -> Path:
        """The file of the patch at a position of the lattice."""
        x, y = col * self.size_px + 1, row * self.size_px + 1
        return self.folder / str(label) / f"{self.case}_idx5_x{x}_y{y}_class{label}.png"


def write_patches(
    slide: SlideSpec,
    grid: Grid,
    outcome: NDArray[np.uint8],
    names: PatchNames,
    *,
    workers: int | None = None,
    on_patches: Callable[[int], None] | None = None,
) -> NDArray[np.int64]:
    """Write every patch that has a label, as PNG.

    Args:
        slide: How to open the slide.
        grid: Its native cells.
        outcome: [rows, cols] as `label_patches` gives it.
        names: Where the files go.
        workers: Threads that read; default: the cores, at most `MAX_WORKERS`.
        on_patches: Called with the number of patches done since the last call.

    Returns:
        [n, 2]: (row, col) of the patches whose pixels could not be decoded; they are not written.

    Raises:
        OutputError: where a file cannot be written.
        WsiPipelineError: where the slide cannot be opened.
    """
    labelled = replace(grid, cells=np.argwhere(outcome <= 1).astype(np.int32))
    for label in np.unique(outcome[outcome <= 1]):
        make_folder(names.folder / str(label))
    lost: list[NDArray[np.int64]] = []

    def write_block(cells: NDArray[np.int32]) -> int:
        for part, pixels, corner in _read(open_here(), labelled, cells):
            if pixels is None:
                lost.append(part.astype(np.int64))
                continue
            for (row, col), (x, y) in zip(part.tolist(), _windows(labelled, part).tolist(), strict=True):
                top, left = y - corner[1], x - corner[0]
                patch = pixels[top : top + names.size_px, left : left + names.size_px]
                _write_png(names.path(row, col, int(outcome[row, col])), patch)
        return len(cells)

    with _opened_per_thread(slide) as open_here, ThreadPoolExecutor(_workers(workers)) as pool:
        try:
            for done in as_completed([pool.submit(write_block, block.cells) for block in labelled.blocks()]):
                if on_patches is not None:
                    on_patches(done.result())
                done.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return np.concatenate(lost) if lost else np.empty((0, 2), np.int64)


def _windows(grid: Grid, cells: NDArray[np.int32]) -> NDArray[np.int64]:
    """[n, 2]: (x, y) of each patch's first pixel in the raster at the patches' resolution."""
    return np.array(first_window(grid)) + cells[:, ::-1].astype(np.int64) * grid.view.size_px


def _read(
    slide: Slide, grid: Grid, cells: NDArray[np.int32]
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.uint8] | None, tuple[int, int]]]:
    """Pixels of patches and the corner of the box they lie in; where a box fails, of each half of its patches.

    Pixels are None for patches that cannot be decoded.
    """
    windows, size = _windows(grid, cells), grid.view.size_px
    (x, y), (right, bottom) = windows.min(axis=0).tolist(), (windows.max(axis=0) + size).tolist()
    try:
        yield cells, slide.read(Box(x, y, right - x, bottom - y), grid.scale), (x, y)
    except SlideReadError:
        span = np.ptp(windows, axis=0) * np.array([grid.scale.x, grid.scale.y])
        # In a patch folder each patch is a file of its own; elsewhere damage is not finer than a native tile.
        if span.max() <= (SMALLEST_READ_PX if slide.coverage is None else 0):
            yield cells, None, (x, y)
            return
        axis = int(span.argmax())
        first = windows[:, axis] <= windows[:, axis].min() + np.ptp(windows[:, axis]) // 2
        yield from _read(slide, grid, cells[first])
        yield from _read(slide, grid, cells[~first])


@contextmanager
def _opened_per_thread(spec: SlideSpec) -> Iterator[Callable[[], Slide]]:
    """A function that gives each thread its own open slide; all are closed at the end."""
    local, opened = threading.local(), list[Slide]()

    def open_here() -> Slide:
        if not hasattr(local, "slide"):
            local.slide = open_slide(spec.path, reader=spec.reader, mpp=spec.mpp)
            opened.append(local.slide)
        slide: Slide = local.slide
        return slide

    try:
        yield open_here
    finally:
        for slide in opened:
            slide.close()


def _workers(asked: int | None) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, MAX_WORKERS) if asked is None else asked)


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    from imagecodecs import png_encode

    try:
        path.write_bytes(png_encode(np.ascontiguousarray(pixels), level=_PNG_LEVEL))
    except OSError as error:
        raise OutputError(path, f"cannot be written ({error.strerror or error})", SPACE_HINT) from error
