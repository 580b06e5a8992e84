"""Which nuclei lie where around a block."""

from dataclasses import dataclass

import numpy as np

from wsi_pipeline.phantom.noise import FloatMap, Points, jittered_lattice, salt, smoothstep
from wsi_pipeline.phantom.nuclei import EPITHELIUM, LYMPHOCYTE, SPINDLE, TUMOUR, NucleusKind
from wsi_pipeline.phantom.scene import FAMILIES, Scene, fibre_angle


@dataclass(frozen=True, slots=True, kw_only=True)
class Sowing:
    """The nuclei of one kind around a block."""

    kind: NucleusKind
    points: Points
    angle: FloatMap | None = None
    """[n]: direction of their long axes, radians; None for any."""


def sow_nuclei(scene: Scene) -> tuple[Sowing, ...]:
    """Where nuclei of each kind lie around a block, in the order in which they are drawn."""
    solid = np.minimum.reduce([scene.specimen - 9, -scene.fat + 1, -2 - scene.lumen])
    sowings = [_stroma(scene, solid)]
    if scene.nest.max() > 0:
        cells = _lattice(scene, "tumour", 10.6, 0.3)
        kept = (_at(scene, scene.nest, cells) > 2.2) & (_at(scene, solid, cells) > 0) & (cells.draw(5) < 0.95)
        sowings.append(Sowing(kind=TUMOUR, points=cells.where(kept)))
    if scene.glands.depth.max() > 0:
        sowings.append(_epithelium(scene))
    immune = _lattice(scene, "immune", 7.6, 0.3)
    free = (_at(scene, solid, immune) > 0) & (_at(scene, np.maximum(scene.glands.depth, scene.nest), immune) < -3)
    kept = free & (immune.draw(5) < _at(scene, scene.immune, immune))
    sowings.append(Sowing(kind=LYMPHOCYTE, points=immune.where(kept)))
    return tuple(sowings)


def _stroma(scene: Scene, solid: FloatMap) -> Sowing:
    """Fibroblasts along the fibres, crowded beside tumour and in lobules."""
    cells = _lattice(scene, "spindle", 17.0, 0.42)
    density = 0.28 + 0.34 * smoothstep(_at(scene, scene.tumour, cells), -60, 20)
    density = density + 0.3 * (_at(scene, scene.glands.lobule, cells) > 0)
    outside = _at(scene, np.maximum(scene.glands.depth, scene.nest), cells) < -2
    cells = cells.where((_at(scene, solid, cells) > 0) & outside & (cells.draw(5) < density))
    family = np.argmax([_at(scene, weight, cells) for weight in scene.fibres], axis=0)
    angles = np.array([fibre_angle(scene.layout, k) for k in range(FAMILIES)], np.float32)
    return Sowing(kind=SPINDLE, points=cells, angle=angles[family])


def _epithelium(scene: Scene) -> Sowing:
    """Epithelium of glands, upright on the outline; the few cells of vessels' walls lie along it."""
    glands = scene.glands
    cells = _lattice(scene, "epithelium", 6.3, 0.26)
    depth, wall = _at(scene, glands.depth, cells), _at(scene, glands.wall, cells)
    kept = (depth > 2.2) & (depth < wall - 1.6) & (_at(scene, scene.specimen, cells) > 6)
    vessel = _at(scene, glands.vessel, cells) > 0
    kept &= ~vessel | (cells.draw(5) < 0.3)
    cells, vessel = cells.where(kept), vessel[kept]
    slope_y, slope_x = np.array(np.gradient(glands.depth), np.float32)
    outward = np.arctan2(_at(scene, slope_y, cells), _at(scene, slope_x, cells))
    return Sowing(kind=EPITHELIUM, points=cells, angle=(outward + vessel * (np.pi / 2)).astype(np.float32))


def _lattice(scene: Scene, name: str, spacing: float, jitter: float) -> Points:
    return jittered_lattice(scene.raster, spacing, jitter, salt(scene.layout.seed, name))


def _at(scene: Scene, field: FloatMap, points: Points) -> FloatMap:
    return scene.raster.at(field, points.x, points.y)
