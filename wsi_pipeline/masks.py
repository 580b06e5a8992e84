"""Binary masks made wider, narrower and cleaner, at distances in pixels. Pure."""

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
"""[height, width]."""

MOSTLY = 0.8
"""Part of the picture's border from which on it was cut out of tissue."""


def distance_to(mask: Mask) -> NDArray[np.float32]:
    """Distance of each pixel to the next one of `mask`, [height, width], between centres; very far if it is empty."""
    if not mask.size:  # OpenCV takes no empty pictures
        return np.zeros(mask.shape, np.float32)
    return np.asarray(cv2.distanceTransform(_bytes(~mask), cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)


def nearest_piece(mask: Mask) -> NDArray[np.int32]:
    """Number of the piece of `mask` that each pixel is in or next to, [height, width], from 1.

    Pieces that touch at corners are one. The distances that are compared are right to 2 %.
    """
    if not mask.size:
        return np.zeros(mask.shape, np.int32)
    _, pieces = cv2.distanceTransformWithLabels(_bytes(~mask), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_CCOMP)
    return np.asarray(pieces, np.int32)


def grow(mask: Mask, radius: float) -> Mask:
    """`mask` and all within `radius` of it."""
    return distance_to(mask) <= radius if radius >= 1 and mask.any() else mask


def shrink(mask: Mask, radius: float) -> Mask:
    """`mask` without all within `radius` of what is not mask; the picture's border shrinks nothing."""
    return ~grow(~mask, radius)


def drop_small(mask: Mask, min_px: float) -> Mask:
    """`mask` without the pieces of fewer than `min_px` pixels; pieces that touch at corners are one."""
    pieces, sizes = label(mask, corners=True)
    large = sizes >= min_px
    large[0] = False
    kept: Mask = large[pieces]
    return kept


def fill_small(mask: Mask, min_px: float) -> Mask:
    """`mask` with its holes of fewer than `min_px` pixels filled.

    A hole may be cut by the picture's border. But where most of the border is not tissue, what touches two sides is a
    corner beside the tissue, such as the four around a round core.
    """
    if not mask.any():
        return mask
    holes, sizes = label(~mask)
    filled = sizes < min_px
    filled[0] = False
    sides = holes[0], holes[-1], holes[:, 0], holes[:, -1]
    if np.mean(np.concatenate(sides) == 0) < MOSTLY:
        touched = np.bincount(np.concatenate([np.unique(side) for side in sides]), minlength=len(filled))
        filled &= touched <= 1
    whole: Mask = mask | filled[holes]
    return whole


def label(mask: Mask, *, corners: bool = False) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Number the connected pieces of a mask.

    Args:
        mask: [height, width].
        corners: Whether pieces that touch at corners are one.

    Returns:
        Each pixel's piece, [height, width], 0 for none; and the pixels of each piece, [pieces + 1].
    """
    if not mask.size:
        return np.zeros(mask.shape, np.int32), np.zeros(1, np.int32)
    _, pieces, facts, _ = cv2.connectedComponentsWithStats(_bytes(mask), connectivity=8 if corners else 4)
    return np.asarray(pieces, np.int32), np.asarray(facts[:, cv2.CC_STAT_AREA], np.int32)


def _bytes(mask: Mask) -> NDArray[np.uint8]:
    return mask.view(np.uint8)
