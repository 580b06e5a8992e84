"""What is made of a finished heatmap: regions, pictures and numbers."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.config import Settings
from wsi_pipeline.geojson import write_cells, write_regions
from wsi_pipeline.grid import UPSAMPLE_TOLERANCE
from wsi_pipeline.heatmap import Heatmap
from wsi_pipeline.jobs import SlideJob
from wsi_pipeline.manifest import SUMMARY_FILE, Identity, Summary
from wsi_pipeline.models.card import Card
from wsi_pipeline.plan import SlidePlan
from wsi_pipeline.regions import Region, find_regions
from wsi_pipeline.render import draw_overlay, draw_tissue
from wsi_pipeline.timing import Stopwatch

HEATMAP, REGIONS, CELLS = "heatmap.zarr", "regions.geojson", "cells.geojson.gz"
OVERLAY, TISSUE = "overlay.png", "tissue.png"
"""What lies in a slide's folder, beside its summary."""


def missing_outputs(folder: Path, settings: Settings) -> list[str]:
    """Names of the files that a finished slide has and `folder` lacks."""
    wanted = [HEATMAP, REGIONS, OVERLAY, TISSUE, *([CELLS] if settings.output.cells else [])]
    return [name for name in wanted if not (folder / name).exists()]


def remove_derived(folder: Path) -> None:
    """Remove all but the heatmap, the summary first: from then on the folder is not complete."""
    for name in (SUMMARY_FILE, REGIONS, CELLS, OVERLAY, TISSUE):
        (folder / name).unlink(missing_ok=True)


def write_outputs(
    job: SlideJob, plan: SlidePlan, card: Card, heatmap: Heatmap, *, identity: Identity, watch: Stopwatch
) -> Summary:
    """Regions and pictures of a finished map, and its summary, which is left to the caller to write."""
    settings, grid = job.settings, plan.grid
    probability = heatmap.probability(card.positive_class)
    threshold, source = choose_threshold(settings, card)
    namespace = f"{identity.slide}/{identity.bundle}/{identity.settings}"
    with watch.stage("regions"):
        regions = find_regions(probability, grid, threshold=threshold, settings=settings.regions, namespace=namespace)
        write_regions(job.folder / REGIONS, regions, grid, class_name=card.positive_class)
        if settings.output.cells:
            write_cells(job.folder / CELLS, probability, grid, namespace=namespace, class_name=card.positive_class)
    with watch.stage("render"):
        draw_tissue(job.folder / TISSUE, plan.thumbnail, plan.tissue, plan.info.require_mpp(), title=job.slide_id)
        draw_overlay(
            job.folder / OVERLAY,
            plan.thumbnail,
            probability,
            grid,
            regions,
            title=job.slide_id,
            model=card.name,
            threshold=threshold,
            threshold_source=source,
            class_name=card.positive_class,
        )
    return _summarise(job, plan, card, probability, regions, identity=identity, seconds=watch.finish())


def _summarise(
    job: SlideJob,
    plan: SlidePlan,
    card: Card,
    probability: NDArray[np.float32],
    regions: Sequence[Region],
    *,
    identity: Identity,
    seconds: dict[str, float],
) -> Summary:
    grid, info = plan.grid, plan.info
    scored = np.isfinite(probability)
    analysed = float(grid.cell_area_um2[scored].sum()) * 1e-6
    idc = sum(region.area_um2 for region in regions) * 1e-6
    unreadable = len(grid.cells) - int(scored.sum())
    threshold, source = choose_threshold(job.settings, card)
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
        mean_probability=float(probability[scored].mean(dtype=np.float64)) if scored.any() else None,
        threshold=threshold,
        threshold_source=source,
        cells=len(grid.cells),
        unreadable_cells=unreadable,
        padded_cells=grid.padded_cells,
        cell_um=grid.cell_um,
        mpp=(grid.mpp.x, grid.mpp.y),
        mpp_source=info.mpp_source,
        model=card.name,
        reader=info.reader,
        seconds=seconds,
        warnings=(*info.warnings, *_warnings(plan, unreadable, job.settings.grid.cell)),
    )


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


def choose_threshold(settings: Settings, card: Card) -> tuple[float, str]:
    """The threshold of the regions and where it comes from."""
    if settings.regions.threshold is not None:
        return settings.regions.threshold, "user"
    return card.threshold.value, f"model: {card.threshold.chosen}"
