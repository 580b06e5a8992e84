"""Blocks on their way to the disk, while the network goes on."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from wsi_pipeline.heatmap.heatmap import BlockScores, Heatmap
from wsi_pipeline.timing import Stopwatch

MAX_WAITING = 16
"""Blocks that may wait for the disk; then the network waits, too."""


class BlockWriter:
    """Writes blocks of a heatmap in a thread of its own; use it in a ``with``, which ends when all are on the disk.

    Blocks that wait are written together, so that what is done is noted once for all of them.

    Args:
        heatmap: Where they go. Leave it alone until the writer has ended.
        watch: Notes the time it took, as ``write``.
    """

    def __init__(self, heatmap: Heatmap, watch: Stopwatch) -> None:
        self._heatmap, self._watch = heatmap, watch
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._waiting: deque[BlockScores] = deque()
        self._begun: deque[Future[None]] = deque()
        self.cells = 0
        """Cells that are on the disk."""

    def write(self, block: BlockScores) -> None:
        """Hand a block over.

        Raises:
            OutputError: where an earlier one could not be written (disk full); those before it are kept.
        """
        self._waiting.append(block)
        self._begun.append(self._pool.submit(self._write_waiting))
        while self._begun and (self._begun[0].done() or len(self._begun) > MAX_WAITING):
            self._begun.popleft().result()

    def _write_waiting(self) -> None:
        blocks = []
        while self._waiting:
            blocks.append(self._waiting.popleft())
        if not blocks:
            return
        with self._watch.stage("write"):
            self._heatmap.write_blocks(blocks)
        self.cells += sum(len(block.block.cells) for block in blocks)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until all blocks are on the disk.

        Raises:
            OutputError: where one could not be written, unless something else went wrong already.
        """
        self._pool.shutdown()
        if error is None:
            for future in self._begun:
                future.result()
