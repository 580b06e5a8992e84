"""The network over the cells of one slide, into its heatmap."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from wsi_pipeline.config import MAP_SECTIONS, RESEARCH_USE
from wsi_pipeline.environment import versions
from wsi_pipeline.errors import ConfigError, ResultsMismatchError, SlideReadError
from wsi_pipeline.heatmap import Heatmap
from wsi_pipeline.inference import Predictor, choose_device
from wsi_pipeline.jobs import SlideJob
from wsi_pipeline.manifest import Identity
from wsi_pipeline.models.bundle import load_bundle
from wsi_pipeline.outputs import HEATMAP
from wsi_pipeline.patches import read_blocks
from wsi_pipeline.plan import SlidePlan
from wsi_pipeline.prediction import choose_refinement, prediction_facts
from wsi_pipeline.timing import Stopwatch

MAX_UNREADABLE = 0.5
"""A slide of which a larger part of the cells cannot be read fails; below, it is finished with a warning."""

CellProgress = Callable[[str, int, int], None]
"""Called with the slide's name, the cells done so far and their total."""


def fill_heatmap(
    job: SlideJob,
    plan: SlidePlan,
    predictor: Predictor,
    *,
    identity: Identity,
    watch: Stopwatch,
    on_cells: CellProgress,
) -> Heatmap:
    """Score every pending block and finish the map; an earlier, interrupted run is resumed.

    Args:
        job: The slide.
        plan: Its cells.
        predictor: The network.
        identity: What the slide's results depend on.
        watch: Notes the time spent.
        on_cells: Called as cells are done.

    Raises:
        WsiPipelineError: where the slide, its output folder or the network is at fault.
    """
    inference, grid = job.settings.inference, plan.grid
    path = job.folder / HEATMAP
    with watch.stage("write"):
        heatmap = _create_heatmap(job, plan, predictor, identity, path)
    pending = [] if heatmap.complete else heatmap.pending()
    total = len(grid.cells)
    done = total - sum(len(block.cells) for block in pending)
    on_cells(job.slide_id, done, total)
    predictor.seconds.reset()
    blocks = read_blocks(job.source, grid, pending, workers=inference.workers)
    for scored in predictor.predict(blocks):
        with watch.stage("write"):
            heatmap.write(scored.block, scored.scores, scored.spread)
        done += len(scored.block.cells)
        on_cells(job.slide_id, done, total)
    watch.seconds |= predictor.seconds.as_dict()
    if not heatmap.complete:
        _check_readable(job, heatmap)
        with watch.stage("write"):
            heatmap.finish(
                refine=choose_refinement(job.settings, predictor.bundle.card, grid),
                provenance={"seconds": watch.seconds},
                version=job.settings.output.ngff,
            )
    return heatmap


def _create_heatmap(job: SlideJob, plan: SlidePlan, predictor: Predictor, identity: Identity, path: Path) -> Heatmap:
    """A new map or an interrupted one. With overwriting asked for, a map is kept where it is still the right one."""
    card = predictor.bundle.card
    map_identity = Identity(
        slide=identity.slide, bundle=identity.bundle, settings=job.settings.map_digest(job.source.mpp)
    )

    def create(*, overwrite: bool) -> Heatmap:
        return Heatmap.create(
            path,
            plan.grid,
            class_names=card.class_names,
            positive_class=card.positive_class,
            spread=predictor.gives_spread,
            identity=map_identity,
            provenance={
                "slide": {"path": job.path, "reader": plan.info.reader, "mpp_source": plan.info.mpp_source},
                "model": {"name": card.name, "positive_class": card.positive_class}
                | prediction_facts(job.settings, card),
                "settings": job.settings.model_dump(mode="json", include=set(MAP_SECTIONS)),
                "software": versions(),
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
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


def get_predictor(job: SlideJob) -> Predictor:
    """The network, loaded once in each process.

    Raises:
        BundleError: where it cannot be loaded.
        ConfigError: where it changed since the run began, or its device is not there.
    """
    inference, tta = job.settings.inference, job.settings.prediction.tta
    return _cached_predictor(
        job.bundle, job.bundle_digest, inference.device, batch_size=inference.batch_size, amp=inference.amp, tta=tta
    )


@lru_cache(maxsize=1)
def _cached_predictor(
    bundle: str, digest: str, device: str, *, batch_size: int | None, amp: bool, tta: bool
) -> Predictor:
    loaded = load_bundle(bundle)
    if loaded.digest != digest:
        raise ConfigError("model", f"{bundle} changed while the run was going on", "Start the run again.")
    return Predictor(bundle=loaded, device=choose_device(device), batch_size=batch_size, amp=amp, tta=tta)
