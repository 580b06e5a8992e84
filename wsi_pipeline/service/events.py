"""A job's progress as server-sent events."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from threading import BoundedSemaphore, Event

from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from wsi_pipeline.service.schema import Job
from wsi_pipeline.viewer.problems import RequestError

MAX_LISTENERS = 64
"""Clients that follow jobs at once."""

_LOOK_S, _ALIVE_S = 0.25, 15.0


class Listeners:
    """Answers those who follow jobs, so many at once.

    Args:
        stopping: Set when the server is to end; then no event is waited for any more.
    """

    def __init__(self, stopping: Event) -> None:
        self._places, self._stopping = BoundedSemaphore(MAX_LISTENERS), stopping

    def answer(self, look: Callable[[], Job]) -> StreamingResponse:
        """Events of a job. Its place is taken now, and given back when the answer has been sent or broken off.

        Args:
            look: Gives the job as it is now.

        Raises:
            RequestError: 503 where as many follow as may.
        """
        if not self._places.acquire(blocking=False):
            raise RequestError(503, "events", "too many follow jobs", "Try again.", {"Retry-After": "10"})
        return _Following(follow(look, self._stopping), self._places.release)


class _Following(StreamingResponse):
    """Events, and what is to be done after the last one, however the connection ends."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[str], after: Callable[[], None]) -> None:
        super().__init__(events, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._after()


async def follow(look: Callable[[], Job], stopping: Event) -> AsyncIterator[str]:
    """Events of a job, one at each change, the last one named ``end``.

    Args:
        look: Gives the job as it is now.
        stopping: Once it is set, no further event is waited for.
    """
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
        if ended or stopping.is_set():
            return
        await asyncio.sleep(_LOOK_S)
