"""The slide as it is drawn, and how rasters and cells of the slide come to lie on it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.geometry import Mpp, Scale, Thumbnail
from wsi_pipeline.grid import Grid

MIN_PICTURE_PX, MAX_PICTURE_PX = 800, 1700
"""Bounds on the longer side of the slide in a picture: smaller thumbnails are enlarged, larger ones reduced."""

MIN_SHORT_SIDE_PX = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """The slide as it is drawn."""

    pixels: NDArray[np.uint8]
    """RGB [height, width, 3]."""
    scale: Scale
    """Level-0 pixels per picture pixel."""
    um_per_px: float
    """The same along both axes, even where the scanner's pixels are not square."""


def fit(thumbnail: Thumbnail, mpp: Mpp, size_px: int | None = None) -> Picture:
    """The thumbnail in a good size for a picture, with square pixels; unreadable parts are hatched.

    Args:
        thumbnail: The slide.
        mpp: Resolution of level 0.
        size_px: Longer side of the picture; None for one that suits the thumbnail.
    """
    from PIL import Image

    height, width = thumbnail.pixels.shape[:2]
    width_um, height_um = width * thumbnail.scale.x * mpp.x, height * thumbnail.scale.y * mpp.y
    longest = size_px or min(max(width, height, MIN_PICTURE_PX), MAX_PICTURE_PX)
    um_per_px = max(width_um, height_um) / longest
    size = max(MIN_SHORT_SIDE_PX, round(width_um / um_per_px)), max(MIN_SHORT_SIDE_PX, round(height_um / um_per_px))
    shown = np.array(Image.fromarray(thumbnail.pixels).resize(size, Image.Resampling.LANCZOS))
    if thumbnail.unreadable.any():
        lost = np.array(Image.fromarray(thumbnail.unreadable).resize(size, Image.Resampling.NEAREST))
        y, x = np.nonzero(lost)
        shown[y, x] = np.where(((x + y) % 12 < 4)[:, None], 90, 200).astype(np.uint8)
    scale = Scale(width * thumbnail.scale.x / size[0], height * thumbnail.scale.y / size[1])
    return Picture(pixels=shown, scale=scale, um_per_px=um_per_px)


def notes(thumbnail: Thumbnail) -> list[str]:
    """What must be said below the picture."""
    return ["hatched: unreadable in the file"] if thumbnail.unreadable.any() else []


def resample(probability: NDArray[np.float32], grid: Grid, picture: Picture) -> NDArray[np.float32]:
    """[height, width] of the picture: the cell under each pixel, or the mean of the cells in it; NaN where none."""
    height, width = picture.pixels.shape[:2]
    visited = ~np.isnan(probability)
    total, count = np.where(visited, probability, 0).astype(np.float64), visited.astype(np.float64)
    inside = np.ones((height, width), bool)
    for axis, edges, scale, length in (
        (0, grid.row_edges, picture.scale.y, height),
        (1, grid.col_edges, picture.scale.x, width),
    ):
        # Cells larger than a pixel are looked up at its centre; smaller ones are added up from its edge on.
        offset = 0.5 if edges[-1] - edges[0] > (len(edges) - 1) * scale else 0.0
        index = np.searchsorted(edges, (np.arange(length) + offset) * scale, side="right") - 1
        on_grid = (index >= 0) & (index < len(edges) - 1)
        inside &= on_grid[:, None] if axis == 0 else on_grid[None, :]
        index = np.clip(index, 0, len(edges) - 2)
        total, count = np.add.reduceat(total, index, axis=axis), np.add.reduceat(count, index, axis=axis)
    mean = np.full((height, width), np.nan, np.float32)
    np.divide(total, count, out=mean, where=inside & (count > 0), casting="same_kind")
    return mean


def blend(
    below: NDArray[np.uint8], above: NDArray[np.float32], opacity: float | NDArray[np.float32]
) -> NDArray[np.uint8]:
    """Colours laid over others, RGB [height, width, 3]; opacity 0 leaves those below as they are."""
    return np.rint(below + (above - below) * opacity).astype(np.uint8)


def sources(shape: tuple[int, ...], scale: Scale, picture: Picture) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of a raster of `shape` at `scale` under the centres of the picture's pixels."""
    height, width = picture.pixels.shape[:2]
    rows = (np.arange(height) + 0.5) * picture.scale.y / scale.y
    cols = (np.arange(width) + 0.5) * picture.scale.x / scale.x
    return np.clip(rows.astype(np.intp), 0, shape[0] - 1), np.clip(cols.astype(np.intp), 0, shape[1] - 1)
