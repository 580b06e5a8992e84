"""The layout around one block, with what is too small for the layout: nests, adipocytes, directions of collagen."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.phantom.fat import adipocytes
from wsi_pipeline.phantom.glands import GlandFields
from wsi_pipeline.phantom.layout import Layout
from wsi_pipeline.phantom.noise import FloatMap, Raster, smoothstep

RIM_UM = 16.0
"""How far outside its block a scene reaches: further than half of any nucleus."""

FAMILIES = 4
"""How many directions of collagen there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The layout around one block, on its `low` raster; every array is [rows, cols]."""

    layout: Layout
    raster: Raster
    specimen: FloatMap
    """Distance inside the specimen, µm."""
    tumour: FloatMap
    """Distance inside the tumour's fields, µm."""
    nest: FloatMap
    """Distance inside the nests and cords of tumour cells, about µm."""
    lumen: FloatMap
    """Distance inside the small lumens in the nests, about µm."""
    fat: FloatMap
    """Distance inside the nearest adipocyte, µm; negative outside."""
    glands: GlandFields
    fibres: tuple[FloatMap, ...]
    """Weights of the directions of collagen; their sum is 1."""
    immune: FloatMap
    """Share of places that lymphocytes take, 0..1."""

    def noise(self, period: float, name: str) -> FloatMap:
        """The layout's noise on this raster."""
        return self.layout.noise(self.raster, period, name)

    def up(self, field: FloatMap, target: Raster) -> FloatMap:
        """`field` of this raster on a finer one."""
        return resample(field, self.raster, target)


def build_scene(layout: Layout, low: tuple[float, float], high: tuple[float, float], step: float) -> Scene | None:
    """The layout around a block.

    Args:
        layout: The phantom's large structures.
        low: (x, y) of the block's corner, µm.
        high: (x, y) of the opposite corner, µm.
        step: µm per pixel of its raster.

    Returns:
        None where the block is all glass.
    """
    raster = Raster.around(low, high, step, RIM_UM)
    specimen = layout.specimen(raster)
    if specimen.max() < -20:
        return None
    tumour = layout.tumour(raster)
    glands = layout.gland_fields(raster)
    nest = _nests(layout, raster, tumour)
    fat = adipocytes(layout, raster, low, high)
    # Glands keep a sleeve of stroma, and cells of tumour do not grow inside adipocytes.
    fat = np.minimum(fat, np.minimum(-glands.depth - 10, -glands.lobule))
    nest = np.minimum(nest, np.minimum(-fat, specimen - 6))
    lumen = np.minimum(7 * layout.noise(raster, 11, "lumen0") - 15, nest - 7)
    weights = [np.exp(3.2 * layout.noise(raster, 95, f"fibre{k}")) for k in range(FAMILIES)]
    total = np.sum(weights, axis=0)
    front = np.exp(-((tumour + 15) ** 2) / 50**2) * smoothstep(layout.noise(raster, 75, "immune0"), 0.9, 1.9)
    inside = 0.10 * smoothstep(tumour, -40, 30) * smoothstep(layout.noise(raster, 40, "immune1"), -0.3, 1.5)
    return Scene(
        layout=layout, raster=raster, specimen=specimen, tumour=tumour, nest=nest, lumen=lumen, fat=fat, glands=glands,
        fibres=tuple((weight / total).astype(np.float32) for weight in weights),
        immune=(0.004 + inside + 0.55 * front).astype(np.float32),
    )  # fmt: skip


def _nests(layout: Layout, raster: Raster, tumour: FloatMap) -> FloatMap:
    """Sheets, nests and cords: bands around the zero lines of smooth noises, wide where growth is solid."""
    solid = layout.noise(raster, 150, "solid") * 0.8 + np.clip(tumour / 160, -1.2, 1.0)
    first, second = layout.noise(raster, 42, "nest0"), layout.noise(raster, 26, "nest1")
    rough = 0.16 * layout.noise(raster, 12, "nest2")
    # One unit of these noises is roughly one lattice distance.
    nests = 36 * ((0.60 + 0.36 * solid) - np.abs(first + rough))
    cords = 24 * ((0.16 + 0.26 * solid) - np.abs(second + rough))
    inside: FloatMap = np.minimum(np.maximum(nests, cords), tumour + 12)
    return inside


def fibre_angle(layout: Layout, family: int) -> float:
    """Direction of a family of fibres, radians."""
    return float(np.random.default_rng((layout.seed, 3)).uniform(0, np.pi) + family * np.pi / FAMILIES)


def resample(field: FloatMap, source: Raster, target: Raster) -> FloatMap:
    """`field` on a finer raster, bilinear.

    Args:
        field: float32 [source.rows, source.cols].
        source: Its raster; must cover the target's pixel centres.
        target: Where it is wanted.

    Returns:
        float32 [target.rows, target.cols].
    """
    left, wx = _linear(source.xs[0], source.step_x, target.xs)
    top, wy = _linear(source.ys[0], source.step_y, target.ys)
    part = field[int(top[0]) : int(top[-1]) + 2, int(left[0]) : int(left[-1]) + 2]
    left, top = left - left[0], top - top[0]
    across = part[:, left] * (1 - wx) + part[:, left + 1] * wx
    fine: FloatMap = across[top] * (1 - wy)[:, None] + across[top + 1] * wy[:, None]
    return fine


def _linear(first: float, step: float, at: NDArray[np.float64]) -> tuple[NDArray[np.int64], FloatMap]:
    place = (at - first) / step
    cell = np.floor(place).astype(np.int64)
    return cell, (place - cell).astype(np.float32)
