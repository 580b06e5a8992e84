"""The pictures of a result at a chosen size and threshold."""

from pathlib import Path

from wsi_pipeline.export.results import Result
from wsi_pipeline.render import draw_overlay, draw_uncertainty


def write_pictures(result: Result, folder: Path, name: str) -> list[Path]:
    """Write ``<name>.overlay.png`` and, where the map has a spread, ``<name>.uncertainty.png``.

    Raises:
        SlideNotFoundError, ResultsMismatchError: where the slide is not there any more, or is another.
        OutputError: where a file cannot be written.
    """
    size, summary, grid = result.options.size_px, result.summary, result.heatmap.grid
    with result.open_slide() as slide:
        thumbnail = slide.thumbnail(size)
    overlay, uncertainty = folder / f"{name}.overlay.png", folder / f"{name}.uncertainty.png"
    draw_overlay(
        overlay,
        thumbnail,
        result.probability,
        grid,
        result.regions,
        title=summary.slide,
        model=summary.model,
        threshold=result.threshold,
        threshold_source=result.threshold_source,
        class_name=result.class_name,
        size_px=size,
    )
    if result.spread is None:
        return [overlay]
    draw_uncertainty(
        uncertainty,
        thumbnail,
        result.spread,
        grid,
        result.regions,
        title=summary.slide,
        model=summary.model,
        spread_over=summary.spread_over or "several answers",
        class_name=result.class_name,
        size_px=size,
    )
    return [overlay, uncertainty]
