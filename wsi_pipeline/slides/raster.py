"""What all readers share: boxes of a raster and thumbnails, from a reader's `read_level`."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import SlideReadError
from wsi_pipeline.geometry import Box, Scale, SlideInfo, Thumbnail
from wsi_pipeline.slides.resample import Taps, resample
from wsi_pipeline.tissue import TissueMask

MAX_SOURCE_BYTES = 64 << 20
"""Bound on the level's pixels held at once while a box is read."""

THUMBNAIL_PIECE_PX = 2048
"""Side in level pixels of the pieces a thumbnail is read in."""

THUMBNAIL_SMALLEST_PX = 256
"""Pieces that cannot be read are split down to about this side in level pixels."""


class RasterSlide(ABC):
    """A `Slide` made from the levels of a pyramid. Readers give `info`, `read_level` and `close`."""

    info: SlideInfo

    @property
    def coverage(self) -> TissueMask | None:
        """Where the slide has pixels at all; None where it has them everywhere."""
        return None

    @property
    def decodes(self) -> int | None:
        """Native tiles decoded so far, None where the reader does not know."""
        return None

    @abstractmethod
    def read_level(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Pixels of one level.

        Args:
            level: Number of the level, 0 the finest.
            box: In pixels of that level, never empty, wholly inside it.

        Returns:
            RGB uint8 [box.height, box.width, 3]; white where the slide has no pixels.

        Raises:
            SlideReadError: where the pixels cannot be decoded. The next call must work again.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the file; closing twice is allowed."""

    def read(self, box: Box, scale: Scale) -> NDArray[np.uint8]:
        """Pixels of the raster at `scale` inside `box`; see `Slide.read`.

        Shrinking averages areas, enlarging is bilinear, and a level within 0.1 % of `scale` is taken as it is.

        Raises:
            SlideReadError: where the file's pixels cannot be decoded. The slide stays usable.
        """
        if not (box.width and box.height):
            return np.empty((box.height, box.width, 3), np.uint8)
        level = self.info.level_for(scale)
        source = self.info.levels[level].scale
        cols = Taps.plan(box.x, box.width, scale.x / source.x)
        rows = Taps.plan(box.y, box.height, scale.y / source.y)
        strip = max(1, int(box.height * MAX_SOURCE_BYTES / (3.0 * cols.length * rows.length)))
        if strip >= box.height:
            return self._mixed(level, rows, cols)
        out = np.empty((box.height, box.width, 3), np.uint8)
        for top in range(0, box.height, strip):
            out[top : top + strip] = self._mixed(level, rows.part(top, top + strip), cols)
        return out

    def thumbnail(self, max_px: int) -> Thumbnail:
        """The whole slide with its longer side at most `max_px` pixels (never enlarged); see `Slide.thumbnail`."""
        size = self.info.size
        factor = max(1.0, max(size.width, size.height) / max_px)
        width, height = max(1, round(size.width / factor)), max(1, round(size.height / factor))
        scale = Scale(size.width / width, size.height / height)
        pixels = np.full((height, width, 3), 255, np.uint8)
        unreadable = np.zeros((height, width), np.bool_)
        source = self.info.levels[self.info.level_for(scale)].scale
        ratio = scale.x / source.x, scale.y / source.y
        for piece in _tiled(Box(0, 0, width, height), ratio, THUMBNAIL_PIECE_PX):
            self._fill(piece, scale, ratio, pixels, unreadable)
        return Thumbnail(pixels=pixels, scale=scale, unreadable=unreadable)

    def _fill(
        self,
        piece: Box,
        scale: Scale,
        ratio: tuple[float, float],
        pixels: NDArray[np.uint8],
        unreadable: NDArray[np.bool_],
    ) -> None:
        """Read a piece of the thumbnail, or of it what can be read."""
        here = slice(piece.y, piece.bottom), slice(piece.x, piece.right)
        try:
            pixels[here] = self.read(piece, scale)
        except SlideReadError:
            side = max(piece.width * ratio[0], piece.height * ratio[1])
            smaller = list(_tiled(piece, ratio, max(THUMBNAIL_SMALLEST_PX, side / 2)))
            if side <= THUMBNAIL_SMALLEST_PX or len(smaller) == 1:
                unreadable[here] = True
                return
            for part in smaller:
                self._fill(part, scale, ratio, pixels, unreadable)

    def _mixed(self, level: int, rows: Taps, cols: Taps) -> NDArray[np.uint8]:
        box = Box(cols.start, rows.start, cols.length, rows.length)
        return resample(self._padded(level, box), rows, cols)

    def _padded(self, level: int, box: Box) -> NDArray[np.uint8]:
        """A level's pixels, white outside the level."""
        size = self.info.levels[level].size
        inside = box.intersection(Box(0, 0, size.width, size.height))
        if inside == box:
            return self.read_level(level, box)
        out = np.full((box.height, box.width, 3), 255, np.uint8)
        if inside.width and inside.height:
            top, left = inside.y - box.y, inside.x - box.x
            out[top : top + inside.height, left : left + inside.width] = self.read_level(level, inside)
        return out

    def read_error(self, level: int, box: Box, why: object) -> SlideReadError:
        """The error for pixels that cannot be decoded; `box` in pixels of the level."""
        return SlideReadError(
            self.info.path,
            f"level {level}, {box.width} x {box.height} px at ({box.x}, {box.y}) cannot be decoded: {why}",
            "The file may be damaged: copy it again from its source.",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _tiled(box: Box, ratio: tuple[float, float], side: float) -> Iterator[Box]:
    """Boxes of about `side` level pixels (at least one raster pixel) that make up `box`."""
    width, height = max(1, int(side / ratio[0])), max(1, int(side / ratio[1]))
    for y in range(box.y, box.bottom, height):
        for x in range(box.x, box.right, width):
            yield Box(x, y, min(width, box.right - x), min(height, box.bottom - y))
