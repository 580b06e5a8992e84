"""Which reader opens a local TIFF slide: the fast one, wherever it sees what OpenSlide sees.

`TiffReader` decodes each native tile once and is several times as fast as OpenSlide, with which pathologists'
viewers read slides. So both open the file, and tifffile's view is taken where they agree on what the slide is and
on the fullest tiles of its finest and coarsest level. OpenSlide stays

* for NDPI: it adds levels that are not in the file, so the same slide would have other levels;
* for Aperio's JPEG 2000 in YCbCr (compression 33003), where colours may be stored at half the resolution of the
  brightness: no such file could be compared;
* for Aperio pyramids that leave tiles out: it draws the coarser levels there from the finer ones;
* for pixels of 16 bits and with an alpha channel, which the two round in different ways;
* for all formats whose tiles overlap or lie in other files, such as Leica, Ventana, Trestle, MRXS.
"""

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import SlideFormatError, SlideReadError
from wsi_pipeline.geometry import Box
from wsi_pipeline.slides.base import Slide
from wsi_pipeline.slides.openslide_reader import OpenSlideReader
from wsi_pipeline.slides.raster import RasterSlide
from wsi_pipeline.slides.tiff_reader import TiffReader

TIFF_VENDORS = frozenset({"aperio", "philips", "generic-tiff"})
"""Formats, as OpenSlide names them, that tifffile reads too."""

TOLERANCE = 2
"""Largest difference of a pixel in the two readers' views: two builds of libjpeg may round differently."""

_LOOK_PX = 256
"""Side of the part of a tile that is compared."""


def open_tiff(address: str, mpp: float | None, *, threads: int = 1) -> Slide:
    """Open a local slide of one of `TIFF_VENDORS` with the reader that suits it; see the module.

    A plain TIFF in which tifffile finds more levels or a resolution that OpenSlide does not, and every OME-TIFF, is
    read with tifffile.

    Args:
        address: The local file.
        mpp: Resolution of level 0 in µm/px, overrides the file's.
        threads: See `TiffReader`.

    Raises:
        SlideFormatError: where neither reader can open it.
        ResolutionError: where `mpp` is nonsense.
    """
    try:
        first = OpenSlideReader(address, mpp)
    except SlideFormatError:
        return TiffReader(address, mpp, threads=threads)
    try:
        second = TiffReader(address, mpp, threads=threads)
    except SlideFormatError:
        return first
    taken: Slide | None = None
    try:
        alike = _sees_more(first, second) or (_same_facts(first, second) and _same_pixels(first, second))
        taken = second if alike else first
    finally:
        for slide in (first, second):
            if slide is not taken:
                slide.close()
    return taken


def _sees_more(first: OpenSlideReader, second: TiffReader) -> bool:
    if first.info.vendor != "generic-tiff":
        return False
    worth = [(len(slide.info.levels), slide.info.mpp is not None) for slide in (first, second)]
    return worth[1] > worth[0] or second.info.vendor == "ome"


def _same_facts(first: OpenSlideReader, second: TiffReader) -> bool:
    one, two = first.info, second.info
    if (one.levels, one.mpp, one.bounds, one.vendor) != (two.levels, two.mpp, two.bounds, two.vendor):
        return False
    redrawn = one.vendor == "aperio" and len(one.levels) > 1 and second.leaves_out_tiles
    return second.plain and not redrawn


def _same_pixels(first: OpenSlideReader, second: TiffReader) -> bool:
    """Whether both see the same in the fullest tile of the finest and of the coarsest level."""
    for level in {0, len(first.info.levels) - 1}:
        tile = second.fullest_tile(level)
        box = Box(tile.x, tile.y, min(tile.width, _LOOK_PX), min(tile.height, _LOOK_PX))
        one, two = (_look(slide, level, box) for slide in (first, second))
        if two is None:
            # Damaged: both fail, and tile by tile more can be saved; or tifffile lacks what this needs.
            if one is not None:
                return False
        elif one is not None and np.abs(one.astype(np.int16) - two).max() > TOLERANCE:
            return False
    return True


def _look(slide: RasterSlide, level: int, box: Box) -> NDArray[np.uint8] | None:
    try:
        return slide.read_level(level, box)
    except SlideReadError:
        return None
