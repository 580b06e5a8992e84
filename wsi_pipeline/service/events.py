"""A job's progress as server-sent events."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from threading import Event

from fastapi.concurrency import run_in_threadpool

from wsi_pipeline.service.schema import Job
from wsi_pipeline.viewer.problems import RequestError

MAX_LISTENERS = 64
"""Clients that follow jobs at once."""

_LOOK_S, _ALIVE_S = 0.25, 15.0


class Listeners:
    """Counts who follows jobs.

    Args:
        stopping: Set when the server is to end; then no event is waited for any more.
    """

    def __init__(self, stopping: Event) -> None:
        self._count, self._stopping = 0, stopping

    def require_room(self) -> None:
        """Refuse one more than there is room for.

        Raises:
            RequestError: 503.
        """
        if self._count >= MAX_LISTENERS:
            raise RequestError(503, "events", "too many follow jobs", "Try again.", {"Retry-After": "10"})

    async def follow(self, look: Callable[[], Job]) -> AsyncIterator[str]:
        """Events of a job, one at each change, the last one named ``end``.

        Args:
            look: Gives the job as it is now.
        """
        self._count += 1
        try:
            number, last, spoken = 0, "", time.monotonic()
            while True:
                job = await run_in_threadpool(look)
                ended = job.status in {"done", "failed", "cancelled"}
                text = job.model_dump_json()
                if text != last:
                    number, last, spoken = number + 1, text, time.monotonic()
                    yield f"id: {number}\nevent: {'end' if ended else 'job'}\ndata: {text}\n\n"
                elif time.monotonic() - spoken > _ALIVE_S:
                    spoken = time.monotonic()
                    yield ": still there\n\n"  # so that nothing between takes the connection for dead
                if ended or self._stopping.is_set():
                    return
                await asyncio.sleep(_LOOK_S)
        finally:
            self._count -= 1
