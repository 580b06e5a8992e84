"""Jobs over HTTP: submit, list, look, follow, cancel."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import StreamingResponse

from wsi_pipeline import __version__
from wsi_pipeline.service.describe import describe_job
from wsi_pipeline.service.events import Listeners
from wsi_pipeline.service.schema import Job, JobList, JobRequest, ModelFacts, ServiceState
from wsi_pipeline.service.service import Service
from wsi_pipeline.service.store import JobStatus
from wsi_pipeline.viewer.schema import Problem

JobId = Annotated[str, Path(pattern="^[0-9]{8}-[0-9]{6}-[0-9a-f]{8}$", description="as it was given out")]


def make_job_routes(service: Service) -> APIRouter:
    """The routes of jobs."""
    router = APIRouter(prefix="/api", tags=["jobs"])
    _add_service(router, service)
    _add_jobs(router, service)
    _add_following(router, service)
    return router


def _add_service(router: APIRouter, service: Service) -> None:
    @router.get("/service")
    def get_service() -> ServiceState:
        """What the service has and does: models, folders, worker, queue."""
        keeper, problem = service.keeper, service.keeper.problem
        return ServiceState(
            version=__version__,
            models=[ModelFacts(**facts) for facts in keeper.models],
            roots=[folder.name for folder in service.roots.folders],
            worker="ready" if keeper.ready else "starting" if problem is None else "down",
            problem=Problem(where=problem.where, why=problem.why, hint=problem.hint) if problem else None,
            queued=service.store.queued(),
            running=[job.id for job in service.store.running()],
            max_queued=service.options.max_queued,
            max_patch_bytes=service.options.viewer.max_body_bytes,
        )


def _add_jobs(router: APIRouter, service: Service) -> None:
    @router.post("/jobs", status_code=201)
    def submit_job(request: JobRequest, response: Response) -> Job:
        """Submit a slide. It is on the disk of the server when this answers; 429 where the queue is full."""
        given: dict[str, Any] = request.settings.model_dump() if request.settings is not None else {}
        job = service.submit(request.slide, request.model, given)
        response.headers["Location"] = f"/api/jobs/{job.id}"
        return describe_job(service, job)

    @router.get("/jobs")
    def list_jobs(
        status: Annotated[JobStatus | None, Query(description="only these")] = None,
        before: Annotated[
            str | None, Query(pattern="^[0-9]{8}-[0-9]{6}-[0-9a-f]{8}$", description="`next` of the page before")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> JobList:
        """The jobs, the newest first."""
        number = service.job(before).number if before is not None else None
        found = service.store.page(status=status, before=number, limit=limit + 1)
        shown, entries = found[:limit], service.entries()
        return JobList(
            jobs=[describe_job(service, job, entries) for job in shown],
            next=shown[-1].id if len(found) > limit else None,
        )

    @router.get("/jobs/{job_id}")
    def get_job(job_id: JobId) -> Job:
        """One job: its status, how far it is, and where its results are."""
        return describe_job(service, service.job(job_id))

    @router.post("/jobs/{job_id}/cancel")
    def cancel_job(job_id: JobId) -> Job:
        """Cancel a job. One that runs stops after the cells at hand; what it made is removed."""
        return describe_job(service, service.cancel(job_id))


_EVENT = {
    "type": "object",
    "description": "one event",
    "properties": {
        "id": {"type": "string"},
        "event": {"type": "string", "enum": ["job", "end"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
    "required": ["id", "event", "data"],
}
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "`event: job` at each change, `event: end` once it has ended; `data` is the job's document",
        "content": {"text/event-stream": {"schema": _EVENT}},
    }
}


def _add_following(router: APIRouter, service: Service) -> None:
    listeners = Listeners(service.stopping)

    @router.get("/jobs/{job_id}/events", response_class=StreamingResponse, responses=_EVENTS)
    def follow_job(job_id: JobId) -> StreamingResponse:
        """Follow a job by server-sent events."""
        service.job(job_id)
        return listeners.answer(lambda: describe_job(service, service.job(job_id)))
