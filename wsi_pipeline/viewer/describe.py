"""What the page is told of runs and slides, as JSON values."""

from typing import Any

from wsi_pipeline.config import RESEARCH_USE
from wsi_pipeline.errors import WsiPipelineError
from wsi_pipeline.viewer.cards import card_facts
from wsi_pipeline.viewer.deepzoom import OVERLAP, TILE, DeepZoom
from wsi_pipeline.viewer.locate import SlideFinder
from wsi_pipeline.viewer.maps import SlideMap
from wsi_pipeline.viewer.records import NUMBERS
from wsi_pipeline.viewer.regions import run_regions
from wsi_pipeline.viewer.results import ANNOTATIONS, Results, SlideEntry


def describe_results(results: Results) -> dict[str, Any]:
    """All runs and slides, a row a slide."""
    return {
        "title": results.title,
        "research_use": RESEARCH_USE,
        "runs": [
            {
                "id": run.id,
                "name": run.name,
                "started": _only(str, run.record.get("started")),
                "finished": _only(str, run.record.get("finished")),
                "planned": _only(int, run.record.get("planned")),
            }
            for run in results.runs()
        ],
        "slides": [_row(entry) for entry in results.slides()],
    }


def _only(kind: type, value: Any) -> Any:
    """A value of a record that is not checked otherwise; None where it is of another kind."""
    return value if isinstance(value, kind) else None


def _row(entry: SlideEntry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "run": entry.run.id,
        "name": entry.name,
        "status": entry.status,
        "error": entry.error,
        **{key: entry.summary.get(key) for key in (*NUMBERS, "model")},
        "class_name": entry.summary.get("class_name", "IDC"),
        "has_spread": bool(entry.summary.get("spread_over")),
        "annotated": entry.status == "done" and (entry.folder / ANNOTATIONS).is_file(),
        "warnings": list(entry.summary.get("warnings") or ()),
    }


def describe_slide(
    entry: SlideEntry, results: Results, found: SlideMap, finder: SlideFinder, *, show_label: bool = False
) -> dict[str, Any]:
    """One finished slide, with all that is needed to show its map.

    Coordinates are pixels of the image: level 0 of the slide, cut to the bounds of its scanned part. This is what
    QuPath shows, and the frame of ``regions.geojson`` and of annotations.
    """
    grid, summary = found.grid, entry.summary
    image = DeepZoom(grid.extent.size)
    rows, cols = grid.shape
    own = run_regions(entry)
    return {
        "id": entry.id,
        "name": entry.name,
        "run": entry.run.id,
        "status": entry.status,
        "width": image.size.width,
        "height": image.size.height,
        "mpp": [grid.mpp.x, grid.mpp.y],
        "tile_size": TILE,
        "overlap": OVERLAP,
        "max_level": image.max_level,
        "grid": {
            "rows": rows,
            "cols": cols,
            "origin": [0, 0],
            "step": list(grid.step),
            "end": [image.size.width, image.size.height],
            "cell_um": grid.cell_um,
        },
        "bounds_origin": list(grid.origin),
        "class_name": found.positive_class,
        "threshold": summary.get("threshold"),
        "threshold_source": summary.get("threshold_source"),
        "region_settings": {
            "low_threshold": own.low_threshold,
            "min_region_um2": own.min_region_um2,
            "smooth_um": own.smooth_um,
        },
        "has_spread": found.spread is not None,
        "has_unrefined": found.unrefined is not None,
        "has_tissue": True,
        "show_label": show_label,
        "model": card_facts(entry),
        "summary": dict(summary),
        "same_slide": [
            other.id
            for other in results.slides()
            if other.id != entry.id and other.status == "done" and other.fingerprint == entry.fingerprint
        ],
        **_availability(entry, finder),
    }


def describe_failed(entry: SlideEntry) -> dict[str, Any]:
    """One slide that failed."""
    return {
        "id": entry.id,
        "name": entry.name,
        "run": entry.run.id,
        "status": entry.status,
        "error": entry.error,
        "slide_available": False,
        "slide_problem": None,
    }


def _availability(entry: SlideEntry, finder: SlideFinder) -> dict[str, Any]:
    try:
        finder.find(entry)
    except WsiPipelineError as error:
        return {"slide_available": False, "slide_problem": str(error)}
    return {"slide_available": True, "slide_problem": None}
