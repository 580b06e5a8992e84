"""Several devices on one slide: each has its own network, and they share the blocks between them."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import SimpleQueue
from typing import Generic, TypeVar

Block = TypeVar("Block")
Scored = TypeVar("Scored")


def share_blocks(
    predictors: Sequence[Callable[[Iterable[Block]], Iterator[Scored]]], blocks: Iterable[Block]
) -> Iterator[Scored]:
    """What one predictor would give, in the same order, computed by several at a time.

    Each takes the next block when it has need of one, so a faster device takes more of them.

    Args:
        predictors: Each gives one result a block, in the order of its blocks; each runs in a thread of its own.
        blocks: What they share.

    Raises:
        Exception: what reading a block or a predictor raised; the others stop.
    """
    source, results = _Shared(blocks), SimpleQueue[tuple[int, Scored] | BaseException | None]()

    def work(predict: Callable[[Iterable[Block]], Iterator[Scored]]) -> None:
        numbers = deque[int]()
        try:
            for scored in predict(source.take(numbers)):
                results.put((numbers.popleft(), scored))
        except BaseException as error:  # noqa: BLE001 - it is raised again where the results are taken
            results.put(error)
        else:
            results.put(None)

    threads = [threading.Thread(target=work, args=(predict,), daemon=True) for predict in predictors]
    for thread in threads:
        thread.start()
    try:
        yield from _in_order(results, len(threads))
    finally:
        source.stop()
        for thread in threads:
            thread.join()


def _in_order(results: "SimpleQueue[tuple[int, Scored] | BaseException | None]", working: int) -> Iterator[Scored]:
    early, following = dict[int, Scored](), 0
    while working:
        found = results.get()
        if isinstance(found, BaseException):
            raise found
        if found is None:
            working -= 1
            continue
        early[found[0]] = found[1]
        while following in early:
            yield early.pop(following)
            following += 1


class _Shared(Generic[Block]):
    """Blocks that several threads take from, each block once."""

    def __init__(self, blocks: Iterable[Block]) -> None:
        self._source, self._lock, self._count, self._ended = iter(blocks), threading.Lock(), 0, False

    def take(self, numbers: deque[int]) -> Iterator[Block]:
        """One thread's share; the number of each block is noted as it is taken."""
        while True:
            with self._lock:
                if self._ended:
                    return
                try:
                    block = next(self._source)
                except StopIteration:
                    self._ended = True
                    return
                numbers.append(self._count)
                self._count += 1
            yield block

    def stop(self) -> None:
        """Give no more."""
        self._ended = True
