"""The pixels of read blocks: what a reader gives, and how it comes by it."""

import os
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import SlideReadError
from wsi_pipeline.grid import Block, Grid
from wsi_pipeline.slides import Slide
from wsi_pipeline.slides.source import SlideSource

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST_READ_PX = 256
"""A block that cannot be read is halved until its cells span no more level-0 pixels than this: one native tile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelBlock:
    """The pixels of one block; fields of view are cut from them on the device."""

    block: Block
    pixels: "NDArray[np.uint8] | Tensor"
    """uint8 RGB, [height, width, 3]: the raster at the model's resolution. A tensor between processes and in
    page-locked memory, else an array."""
    windows: NDArray[np.int64]
    """int64, [n, 2]: (x, y) of each cell's field of view inside `pixels`."""
    readable: NDArray[np.bool_]
    """[n]: False where the file's pixels could not be decoded."""
    seconds: float
    """Time the read took."""
    started: float = 0.0
    """`time.perf_counter` of this machine when it began."""
    process: int = 0
    """Number of the process that read."""
    thread: int = 0
    """Number of its thread that read."""
    decodes: int | None = None
    """Native tiles decoded for it; None where the reader does not count them."""
    decode_seconds: float = 0.0
    """What decoding took of the time, where the reader knows."""

    def pin_memory(self) -> "PixelBlock":
        """The same with its pixels where a GPU fetches them without a copy; the loader calls this."""
        return replace(self, pixels=self._tensor().pin_memory())

    def share(self) -> "PixelBlock":
        """The same with its pixels as a tensor, which torch hands from process to process without a copy."""
        return replace(self, pixels=self._tensor())

    def _tensor(self) -> "Tensor":
        import torch

        return torch.as_tensor(self.pixels)


class BlockReader:
    """Reads blocks of one slide, which it opens when the first is asked for; for one thread alone."""

    def __init__(self, source: SlideSource, grid: Grid) -> None:
        self.source, self.grid = source, grid
        self._slide: Slide | None = None

    def read(self, block: Block) -> PixelBlock:
        """The pixels of a block; cells that cannot be read are marked in it.

        Raises:
            WsiPipelineError: where the slide cannot be opened.
        """
        started, before = time.perf_counter(), self._decoded()
        box = self.grid.block_box(block.cells)
        pixels = np.full((box.height, box.width, 3), 255, np.uint8)
        readable = np.zeros(len(block.cells), np.bool_)
        self._fill(pixels, readable, block.cells, np.arange(len(block.cells)), (box.x, box.y))
        after = self._decoded()
        return PixelBlock(
            block=block,
            pixels=pixels,
            windows=self.grid.windows(block.cells) - np.array([box.x, box.y]),
            readable=readable,
            seconds=time.perf_counter() - started,
            started=started,
            process=os.getpid(),
            thread=threading.get_native_id(),
            decodes=None if after[0] is None else after[0] - (before[0] or 0),
            decode_seconds=after[1] - before[1],
        )

    def _decoded(self) -> tuple[int | None, float]:
        """Native tiles decoded so far and the seconds that took, as far as the slide's reader says."""
        return getattr(self._slide, "decodes", None), getattr(self._slide, "decode_seconds", 0.0)

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
        if self._slide is None:
            self._slide = self.source.open()
        return self._slide

    def close(self) -> None:
        """Release the slide, if it was opened."""
        if self._slide is not None:
            self._slide.close()
            self._slide = None
