"""How often a run decodes each native tile that it needs: once would be ideal."""

from pathlib import Path

from wsi_pipeline.grid import Grid
from wsi_pipeline.slides import open_slide


def decodes_per_tile(path: Path, grid: Grid, needed: int) -> float | None:
    """Decodes of native tiles while one process reads all blocks in the run's order, to the tiles that are needed.

    Args:
        path: The slide.
        grid: Its cells.
        needed: Native tiles that the cells' fields of view touch.

    Returns:
        None where the reader does not count.
    """
    with open_slide(path) as slide:
        before = getattr(slide, "decodes", None)
        if before is None:
            return None
        for block in grid.blocks():
            slide.read(grid.block_box(block.cells), grid.scale)
        return float((slide.decodes - before) / needed)
