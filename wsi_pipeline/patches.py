"""The pixels of read blocks, from DataLoader workers that each open the slide once."""

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.context import BaseContext

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from wsi_pipeline.config import Reader
from wsi_pipeline.errors import SlideReadError, WsiPipelineError
from wsi_pipeline.grid import Block, Grid
from wsi_pipeline.slides import Slide, open_slide

SMALLEST_READ_PX = 256
"""A block that cannot be read is halved until its cells span no more level-0 pixels than this: one native tile."""

BLOCKS_PER_WORKER = 2
"""Fewer blocks than this for each worker are not worth starting it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideSource:
    """How to open the same slide again in another process."""

    path: str
    reader: Reader
    mpp: float | None

    def open(self) -> Slide:
        """The slide, for this process alone."""
        return open_slide(self.path, reader=self.reader, mpp=self.mpp)


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelBlock:
    """The pixels of one block; fields of view are cut from them on the device."""

    block: Block
    pixels: torch.Tensor
    """uint8 RGB, [height, width, 3]: the raster at the model's resolution."""
    windows: torch.Tensor
    """int64, [n, 2]: (x, y) of each cell's field of view inside `pixels`."""
    readable: NDArray[np.bool_]
    """[n]: False where the file's pixels could not be decoded."""
    seconds: float
    """Time the read took."""

    def pin_memory(self) -> "PixelBlock":
        """The same with its pixels where a GPU fetches them without a copy; the loader calls this."""
        return replace(self, pixels=self.pixels.pin_memory())


class BlockDataset(Dataset["PixelBlock | WsiPipelineError"]):
    """Blocks of one slide. Item n is the n-th block; a slide that cannot be opened is returned as its error."""

    def __init__(self, source: SlideSource, grid: Grid, blocks: Sequence[Block]) -> None:
        self.source, self.grid, self.blocks = source, grid, blocks
        self._slide: Slide | None = None
        self._owner = 0

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: int) -> PixelBlock | WsiPipelineError:
        started = time.perf_counter()
        block = self.blocks[index]
        box = self.grid.block_box(block.cells)
        pixels = np.full((box.height, box.width, 3), 255, np.uint8)
        readable = np.zeros(len(block.cells), np.bool_)
        try:
            self._fill(pixels, readable, block.cells, np.arange(len(block.cells)), (box.x, box.y))
        except WsiPipelineError as error:
            # The loader would rebuild an exception from its message alone and lose its parts.
            return error
        return PixelBlock(
            block=block,
            pixels=torch.from_numpy(pixels),
            windows=torch.from_numpy(self.grid.windows(block.cells) - np.array([box.x, box.y])),
            readable=readable,
            seconds=time.perf_counter() - started,
        )

    def _fill(
        self,
        pixels: NDArray[np.uint8],
        readable: NDArray[np.bool_],
        cells: NDArray[np.int32],
        members: NDArray[np.int64],
        corner: tuple[int, int],
    ) -> None:
        """Read the fields of view of `cells[members]`; where that fails, read each half, down to one native tile."""
        box = self.grid.block_box(cells[members])
        try:
            part = self._open().read(box, self.grid.scale)
        except SlideReadError:
            span = np.ptp(cells[members], axis=0)
            # In a patch folder each cell is a file of its own; elsewhere damage is not finer than a native tile.
            smallest = SMALLEST_READ_PX if self._open().coverage is None else 0
            if (span[::-1] * np.array(self.grid.step)).max() <= smallest:
                return
            axis = int(span.argmax())
            low = cells[members, axis] <= cells[members, axis].min() + span[axis] // 2
            self._fill(pixels, readable, cells, members[low], corner)
            self._fill(pixels, readable, cells, members[~low], corner)
        else:
            x, y = box.x - corner[0], box.y - corner[1]
            pixels[y : y + box.height, x : x + box.width] = part
            readable[members] = True

    def _open(self) -> Slide:
        if self._slide is None or self._owner != os.getpid():
            self._slide, self._owner = self.source.open(), os.getpid()
        return self._slide

    def close(self) -> None:
        """Release the slide, if this process has opened it."""
        if self._slide is not None and self._owner == os.getpid():
            self._slide.close()
            self._slide = None


def read_blocks(
    source: SlideSource, grid: Grid, blocks: Sequence[Block], *, workers: int | None = None
) -> Iterator[PixelBlock]:
    """The pixels of `blocks`, in their order.

    Args:
        source: The slide.
        grid: Its cells.
        blocks: Those to read, from ``grid.blocks()``.
        workers: Processes that read; 0 reads in this one; None chooses by cores and blocks.

    Raises:
        SlideReadError: where a worker dies.
        WsiPipelineError: where the slide cannot be opened.
    """
    dataset = BlockDataset(source, grid, blocks)
    count = default_workers(len(blocks)) if workers is None else min(workers, len(blocks))
    loader: DataLoader[PixelBlock | WsiPipelineError] = DataLoader(
        dataset,
        batch_size=None,
        num_workers=count,
        prefetch_factor=2 if count else None,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context=worker_context() if count else None,
        worker_init_fn=end_with_parent,
    )
    try:
        for item in loader:
            if isinstance(item, WsiPipelineError):
                raise item
            yield item
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        raise SlideReadError(
            source.path, f"a reading process died ({error})", "Out of memory? Try --workers 0."
        ) from error
    finally:
        dataset.close()


def end_with_parent(worker: int) -> None:
    """Let a reading process end when the run is killed; under forkserver nobody else would tell it."""
    del worker
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def default_workers(blocks: int) -> int:
    """Reading processes for a slide: one core is left to the network, and each has blocks enough to be worth it."""
    if multiprocessing.current_process().daemon:
        return 0  # such as a worker of dask under its nanny: it may not start processes of its own
    return min(len(available_cores()) - 1, blocks // BLOCKS_PER_WORKER, 16)


def available_cores() -> Sequence[int]:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return range(os.cpu_count() or 1)


def worker_context() -> BaseContext:
    """How workers start: forkserver keeps threads and CUDA of this process out of them; Windows has only spawn.

    The server imports this module once, so that a worker starts in milliseconds.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context
