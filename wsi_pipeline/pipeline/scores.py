"""The network over the cells of one slide, into its heatmap."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from wsi_pipeline.config import MAP_SECTIONS, RESEARCH_USE
from wsi_pipeline.environment import versions
from wsi_pipeline.errors import InferenceError, ResultsMismatchError, SlideReadError
from wsi_pipeline.heatmap import BlockScores, BlockWriter, Heatmap
from wsi_pipeline.jobs import SlideJob
from wsi_pipeline.manifest import Identity
from wsi_pipeline.models.card import Card
from wsi_pipeline.outputs import HEATMAP
from wsi_pipeline.plan import SlidePlan
from wsi_pipeline.prediction import choose_refinement, choose_rule, prediction_facts, spread_over
from wsi_pipeline.timing import Stopwatch, spanned

if TYPE_CHECKING:
    from wsi_pipeline.feed import Feed
    from wsi_pipeline.inference import Predictor

MAX_UNREADABLE = 0.5
"""A slide of which a larger part of the cells cannot be read fails; below, it is finished with a warning."""

CellProgress = Callable[[str, int, int], None]
"""Called with the slide's name, the cells done so far and their total."""


def begin_heatmap(job: SlideJob, plan: SlidePlan, card: Card, identity: Identity) -> Heatmap:
    """A new map, or the one that an earlier, interrupted run left.

    Raises:
        WsiPipelineError: where the output folder is at fault, or holds results of something else.
    """
    try:
        return _create(job, plan, card, identity, overwrite=False)
    except ResultsMismatchError:
        # With overwriting asked for, a map is kept where it is still the right one.
        if not job.overwrite:
            raise
        return _create(job, plan, card, identity, overwrite=True)


def fill_heatmap(
    job: SlideJob, heatmap: Heatmap, feed: "Feed", predictor: "Predictor", *, watch: Stopwatch, on_cells: CellProgress
) -> None:
    """Score every pending block and finish the map.

    Args:
        job: The slide.
        heatmap: As `begin_heatmap` gives it.
        feed: The pixels of its pending blocks.
        predictor: The network.
        watch: Notes the time spent.
        on_cells: Called as the network answers cells; they are on the disk a moment later.

    Raises:
        WsiPipelineError: where the slide, its output folder or the network is at fault.
    """
    total = len(heatmap.grid.cells)
    done = total - sum(len(block.cells) for block in ([] if heatmap.complete else heatmap.pending()))
    on_cells(job.slide_id, done, total)

    def answered(cells: int) -> None:
        nonlocal done
        done += cells
        on_cells(job.slide_id, done, total)

    _check_arithmetic(job, heatmap, predictor)
    heatmap.note_engine(predictor.facts)
    predictor.seconds.reset()
    rule = choose_rule(job.settings, predictor.bundle.card, heatmap.grid)
    with BlockWriter(heatmap, watch) as writer:
        for scored in spanned("cut and stitch", predictor.predict(spanned("wait", feed), rule, on_cells=answered)):
            evaluated = None if scored.evaluated is None else int(scored.evaluated.sum())
            writer.write(BlockScores(scored.block, scored.scores, scored.spread, evaluated))
    on_cells(job.slide_id, total, total)
    watch.seconds |= predictor.seconds.as_dict()
    if not heatmap.complete:
        _check_readable(job, heatmap)
        with watch.stage("write"):
            heatmap.finish(
                refine=choose_refinement(job.settings, predictor.bundle.card, heatmap.grid),
                provenance={"seconds": watch.seconds},
                version=job.settings.output.ngff,
            )


def _create(job: SlideJob, plan: SlidePlan, card: Card, identity: Identity, *, overwrite: bool) -> Heatmap:
    from wsi_pipeline.inference import choose

    return Heatmap.create(
        job.folder / HEATMAP,
        plan.grid,
        class_names=card.class_names,
        positive_class=card.positive_class,
        spread=spread_over(job.settings, card) is not None,
        identity=Identity(
            slide=identity.slide,
            bundle=identity.bundle,
            settings=job.settings.map_digest(job.source.mpp, choose(job.settings.inference).arithmetic),
        ),
        provenance={
            "slide": {"path": job.path, "reader": plan.info.reader, "mpp_source": plan.info.mpp_source},
            "model": {"name": card.name, "positive_class": card.positive_class} | prediction_facts(job.settings, card),
            "settings": job.settings.model_dump(mode="json", include=set(MAP_SECTIONS)),
            "software": versions(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "note": RESEARCH_USE,
        },
        name=job.slide_id,
        tissue=plan.tissue_cells(),
        overwrite=overwrite,
    )


def _check_arithmetic(job: SlideJob, heatmap: Heatmap, predictor: "Predictor") -> None:
    """A map is filled in the arithmetic that its identity speaks of, whatever took the chosen engine's place.

    Raises:
        InferenceError: where the network that was loaded rounds to something else.
    """
    expected = heatmap.attributes["identity"]["settings"]
    if job.settings.map_digest(job.source.mpp, predictor.arithmetic) != expected:
        why = f"computes in {predictor.arithmetic} here, for which this map was not begun"
        raise InferenceError(f"engine {predictor.facts['engine']}", why, "Name another with --engine.")


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
