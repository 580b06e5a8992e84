"""One slide, start to end: its pixels in, its map, regions, pictures and numbers out."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_pipeline.errors import OutputError, ResultsMismatchError
from wsi_pipeline.files import remove_parts
from wsi_pipeline.heatmap import Heatmap
from wsi_pipeline.jobs import SlideJob
from wsi_pipeline.manifest import SUMMARY_FILE, Identity, SlideResult, Status, Summary, describe_error
from wsi_pipeline.outputs import HEATMAP, missing_outputs, remove_derived, write_outputs, write_tissue
from wsi_pipeline.pipeline.model import get_bundle, get_predictor
from wsi_pipeline.pipeline.scores import CellProgress, begin_heatmap, fill_heatmap
from wsi_pipeline.plan import SlidePlan, plan_slide
from wsi_pipeline.slides import Slide
from wsi_pipeline.slides.discover import MULTI_FILE_SUFFIXES
from wsi_pipeline.timing import Stopwatch

if TYPE_CHECKING:
    from wsi_pipeline.feed import Feed

log = logging.getLogger(__name__)


def run_job(
    job: SlideJob, on_cells: CellProgress = lambda *_: None, prepared: Callable[[], "Prepared | Summary"] | None = None
) -> SlideResult:
    """One slide; whatever goes wrong with it is in the result and stops here.

    Args:
        job: The slide.
        on_cells: Called as cells are done.
        prepared: Gives the slide as `prepare` has made it ready, where that was done ahead.
    """
    try:
        summary, fresh = finish((prepared or partial(prepare, job))(), on_cells)
    except Exception as error:  # the end of a slide: the others go on, and its record keeps the traceback
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


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A slide that only waits for the network: its pixels are being read."""

    job: SlideJob
    identity: Identity
    plan: SlidePlan
    heatmap: Heatmap
    feed: "Feed"
    """The pixels of the blocks that the heatmap lacks."""
    watch: Stopwatch


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A slide that was opened and planned; nothing of it is written yet."""

    plan: SlidePlan
    watch: Stopwatch


PlanAhead = Callable[[], Planned | None]
"""Gives what `plan_ahead` gave, once; it may have been made while something else was done."""


def plan_ahead(job: SlideJob) -> Planned | None:
    """Plan a slide before the network's libraries are there; None for one with results, which may need no plan.

    Raises:
        WsiPipelineError: where the slide is at fault.
    """
    if (job.folder / SUMMARY_FILE).exists():
        return None
    with _opened(job) as (slide, watch):
        return _plan(job, slide, watch)


def prepare(job: SlideJob, ahead: PlanAhead = lambda: None) -> Prepared | Summary:
    """Open a slide, lay its cells, begin its map and start to read, which `finish` or closing the feed ends.

    Args:
        job: The slide.
        ahead: Gives its plan, where that was begun before.

    Returns:
        The slide, or the summary of one that was run before.

    Raises:
        WsiPipelineError: where the slide or its output folder is at fault.
    """
    from wsi_pipeline.feed import Feed

    _check_folder(job)
    planned = ahead()
    if planned is None or (job.folder / SUMMARY_FILE).exists():  # a run that was ending meanwhile may have left one
        with _opened(job) as (slide, watch):
            earlier = _earlier(job, slide.info.fingerprint)
            if earlier is not None:
                return earlier
            planned = _plan(job, slide, watch)
    plan, watch, settings = planned.plan, planned.watch, job.settings
    watch.go_on()
    remove_parts(job.folder)
    identity = _identity(job, plan.info.fingerprint)
    with watch.stage("write"):
        heatmap = begin_heatmap(job, plan, get_bundle(job).card, identity)
    pending = [] if heatmap.complete else heatmap.pending()
    feed = Feed(job.source, plan.grid, pending, workers=settings.inference.workers)
    watch.pause()
    return Prepared(job=job, identity=identity, plan=plan, heatmap=heatmap, feed=feed, watch=watch)


@contextmanager
def _opened(job: SlideJob) -> Iterator[tuple[Slide, Stopwatch]]:
    """The slide, and the watch that its time is counted on from now on."""
    watch = Stopwatch()
    with watch.stage("open"):
        slide = job.source.open()
    with slide:
        yield slide, watch


def _plan(job: SlideJob, slide: Slide, watch: Stopwatch) -> Planned:
    with watch.stage("plan"):
        plan = plan_slide(slide, get_bundle(job).view, job.settings)
    watch.pause()
    return Planned(plan=plan, watch=watch)


def _identity(job: SlideJob, fingerprint: str) -> Identity:
    """What the results depend on."""
    from wsi_pipeline.inference import choose

    arithmetic = choose(job.settings.inference).arithmetic
    settings = job.settings.digest(job.source.mpp, arithmetic)
    return Identity(slide=fingerprint, bundle=job.bundle_digest, settings=settings)


def finish(prepared: Prepared | Summary, on_cells: CellProgress) -> tuple[Summary, bool]:
    """Show a prepared slide to the network and write its results; one that was run before is left as it is.

    Returns:
        Its summary, and whether it was made now.

    Raises:
        WsiPipelineError: where the slide, its output folder or the network is at fault.
    """
    if isinstance(prepared, Summary):
        return prepared, False
    job, watch = prepared.job, prepared.watch
    watch.go_on()
    with prepared.feed, ThreadPoolExecutor(1, thread_name_prefix="tissue picture") as beside:
        pictures: list[Future[None]] = []

        def answered(name: str, done: int, total: int) -> None:
            if not pictures and (done or not total):  # the first cells are not to wait for a picture
                pictures.append(beside.submit(write_tissue, job, prepared.plan, watch))
            on_cells(name, done, total)

        predictor = get_predictor(job)
        fill_heatmap(job, prepared.heatmap, prepared.feed, predictor, watch=watch, on_cells=answered)
    for picture in pictures:
        picture.result()
    card = predictor.bundle.card
    summary = write_outputs(job, prepared.plan, card, prepared.heatmap, identity=prepared.identity, watch=watch)
    summary.write(job.folder / SUMMARY_FILE)
    return summary, True


def analyse(job: SlideJob, on_cells: CellProgress) -> tuple[Summary, bool]:
    """Run one slide, or find that it was run before; see `prepare` and `finish`."""
    return finish(prepare(job), on_cells)


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


def _earlier(job: SlideJob, fingerprint: str) -> Summary | None:
    """The summary of a finished slide that can be used again.

    Raises:
        ResultsMismatchError: where results of something else are in the way and may not be replaced.
    """
    file = job.folder / SUMMARY_FILE
    if not file.exists():
        return None
    try:
        summary = Summary.read(file)
        _identity(job, fingerprint).require_same(summary.identity, job.folder)
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
