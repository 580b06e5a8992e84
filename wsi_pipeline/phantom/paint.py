"""From a scene to pixels: components of tissue, their stains, nuclei, and light through them (Beer-Lambert).

A block is painted on three rasters: `low` (8 px) carries the layout, `mid` (2 px) fibres, fat and epithelium, and
nuclei, grain and light are at full resolution.
"""

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.geometry import Box
from wsi_pipeline.phantom.layout import Layout
from wsi_pipeline.phantom.noise import FloatMap, Raster, fibre_texture, grain_texture, smoothstep
from wsi_pipeline.phantom.nuclei import stamp_nuclei
from wsi_pipeline.phantom.scene import FAMILIES, RIM_UM, Scene, build_scene, fibre_angle, resample
from wsi_pipeline.phantom.sow import sow_nuclei

LIGHT = np.array([243.0, 243.0, 245.0], np.float32)
"""RGB of clear glass."""

STAINS = np.array([[0.563, 0.720, 0.406], [0.190, 0.805, 0.562], [0.10, 0.74, 0.66]], np.float32)
"""Optical density (RGB) of one unit of haematoxylin, of eosin (Macenko 2009, a little redder) and of red cells."""

PENS = np.array([[1.15, 0.70, 0.22], [1.25, 0.30, 0.85]], np.float32)
"""Optical density (RGB) of a blue and of a green pen."""

LOW, MID = 8, 2
"""Pixels of level 0 per pixel of the coarser rasters."""


def paint_block(layout: Layout, box: Box, mpp: float, pen: bool) -> NDArray[np.uint8]:
    """Pixels of a level-0 box whose corner and sides are multiples of `LOW`.

    Returns:
        RGB uint8 [box.height, box.width, 3].
    """
    full = Raster(x=box.x, y=box.y, cols=box.width, rows=box.height, step_x=mpp, step_y=mpp)
    low, high = (box.x * mpp, box.y * mpp), (box.right * mpp, box.bottom * mpp)
    grain = grain_texture()[np.ix_(np.arange(box.y, box.bottom) & 1023, np.arange(box.x, box.right) & 1023)]
    density = np.zeros((box.height, box.width, 3), np.float32)
    scene = build_scene(layout, low, high, LOW * mpp)
    if scene is not None:
        _add_tissue(density, scene, Raster.around(low, high, MID * mpp, MID * mpp), full, grain)
    if pen:
        _add_pen(density, layout, Raster.around(low, high, LOW * mpp, RIM_UM), full)
    np.exp(-density, out=density)
    density *= LIGHT
    density += (1.1 * grain)[..., None]
    return np.clip(np.rint(density, out=density), 0, 255).astype(np.uint8)


def _add_tissue(density: FloatMap, scene: Scene, mid: Raster, full: Raster, grain: FloatMap) -> None:
    stains, blood = _stains(scene, mid)
    haematoxylin, eosin = (resample(stain, mid, full) for stain in stains)
    for sowing in sow_nuclei(scene):
        stamp_nuclei(
            haematoxylin, eosin, sowing.points,
            kind=sowing.kind, corner=(full.x * full.step_x, full.y * full.step_y), mpp=full.step_x, angle=sowing.angle,
        )  # fmt: skip
    shade = 1 + np.float32(0.055) * grain
    haematoxylin *= shade
    eosin *= shade
    for channel in range(3):
        np.multiply(haematoxylin, STAINS[0, channel], out=density[..., channel])
        density[..., channel] += eosin * STAINS[1, channel]
    if blood is not None:
        density += resample(blood, mid, full)[..., None] * STAINS[2]


def _stains(scene: Scene, mid: Raster) -> tuple[tuple[FloatMap, FloatMap], FloatMap | None]:
    """(Haematoxylin, eosin) and red cells on the `mid` raster, before nuclei."""
    fine, bundle = _fibres(scene, mid)
    haematoxylin, eosin = _stroma(scene, mid, fine, bundle)
    stains = haematoxylin, eosin
    _add_glands(stains, scene, mid, fine)
    _add_nests(stains, scene, mid, fine)
    fat = scene.up(scene.fat, mid)
    wall = smoothstep(np.abs(fat - np.float32(0.4)), 2.4, 0.8)
    eosin += (0.42 - eosin) * wall * 0.8
    keep = 1 - smoothstep(fat, 0.8, 2.1)
    keep *= smoothstep(scene.up(scene.specimen, mid) + 2.5 * fine + 2.5 * bundle, -1.5, 1.5)
    blood = _blood(scene, mid)
    return (haematoxylin * keep, eosin * keep), None if blood is None else blood * keep


def _stroma(scene: Scene, mid: Raster, fine: FloatMap, bundle: FloatMap) -> tuple[FloatMap, FloatMap]:
    """Haematoxylin and eosin of collagen: dense and pink, looser and bluer beside tumour and in lobules."""
    tumour = smoothstep(scene.up(scene.tumour, mid), -70, 40)
    lobule = smoothstep(scene.up(scene.glands.lobule, mid), -12, 14)
    loose = np.maximum(0.55 * tumour, lobule)
    tone = 0.05 * scene.up(scene.noise(130, "tone"), mid)
    eosin = (0.44 + tone - 0.11 * loose) * (1 + (0.24 - 0.08 * loose) * bundle + (0.20 + 0.04 * loose) * fine)
    haematoxylin = 0.015 + 0.10 * loose + (0.012 + 0.02 * loose) * np.abs(fine)
    # Shrinkage opens clefts between bundles.
    gap = smoothstep(bundle + 0.35 * fine + 0.5 * scene.up(scene.noise(60, "gap"), mid), -1.6, -2.4)
    return haematoxylin * (1 - gap), np.maximum(eosin, 0.06) * (1 - 0.9 * gap)


def _add_glands(stains: tuple[FloatMap, FloatMap], scene: Scene, mid: Raster, fine: FloatMap) -> None:
    """Epithelium, its sleeve of collagen, and lumens, mixed into the stains in place."""
    glands = scene.glands
    if glands.depth.max() < -40:
        return
    haematoxylin, eosin = stains
    depth, wall, vessel = (scene.up(field, mid) for field in (glands.depth, glands.wall, glands.vessel))
    sleeve = smoothstep(depth, -14, -1) * smoothstep(depth, 1, -1)
    eosin += (0.50 * (1 + 0.12 * fine) - eosin) * sleeve * 0.55
    cells = smoothstep(depth, -0.8, 0.8)
    eosin += (0.36 + 0.24 * vessel - eosin) * cells
    haematoxylin += (0.30 - 0.22 * vessel - haematoxylin) * cells
    hole = smoothstep(depth - wall, -0.8, 1.0)
    fill = scene.up(glands.fill, mid) * (1 - vessel)
    eosin += (0.30 * fill * (1 + 0.15 * fine) - eosin) * hole
    haematoxylin += (0.02 * fill - haematoxylin) * hole


def _add_nests(stains: tuple[FloatMap, FloatMap], scene: Scene, mid: Raster, fine: FloatMap) -> None:
    """Cytoplasm of tumour cells, the cleft that shrinkage leaves around nests, and small lumens, in place."""
    if scene.nest.max() < -8:
        return
    haematoxylin, eosin = stains
    nest = scene.up(scene.nest, mid)
    cleft = smoothstep(np.abs(nest + np.float32(2.2)), 3.2, 0.6)
    cleft *= smoothstep(scene.up(scene.noise(26, "cleft"), mid), 0.5, 1.7)
    cells = smoothstep(nest, -0.7, 0.9)
    mottle = scene.layout.noise(mid, 3.2, "cytoplasm")
    eosin += (0.44 * (1 + 0.16 * mottle + 0.05 * fine) - eosin) * cells
    haematoxylin += (0.27 * (1 + 0.25 * mottle) - haematoxylin) * cells
    filled = 1 - np.maximum(0.85 * cleft, smoothstep(scene.up(scene.lumen, mid), -0.8, 0.8))
    eosin *= filled
    haematoxylin *= filled


def _blood(scene: Scene, mid: Raster) -> FloatMap | None:
    """Red cells in the lumens of vessels."""
    glands = scene.glands
    inside = glands.depth - glands.wall
    if not ((inside > 0) & (glands.vessel > 0)).any():
        return None
    cells = smoothstep(scene.layout.noise(mid, 2.4, "blood") + 1.5 * scene.up(glands.fill, mid), 0.4, 1.1)
    cells *= smoothstep(scene.up(inside, mid), 0.5, 3.0) * scene.up(glands.vessel, mid)
    return 0.85 * cells


def _fibres(scene: Scene, mid: Raster) -> tuple[FloatMap, FloatMap]:
    """Fine and bundle texture of collagen that runs in the local direction, in waves."""
    texture = fibre_texture()
    phase = np.random.default_rng((scene.layout.seed, 4)).uniform(0, 500, (FAMILIES, 2))
    wave_x, wave_y = (
        scene.up(15 * scene.noise(75, f"wave{axis}0") + 3.2 * scene.noise(18, f"wave{axis}1"), mid) for axis in "xy"
    )
    x = mid.xs.astype(np.float32)[None, :] + wave_x
    y = mid.ys.astype(np.float32)[:, None] + wave_y
    fine, bundle, power = (np.zeros((mid.rows, mid.cols), np.float32) for _ in range(3))
    for k, weight in enumerate(scene.fibres):
        if weight.max() < 0.02:
            continue
        share = scene.up(weight, mid)
        cos, sin = np.float32(np.cos(fibre_angle(scene.layout, k))), np.float32(np.sin(fibre_angle(scene.layout, k)))
        cells = texture.cells(x * cos + y * sin + np.float32(phase[k, 0]), y * cos - x * sin + np.float32(phase[k, 1]))
        fine += share * texture.fine.ravel()[cells]
        bundle += share * texture.bundle.ravel()[cells]
        power += share * share
    # Mixtures of directions keep the contrast of a single one.
    scale = (1 / np.sqrt(np.maximum(power, 0.05))).astype(np.float32)
    return fine * scale, bundle * scale


def _add_pen(density: FloatMap, layout: Layout, low: Raster, full: Raster) -> None:
    """The pen's stroke lies on the cover glass: its density is added to what is below it."""
    inside = layout.pen(low)
    if inside.max() < -4:
        return
    streaks = 0.62 + 0.12 * layout.noise(low, 55, "ink0") + 0.07 * layout.noise(low, 9, "ink1")
    edge = inside + 3 * layout.noise(low, 12, "ink2")
    ink = smoothstep(edge, -2, 3) * streaks * (1 + 0.35 * smoothstep(np.abs(edge - 6), 7, 0))
    density += resample(ink, low, full)[..., None] * PENS[layout.seed % 2]
