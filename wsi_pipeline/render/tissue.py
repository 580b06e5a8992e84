"""The tissue that was found."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.geometry import Mpp, Thumbnail
from wsi_pipeline.render.picture import blend, fit, notes, sources
from wsi_pipeline.sheet import Sheet
from wsi_pipeline.tissue import TissueMask

TISSUE_OUTLINE = (0, 114, 178)


def draw_tissue(path: Path, thumbnail: Thumbnail, tissue: TissueMask, mpp: Mpp, *, title: str) -> None:
    """Write the thumbnail with the tissue outlined and everything else dimmed, as PNG.

    Args:
        path: The ``.png`` file.
        thumbnail: The slide.
        tissue: What was found; its raster need not be the thumbnail's.
        mpp: Resolution of level 0.
        title: The slide's name.

    Raises:
        OutputError: where the file cannot be written.
    """
    picture = fit(thumbnail, mpp)
    inside = tissue.mask[np.ix_(*sources(tissue.mask.shape, tissue.scale, picture))]
    pixels = np.where(inside[..., None], picture.pixels, blend(picture.pixels, np.full(3, 170, np.float32), 0.6))
    pixels[_rim(inside)] = TISSUE_OUTLINE
    details = f"Tissue {tissue.area_mm2(mpp):.3g} mm²"
    if tissue.mask.any():
        details += ", outlined; the dimmed rest is not analysed"
    sheet = Sheet(pixels, title=title, details=[details])
    sheet.footer(picture.um_per_px, notes(thumbnail))
    if not tissue.mask.any():
        sheet.banner("no tissue found")
    sheet.save(path)


def _rim(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of the mask within two pixels of its outside."""
    padded = np.pad(mask, 2)
    height, width = mask.shape
    deep = mask.copy()
    for dy, dx in ((-2, 0), (2, 0), (0, -2), (0, 2), (-1, -1), (-1, 1), (1, -1), (1, 1)):
        deep &= padded[2 + dy : 2 + dy + height, 2 + dx : 2 + dx + width]
    return mask & ~deep
