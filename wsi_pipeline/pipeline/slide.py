"""One slide, start to end: its pixels in, its map, regions, pictures and numbers out."""

import logging
from pathlib import Path

from wsi_pipeline.errors import OutputError, ResultsMismatchError
from wsi_pipeline.heatmap import Heatmap
from wsi_pipeline.jobs import SlideJob
from wsi_pipeline.manifest import SUMMARY_FILE, Identity, SlideResult, Status, Summary, describe_error
from wsi_pipeline.outputs import HEATMAP, missing_outputs, remove_derived, write_outputs
from wsi_pipeline.pipeline.scores import CellProgress, fill_heatmap, get_predictor
from wsi_pipeline.plan import plan_slide
from wsi_pipeline.slides.discover import MULTI_FILE_SUFFIXES
from wsi_pipeline.timing import Stopwatch

log = logging.getLogger(__name__)


def run_job(job: SlideJob, on_cells: CellProgress = lambda *_: None) -> SlideResult:
    """One slide; whatever goes wrong with it is in the result and stops here."""
    try:
        summary, fresh = analyse(job, on_cells)
    except Exception as error:
        log.debug("%s failed", job.source.path, exc_info=True)
        return job_result(job, "failed", error=describe_error(error))
    return job_result(job, "done" if fresh else "skipped", summary=summary)


def job_result(
    job: SlideJob, status: Status, *, summary: Summary | None = None, error: dict[str, str] | None = None
) -> SlideResult:
    """How a job ended, under its names."""
    return SlideResult(
        slide=job.slide_id, path=job.path, folder=job.folder.name, status=status, summary=summary, error=error
    )


def analyse(job: SlideJob, on_cells: CellProgress) -> tuple[Summary, bool]:
    """Run one slide, or find that it was run before.

    Returns:
        Its summary, and whether it was made now.

    Raises:
        WsiPipelineError: where the slide or its output folder is at fault.
    """
    watch, settings = Stopwatch(), job.settings
    _check_folder(job)
    with watch.stage("open"):
        slide = job.source.open()
    with slide:
        identity = Identity(
            slide=slide.info.fingerprint, bundle=job.bundle_digest, settings=settings.digest(job.source.mpp)
        )
        earlier = _earlier(job, identity)
        if earlier is not None:
            return earlier, False
        predictor = get_predictor(job)
        with watch.stage("plan"):
            plan = plan_slide(slide, predictor.bundle.view, settings)
    heatmap = fill_heatmap(job, plan, predictor, identity=identity, watch=watch, on_cells=on_cells)
    summary = write_outputs(job, plan, predictor.bundle.card, heatmap, identity=identity, watch=watch)
    summary.write(job.folder / SUMMARY_FILE)
    return summary, True


def _check_folder(job: SlideJob) -> None:
    """Refuse to write results into the slide itself: a case's folder, or the folder of data beside an .mrxs file.

    Raises:
        OutputError: where the slide's results would lie there.
    """
    if "://" in job.source.path:
        return
    source = Path(job.source.path.partition("::")[0]).resolve()
    data = source.with_suffix("") if source.suffix.lower() in MULTI_FILE_SUFFIXES else source
    if job.folder.resolve() in {source, data}:
        raise OutputError(job.folder, "is a part of the slide", "Choose another folder with --out.")


def _earlier(job: SlideJob, identity: Identity) -> Summary | None:
    """The summary of a finished slide that can be used again.

    Raises:
        ResultsMismatchError: where results of something else are in the way and may not be replaced.
    """
    file = job.folder / SUMMARY_FILE
    if not file.exists():
        return None
    try:
        summary = Summary.read(file)
        identity.require_same(summary.identity, job.folder)
        if summary.unreadable_cells:
            # They are tried again: the file may be mended, the network back. Then the tissue may be another, too.
            Heatmap.discard(job.folder / HEATMAP)
        elif not missing_outputs(job.folder, job.settings, summary):
            return summary
    except ResultsMismatchError:
        if not job.overwrite:
            raise
    remove_derived(job.folder)
    return None
