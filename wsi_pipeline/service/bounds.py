"""How large a map a job may ask for: its cells are held in memory, by the worker and by whoever looks at them."""

from contextlib import suppress
from pathlib import Path

from wsi_pipeline.config import Settings
from wsi_pipeline.errors import ConfigError, WsiPipelineError
from wsi_pipeline.geometry import SlideInfo
from wsi_pipeline.grid import CellSpec, cells_along
from wsi_pipeline.jobs import plan_jobs

MAX_CELLS = 50_000_000
"""Rows x columns: 200 MB for each layer of the map. A slide of 25 x 25 mm has 4 million of the usual cells."""


def require_moderate(address: str, settings: Settings) -> None:
    """Refuse a job whose map would be too large, before anything is read of the slide.

    A slide that cannot be opened is left to the run, which records why.

    Raises:
        ConfigError: where rows x columns are more than `MAX_CELLS`.
    """
    info: SlideInfo | None = None
    with suppress(WsiPipelineError):
        (job,) = plan_jobs([address], Path(), settings, Path(), "", overwrite=False)
        with job.source.open() as slide:
            info = slide.info
    cells = count_cells(info, settings.grid.cell) if info is not None else 0
    if cells > MAX_CELLS:
        why = f"{settings.grid.cell} makes a map of {cells:,} cells on this slide, more than {MAX_CELLS:,}"
        raise ConfigError("cell", why, "Choose larger cells, or check the resolution that was given.")


def count_cells(info: SlideInfo, cell: str) -> int:
    """Rows x columns of a slide's map; 0 where that is the model's affair, or the resolution is not known."""
    size_um = CellSpec.parse(cell).size_um
    if size_um is None or info.mpp is None:
        return 0
    cols = cells_along(info.bounds.width, size_um / info.mpp.x)
    return cols * cells_along(info.bounds.height, size_um / info.mpp.y)
