"""From a thumbnail to the tissue mask. Pure: arrays in, arrays out.

The mask rests on one fact of H&E: haematoxylin and eosin both absorb green most (Ruifrok & Johnston, *Anal Quant
Cytol Histol* 23:291, 2001), so their mixtures are magenta, whatever their strength. Glass, dust, shadows, slide
edges and black ink absorb all colours alike, green ink absorbs green least, blue ink absorbs red most. What is
measured is therefore colour in optical density relative to the slide's own glass, against absolute bounds: no
histogram is split, so a slide that is all glass or all tissue needs no special case. Red ink alone shares its colour
with eosin and blood; it is told apart by being flat and lying on glass.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.config import TissueSettings
from wsi_pipeline.geometry import Mpp, Scale, Thumbnail
from wsi_pipeline.masks import Mask, Spacing, drop_small, fill_small, grow, shrink

_Floats = NDArray[np.float32]

# Colours are natural optical densities, -ln(pixel / glass), so 0.1 is about 10 % of the light. Where a comment says
# "seen", the figure was measured on six public H&E scans (four of breast) at 2 to 12 µm/px; no scan with pen was at
# hand, so figures of ink are assumptions, tested on drawn strokes only.

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
ROUGHNESS_SIGMA_PX = 1.5, 1.5
"""Of the Gaussian within which a place's standard deviation is taken."""
GLASS_SHARE = 0.002
"""At least this part of the picture must look like glass (the lumen of a few ducts), else `GLASS_DEFAULT` is taken."""
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
    from scipy.ndimage import label

    if thumbnail.pixels.size == 0:
        return TissueMask(mask=np.zeros(thumbnail.pixels.shape[:2], np.bool_), scale=thumbnail.scale)
    pixel_um = thumbnail.scale.y * mpp.y, thumbnail.scale.x * mpp.x
    pixel_um2 = pixel_um[0] * pixel_um[1]
    readable = ~thumbnail.unreadable
    density = _density(thumbnail.pixels, _glass_colour(thumbnail.pixels, readable))
    density[thumbnail.unreadable] = 0
    sigma_um = [max(SMOOTHING_UM, 0.5 * um) for um in pixel_um]
    signal = _smooth(_stain_signal(density), [um / px for um, px in zip(sigma_um, pixel_um, strict=True)])
    pieces, count = label(signal > TISSUE_EDGE)
    mask = (_share(signal > TISSUE_SEED, pieces, count + 1) > 0)[pieces]
    mask &= ~_ink_like_stain(density, mask, pixel_um)
    min_area, min_hole = settings.tissue_min_area_um2 / pixel_um2, settings.tissue_min_hole_um2 / pixel_um2
    mask = shrink(grow(mask, settings.tissue_closing_um / 2, pixel_um), settings.tissue_closing_um / 2, pixel_um)
    mask = fill_small(drop_small(mask, min_area), min_hole)
    mask = shrink(mask, SMOOTHING_REACH * max(sigma_um), pixel_um)
    mask = fill_small(drop_small(mask, min_area), min_hole)
    return TissueMask(mask=mask | thumbnail.unreadable, scale=thumbnail.scale)


def _glass_colour(pixels: NDArray[np.uint8], readable: Mask) -> _Floats:
    """Colour of the slide's glass, [3]: the commonest brightness among bright, unstained and even places.

    Its brightness matters little, since all that is measured later is colour; its tint matters. Pure white is left
    out where possible, because readers fill with it what was never scanned.
    """
    even = _smooth(pixels.astype(np.float32), [1.0, 1.0])
    density = -np.log(np.maximum(even, 1) / 255)
    magenta = density[..., 1] - (density[..., 0] + density[..., 2]) / 2
    likely = readable & (_least(even) >= GLASS_DARKEST) & (_roughness(_mean(density)) <= GLASS_ROUGHNESS)
    likely &= (magenta >= GLASS_MAGENTA[0]) & (magenta <= GLASS_MAGENTA[1])
    scanned = likely & (_least(pixels) < 255)
    enough = GLASS_SHARE * readable.sum()
    chosen = next((choice for choice in (scanned, likely) if choice.any() and choice.sum() >= enough), None)
    if chosen is None:
        return np.full(3, GLASS_DEFAULT, np.float32)
    colours = even[chosen]
    brightness = colours.mean(-1)
    counts = np.bincount(np.rint(brightness).astype(np.intp), minlength=256)
    mode = np.argmax(np.convolve(counts, [1, 2, 3, 2, 1], mode="same"))
    median: _Floats = np.median(colours[np.abs(brightness - mode) <= 4], axis=0).astype(np.float32)
    return median


def _density(pixels: NDArray[np.uint8], glass: _Floats) -> _Floats:
    """Optical density over glass (natural logarithm), [height, width, 3]; what is brighter than glass is negative."""
    table = -np.log(np.maximum(np.arange(256, dtype=np.float32), 1)[:, None] / glass)
    return np.stack([table[pixels[..., channel], channel] for channel in range(3)], axis=-1)


def _stain_signal(density: _Floats) -> _Floats:
    """How much haematoxylin or eosin a pixel shows, [height, width]: near 0 on glass, below on grey and on ink."""
    red, green, blue = np.moveaxis(density, -1, 0)
    excess = green - (red + blue) / 2 - NEUTRAL_SHARE * np.maximum(_mean(density), 0)
    not_blue = BLUE_INK_RATIO * green - red
    signal: _Floats = np.clip(np.minimum(excess, not_blue), *SIGNAL_LIMITS)
    return signal


def _ink_like_stain(density: _Floats, stained: Mask, pixel_um: Spacing) -> Mask:
    """Red ink, and blue ink too thick to look blue: flat, dense places with more glass than tissue around them."""
    from skimage.measure import label
    from skimage.segmentation import expand_labels

    red, green, blue = np.moveaxis(_smooth(density, [0.7, 0.7]), -1, 0)
    reddish = (blue >= RED_INK_BLUE_SHARE * green) | (green >= RED_INK_DENSE_GREEN)
    vivid_red = (green >= RED_INK_GREEN) & (red <= RED_INK_RED_SHARE * green) & reddish
    navy = (red + green + blue >= 3 * NAVY_DENSITY) & (red >= NAVY_RED_SHARE * green)
    like = grow(shrink(vivid_red | navy, INK_WIDTH_UM / 2, pixel_um), INK_WIDTH_UM / 2, pixel_um)
    if not like.any():
        return like
    places = label(like)
    count = int(places.max()) + 1
    fringe = max(INK_FRINGE_UM, INK_FRINGE_PX * max(pixel_um))
    inner = expand_labels(places, fringe, spacing=pixel_um)
    ring = np.where(inner == 0, expand_labels(places, fringe + INK_RING_UM, spacing=pixel_um), 0)
    core = np.where(shrink(like, INK_RIM_PX, (1.0, 1.0)), places, 0)  # the rim is a mixture with glass
    flat = _roughness(green, within=core > 0) <= INK_ROUGHNESS * green
    is_ink = (_share(flat, core, count) > 0.5) & (_share(~stained, ring, count) > 0.5)
    is_ink[0] = False
    return grow(is_ink[places], fringe, pixel_um)


def _mean(values: _Floats) -> _Floats:
    """Mean of the three channels, [height, width]. Numpy is slow at reducing an axis so short."""
    total: _Floats = values[..., 0] + values[..., 1] + values[..., 2]
    return total / np.float32(3)


def _least(values: NDArray[Any]) -> NDArray[Any]:
    """Least of the three channels, [height, width]."""
    least: NDArray[Any] = np.minimum(np.minimum(values[..., 0], values[..., 1]), values[..., 2])
    return least


def _share(mask: Mask, labels: NDArray[np.intp], count: int) -> NDArray[np.float64]:
    """Part of each label's pixels that are in `mask`, [count]; 0 where a label has no pixels."""
    size = np.bincount(labels.ravel(), minlength=count)
    return np.bincount(labels.ravel(), weights=mask.ravel(), minlength=count) / np.maximum(size, 1)


def _smooth(values: _Floats, sigma_px: Sequence[float]) -> _Floats:
    """Gaussian mean along the first two axes; channels, if any, at the same time: scipy lets go of Python's lock."""
    from scipy.ndimage import gaussian_filter

    smoothed = np.empty_like(values)
    if values.ndim == 2:
        gaussian_filter(values, sigma_px, output=smoothed, mode="nearest")
        return smoothed

    def smooth(channel: int) -> None:
        gaussian_filter(values[..., channel], sigma_px, output=smoothed[..., channel], mode="nearest")

    with ThreadPoolExecutor(values.shape[-1]) as pool:
        list(pool.map(smooth, range(values.shape[-1])))
    return smoothed


def _roughness(values: _Floats, within: Mask | None = None) -> _Floats:
    """Standard deviation within about five pixels, [height, width], of the places `within` alone where given."""
    known = values if within is None else np.where(within, values, np.float32(0))
    mean, square = np.moveaxis(_smooth(np.stack([known, known**2], axis=-1), ROUGHNESS_SIGMA_PX), -1, 0)
    if within is not None:
        total = np.maximum(_smooth(within.astype(np.float32), ROUGHNESS_SIGMA_PX), 1e-3)
        mean, square = mean / total, square / total
    deviation: _Floats = np.sqrt(np.maximum(square - mean**2, 0))
    return deviation
