"""What is made of a finished heatmap: regions, pictures and numbers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.config import Settings
from wsi_pipeline.geojson import write_cells, write_regions
from wsi_pipeline.grid import UPSAMPLE_TOLERANCE, Grid
from wsi_pipeline.heatmap import Heatmap
from wsi_pipeline.jobs import SlideJob
from wsi_pipeline.manifest import SUMMARY_FILE, Identity, Summary
from wsi_pipeline.models.card import Card
from wsi_pipeline.plan import SlidePlan
from wsi_pipeline.prediction import (
    cells_per_view,
    choose_threshold,
    describe_prediction,
    prediction_warnings,
    spread_over,
    uses_context,
)
from wsi_pipeline.regions import Region, find_regions, number_regions
from wsi_pipeline.render import draw_overlay, draw_tissue, draw_uncertainty
from wsi_pipeline.timing import Stopwatch

HEATMAP, REGIONS, CELLS = "heatmap.zarr", "regions.geojson", "cells.geojson.gz"
OVERLAY, UNCERTAINTY, TISSUE = "overlay.png", "uncertainty.png", "tissue.png"
"""What lies in a slide's folder, beside its summary."""

SMALL_MM2 = 18.0
"""Of tissue: every whole case that the shipped models' second stage learnt from is larger (18.6 mm² and more)."""


def missing_outputs(folder: Path, settings: Settings, summary: Summary) -> list[str]:
    """Names of the files that a finished slide has and `folder` lacks."""
    wanted = [HEATMAP, REGIONS, OVERLAY, TISSUE]
    wanted += [CELLS] if settings.output.cells else []
    wanted += [UNCERTAINTY] if summary.spread_over else []
    return [name for name in wanted if not (folder / name).exists()]


def remove_derived(folder: Path) -> None:
    """Remove all but the heatmap, the summary first: from then on the folder is not complete."""
    for name in (SUMMARY_FILE, REGIONS, CELLS, OVERLAY, UNCERTAINTY, TISSUE):
        (folder / name).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Maps:
    """What was read of the heatmap, each [rows, cols], and the regions found on it."""

    probability: NDArray[np.float32]
    unrefined: Callable[[], NDArray[np.float32] | None]
    """Reads the probability before the second stage, which only little tissue needs."""
    spread: NDArray[np.float32] | None
    regions: Sequence[Region]


def write_tissue(job: SlideJob, plan: SlidePlan, watch: Stopwatch) -> None:
    """The picture of the tissue that was found: all that can be written before the map is there.

    Raises:
        OutputError: where it cannot be written.
    """
    with watch.stage("render"):
        draw_tissue(job.folder / TISSUE, plan.thumbnail, plan.tissue, plan.info.require_mpp(), title=job.slide_id)


def write_outputs(
    job: SlideJob, plan: SlidePlan, card: Card, heatmap: Heatmap, *, identity: Identity, watch: Stopwatch
) -> Summary:
    """Regions and pictures of a finished map, and its summary, which is left to the caller to write.

    Raises:
        OutputError: where a file cannot be written.
    """
    settings, grid, name = job.settings, plan.grid, card.positive_class
    probability, spread = heatmap.probability(name), heatmap.spread()
    threshold, _ = choose_threshold(settings, card)
    namespace = f"{identity.slide}/{identity.bundle}/{identity.settings}"
    with watch.stage("regions"):
        regions = find_regions(
            probability, grid, threshold=threshold, settings=settings.regions, namespace=namespace, spread=spread
        )
        write_regions(job.folder / REGIONS, regions, grid, class_name=name)
        if settings.output.cells:
            file = job.folder / CELLS
            write_cells(file, probability, grid, namespace=namespace, class_name=name, spread=spread)
    maps = _Maps(probability=probability, unrefined=heatmap.unrefined, spread=spread, regions=regions)
    with watch.stage("render"):
        _draw(job, plan, card, maps)
    evaluated = heatmap.attributes["cells"].get("evaluated", int(np.isfinite(probability).sum()))
    return _summarise(
        job,
        plan,
        card,
        maps,
        identity=identity,
        computed_by=heatmap.computed_by,
        evaluated=evaluated,
        seconds=watch.finish(),
    )


def _draw(job: SlideJob, plan: SlidePlan, card: Card, maps: _Maps) -> None:
    threshold, source = choose_threshold(job.settings, card)
    title, model = job.slide_id, describe_prediction(job.settings, card)
    draw_overlay(
        job.folder / OVERLAY,
        plan.thumbnail,
        maps.probability,
        plan.grid,
        maps.regions,
        title=title,
        model=model,
        threshold=threshold,
        threshold_source=source,
        class_name=card.positive_class,
    )
    over = spread_over(job.settings, card)
    if maps.spread is not None and over is not None:
        draw_uncertainty(
            job.folder / UNCERTAINTY,
            plan.thumbnail,
            maps.spread,
            plan.grid,
            maps.regions,
            title=title,
            model=model,
            spread_over=f"{over}, before context" if uses_context(job.settings, card) else over,
            class_name=card.positive_class,
        )


def _summarise(
    job: SlideJob,
    plan: SlidePlan,
    card: Card,
    maps: _Maps,
    *,
    identity: Identity,
    computed_by: dict[str, str],
    evaluated: int,
    seconds: dict[str, float],
) -> Summary:
    grid, info, regions = plan.grid, plan.info, maps.regions
    scored = np.isfinite(maps.probability)
    analysed = float(grid.cell_area_um2[scored].sum()) * 1e-6
    idc = sum(region.area_um2 for region in regions) * 1e-6
    unreadable = len(grid.cells) - int(scored.sum())
    threshold, source = choose_threshold(job.settings, card)
    spread, spread_inside, spread_near = _spread_means(job, plan, maps, threshold)
    return Summary(
        slide=job.slide_id,
        path=job.path,
        identity=identity,
        tissue_mm2=plan.tissue.area_mm2(grid.mpp),
        analysed_mm2=analysed,
        idc_mm2=idc,
        idc_fraction=idc / analysed if analysed else None,
        regions=len(regions),
        largest_region_mm2=max((region.area_um2 for region in regions), default=0.0) * 1e-6,
        mean_probability=_mean(maps.probability, scored),
        threshold=threshold,
        threshold_source=source,
        tta=job.settings.prediction.tta,
        context=uses_context(job.settings, card),
        spread_over=spread_over(job.settings, card),
        **computed_by,
        mean_spread=spread,
        mean_spread_regions=spread_inside,
        mean_spread_near_regions=spread_near,
        cells=len(grid.cells),
        evaluated_cells=evaluated,
        unreadable_cells=unreadable,
        padded_cells=grid.padded_cells,
        cell_um=grid.cell_um,
        mpp=(grid.mpp.x, grid.mpp.y),
        mpp_source=info.mpp_source,
        model=card.name,
        class_name=card.positive_class,
        reader=info.reader,
        seconds=seconds,
        warnings=(
            *info.warnings,
            *_warnings(plan, unreadable, job.settings.grid.cell),
            *prediction_warnings(job.settings, card, grid),
            *_held_back(job, card, grid, maps, analysed_mm2=analysed, idc_mm2=idc),
        ),
    )


def _held_back(
    job: SlideJob, card: Card, grid: Grid, maps: _Maps, *, analysed_mm2: float, idc_mm2: float
) -> Iterator[str]:
    """That the second stage took most of what the network had called, where there is little tissue."""
    if analysed_mm2 >= SMALL_MM2 or (unrefined := maps.unrefined()) is None:
        return
    threshold, alone = choose_threshold(job.settings, card)[0], card.threshold_without_context
    if job.settings.regions.threshold is None and alone is not None:
        threshold = alone
    settings = job.settings.regions.model_copy(update={"low_threshold": job.settings.regions.low_below(threshold)})
    numbers = number_regions(unrefined, grid, threshold=threshold, settings=settings)
    before_mm2 = float(grid.cell_area_um2[numbers > 0].sum()) * 1e-6
    if before_mm2 > 2 * idc_mm2:
        yield (
            f"Before the second stage {before_mm2:.2g} mm² were called, after it {idc_mm2:.2g}. On little tissue (here "
            f"{analysed_mm2:.2g} mm²) look at the map before it, too: it is a channel of heatmap.zarr; --no-context "
            "gives it alone."
        )


def _spread_means(
    job: SlideJob, plan: SlidePlan, maps: _Maps, threshold: float
) -> tuple[float | None, float | None, float | None]:
    """Mean spread of all scored cells, of those in regions, and of those near them."""
    if maps.spread is None:
        return None, None, None
    numbers = number_regions(maps.probability, plan.grid, threshold=threshold, settings=job.settings.regions)
    scored, inside = np.isfinite(maps.spread), numbers > 0
    near = scored & ~inside & _widened(inside, cells_per_view(plan.grid))
    return _mean(maps.spread, scored), _mean(maps.spread, inside), _mean(maps.spread, near)


def _mean(values: NDArray[np.float32], where: NDArray[np.bool_]) -> float | None:
    return float(values[where].mean(dtype=np.float64)) if where.any() else None


def _widened(mask: NDArray[np.bool_], cells: int) -> NDArray[np.bool_]:
    """The mask and all within so many cells of it, along both axes."""
    side = 2 * cells + 1
    wide = cv2.dilate(mask.view(np.uint8), np.ones((side, side), np.uint8))
    return np.asarray(wide, np.uint8).view(np.bool_)


def _warnings(plan: SlidePlan, unreadable: int, cell: str) -> Iterator[str]:
    grid = plan.grid
    if not len(grid.cells):
        yield "No tissue was found: the map is empty."
    if unreadable:
        yield f"{unreadable:,} of {len(grid.cells):,} cells could not be read: they are not in the map and the areas."
    if plan.thumbnail.unreadable.any():
        yield "Parts of the slide could not be read; there, tissue was assumed and tried."
    if grid.cell_um > 1.001 * grid.view.size_um:
        yield (
            f"The model sees {grid.view.size_um:g} µm in the middle of each cell of {grid.cell_um:g} µm; "
            "what lies around that was not looked at."
        )
    if plan.patches_only and cell not in {"native", Settings().grid.cell}:
        yield f"Patch folders have their patches for cells: --cell {cell} was not applied."
    if max(grid.mpp.x, grid.mpp.y) > grid.view.mpp * UPSAMPLE_TOLERANCE:
        yield f"The slide ({grid.mpp.x:g} µm/px) was enlarged to {grid.view.mpp:g} µm/px: its detail is invented."
