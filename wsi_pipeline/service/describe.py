"""A job as the interface shows it."""

from collections.abc import Mapping

from wsi_pipeline.service.keeper import Progress
from wsi_pipeline.service.schema import Cells, Job
from wsi_pipeline.service.service import Service
from wsi_pipeline.service.store import StoredJob
from wsi_pipeline.viewer.results import SlideEntry
from wsi_pipeline.viewer.schema import Problem


def describe_job(service: Service, job: StoredJob, entries: Mapping[str, SlideEntry] | None = None) -> Job:
    """The document of a job.

    Args:
        service: Whose job it is.
        job: As the database has it.
        entries: Results by job, where they were looked up already.
    """
    return Job(
        id=job.id,
        slide=job.slide,
        model=job.model,
        settings=job.asked,
        status=job.status,
        cancelling=job.cancelling and not job.ended,
        cells=_cells(service.keeper.progress(job)),
        ahead=service.store.ahead_of(job) if job.status == "queued" else None,
        tries=job.tries,
        created=job.created,
        started=job.started,
        finished=job.finished,
        error=Problem(**{key: job.error.get(key, "") for key in ("where", "why", "hint")}) if job.error else None,
        links=_links(service, job, entries),
    )


def _cells(progress: Progress | None) -> Cells | None:
    if progress is None:
        return None
    # A slide without tissue has no cells and is done at once.
    fraction = progress.done / progress.total if progress.total else 1.0
    return Cells(done=progress.done, total=progress.total, fraction=fraction)


def _links(service: Service, job: StoredJob, entries: Mapping[str, SlideEntry] | None) -> dict[str, str]:
    own = f"/api/jobs/{job.id}"
    links = {"self": own, "events": f"{own}/events"}
    if not job.ended:
        links["cancel"] = f"{own}/cancel"
    if job.status == "done":
        files = ("summary", "probability.npy", "heatmap.zip", "regions.geojson", "overlay.png")
        links |= {name.partition(".")[0]: f"{own}/{name}" for name in files}
        entry = service.entry(job.id) if entries is None else entries.get(job.id)
        if entry is not None:
            links["page"] = f"/#/slide/{entry.id}"
    return links
