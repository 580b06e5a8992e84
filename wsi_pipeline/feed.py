"""A slide's pixels, read ahead of the network by threads of this process or by processes of their own."""

import multiprocessing
import os
import queue
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.context import BaseContext
from types import TracebackType
from typing import Self

from wsi_pipeline.errors import SlideReadError, WsiPipelineError
from wsi_pipeline.grid import Block, Grid
from wsi_pipeline.inference.devices import cuda_available
from wsi_pipeline.machine import available_cores, available_memory
from wsi_pipeline.patches import BlockReader, PixelBlock
from wsi_pipeline.readplan import Readers, choose_readers, share_out, take_turns
from wsi_pipeline.slides.source import SlideSource
from wsi_pipeline.timing import note

_POLL_SECONDS = 0.1
"""How soon a reading thread sees that nobody wants its pixels any more."""


class Feed:
    """Blocks of pixels that are read ahead from the moment it is made, in any order; each comes once.

    Iterate to the end, or `close`, which ends the reading. Of the two kinds, threads start at once and share this
    process's memory; processes leave Python's lock to the network and so keep up with a GPU.

    Args:
        source: The slide.
        grid: Its cells.
        blocks: Those to read, from ``grid.blocks()``.
        workers: Processes that read; 0 for one thread of this process; None chooses by the machine and the slide.
    """

    def __init__(self, source: SlideSource, grid: Grid, blocks: Sequence[Block], *, workers: int | None = None) -> None:
        self._slide = source.path
        readers = _choose(grid, blocks, workers)
        strips = share_out(blocks, readers.count)
        kind = _Processes if readers.processes else _Threads
        self._readers: _Processes | _Threads | None = kind(source, grid, strips, readers) if blocks else None

    def __iter__(self) -> Iterator[PixelBlock]:
        """The blocks.

        Raises:
            SlideReadError: where a reading process dies.
            WsiPipelineError: where the slide cannot be opened.
        """
        for block in self._readers or ():
            note(
                "read",
                block.started,
                block.started + block.seconds,
                process=block.process,
                thread=f"reader {block.thread}",
                slide=self._slide,
                block=list(block.block.index),
                decodes=block.decodes,
                decode_seconds=block.decode_seconds,
            )
            yield block

    def close(self) -> None:
        """End the reading; closing twice is allowed."""
        if self._readers is not None:
            self._readers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_blocks(
    source: SlideSource, grid: Grid, blocks: Sequence[Block], *, workers: int | None = None
) -> Iterator[PixelBlock]:
    """The pixels of `blocks`, in any order; arguments and errors are those of `Feed`."""
    with Feed(source, grid, blocks, workers=workers) as feed:
        yield from feed


def _choose(grid: Grid, blocks: Sequence[Block], workers: int | None) -> Readers:
    if multiprocessing.current_process().daemon:
        workers = 0  # such as a worker of dask under its nanny: it may not start processes of its own
    return choose_readers(
        grid,
        blocks,
        workers=workers,
        cores=len(available_cores()),
        memory=available_memory(),
        processes=cuda_available(),
    )


class _Threads:
    """Threads of this process, each with the slide opened for itself."""

    def __init__(self, source: SlideSource, grid: Grid, strips: Sequence[Sequence[Block]], readers: Readers) -> None:
        waiting = max(1, (readers.ahead - 1) * len(strips))
        self._items: queue.Queue[PixelBlock | BaseException | None] = queue.Queue(waiting)
        self._stopped = threading.Event()
        self._pin = cuda_available()
        self._threads = [
            threading.Thread(
                target=self._read, args=(BlockReader(source, grid), strip), name=f"reader {n}", daemon=True
            )
            for n, strip in enumerate(strips)
        ]
        for thread in self._threads:
            thread.start()

    def __iter__(self) -> Iterator[PixelBlock]:
        left = len(self._threads)
        while left:
            item = self._items.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                left -= 1
            else:
                yield item

    def close(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        self._items = queue.Queue()  # lets go of the pixels

    def _read(self, reader: BlockReader, strip: Sequence[Block]) -> None:
        try:
            for block in strip:
                pixels = reader.read(block)
                if not self._give(pixels.pin_memory() if self._pin else pixels):
                    return
            self._give(None)
        except BaseException as error:  # noqa: BLE001  (raised again where the pixels are waited for)
            self._give(error)
        finally:
            reader.close()

    def _give(self, item: PixelBlock | BaseException | None) -> bool:
        """Hand an item over; False where nobody wants it any more."""
        while not self._stopped.is_set():
            try:
                self._items.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False


class _Blocks:
    """Blocks of one slide for the loader's processes; a slide that cannot be opened is returned as its error."""

    def __init__(self, source: SlideSource, grid: Grid, blocks: Sequence[Block]) -> None:
        self._reader, self._blocks = BlockReader(source, grid), blocks

    def __len__(self) -> int:
        return len(self._blocks)

    def __getitem__(self, index: int) -> PixelBlock | WsiPipelineError:
        try:
            return self._reader.read(self._blocks[index]).share()
        except WsiPipelineError as error:
            # The loader would rebuild an exception from its message alone and lose its parts.
            return error


class _Processes:
    """Processes of torch's DataLoader. Item n goes to process ``n % count``, so each reads its own strip."""

    def __init__(self, source: SlideSource, grid: Grid, strips: Sequence[Sequence[Block]], readers: Readers) -> None:
        from torch.utils.data import DataLoader

        self._slide = source.path
        loader: DataLoader[PixelBlock | WsiPipelineError] = DataLoader(
            _Blocks(source, grid, take_turns(strips)),  # type: ignore[arg-type]  # it has what is needed of a Dataset
            batch_size=None,
            num_workers=len(strips),
            prefetch_factor=readers.ahead,
            pin_memory=cuda_available(),
            multiprocessing_context=worker_context(),
            worker_init_fn=end_with_parent,
        )
        self._items: Iterator[PixelBlock | WsiPipelineError] | None = iter(loader)

    def __iter__(self) -> Iterator[PixelBlock]:
        try:
            for item in self._items or ():
                if isinstance(item, WsiPipelineError):
                    raise item
                yield item
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker (pid"):
                raise
            why, hint = f"a reading process died ({error})", "Out of memory? Try --workers 0."
            raise SlideReadError(self._slide, why, hint) from error

    def close(self) -> None:
        self._items = None  # its processes end with it


def end_with_parent(worker: int) -> None:
    """Let a reading process end when the run is killed; under forkserver nobody else would tell it."""
    del worker
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def worker_context() -> BaseContext:
    """How workers start: forkserver keeps threads and CUDA of this process out of them; Windows has only spawn.

    The server imports this module and torch once, so that a worker starts in milliseconds.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "torch.utils.data"])
    return context
