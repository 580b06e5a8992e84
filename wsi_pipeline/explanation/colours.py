"""The colours of evidence, the same on sheets and on slides, and the bar that explains them."""

from collections.abc import Sequence
from math import ceil

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.render.picture import blend
from wsi_pipeline.sheet import INK, Sheet

COLORMAP = "viridis"
"""Perceptually uniform, safe for red-green blindness, none of haematoxylin and eosin's colours."""

MAX_OPACITY = 0.65
"""At the top of the scale; the tissue stands beside it without colours."""

LEAST_TOP = 1.0
"""The scale never ends below this evidence (log-odds), so that a trace of it is not painted as much."""

BAR_WIDTH = 18


def scale_top(evidence: NDArray[np.float32]) -> float:
    """Where the colour scale of all these maps ends: the next whole number above their highest value."""
    highest = float(np.nanmax(evidence, initial=0.0))
    return max(LEAST_TOP, float(ceil(highest - 1e-6)))


def tint(pixels: NDArray[np.uint8], values: NDArray[np.float32], top: float) -> NDArray[np.uint8]:
    """Values of 0 to `top` laid over RGB pixels [..., 3], the more opaque the higher.

    NaN and 0 leave the pixels as they are; what lies above `top` looks like `top`.
    """
    from matplotlib import colormaps

    share = np.clip(np.nan_to_num(values / np.float32(top), nan=0.0), 0, 1)
    table = (colormaps[COLORMAP](np.arange(256))[:, :3] * 255).astype(np.float32)
    opacity = np.sin(share * np.float32(np.pi / 2)) * np.float32(MAX_OPACITY)
    return blend(pixels, table[np.rint(share * 255).astype(np.uint8)], opacity[..., None])


def ticks_to(top: float) -> list[float]:
    """About five round numbers from 0 to `top`."""
    step = next(
        step for power in (0.1, 1, 10, 100, 1e9) for step in (2 * power, 5 * power, 10 * power) if step * 5 >= top
    )
    return [n * step for n in range(int(top / step + 1e-9) + 1)]


def colour_bar(sheet: Sheet, x: int, y: int, *, bar: NDArray[np.uint8], ticks: Sequence[float], top: float) -> None:
    """A vertical colour bar with its values.

    Args:
        sheet: Where it is drawn.
        x: Of its left edge.
        y: Of its upper edge.
        bar: RGB [height, width, 3], the highest value first.
        ticks: Values to write beside it.
        top: The highest value.
    """
    height, width = bar.shape[:2]
    sheet.image(x, y, bar)
    for tick in ticks:
        at = y + (1 - tick / top) * height
        sheet.lines([np.array([(x + width, at), (x + width + 5, at)])], color=INK, width=1)
        sheet.text(x + width + 9, at, f"{tick:g}")


def ramp(ground: NDArray[np.uint8], top: float, height: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A ground of one colour, RGB [height, BAR_WIDTH, 3], and the values from `top` down to 0 to lay over it."""
    values = np.broadcast_to(np.linspace(top, 0, height, dtype=np.float32)[:, None], (height, BAR_WIDTH))
    return np.broadcast_to(ground, (height, BAR_WIDTH, 3)), values
