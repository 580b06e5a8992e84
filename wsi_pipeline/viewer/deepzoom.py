"""The numbering of DeepZoom: levels and tiles of an image. Pure.

Level `max_level` is the image itself; each level below has half the sides, rounded up; level 0 is one pixel. A tile is
`TILE` pixels a side and overlaps each neighbour by `OVERLAP` pixels.
"""

from dataclasses import dataclass

from wsi_pipeline.geometry import Box, Size

TILE, OVERLAP = 254, 1


@dataclass(frozen=True, slots=True)
class DeepZoom:
    """The levels of an image; both of its sides at least 1."""

    size: Size

    @property
    def max_level(self) -> int:
        """Number of the level that is the image itself."""
        return (max(self.size.width, self.size.height) - 1).bit_length()

    def factor(self, level: int) -> int:
        """Pixels of the image along the side of a pixel of a level."""
        return 1 << (self.max_level - level)

    def level_size(self, level: int) -> Size:
        """Width and height of a level."""
        factor = self.factor(level)
        return Size(-(-self.size.width // factor), -(-self.size.height // factor))

    def tile(self, level: int, col: int, row: int) -> Box | None:
        """Where a tile lies, in pixels of its level, with its overlap; None where there is no such tile."""
        if not 0 <= level <= self.max_level or col < 0 or row < 0:
            return None
        size = self.level_size(level)
        if col * TILE >= size.width or row * TILE >= size.height:
            return None
        x, y = max(0, col * TILE - OVERLAP), max(0, row * TILE - OVERLAP)
        right = min(size.width, (col + 1) * TILE + OVERLAP)
        bottom = min(size.height, (row + 1) * TILE + OVERLAP)
        return Box(x, y, right - x, bottom - y)
