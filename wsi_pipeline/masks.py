"""Binary masks made wider, narrower and cleaner, at distances in µm. Pure.

scipy, not scikit-image, which would be a tenth of a second more before a run's first cells.
"""

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
"""[height, width]."""
Spacing = tuple[float, float]
"""µm per pixel down and across."""

MOSTLY = 0.8
"""Part of the picture's border from which on it was cut out of tissue."""

MAX_STAMP_PX = 16
"""Radius in pixels up to which masks are widened by shifting them, instead of by distances."""


def grow(mask: Mask, radius: float, spacing: Spacing) -> Mask:
    """`mask` and all within `radius` of it."""
    if radius <= 0 or not mask.any():  # distances to nothing are undefined
        return mask
    reach = [int(radius / step) + 1 for step in spacing]
    if max(reach) > MAX_STAMP_PX:
        from scipy.ndimage import distance_transform_edt

        grown: Mask = distance_transform_edt(~mask, sampling=spacing) <= radius
        return grown
    return _stamp(mask, radius, spacing, reach)


def _stamp(mask: Mask, radius: float, spacing: Spacing, reach: list[int]) -> Mask:
    """The same for a radius of few pixels, where it is much quicker: an ellipse laid over each pixel, row by row."""
    (down, across), (height, width) = reach, mask.shape
    padded = np.pad(mask, ((down, down), (across, across)))
    grown, wide, half = np.zeros_like(mask), padded.copy(), 0
    # From the ellipse's tips to its middle: rows become wider, so what is widened is widened on.
    for dy in range(down, -1, -1):
        # Rounded just as scipy's distance transform rounds, so that both ways give the same mask.
        distance = np.sqrt((dy * spacing[0]) ** 2 + (np.arange(across + 1) * spacing[1]) ** 2)
        reached = np.count_nonzero(distance <= radius)
        for further in range(half + 1, reached):
            wide[:, further:] |= padded[:, :-further]
            wide[:, :-further] |= padded[:, further:]
            half = further
        for row in {down - dy, down + dy} if reached else ():
            grown |= wide[row : row + height, across : across + width]
    return grown


def shrink(mask: Mask, radius: float, spacing: Spacing) -> Mask:
    """`mask` without all within `radius` of what is not mask; the picture's border shrinks nothing."""
    return ~grow(~mask, radius, spacing) if mask.any() else mask


def drop_small(mask: Mask, min_px: float) -> Mask:
    """`mask` without the pieces of fewer than `min_px` pixels; pieces that touch at corners are one."""
    from scipy.ndimage import label

    pieces, _ = label(mask, np.ones((3, 3)))
    large = np.bincount(pieces.ravel()) >= min_px
    large[0] = False
    kept: Mask = large[pieces]
    return kept


def fill_small(mask: Mask, min_px: float) -> Mask:
    """`mask` with its holes of fewer than `min_px` pixels filled.

    A hole may be cut by the picture's border. But where most of the border is not tissue, what touches two sides is a
    corner beside the tissue, such as the four around a round core.
    """
    from scipy.ndimage import label

    if not mask.any():
        return mask
    holes, _ = label(~mask)
    filled = np.bincount(holes.ravel()) < min_px
    filled[0] = False
    sides = holes[0], holes[-1], holes[:, 0], holes[:, -1]
    if np.mean(np.concatenate(sides) == 0) < MOSTLY:
        touched = np.bincount(np.concatenate([np.unique(side) for side in sides]), minlength=len(filled))
        filled &= touched <= 1
    whole: Mask = mask | filled[holes]
    return whole
