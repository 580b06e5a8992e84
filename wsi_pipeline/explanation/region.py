"""Which part of a slide is explained, and the overlapping fields of view that cover it. Pure.

Fields of view lie on a lattice of half their side, anchored at level 0: a place is always covered by the same four,
whichever region it is looked at in. Where their maps overlap, each weighs least at its border (a raised cosine), so
that there are no seams.
"""

import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import ConfigError
from wsi_pipeline.geometry import Box, FieldOfView, Mpp, Scale
from wsi_pipeline.grid import Grid

FORM = "X,Y,WIDTH,HEIGHT"
DEFAULT_VIEWS = 6
"""Side of a region that is chosen by itself, in fields of view."""

MAX_VIEWS = 25
"""Bound on the sides of a region, in fields of view."""

MAX_SIDE_PX = 6000
"""Bound on the sides of a region, in pixels of the model's resolution."""

_NUMBER = re.compile(r"(-?\d+(?:\.\d+)?)\s*(px|um|µm|μm|mm)?")
_UM = {"um": 1.0, "µm": 1.0, "μm": 1.0, "mm": 1000.0}


def parse_region(text: str, mpp: Mpp) -> Box:
    """Read ``X,Y,WIDTH,HEIGHT`` into level-0 pixels.

    Numbers are level-0 pixels, or lengths from the slide's corner with ``um``, ``µm`` or ``mm`` behind them; a unit
    behind the last number alone is that of all.

    Raises:
        ConfigError: where the text has another form, or the region no area.
    """
    found = [_NUMBER.fullmatch(part.strip()) for part in text.split(",")]
    if len(found) != 4 or None in found:
        raise _wrong(text, "is no region")
    matches = [match for match in found if match is not None]
    units = [match[2] for match in matches]
    if units[3] and not any(units[:3]):
        units = [units[3]] * 4
    values = [
        float(match[1]) * (_UM[unit] / (mpp.x, mpp.y)[n % 2] if unit in _UM else 1)
        for n, (match, unit) in enumerate(zip(matches, units, strict=True))
    ]
    x, y = round(values[0]), round(values[1])
    width, height = round(values[0] + values[2]) - x, round(values[1] + values[3]) - y
    if width <= 0 or height <= 0:
        raise _wrong(text, "is a region without area")
    return Box(x, y, width, height)


def _wrong(text: str, why: str) -> ConfigError:
    return ConfigError("region", f"{text!r} {why}", f"Write {FORM} in level-0 pixels, or 1.5mm,2mm,800um,800um.")


def check_region(region: Box, bounds: Box, mpp: Mpp, view: FieldOfView) -> Box:
    """The part of a region that lies on the slide.

    Raises:
        ConfigError: where none does, or it is too large.
    """
    inside = region.intersection(bounds)
    if not (inside.width and inside.height):
        raise ConfigError(
            "region",
            f"{as_text(region)} lies outside the slide",
            f"Its pixels are x {bounds.x} to {bounds.right}, y {bounds.y} to {bounds.bottom}.",
        )
    most_um = min(MAX_VIEWS * view.size_um, MAX_SIDE_PX * view.mpp)
    if max(inside.width * mpp.x, inside.height * mpp.y) > most_um:
        raise ConfigError(
            "region",
            f"{inside.width * mpp.x / 1000:.3g} x {inside.height * mpp.y / 1000:.3g} mm are too much to explain",
            f"With this model's fields of view of {view.size_um:g} µm, a side may have {most_um / 1000:.3g} mm, here "
            f"{int(most_um / max(mpp.x, mpp.y))} px.",
        )
    return inside


def as_text(region: Box) -> str:
    """A region as `parse_region` reads it."""
    return f"{region.x},{region.y},{region.width},{region.height}"


def most_probable(probability: NDArray[np.float32], grid: Grid, views: int = DEFAULT_VIEWS) -> Box:
    """The square of cells with the highest mean probability, in level-0 pixels.

    Places that were not looked at count as improbable, so that a square full of tissue is preferred.

    Args:
        probability: [rows, cols], NaN where not looked at.
        grid: Its cells.
        views: Side of the square, in fields of view.
    """
    side = max(1, round(views * grid.view.size_um / grid.cell_um))
    height, width = (min(side, length) for length in probability.shape)
    summed = np.pad(np.nan_to_num(probability, nan=0.0).astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    total = summed[height:, width:] - summed[:-height, width:] - summed[height:, :-width] + summed[:-height, :-width]
    row, col = np.unravel_index(int(np.round(total, 9).argmax()), total.shape)
    x, y = int(grid.col_edges[col]), int(grid.row_edges[row])
    return Box(x, y, int(grid.col_edges[col + width]) - x, int(grid.row_edges[row + height]) - y)


def raster_box(region: Box, scale: Scale) -> Box:
    """The smallest box of the raster at `scale` that holds a region of level 0."""
    x, y = int(np.floor(region.x / scale.x + 1e-6)), int(np.floor(region.y / scale.y + 1e-6))
    right, bottom = np.ceil(region.right / scale.x - 1e-6), np.ceil(region.bottom / scale.y - 1e-6)
    return Box(x, y, max(1, int(right) - x), max(1, int(bottom) - y))


def lattice(box: Box, side: int) -> NDArray[np.int64]:
    """[n, 2]: (x, y) of all fields of view of the lattice that touch a box of the raster, row by row."""
    xs, ys = _starts(box.x, box.right, side), _starts(box.y, box.bottom, side)
    return np.stack([np.tile(xs, len(ys)), np.repeat(ys, len(xs))], axis=1)


def _starts(first: int, last: int, side: int) -> NDArray[np.int64]:
    step = side / 2
    numbers = np.arange(int(np.floor((first - side) / step)) - 1, int(np.ceil(last / step)) + 2)
    starts = np.unique(np.floor(numbers * step + 0.5).astype(np.int64))
    touching: NDArray[np.int64] = starts[(starts + side > first) & (starts < last)]
    return touching


def covered(corners: NDArray[np.int64], side: int, mask: NDArray[np.bool_], box: Box) -> NDArray[np.int64]:
    """[n]: how many of a mask's True pixels each field of view holds; what lies outside the mask's box counts as none.

    Args:
        corners: [n, 2], (x, y) on the raster.
        side: Of the fields.
        mask: [box.height, box.width].
        box: Where the mask lies on the raster.
    """
    summed = np.pad(mask.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    x, y = corners[:, 0] - box.x, corners[:, 1] - box.y
    left, right = np.clip(x, 0, box.width), np.clip(x + side, 0, box.width)
    top, bottom = np.clip(y, 0, box.height), np.clip(y + side, 0, box.height)
    held: NDArray[np.int64] = summed[bottom, right] - summed[top, right] - summed[bottom, left] + summed[top, left]
    return held


def cut(pixels: NDArray[np.uint8], corners: NDArray[np.int64], side: int) -> NDArray[np.uint8]:
    """Fields of view uint8 [n, side, side, 3] from pixels [height, width, 3]; corners (x, y) within them."""
    views = np.lib.stride_tricks.sliding_window_view(pixels, (side, side), axis=(0, 1))
    return np.ascontiguousarray(views[corners[:, 1], corners[:, 0]].transpose(0, 2, 3, 1))


def in_parts(corners: NDArray[np.int64], side: int, max_bytes: int = 48 << 20) -> Iterator[NDArray[np.int64]]:
    """`corners` in parts whose fields of view do not take too much memory."""
    most = max(1, max_bytes // (3 * side * side))
    for start in range(0, len(corners), most):
        yield corners[start : start + most]


class Stitcher:
    """Maps of overlapping fields of view, put together over a box of the raster."""

    def __init__(self, box: Box, side: int) -> None:
        self.box, self.side = box, side
        shape = box.height, box.width
        self._total, self._weight = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        ramp = np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2
        self._window = np.outer(ramp, ramp).astype(np.float32)

    def add(self, maps: NDArray[np.float32], corners: NDArray[np.int64]) -> None:
        """Maps [n, side, side] of fields at corners (x, y) of the raster; what lies outside the box is dropped."""
        for values, (x, y) in zip(maps, (corners - (self.box.x, self.box.y)).tolist(), strict=True):
            rows, cols = slice(max(0, y), max(0, y + self.side)), slice(max(0, x), max(0, x + self.side))
            height, width = self._total[rows, cols].shape
            part = np.s_[max(0, -y) : max(0, -y) + height, max(0, -x) : max(0, -x) + width]
            self._total[rows, cols] += values[part] * self._window[part]
            self._weight[rows, cols] += self._window[part]

    def mean(self) -> NDArray[np.float32]:
        """float32 [box.height, box.width]; NaN where no field of view lies."""
        mean = np.full(self._total.shape, np.nan, np.float32)
        np.divide(self._total, self._weight, out=mean, where=self._weight > 0)
        return mean
