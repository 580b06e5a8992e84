"""The parts of a service, put together."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import BoundedSemaphore, Event
from typing import Any

from wsi_pipeline.config import Settings
from wsi_pipeline.errors import ConfigError
from wsi_pipeline.files import make_folder
from wsi_pipeline.locks import folder_lock
from wsi_pipeline.service.choices import settings_of
from wsi_pipeline.service.keeper import Keeper
from wsi_pipeline.service.messages import Message
from wsi_pipeline.service.options import ServiceOptions
from wsi_pipeline.service.process import WORKER, WorkerProcess
from wsi_pipeline.service.roots import Roots
from wsi_pipeline.service.store import JobStore, StoredJob
from wsi_pipeline.viewer.problems import RequestError
from wsi_pipeline.viewer.results import SlideEntry
from wsi_pipeline.viewer.state import Viewer

_RETRY_S = 30
"""A client that found the queue full shall wait so long."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """What the routes answer from; `open_service` makes one."""

    options: ServiceOptions
    bundles: Mapping[str, str]
    roots: Roots
    store: JobStore
    keeper: Keeper
    viewer: Viewer
    patches: BoundedSemaphore
    """Places for patches that wait."""
    stopping: Event = field(default_factory=Event)
    """Set when the server is to end."""

    def submit(self, slide: str, model: str | None, given: Mapping[str, Any]) -> StoredJob:
        """Take a job.

        Raises:
            RequestError: 403 or 422 where the slide may not be read or is none, 422 for an unknown model, 429 where
                the queue is full.
            SlideNotFoundError: where there is no such slide.
            SlideFormatError: where it is no slide.
            ConfigError: where the settings do not go together.
        """
        name = self.choose_model(model)
        asked = {key: value for key, value in given.items() if value is not None}
        settings = settings_of(self.options.settings, self.bundles[name], asked)
        found = self.roots.find(slide)
        digest = next((facts["digest"] for facts in self.keeper.models if facts["name"] == name), "")
        job = self.store.add(
            slide=found.name if self._is_unique(found.name) else slide,
            model=name,
            bundle=digest,
            asked=asked,
            settings=settings.model_dump(mode="json"),
            max_queued=self.options.max_queued,
        )
        if job is None:
            why = f"is full: {self.options.max_queued:,} jobs wait"
            raise RequestError(429, "queue", why, "Try again later.", {"Retry-After": str(_RETRY_S)})
        self.keeper.wake()
        return job

    def job(self, job_id: str) -> StoredJob:
        """The job of an id.

        Raises:
            RequestError: 404 where there is none.
        """
        job = self.store.get(job_id)
        if job is None:
            raise RequestError(404, "job", "there is none of this id", "GET /api/jobs lists them.")
        return job

    def cancel(self, job_id: str) -> StoredJob:
        """Cancel a job; one that was cancelled stays so.

        Raises:
            RequestError: 404 where there is none, 409 where it ended otherwise.
        """
        self.job(job_id)
        job = self.store.cancel(job_id)
        if job is None or job.status in {"done", "failed"}:
            raise RequestError(409, "job", "has ended already", "Nothing is left to cancel.")
        if job.cancelling and not job.ended:
            self.keeper.cancel(job_id)
        return job

    def result(self, job_id: str) -> SlideEntry:
        """The result of a finished job, as the viewer knows it.

        Raises:
            RequestError: 404 where there is no such job, or its results are gone; 409 where it is not done.
        """
        job = self.job(job_id)
        if job.status == "failed":
            error = job.error or {}
            raise RequestError(409, job.slide, f"failed: {error.get('why', '')}", error.get("hint", ""))
        if job.status != "done":
            hint = "Submit it again." if job.ended else f"Follow /api/jobs/{job.id}/events."
            raise RequestError(409, job.slide, f"has no results: the job is {job.status}", hint)
        entry = self.entry(job.id)
        if entry is None:
            raise RequestError(404, job.slide, "its results are no longer there", "Submit it again.")
        entry.require_done()
        return entry

    def entries(self) -> dict[str, SlideEntry]:
        """Results by the name of their run's folder, which is the id of a job."""
        return {entry.run.folder.name: entry for entry in self.viewer.results.slides()}

    def entry(self, job_id: str) -> SlideEntry | None:
        """The result of a job that is done; None where it is gone."""
        found = self.entries().get(job_id)
        if found is None:  # the viewer's last look may be older than the result
            self.viewer.results.look_again()
            found = self.entries().get(job_id)
        return found

    def choose_model(self, name: str | None) -> str:
        """The model of a name; the first where none is given.

        Raises:
            RequestError: 422 where there is no such model.
        """
        if name is None:
            return next(iter(self.bundles))
        if name not in self.bundles:
            raise RequestError(
                422, "model", f"there is none of the name {name!r}", f"There are: {', '.join(self.bundles)}."
            )
        return name

    def ask(self, order: Message) -> Message:
        """The worker's answer on a patch.

        Raises:
            RequestError: 429 where too many wait, 503 where there is no worker, it dies or takes too long.
            WsiPipelineError: what the worker found wrong.
        """
        if not self.patches.acquire(blocking=False):
            raise RequestError(429, "patches", "too many wait already", "Try again.", {"Retry-After": "2"})
        try:
            future: Future[Message] = self.keeper.ask(order)
            return future.result(self.options.patch_patience_s)
        except FutureTimeoutError as error:
            why = f"took more than {self.options.patch_patience_s:g} s"
            raise RequestError(503, "worker", why, "Try again later.", {"Retry-After": str(_RETRY_S)}) from error
        finally:
            self.patches.release()

    def _is_unique(self, name: str) -> bool:
        """Whether the short name leads to one file: else the job keeps the absolute one that was asked for."""
        try:
            self.roots.find(name)
        except RequestError:
            return False
        return True


@contextmanager
def open_service(options: ServiceOptions, worker: Sequence[str] = WORKER) -> Iterator[Service]:
    """A service with its worker at work, until the block ends; a job that runs then goes on with the next start.

    Args:
        options: What it may read, run and hold.
        worker: The command of the worker.

    Raises:
        ConfigError: where a root is no folder, or the results lie in the way.
        OutputError: where the results cannot be written, or another service has them.
        WsiPipelineError: where the worker cannot start: no such model or device.
    """
    bundles, roots = options.bundles(), Roots(options.roots)
    make_folder(options.out)
    if not options.out.is_dir():
        raise ConfigError(options.out, "is no folder", "Choose another with --out.")
    with folder_lock(options.state):
        store = JobStore(options.state)
        viewer = Viewer.of(options.out, options.viewer)

        def make_worker() -> WorkerProcess:
            return WorkerProcess(_start(options, bundles), worker)

        keeper = Keeper(store, roots, options, make_worker=make_worker)
        try:
            keeper.start()
            yield Service(
                options=options,
                bundles=bundles,
                roots=roots,
                store=store,
                keeper=keeper,
                viewer=viewer,
                patches=BoundedSemaphore(options.max_patches),
            )
        finally:
            keeper.close()
            viewer.pool.close()
            store.close()


def _start(options: ServiceOptions, bundles: Mapping[str, str]) -> Message:
    settings: Settings = options.settings
    return {
        "models": dict(bundles),
        "inference": settings.inference.model_dump(mode="json"),
        "state": str(options.state.resolve()),
    }
