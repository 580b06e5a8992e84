"""Keeps one worker at work: gives it the jobs in order, starts it again when it dies, tells how jobs ended."""

import logging
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import Any

from wsi_pipeline.errors import InferenceError, WsiPipelineError
from wsi_pipeline.service.messages import Message, error_of
from wsi_pipeline.service.options import ServiceOptions
from wsi_pipeline.service.process import WorkerProcess, describe_end
from wsi_pipeline.service.roots import Roots
from wsi_pipeline.service.store import JobStore, StoredJob
from wsi_pipeline.viewer.problems import RequestError

log = logging.getLogger(__name__)

START_S = 300.0
"""A worker that is not ready after this time is given up."""

_POLL_S, _NOTE_S, _MAX_PAUSE_S = 0.2, 1.0, 60.0


@dataclass(frozen=True, slots=True)
class Progress:
    """Cells of a running job."""

    done: int
    total: int


class Keeper:
    """The queue's thread.

    Args:
        store: The jobs.
        roots: Where slides may be; looked at again before a job begins.
        options: Bounds.
        make_worker: Starts a worker.
    """

    def __init__(
        self,
        store: JobStore,
        roots: Roots,
        options: ServiceOptions,
        *,
        make_worker: Callable[[], WorkerProcess],
    ) -> None:
        self._store, self._roots, self._options = store, roots, options
        self._make_worker = make_worker
        self._worker: WorkerProcess | None = None
        self._closing, self._news, self._lock = Event(), Event(), Lock()
        self._progress: dict[str, Progress] = {}
        self._cancelled: dict[str, float] = {}
        self._thread = Thread(target=self._keep, daemon=True, name="jobs")
        self.models: list[dict[str, Any]] = []
        """What the worker said of each model."""
        self.problem: WsiPipelineError | None = None
        """Why there is no worker at present."""

    def start(self) -> None:
        """Take up what an earlier server left, start the worker and wait until it is ready.

        Raises:
            WsiPipelineError: where it cannot start: no such model or device.
        """
        for job in self._store.running():
            if job.cancelling:
                self._end(job, "cancelled")
            elif job.tries >= self._options.max_tries:
                self._give_up(job, "while the server ended too")
            else:
                self._store.requeue(job.id)
        self._start_worker()
        self._thread.start()

    def close(self) -> None:
        """End the worker; a job that runs goes on with the next start."""
        self._closing.set()
        self._news.set()
        with self._lock:
            worker = self._worker
        if worker is not None:
            worker.close()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def ready(self) -> bool:
        """Whether there is a worker that listens."""
        with self._lock:
            return self._worker is not None and self._worker.alive

    @property
    def worker_pid(self) -> int | None:
        """Process of the worker."""
        with self._lock:
            return self._worker.pid if self._worker is not None and self._worker.alive else None

    def wake(self) -> None:
        """There is a new job."""
        self._news.set()

    def progress(self, job: StoredJob) -> Progress | None:
        """How far a job is, where that is known."""
        known = self._progress.get(job.id) if job.status == "running" else None
        if known is None and job.cells_done is not None and job.cells_total is not None:
            return Progress(job.cells_done, job.cells_total)
        return known

    def cancel(self, job_id: str) -> None:
        """Make a running job stop, gently first."""
        self._cancelled.setdefault(job_id, time.monotonic())
        with self._lock:
            worker = self._worker
        if worker is not None:
            worker.send({"do": "cancel", "job": job_id})

    def ask(self, order: Message) -> Future[Message]:
        """Let the worker answer a patch.

        Raises:
            RequestError: 503 where there is no worker at present.
        """
        with self._lock:
            worker = self._worker
        if worker is None or not worker.alive:
            why = "is being started again" if self.problem is None else f"cannot start ({self.problem})"
            raise RequestError(503, "worker", why, "Try again in a while.", {"Retry-After": "10"})
        return worker.ask(order)

    def _keep(self) -> None:
        pause = 1.0
        while not self._closing.is_set():
            try:
                if not self.ready:
                    self._start_worker()
                    pause = 1.0
                self._next()
            except WsiPipelineError as error:
                self.problem = error
                log.error("%s Trying again in %.0f s.", error, pause)  # noqa: TRY400  (what it says is enough)
                self._closing.wait(pause)
                pause = min(2 * pause, _MAX_PAUSE_S)
            except Exception:  # the queue's own thread: were it to end, no job would ever run again
                log.exception("the queue failed; it goes on")
                self._closing.wait(pause)
                pause = min(2 * pause, _MAX_PAUSE_S)

    def _start_worker(self) -> None:
        worker = self._make_worker()
        until = time.monotonic() + START_S
        while time.monotonic() < until and not self._closing.is_set():
            message = worker.next_message(_POLL_S) or {}
            if "ready" in message:
                self.models, self.problem = message["ready"], None
                with self._lock:
                    self._worker = worker
                return
            if "refused" in message:
                worker.close()
                raise error_of(message["refused"])
            if "died" in message:
                why = f"ended {describe_end(message['died'])} while it started"
                raise InferenceError("worker", why, "See what it wrote to the terminal.")
        worker.kill()
        if not self._closing.is_set():
            raise InferenceError("worker", f"was not ready after {START_S:g} s", "Is the machine overloaded?")

    def _next(self) -> None:
        """Run the next job, or wait for one, or for the worker's death."""
        self._news.clear()
        waiting = self._store.next_queued() if not self._closing.is_set() else None
        if waiting is None:
            self._news.wait(_POLL_S)
            return
        job = self._store.begin(waiting.id)
        if job is not None and self._worker is not None:
            self._attend(job, self._worker)

    def _attend(self, job: StoredJob, worker: WorkerProcess) -> None:
        try:
            slide = self._roots.find(job.slide)
        except WsiPipelineError as error:
            self._end(job, "failed", {"where": error.where, "why": error.why, "hint": error.hint})
            return
        folder = str(self._options.out / job.id)
        worker.send({"do": "slide", "job": job.id, "slide": slide.address, "folder": folder, "settings": job.settings})
        watch = _Watch(job)
        while (message := self._listen(job, worker)) is not None:
            if message.get("cells") == job.id:
                self._note(job, watch, Progress(message["done"], message["total"]))
            elif message.get("ended") == job.id:
                self._end(job, message["status"], message.get("error"))
                return
            elif "died" in message:
                self._died(job, message["died"])
                return
        # The server ends. The next start takes the job up, or ends it where it was being cancelled.
        self._store.requeue(job.id, uncounted=True)

    def _listen(self, job: StoredJob, worker: WorkerProcess) -> Message | None:
        """The worker's next message, perhaps an empty one; None when the server ends."""
        message = worker.next_message(_POLL_S) or {}
        if self._closing.is_set() and "ended" not in message:
            return None
        since = self._cancelled.get(job.id)
        if since is not None and time.monotonic() - since > self._options.cancel_grace_s:
            worker.kill()
        return message

    def _note(self, job: StoredJob, watch: "_Watch", progress: Progress) -> None:
        self._progress[job.id] = progress
        if watch.is_due(progress):
            self._store.progress(job.id, progress.done, progress.total, further=watch.further(progress))

    def _died(self, job: StoredJob, status: int) -> None:
        """The worker died with this job: try again, but not for ever."""
        known = self._store.get(job.id)
        if known is None or known.cancelling:
            self._end(job, "cancelled")
            return
        log.warning("the worker ended %s with job %s (try %d)", describe_end(status), job.id, known.tries)
        if known.tries >= self._options.max_tries:
            self._give_up(known, describe_end(status))
        elif not self._store.requeue(job.id):
            self._end(job, "cancelled")

    def _give_up(self, job: StoredJob, how: str) -> None:
        why = f"the worker died {job.tries} times without getting further, last {how}"
        hint = "Is there memory enough? Run the slide by `wsi-pipeline run --debug` to see more."
        self._end(job, "failed", {"where": job.slide, "why": why, "hint": hint})

    def _end(self, job: StoredJob, status: Any, error: Mapping[str, str] | None = None) -> None:
        if status == "cancelled":
            with suppress(OSError):
                shutil.rmtree(self._options.out / job.id)
        last = self._progress.pop(job.id, None)
        if last is not None:
            self._store.progress(job.id, last.done, last.total, further=False)
        self._cancelled.pop(job.id, None)
        self._store.end(job.id, status, error)


class _Watch:
    """When progress is written down, and whether it is any."""

    def __init__(self, job: StoredJob) -> None:
        self._noted, self._best = 0.0, job.cells_done or 0

    def is_due(self, progress: Progress) -> bool:
        """Whether it is time to write again."""
        now = time.monotonic()
        if now - self._noted < _NOTE_S and progress.done < progress.total:
            return False
        self._noted = now
        return True

    def further(self, progress: Progress) -> bool:
        """Whether the job is further than any earlier try was."""
        if progress.done <= self._best:
            return False
        self._best = progress.done
        return True
