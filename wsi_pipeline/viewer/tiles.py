"""DeepZoom tiles and thumbnails of slides, as JPEG.

The image is the slide cut to the bounds of its scanned part, as QuPath shows it: the extent of the heatmap's grid.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.errors import SlideReadError
from wsi_pipeline.geometry import Box, Scale, Size
from wsi_pipeline.slides import Slide
from wsi_pipeline.viewer.cache import ByteCache, Crossings
from wsi_pipeline.viewer.deepzoom import DeepZoom
from wsi_pipeline.viewer.pool import SlideFile, SlidePool
from wsi_pipeline.viewer.problems import RequestError

JPEG_QUALITY = 85
OVERVIEW_PX = 1024
"""Levels whose longer side is at most this are made from one small picture of the slide, read once."""

THUMBNAIL_PX = 512
"""Longer side of a thumbnail."""

_OVERVIEW_BYTES = 64 << 20
_LENIENT_PX = 2048

Pixels = NDArray[np.uint8]


class Tiles:
    """Makes tiles, and keeps those that were asked for last.

    Args:
        pool: The open slides.
        limit: Bound on the encoded tiles that are kept, bytes.
    """

    def __init__(self, pool: SlidePool, limit: int) -> None:
        self._pool = pool
        self._encoded: ByteCache[bytes] = ByteCache(limit, len)
        self._overviews: ByteCache[Pixels] = ByteCache(_OVERVIEW_BYTES, lambda pixels: pixels.nbytes)
        self._crossings = Crossings()

    @property
    def kept_bytes(self) -> int:
        """Bytes of the encoded tiles that are kept now."""
        return self._encoded.bytes

    def tile(self, file: SlideFile, extent: Box, level: int, col: int, row: int) -> bytes:
        """A tile as JPEG.

        Args:
            file: The slide.
            extent: Part of level 0 that is the image.
            level: DeepZoom level, see `deepzoom`.
            col: Column of the tile.
            row: Row of the tile.

        Raises:
            RequestError: 404 where there is no such tile.
            SlideReadError: where its pixels cannot be decoded.
        """
        image = DeepZoom(extent.size)
        box = image.tile(level, col, row)
        if box is None:
            raise RequestError(404, f"tile {level}/{col}_{row}", "there is no such tile")
        key = file, extent, level, col, row
        return self._encoded.get(key) or self._encoded.put(key, encode(self._pixels(file, extent, level, box)))

    def thumbnail(self, file: SlideFile, extent: Box) -> bytes:
        """The whole image as JPEG, its longer side at most `THUMBNAIL_PX` pixels."""
        key = file, extent

        def make() -> bytes:
            image = Image.fromarray(self._overview(file, extent))
            image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
            return encode(np.asarray(image))

        return self._encoded.get(key) or self._encoded.put(key, make())

    def _pixels(self, file: SlideFile, extent: Box, level: int, box: Box) -> Pixels:
        image = DeepZoom(extent.size)
        overview_level = _overview_level(extent.size)
        if level <= overview_level:
            small = np.asarray(Image.fromarray(self._overview(file, extent)).reduce(1 << (overview_level - level)))
            return small[box.y : box.bottom, box.x : box.right]
        with self._pool.borrow(file) as slide:
            return _read(slide, extent, image.factor(level), box)

    def _overview(self, file: SlideFile, extent: Box) -> Pixels:
        """The image at the largest level of at most `OVERVIEW_PX`, RGB uint8 [height, width, 3]."""
        key = file, extent
        with self._crossings.of(key):
            known = self._overviews.get(key)
            if known is not None:
                return known
            image, level = DeepZoom(extent.size), _overview_level(extent.size)
            size = image.level_size(level)
            with self._pool.borrow(file) as slide:
                try:
                    pixels = _read(slide, extent, image.factor(level), Box(0, 0, size.width, size.height))
                except SlideReadError:
                    pixels = _lenient(slide, extent, size)
            return self._overviews.put(key, pixels)


def _overview_level(size: Size) -> int:
    """The largest level whose longer side is at most `OVERVIEW_PX`."""
    image = DeepZoom(size)
    longer = (max(image.level_size(n).width, image.level_size(n).height) for n in range(image.max_level + 1))
    return sum(side <= OVERVIEW_PX for side in longer) - 1


def _read(slide: Slide, extent: Box, factor: int, box: Box) -> Pixels:
    """Pixels of a DeepZoom level; on slides whose bounds do not start on its raster, to half a pixel of it."""
    left, top = round(extent.x / factor), round(extent.y / factor)
    return slide.read(Box(box.x + left, box.y + top, box.width, box.height), Scale(factor, factor))


def _lenient(slide: Slide, extent: Box, size: Size) -> Pixels:
    """The image of a slide of which some parts cannot be read."""
    whole = slide.thumbnail(_LENIENT_PX)
    part = (
        extent.x / whole.scale.x,
        extent.y / whole.scale.y,
        min(whole.pixels.shape[1], extent.right / whole.scale.x),
        min(whole.pixels.shape[0], extent.bottom / whole.scale.y),
    )
    image = Image.fromarray(whole.pixels).resize((size.width, size.height), Image.Resampling.BOX, box=part)
    return np.asarray(image)


def encode(pixels: Pixels) -> bytes:
    """RGB uint8 [height, width, 3] as JPEG."""
    from imagecodecs import jpeg8_encode

    return bytes(jpeg8_encode(np.ascontiguousarray(pixels), level=JPEG_QUALITY))
