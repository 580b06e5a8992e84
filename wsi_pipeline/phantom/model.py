"""The phantom itself: a slide that is a function of its settings."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import ceil

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.geometry import Box, Mpp, Scale, Size
from wsi_pipeline.phantom.layout import Layout
from wsi_pipeline.phantom.noise import FloatMap, Raster
from wsi_pipeline.phantom.paint import paint_block

BLOCK_PX = 1024
"""Side of the blocks that pixels are painted in."""

_MASK_ROWS = 512
"""Rows of a mask that are worked out together."""


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """A drawn breast specimen on glass, with its truth. The same settings give the same pixels in any order."""

    size: Size
    """Level-0 pixels."""
    seed: int = 0
    """Which specimen."""
    mpp: float = 0.25
    """µm per level-0 pixel."""
    pen: bool = True
    """Whether a pathologist's pen has followed part of the specimen's edge."""

    def __post_init__(self) -> None:
        Mpp(self.mpp, self.mpp)
        if min(self.size.width, self.size.height) < 1 or self.seed < 0:
            raise ValueError(f"a phantom needs a positive size and a seed of at least 0: {self.size}, {self.seed}")

    @cached_property
    def layout(self) -> Layout:
        """The large structures, in µm."""
        return Layout(width=self.size.width * self.mpp, height=self.size.height * self.mpp, seed=self.seed)

    def render(self, box: Box) -> NDArray[np.uint8]:
        """Level-0 pixels inside `box`; what lies outside the slide is white.

        Returns:
            RGB uint8, [box.height, box.width, 3].
        """
        pixels = np.full((box.height, box.width, 3), 255, np.uint8)
        inside = box.intersection(Box(0, 0, self.size.width, self.size.height))
        if not inside.width or not inside.height:
            return pixels
        for row in range(inside.y // BLOCK_PX, ceil(inside.bottom / BLOCK_PX)):
            for col in range(inside.x // BLOCK_PX, ceil(inside.right / BLOCK_PX)):
                part = inside.intersection(Box(col * BLOCK_PX, row * BLOCK_PX, BLOCK_PX, BLOCK_PX))
                y, x = part.y - row * BLOCK_PX, part.x - col * BLOCK_PX
                block = self._recent_blocks(row, col)[y : y + part.height, x : x + part.width]
                pixels[part.y - box.y : part.bottom - box.y, part.x - box.x : part.right - box.x] = block
        return pixels

    def block(self, row: int, col: int) -> NDArray[np.uint8]:
        """The block of `BLOCK_PX` pixels in a row and a column of blocks, RGB; it may reach over the slide's edge."""
        return paint_block(self.layout, Box(col * BLOCK_PX, row * BLOCK_PX, BLOCK_PX, BLOCK_PX), self.mpp, self.pen)

    @cached_property
    def _recent_blocks(self) -> Callable[[int, int], NDArray[np.uint8]]:
        return lru_cache(maxsize=8)(self.block)

    def tumour_mask(self, scale: Scale) -> NDArray[np.bool_]:
        """Where invasive tumour is: nests, cords and the stroma between them, as a pathologist outlines it.

        Args:
            scale: Level-0 pixels per mask pixel.

        Returns:
            bool [H, W], judged at the centres of the pixels of the raster at `scale`.
        """
        return self._mask(scale, self.layout.tumour)

    def tissue_mask(self, scale: Scale) -> NDArray[np.bool_]:
        """Where the specimen is, with its fat and its lumens, without the pen.

        Args:
            scale: Level-0 pixels per mask pixel.

        Returns:
            bool [H, W], judged at the centres of the pixels of the raster at `scale`.
        """
        return self._mask(scale, self.layout.specimen)

    def _mask(self, scale: Scale, field: Callable[[Raster], FloatMap]) -> NDArray[np.bool_]:
        rows, cols = ceil(self.size.height / scale.y), ceil(self.size.width / scale.x)
        mask = np.empty((rows, cols), np.bool_)
        step_x, step_y = scale.x * self.mpp, scale.y * self.mpp
        for y in range(0, rows, _MASK_ROWS):
            count = min(_MASK_ROWS, rows - y)
            strip = Raster(x=0, y=y, cols=cols, rows=count, step_x=step_x, step_y=step_y)
            mask[y : y + count] = field(strip) > 0
        return mask
