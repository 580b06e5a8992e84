"""From a thumbnail to the tissue mask. Pure: arrays in, arrays out.

The mask rests on one fact of H&E: haematoxylin and eosin both absorb green most (Ruifrok & Johnston, *Anal Quant
Cytol Histol* 23:291, 2001), so their mixtures are magenta, whatever their strength. Glass, dust, shadows, slide
edges and black ink absorb all colours alike, green ink absorbs green least, blue ink absorbs red most. What is
measured is therefore colour in optical density relative to the slide's own glass, against absolute bounds: no
histogram is split, so a slide that is all glass or all tissue needs no special case. Red ink alone shares its colour
with eosin and blood; it is told apart by being flat and lying on glass.
"""

from dataclasses import dataclass
from math import ceil
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.config import TissueSettings
from wsi_pipeline.geometry import Mpp, Scale, Thumbnail
from wsi_pipeline.masks import Mask, distance_to, drop_small, fill_small, grow, label, nearest_piece, shrink

_Floats = NDArray[np.float32]

# Colours are natural optical densities, -ln(pixel / glass), so 0.1 is about 10 % of the light. Where a comment says
# "seen", the figure was measured on six public H&E scans (four of breast) at 2 to 12 µm/px; no scan with pen was at
# hand, so figures of ink are assumptions, tested on drawn strokes only.

SQUARE = 1.02
"""Longer over shorter side up to which a pixel counts as square; others are made so first."""

SMOOTHING_UM = 20.0
"""Sigma of the smoothing of the stain signal: a fat cell's wall (50-100 µm apart) shows across half the cell."""
SMOOTHING_REACH = 0.8
"""Sigmas by which smoothing widens tissue of full signal; the finished mask is narrowed by as much."""
TISSUE_SEED, TISSUE_EDGE = 0.06, 0.02
"""A piece of tissue reaches the first somewhere and the second everywhere. Drawn glass with JPEG noise
mostly stays under 0.01, pale collagen has 0.1 to 0.2, a fat cell's wall under the smoothing 0.02 to 0.1."""
NEUTRAL_SHARE = 0.15
"""Green excess per mean density, up to which a pixel counts as grey; seen in tissue: 0.24 to 0.9."""
BLUE_INK_RATIO = 1.15
"""Red density over green density, from which a pixel is blue ink; haematoxylin has 0.93; seen in tissue: under 0.91."""
SIGNAL_LIMITS = (-0.1, 0.2)
"""The signal is cut to these before smoothing, so that neither ink nor dark nuclei reach far over their edge."""

GLASS_DARKEST = 140
"""Glass is at least this bright in every channel (of 255), on grey and yellow scanners too."""
GLASS_MAGENTA = (-0.15, 0.07)
"""Green excess relative to pure white that the glass itself may have: yellow or green tints, hardly a pink one."""
GLASS_ROUGHNESS = 0.02
"""Local standard deviation of density up to which a place may be glass; tissue under a microscope is never so even."""
ROUGHNESS_SIGMA_PX = 1.5
"""Of the Gaussian within which a place's standard deviation is taken."""
GLASS_SHARE = 0.002
"""At least this part of the picture must look like glass (the lumen of a few ducts), else `GLASS_DEFAULT` is taken."""
GLASS_SAMPLE = 200_000
"""At most so many of its pixels are looked at for its colour."""
GLASS_DEFAULT = 245.0
"""Brightness of glass in all channels where the picture shows none; only its neutrality matters."""

RED_INK_GREEN = 0.9
"""Green density from which a place may be red ink: that of a pixel darker than about 100 in green."""
RED_INK_BLUE_SHARE = 0.7
"""Blue over green density of red ink, at least; eosin has 0.5 to 0.7, blood 0.7 to 0.87 (seen)."""
RED_INK_RED_SHARE = 0.2
"""Red over green density of red ink, at most: pens let red through, blood has 0.2 to 0.35 (seen)."""
RED_INK_DENSE_GREEN = 1.4
"""Green density from which red ink may have any blue: pink tissue so dense is dark in red as well (seen: keratin)."""
NAVY_DENSITY, NAVY_RED_SHARE = 1.0, 0.9
"""Mean density and red over green density of blue ink so thick that it saturates and `BLUE_INK_RATIO` fails."""
INK_ROUGHNESS = 0.1
"""Local standard deviation of green density over its mean, up to which a place is flat enough for ink."""
INK_RIM_PX = 1.5
"""Rim that is not judged for flatness."""
INK_WIDTH_UM = 100.0
"""Narrower flat places are no pen strokes (pens draw 300 µm and more)."""
INK_RING_UM = 150.0
"""Width of the ring around a flat place in which glass must outweigh tissue for it to be ink."""
INK_FRINGE_UM, INK_FRINGE_PX = 60.0, 4.0
"""Ink is widened by the larger of the two: its faded rim, and the bleeding of JPEG colour, look like pale eosin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TissueMask:
    """Where tissue is, on a raster anchored at level 0."""

    mask: Mask
    """[height, width]: True on tissue."""
    scale: Scale
    """Level-0 pixels per mask pixel."""

    def area_mm2(self, mpp: Mpp) -> float:
        """Tissue area in mm²."""
        return float(self.mask.sum()) * self.scale.x * self.scale.y * mpp.pixel_um2 * 1e-6


def find_tissue(thumbnail: Thumbnail, mpp: Mpp, settings: TissueSettings) -> TissueMask:
    """Find the tissue on a thumbnail of an H&E slide.

    What counts: stroma however pale, epithelium, blood, and fat as far as its cell walls or septa take up any
    stain; the empty inside of its cells is filled by `tissue_closing_um` and `tissue_min_hole_um2`. Fat without a
    trace of stain is glass to a thumbnail and is left out. What does not: glass, pen, dust, shadows and edges, also
    where they cover tissue (what lies under them cannot be judged). Red ink is only dropped where it is flat, lets
    red light through as blood does not, and has mostly glass around it; red ink over tissue stays in the mask,
    because taking blood for ink would lose the tissue around it.

    Args:
        thumbnail: The whole slide, uint8 RGB [height, width, 3]; unreadable pixels count as tissue, so that the
            run tries them and reports them.
        mpp: Resolution of level 0 in µm/px.
        settings: Smallest piece and hole in µm², closing in µm.

    Returns:
        A mask of the thumbnail's shape and scale; all False where there is no tissue.
    """
    pixels, unreadable = thumbnail.pixels, thumbnail.unreadable
    height, width = unreadable.shape
    if pixels.size == 0:
        return TissueMask(mask=np.zeros((height, width), np.bool_), scale=thumbnail.scale)
    down_um, across_um = thumbnail.scale.y * mpp.y, thumbnail.scale.x * mpp.x
    if max(down_um, across_um) <= SQUARE * min(down_um, across_um):
        mask = _find(pixels, unreadable, (down_um + across_um) / 2, settings)
    else:
        um = min(down_um, across_um)
        square = max(1, round(width * across_um / um)), max(1, round(height * down_um / um))
        wide = _find(np.asarray(cv2.resize(pixels, square), np.uint8), _resized(unreadable, square), um, settings)
        mask = _resized(wide, (width, height))
    return TissueMask(mask=mask | unreadable, scale=thumbnail.scale)


def _resized(mask: Mask, size: tuple[int, int]) -> Mask:
    """The mask at another (width, height)."""
    resized: Mask = cv2.resize(mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST).view(np.bool_)
    return resized


def _find(pixels: NDArray[np.uint8], unreadable: Mask, um: float, settings: TissueSettings) -> Mask:
    """The mask on a picture of square pixels, `um` a side."""
    density = _density(pixels, _glass_colour(pixels, ~unreadable))
    density[unreadable] = 0
    sigma = max(SMOOTHING_UM / um, 0.5)
    signal = _smooth(_stain_signal(density), sigma)
    pieces, sizes = label(signal > TISSUE_EDGE)
    seeded = np.zeros(len(sizes), np.bool_)
    seeded[pieces[signal > TISSUE_SEED]] = True
    mask: Mask = seeded[pieces]
    mask &= ~_ink_like_stain(density, mask, um)
    min_area, min_hole = settings.tissue_min_area_um2 / um**2, settings.tissue_min_hole_um2 / um**2
    closing = settings.tissue_closing_um / 2 / um
    mask = shrink(grow(mask, closing), closing)
    mask = fill_small(drop_small(mask, min_area), min_hole)
    mask = shrink(mask, SMOOTHING_REACH * sigma)
    return fill_small(drop_small(mask, min_area), min_hole)


def _glass_colour(pixels: NDArray[np.uint8], readable: Mask) -> _Floats:
    """Colour of the slide's glass, [3]: the commonest brightness among bright, unstained and even places.

    Its brightness matters little, since all that is measured later is colour; its tint matters. Pure white is left
    out where possible, because readers fill with it what was never scanned.
    """
    even = _smooth(pixels.astype(np.float32), 1.0)
    density = -np.log(np.maximum(even, 1) / 255)
    magenta = _weighed(density, -0.5, 1, -0.5)
    likely = readable & (_least(even) >= GLASS_DARKEST) & (_roughness(_mean(density)) <= GLASS_ROUGHNESS)
    likely &= (magenta >= GLASS_MAGENTA[0]) & (magenta <= GLASS_MAGENTA[1])
    scanned = likely & (_least(pixels) < 255)
    enough = GLASS_SHARE * readable.sum()
    chosen = next((choice for choice in (scanned, likely) if choice.any() and choice.sum() >= enough), None)
    if chosen is None:
        return np.full(3, GLASS_DEFAULT, np.float32)
    places = np.flatnonzero(chosen)
    colours = even.reshape(-1, 3)[places[:: ceil(len(places) / GLASS_SAMPLE)]]
    brightness = colours.mean(-1)
    counts = np.bincount(np.rint(brightness).astype(np.intp), minlength=256)
    mode = np.argmax(np.convolve(counts, [1, 2, 3, 2, 1], mode="same"))
    median: _Floats = np.median(colours[np.abs(brightness - mode) <= 4], axis=0).astype(np.float32)
    return median


def _density(pixels: NDArray[np.uint8], glass: _Floats) -> _Floats:
    """Optical density over glass (natural logarithm), [height, width, 3]; what is brighter than glass is negative."""
    table = -np.log(np.maximum(np.arange(256, dtype=np.float32), 1)[None, :, None] / glass)
    return np.asarray(cv2.LUT(pixels, table), np.float32)


def _stain_signal(density: _Floats) -> _Floats:
    """How much haematoxylin or eosin a pixel shows, [height, width]: near 0 on glass, below on grey and on ink."""
    excess = _weighed(density, -0.5, 1, -0.5) - NEUTRAL_SHARE * np.maximum(_mean(density), 0)
    not_blue = _weighed(density, -1, BLUE_INK_RATIO, 0)
    signal: _Floats = np.clip(np.minimum(excess, not_blue), *SIGNAL_LIMITS)
    return signal


def _ink_like_stain(density: _Floats, stained: Mask, um: float) -> Mask:
    """Red ink, and blue ink too thick to look blue: flat, dense places with more glass than tissue around them."""
    red, green, blue = (np.asarray(channel, np.float32) for channel in cv2.split(_smooth(density, 0.7)))
    reddish = (blue >= RED_INK_BLUE_SHARE * green) | (green >= RED_INK_DENSE_GREEN)
    vivid_red = (green >= RED_INK_GREEN) & (red <= RED_INK_RED_SHARE * green) & reddish
    navy = (red + green + blue >= 3 * NAVY_DENSITY) & (red >= NAVY_RED_SHARE * green)
    half_um = INK_WIDTH_UM / 2
    like = grow(shrink(vivid_red | navy, half_um / um), half_um / um)
    if not like.any():
        return like
    fringe = max(INK_FRINGE_UM / um, INK_FRINGE_PX)
    distance, nearest = distance_to(like), nearest_piece(like)
    ring = np.where((distance > fringe) & (distance <= fringe + INK_RING_UM / um), nearest, 0)
    core = np.where(shrink(like, INK_RIM_PX), nearest, 0)  # the rim is a mixture with glass
    flat = _roughness(green, within=core > 0) <= INK_ROUGHNESS * green
    count = int(nearest.max()) + 1
    is_ink = (_share(flat, core, count) > 0.5) & (_share(~stained, ring, count) > 0.5)
    return grow(like & is_ink[nearest], fringe)


def _weighed(values: _Floats, *weights: float) -> _Floats:
    """Sum of the three channels with these weights, [height, width]."""
    return np.asarray(cv2.transform(values, np.array([weights])), np.float32)


def _mean(values: _Floats) -> _Floats:
    """Mean of the three channels, [height, width]."""
    return _weighed(values, *[1 / 3] * 3)


def _least(values: NDArray[Any]) -> NDArray[Any]:
    """Least of the three channels, [height, width]; numpy is slow at reducing an axis so short."""
    least: NDArray[Any] = np.minimum(np.minimum(values[..., 0], values[..., 1]), values[..., 2])
    return least


def _share(mask: Mask, labels: NDArray[np.int32], count: int) -> NDArray[np.float64]:
    """Part of each label's pixels that are in `mask`, [count]; 0 where a label has no pixels."""
    share: NDArray[np.float64] = np.bincount(labels[mask], minlength=count) / np.maximum(
        np.bincount(labels.ravel(), minlength=count), 1
    )
    return share


def _smooth(values: _Floats, sigma_px: float) -> _Floats:
    """Gaussian mean within four sigmas, of each channel."""
    side = 2 * round(4 * sigma_px) + 1
    return np.asarray(cv2.GaussianBlur(values, (side, side), sigma_px, borderType=cv2.BORDER_REPLICATE), np.float32)


def _roughness(values: _Floats, within: Mask | None = None) -> _Floats:
    """Standard deviation within about five pixels, [height, width], of the places `within` alone where given."""
    mean, square = _local_mean(values, within), _local_mean(values**2, within)
    return np.asarray(np.sqrt(np.maximum(square - mean**2, 0)), np.float32)


def _local_mean(values: _Floats, within: Mask | None) -> _Floats:
    if within is None:
        return _smooth(values, ROUGHNESS_SIGMA_PX)
    there = within.astype(np.float32)
    weight = np.maximum(_smooth(there, ROUGHNESS_SIGMA_PX), 1e-3)
    return np.asarray(_smooth(there * values, ROUGHNESS_SIGMA_PX) / weight, np.float32)
