"""Adipocytes: rounded polygons around jittered sites, each one fatty as a whole or not."""

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.phantom.layout import Layout
from wsi_pipeline.phantom.noise import FAR, FloatMap, Points, Raster, jittered_lattice, salt

SPACING_UM = 62.0
"""Mean distance of adipocytes' centres."""

OUTSIDE_UM = 40.0
"""Distances outside are not told apart beyond this."""

NEAR_UM = 130.0
"""How far a site can lie from a pixel whose polygon it shapes."""

REACH_UM = 170.0
"""How far around a block the tissue must be known, for those sites."""

SOFTNESS_UM = 3.2
"""Radius of the rounding of corners."""


def adipocytes(layout: Layout, raster: Raster, low: tuple[float, float], high: tuple[float, float]) -> FloatMap:
    """Distance inside the nearest adipocyte, µm; negative outside.

    Args:
        layout: The phantom's large structures.
        raster: Where it is wanted.
        low: (x, y) of the block's corner, µm.
        high: (x, y) of the opposite corner, µm.

    Returns:
        float32 [raster.rows, raster.cols].
    """
    around = Raster.around(low, high, 4 * raster.step_x, REACH_UM)
    tumour = layout.tumour(around)
    fat = np.where(layout.specimen(around) > 22, layout.fat(around, tumour), -1)
    if fat.max() <= 0:
        return np.full((raster.rows, raster.cols), -OUTSIDE_UM, np.float32)
    sites = jittered_lattice(around, SPACING_UM, 0.34, salt(layout.seed, "adipocytes"))
    # A few stand alone in the stroma near fat.
    fatty = around.at(fat, sites.x, sites.y) > 0.35 * (sites.draw(1) - 0.3)
    x = raster.xs.astype(np.float32)[None, :] + 5 * layout.noise(raster, 24, "bulge0")
    y = raster.ys.astype(np.float32)[:, None] + 5 * layout.noise(raster, 24, "bulge1")
    near = (sites.x > x.min() - NEAR_UM) & (sites.x < x.max() + NEAR_UM)
    near &= (sites.y > y.min() - NEAR_UM) & (sites.y < y.max() + NEAR_UM)
    sites, fatty = sites.where(near), fatty[near]
    return _polygons(x, y, sites, fatty)


def _polygons(x: FloatMap, y: FloatMap, sites: Points, fatty: NDArray[np.bool_]) -> FloatMap:
    """Distance inside the nearest fatty site's polygon; a soft minimum over its sides rounds the corners."""
    at_x, at_y = sites.x.astype(np.float32), sites.y.astype(np.float32)
    squares = np.empty((len(at_x), *x.shape), np.float32)
    for n, (site_x, site_y) in enumerate(zip(at_x, at_y, strict=True)):
        squares[n] = np.square(x - site_x) + np.square(y - site_y)
    nearest = squares.argmin(axis=0)
    own = np.take_along_axis(squares, nearest[None], axis=0)[0]
    apart = np.hypot(at_x[:, None] - at_x, at_y[:, None] - at_y)
    np.fill_diagonal(apart, 1)
    total = np.zeros(x.shape, np.float32)
    outside = np.full(x.shape, OUTSIDE_UM, np.float32)
    for n, square in enumerate(squares):
        # Distance to the line half-way between the nearest site and this one.
        gap = (square - own) / (2 * apart[n][nearest])
        gap[nearest == n] = FAR
        total += np.exp(gap * np.float32(-1 / SOFTNESS_UM))
        if fatty[n]:
            np.minimum(outside, gap, out=outside)
    inside = -np.float32(SOFTNESS_UM) * np.log(np.maximum(total, np.float32(1e-12)))
    inside -= 1.8 * sites.draw(2)[nearest] ** 3
    return np.where(fatty[nearest], inside, -outside)
