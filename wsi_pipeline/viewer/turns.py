"""Work that would keep the machine busy: so many at once, so many more may wait, and the others are sent away."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore

from wsi_pipeline.viewer.problems import RequestError


class Turns:
    """Bounds how many threads do or wait for one kind of work, so that the others are left for other requests.

    Args:
        what: The work, for messages: its ``where`` and its ``why``.
        at_once: How many do it.
        waiting: How many more may wait.
    """

    def __init__(self, what: tuple[str, str], *, at_once: int, waiting: int) -> None:
        self._what = what
        self._turn, self._place = BoundedSemaphore(at_once), BoundedSemaphore(at_once + waiting)

    @contextmanager
    def take(self) -> Iterator[None]:
        """Wait for a turn, and have it until the block ends.

        Raises:
            RequestError: 503 where too many wait already.
        """
        if not self._place.acquire(blocking=False):
            raise RequestError(503, *self._what, "Try again.", {"Retry-After": "1"})
        try:
            with self._turn:
                yield
        finally:
            self._place.release()
