"""One slide, start to end; and many, one after the other."""

import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from wsi_pipeline.config import RESEARCH_USE, Settings
from wsi_pipeline.environment import hardware, versions
from wsi_pipeline.errors import ConfigError, OutputError, ResultsMismatchError, SlideReadError
from wsi_pipeline.grid import CellSpec
from wsi_pipeline.heatmap import Heatmap
from wsi_pipeline.inference import Predictor, choose_device
from wsi_pipeline.jobs import SlideJob, plan_jobs
from wsi_pipeline.locks import folder_lock
from wsi_pipeline.manifest import (
    SUMMARY_FILE,
    Identity,
    RunRecord,
    SlideResult,
    Status,
    Summary,
    describe_error,
)
from wsi_pipeline.models.bundle import ModelBundle, load_bundle
from wsi_pipeline.outputs import HEATMAP, choose_threshold, missing_outputs, remove_derived, write_outputs
from wsi_pipeline.patches import read_blocks
from wsi_pipeline.plan import SlidePlan, plan_slide
from wsi_pipeline.slides import find_slides
from wsi_pipeline.slides.discover import MULTI_FILE_SUFFIXES
from wsi_pipeline.timing import Stopwatch

log = logging.getLogger(__name__)

MAX_UNREADABLE = 0.5
"""A slide of which a larger part of the cells cannot be read fails; below, it is finished with a warning."""

CellProgress = Callable[[str, int, int], None]
"""Called with the slide's name, the cells done so far and their total."""

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
    _check_threshold(settings, bundle)
    CellSpec.parse(settings.grid.cell)
    bundle.build()  # weights that do not fit their card are found before the first slide, not at each
    paths = find_slides(inputs)
    jobs = plan_jobs(paths, out.absolute(), settings, bundle.path.absolute(), bundle.digest, overwrite=overwrite)
    with folder_lock(out):
        record = RunRecord(
            folder=out,
            started=_now(),
            versions=versions(),
            hardware=hardware(),
            settings=settings.model_dump(mode="json"),
            bundle={"name": bundle.card.name, "digest": bundle.digest, "path": str(bundle.path)},
            inputs=list(inputs),
            planned=len(jobs),
        )
        record.write()
        on_plan(len(jobs))
        for result in (runner or run_here)(jobs, on_cells):
            record.add(result)
            on_slide(result)
        record.finished = _now()
        record.write()
    return record


def run_here(jobs: Sequence[SlideJob], on_cells: CellProgress) -> Iterator[SlideResult]:
    """The jobs one after the other in this process.

    Raises:
        ConfigError: where this machine has no such device.
    """
    for device in {job.settings.inference.device for job in jobs}:
        choose_device(device)
    for job in jobs:
        yield run_job(job, on_cells)


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
        predictor = _predictor(job)
        with watch.stage("plan"):
            plan = plan_slide(slide, predictor.bundle.view, settings)
    heatmap = _fill_heatmap(job, plan, predictor, identity=identity, watch=watch, on_cells=on_cells)
    summary = write_outputs(job, plan, predictor.bundle.card, heatmap, identity=identity, watch=watch)
    summary.write(job.folder / SUMMARY_FILE)
    return summary, True


def _fill_heatmap(
    job: SlideJob,
    plan: SlidePlan,
    predictor: Predictor,
    *,
    identity: Identity,
    watch: Stopwatch,
    on_cells: CellProgress,
) -> Heatmap:
    """Score every pending block; an earlier, interrupted run is resumed."""
    bundle, inference, grid = predictor.bundle, job.settings.inference, plan.grid
    path = job.folder / HEATMAP
    with watch.stage("write"):
        heatmap = _create_heatmap(job, plan, bundle, identity, path)
    pending = [] if heatmap.complete else heatmap.pending()
    total = len(grid.cells)
    done = total - sum(len(block.cells) for block in pending)
    on_cells(job.slide_id, done, total)
    predictor.seconds.reset()
    blocks = read_blocks(job.source, grid, pending, workers=inference.workers)
    for scored in predictor.predict(blocks):
        with watch.stage("write"):
            heatmap.write(scored.block, scored.scores)
        done += len(scored.block.cells)
        on_cells(job.slide_id, done, total)
    watch.seconds |= predictor.seconds.as_dict()
    if not heatmap.complete:
        _check_readable(job, heatmap)
        with watch.stage("write"):
            heatmap.finish(provenance={"seconds": watch.seconds}, version=job.settings.output.ngff)
    return heatmap


def _create_heatmap(job: SlideJob, plan: SlidePlan, bundle: ModelBundle, identity: Identity, path: Path) -> Heatmap:
    """A new map or an interrupted one. With overwriting asked for, a map is kept where it is still the right one."""
    card = bundle.card
    map_identity = Identity(
        slide=identity.slide, bundle=identity.bundle, settings=job.settings.map_digest(job.source.mpp)
    )

    def create(*, overwrite: bool) -> Heatmap:
        return Heatmap.create(
            path,
            plan.grid,
            class_names=card.class_names,
            identity=map_identity,
            provenance={
                "slide": {"path": job.path, "reader": plan.info.reader, "mpp_source": plan.info.mpp_source},
                "model": {"name": card.name, "positive_class": card.positive_class, "temperature": card.temperature},
                "settings": job.settings.model_dump(mode="json", include={"tissue", "grid"}),
                "software": versions(),
                "created": _now(),
                "note": RESEARCH_USE,
            },
            name=job.slide_id,
            tissue=plan.tissue_cells(),
            overwrite=overwrite,
        )

    try:
        return create(overwrite=False)
    except ResultsMismatchError:
        if not job.overwrite:
            raise
        return create(overwrite=True)


def _check_readable(job: SlideJob, heatmap: Heatmap) -> None:
    """Fail a slide most of which is damaged; its map is not kept."""
    cells, unread = len(heatmap.grid.cells), int(heatmap.unread().sum())
    if unread > MAX_UNREADABLE * cells:
        Heatmap.discard(job.folder / HEATMAP)
        raise SlideReadError(
            job.source.path,
            f"{unread:,} of {cells:,} cells cannot be read",
            "The file is damaged or cut short: copy it again.",
        )


@lru_cache(maxsize=1)
def _cached_predictor(bundle: str, digest: str, device: str, batch_size: int | None, amp: bool) -> Predictor:
    loaded = load_bundle(bundle)
    if loaded.digest != digest:
        raise ConfigError("model", f"{bundle} changed while the run was going on", "Start the run again.")
    return Predictor(bundle=loaded, device=choose_device(device), batch_size=batch_size, amp=amp)


def _predictor(job: SlideJob) -> Predictor:
    """The network, loaded once in each process."""
    inference = job.settings.inference
    return _cached_predictor(job.bundle, job.bundle_digest, inference.device, inference.batch_size, inference.amp)


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
        elif not missing_outputs(job.folder, job.settings):
            return summary
    except ResultsMismatchError:
        if not job.overwrite:
            raise
    remove_derived(job.folder)
    return None


def _check_threshold(settings: Settings, bundle: ModelBundle) -> None:
    threshold, _ = choose_threshold(settings, bundle.card)
    low = settings.regions.low_threshold
    if low is not None and low > threshold:
        raise ConfigError(
            "low_threshold", f"{low:g} exceeds the model's threshold {threshold:g}", "Lower it, or give --threshold."
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
