"""Many slides: what a run is given, how it starts, and its record."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Thread

from wsi_pipeline.config import Settings
from wsi_pipeline.environment import hardware, versions
from wsi_pipeline.errors import ConfigError
from wsi_pipeline.grid import CellSpec
from wsi_pipeline.jobs import SlideJob, plan_jobs
from wsi_pipeline.locks import folder_lock
from wsi_pipeline.manifest import RunRecord, SlideResult, Summary, describe_error
from wsi_pipeline.models.bundle import ModelBundle, load_bundle
from wsi_pipeline.pipeline.model import get_predictor
from wsi_pipeline.pipeline.scores import CellProgress
from wsi_pipeline.pipeline.slide import PlanAhead, Planned, Prepared, plan_ahead, prepare, run_job
from wsi_pipeline.prediction import choose_threshold, prediction_facts
from wsi_pipeline.report import REPORT_FILE, write_report
from wsi_pipeline.slides import find_slides
from wsi_pipeline.slides.files import without_query
from wsi_pipeline.timing import stage

log = logging.getLogger(__name__)

JobRunner = Callable[[Sequence[SlideJob], CellProgress], Iterator[SlideResult]]
"""Runs jobs and yields their results in any order."""


def run(
    inputs: Sequence[str],
    out: Path,
    settings: Settings,
    *,
    overwrite: bool = False,
    runner: JobRunner | None = None,
    on_plan: Callable[[int], None] = lambda _: None,
    on_cells: CellProgress = lambda *_: None,
    on_slide: Callable[[SlideResult], None] = lambda _: None,
) -> RunRecord:
    """Turn slides into heatmaps, regions, pictures and numbers in `out`.

    A slide that fails is recorded and the others go on.

    Args:
        inputs: Files, folders, globs, text lists, fsspec addresses, Kaggle patch folders or zips.
        out: Folder of the results.
        settings: Validated settings.
        overwrite: Replace results that were made with other settings, model or slide.
        runner: What runs the jobs; this process by default, `cluster.cluster_runner` for many.
        on_plan: Called with the number of slides.
        on_cells: Called as cells are done.
        on_slide: Called as a slide ends.

    Raises:
        WsiPipelineError: where the run as a whole cannot start: no slide, no bundle, wrong settings, no output folder.
    """
    bundle = load_bundle(settings.model)
    _check_start(settings, bundle)
    paths = find_slides(inputs)
    jobs = plan_jobs(paths, out.absolute(), settings, bundle.path.absolute(), bundle.digest, overwrite=overwrite)
    if runner is None:
        runner = partial(run_here, first=_begin(jobs))
        with stage("load network"):
            get_predictor(jobs[0])
    else:
        bundle.build()  # whether weights and card fit each other: it is loaded elsewhere, for each slide
    with folder_lock(out):
        record = RunRecord(
            folder=out,
            started=_now(),
            versions=versions(),
            hardware=hardware(),
            settings=settings.model_dump(mode="json"),
            bundle={
                "name": bundle.card.name,
                "digest": bundle.digest,
                "path": str(bundle.path),
                **prediction_facts(settings, bundle.card),
            },
            inputs=[without_query(address) for address in inputs],
            planned=len(jobs),
        )
        record.write()
        on_plan(len(jobs))
        for result in runner(jobs, on_cells):
            record.add(result)
            on_slide(result)
        record.finished = _now()
        record.write()
        _report(out, record)
    return record


def _report(out: Path, record: RunRecord) -> None:
    """The page of a finished run. The results are whole without it, so whatever goes wrong with it is only told."""
    try:
        write_report(out, record)
    except Exception as error:  # the end of a run: nothing that was computed may be lost to its page
        told = describe_error(error)
        log.warning(
            "%s was not written; the results are complete. %s: %s. Make it anew with: wsi-pipeline report %s",
            out / REPORT_FILE,
            told["type"],
            told["why"],
            out,
        )
        log.debug("the report failed", exc_info=True)


def _begin(jobs: Sequence[SlideJob]) -> PlanAhead:
    """Plan the first slide, in a thread of its own, while the network is loaded. Its plan is given once.

    The thread writes nothing and holds no process back: a run that cannot start ends at once, however slow the slide.
    """
    begun = [Future[Planned | None]()]

    def plan(job: SlideJob, planned: Future[Planned | None]) -> None:
        try:
            planned.set_result(plan_ahead(job))
        except BaseException as error:  # noqa: BLE001  (raised again where the plan is asked for)
            planned.set_exception(error)

    Thread(target=plan, args=(jobs[0], begun[0]), name="first slide", daemon=True).start()
    return lambda: begun.pop().result()


def run_here(
    jobs: Sequence[SlideJob], on_cells: CellProgress, *, first: PlanAhead = lambda: None
) -> Iterator[SlideResult]:
    """The jobs one after the other in this process; while one is in the network, the next is made ready.

    Args:
        jobs: The slides.
        on_cells: Called as cells are done.
        first: Gives the plan of the first, where it was begun before.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="next slide") as pool:
        coming = deque(pool.submit(prepare, job, first) for job in jobs[:1])
        try:
            for job, following in zip(jobs, [*jobs[1:], None], strict=True):
                ready = coming.popleft()
                with stage("wait for slide"):
                    wait([ready])
                if following is not None:
                    coming.append(pool.submit(prepare, following))
                yield run_job(job, on_cells, ready.result)
        finally:
            for unused in coming:
                _let_go(unused)


def _let_go(coming: Future[Prepared | Summary]) -> None:
    """End the reading of a slide that is not wanted any more."""
    if not coming.cancel() and coming.exception() is None and isinstance(found := coming.result(), Prepared):
        found.feed.close()


def _check_start(settings: Settings, bundle: ModelBundle) -> None:
    """Find what is wrong with the settings and the model before the first slide, not at each.

    Raises:
        BundleError: where the card gives no resolution.
        ConfigError: where the cell or a threshold is wrong.
    """
    _ = bundle.view
    CellSpec.parse(settings.grid.cell)
    threshold, _ = choose_threshold(settings, bundle.card)
    low = settings.regions.low_threshold
    if low is not None and low > threshold:
        raise ConfigError(
            "low_threshold", f"{low:g} exceeds the model's threshold {threshold:g}", "Lower it, or give --threshold."
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
