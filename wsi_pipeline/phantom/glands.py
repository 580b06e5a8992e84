"""Ducts, lobules with their acini, and vessels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.phantom.noise import FAR, FloatMap, Points, Raster, turned


@dataclass(frozen=True, slots=True, kw_only=True)
class Gland:
    """One ring of epithelium around a lumen (a duct, or an acinus of a lobule), or a vessel."""

    x: float
    y: float
    radius: float
    """Mean outer radius, µm."""
    wall: float
    """Thickness of the epithelium or of the vessel's wall, µm."""
    aspect: float
    angle: float
    phase: float
    """Sets the shape of the outline, radians."""
    roughness: float
    """Amplitude of the outline's waves as a fraction of the radius."""
    fill: float
    """What the lumen holds: 0 nothing, up to 1 secretion."""
    vessel: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Lobule:
    """A terminal duct lobular unit's pale, loose stroma, in which its acini lie."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Glands:
    """All glands of a slide."""

    glands: tuple[Gland, ...]
    lobules: tuple[Lobule, ...]
    gland_reach: NDArray[np.float64]
    """[n, 3] of the glands: x, y and how far they can reach, µm."""
    lobule_reach: NDArray[np.float64]
    """[n, 3] of the lobules."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GlandFields:
    """The glands on a raster; each array is [rows, cols]."""

    depth: FloatMap
    """Distance inside the nearest outline, µm; negative outside."""
    wall: FloatMap
    """Thickness of that gland's wall, µm."""
    fill: FloatMap
    """What its lumen holds."""
    vessel: FloatMap
    """1 where it is a vessel."""
    lobule: FloatMap
    """Distance inside the nearest lobule, µm; negative outside."""


def place_glands(sites: Points, room: FloatMap, unit: float) -> Glands:
    """Put a lobule, a duct or vessels at each site.

    Args:
        sites: Where glands may be.
        room: [n] distance of each site from tumour and glass, µm.
        unit: Factor on all lengths, 1 but on tiny slides.
    """
    glands: list[Gland] = []
    lobules: list[Lobule] = []
    for n, (x, y, key, free) in enumerate(zip(sites.x, sites.y, sites.key, room.tolist(), strict=True)):
        rng = np.random.default_rng(int(key))
        if n % 5 in (0, 3) and free > 135 * unit:
            lobules.append(Lobule(x=x, y=y, radius=min(unit * rng.uniform(120, 180), 0.85 * free)))
            glands += _acini(lobules[-1], rng)
        elif n % 5 == 4:
            glands += [_vessel(x + dx, y + dy, unit, rng) for dx, dy in ((0, 0), (70 * unit, 25 * unit))]
        else:
            glands.append(_duct(x, y, min(0.75 * free, 110 * unit), rng))
    gland_reach = [(g.x, g.y, g.radius * g.aspect * (1 + 2 * g.roughness) + 30) for g in glands]
    lobule_reach = [(b.x, b.y, b.radius + 80) for b in lobules]
    return Glands(
        glands=tuple(glands), lobules=tuple(lobules),
        gland_reach=np.array(gland_reach).reshape(-1, 3), lobule_reach=np.array(lobule_reach).reshape(-1, 3),
    )  # fmt: skip


def gland_fields(all_glands: Glands, raster: Raster) -> GlandFields:
    """The glands and lobules near a raster."""
    shape = raster.rows, raster.cols
    fields = GlandFields(
        depth=np.full(shape, -FAR, np.float32),
        wall=np.zeros(shape, np.float32),
        fill=np.zeros(shape, np.float32),
        vessel=np.zeros(shape, np.float32),
        lobule=np.full(shape, -FAR, np.float32),
    )
    glands, lobules = all_glands.glands, all_glands.lobules
    for n in _near(raster, all_glands.gland_reach):
        part, rows, cols = _window(raster, *all_glands.gland_reach[n])
        depth = _gland_depth(glands[n], part)
        nearer = depth > fields.depth[rows, cols]
        values = (depth, glands[n].wall, glands[n].fill, glands[n].vessel)
        for array, value in zip((fields.depth, fields.wall, fields.fill, fields.vessel), values, strict=True):
            array[rows, cols] = np.where(nearer, np.float32(value), array[rows, cols])
    for n in _near(raster, all_glands.lobule_reach):
        part, rows, cols = _window(raster, *all_glands.lobule_reach[n])
        u, v = turned(part, lobules[n].x, lobules[n].y, 0.0)
        depth = np.float32(lobules[n].radius) - np.hypot(u, v)
        fields.lobule[rows, cols] = np.maximum(fields.lobule[rows, cols], depth)
    return fields


def _gland_depth(gland: Gland, raster: Raster) -> FloatMap:
    u, v = turned(raster, gland.x, gland.y, gland.angle)
    u, v = u * np.float32(gland.aspect**-0.5), v * np.float32(gland.aspect**0.5)
    turn = np.arctan2(v, u)
    waves = np.sum([np.sin(k * turn + k * k * gland.phase) / k for k in (2, 3, 5, 7)], axis=0, dtype=np.float32)
    rim = np.float32(gland.radius) * (1 + np.float32(gland.roughness) * waves)
    depth: FloatMap = (rim - np.hypot(u, v)) * np.float32(gland.aspect**-0.25)
    return depth


def _near(raster: Raster, reach: NDArray[np.float64]) -> NDArray[np.int64]:
    x, y, far = reach.T
    left, right, top, bottom = raster.xs[0], raster.xs[-1], raster.ys[0], raster.ys[-1]
    return np.flatnonzero((x + far > left) & (x - far < right) & (y + far > top) & (y - far < bottom))


def _window(raster: Raster, x: float, y: float, far: float) -> tuple[Raster, slice, slice]:
    """The part of a raster within `far` of a point, and where it lies in it."""
    left, right = np.searchsorted(raster.xs, (x - far, x + far))
    top, bottom = np.searchsorted(raster.ys, (y - far, y + far))
    part = Raster(
        x=raster.x + int(left), y=raster.y + int(top), cols=int(right - left), rows=int(bottom - top),
        step_x=raster.step_x, step_y=raster.step_y,
    )  # fmt: skip
    return part, slice(int(top), int(bottom)), slice(int(left), int(right))


def _duct(x: float, y: float, reach: float, rng: np.random.Generator) -> Gland:
    """A duct of which nothing lies further than about `reach` from its middle."""
    radius = reach * rng.uniform(0.45, 0.95)
    longest = min(2.6, (reach / radius) ** 2 + 0.2)
    return Gland(
        x=x, y=y, radius=radius, wall=min(rng.uniform(14, 20), 0.5 * radius), aspect=rng.uniform(1.0, longest),
        angle=rng.uniform(0, np.pi), phase=rng.uniform(0, 6.3), roughness=rng.uniform(0.06, 0.14),
        fill=float(rng.uniform(0, 1) * (rng.uniform() < 0.5)),
    )  # fmt: skip


def _vessel(x: float, y: float, unit: float, rng: np.random.Generator) -> Gland:
    radius = max(9.0, unit * rng.uniform(16, 42))
    return Gland(
        x=x, y=y, radius=radius, wall=radius * rng.uniform(0.25, 0.5), aspect=rng.uniform(1.0, 1.8),
        angle=rng.uniform(0, np.pi), phase=rng.uniform(0, 6.3), roughness=0.05, fill=rng.uniform(0.3, 1),
        vessel=True,
    )  # fmt: skip


def _acini(lobule: Lobule, rng: np.random.Generator) -> list[Gland]:
    """Acini inside a lobule, by dart throwing so that they do not run into each other."""
    acini: list[Gland] = []
    for _ in range(140):
        radius, turn = rng.uniform(13, 24), rng.uniform(0, 2 * np.pi)
        away = (lobule.radius - 0.6 * radius) * rng.uniform() ** 0.5
        x, y = lobule.x + away * np.cos(turn), lobule.y + away * np.sin(turn)
        if any(np.hypot(x - a.x, y - a.y) < 1.12 * (radius + a.radius) for a in acini):
            continue
        acini.append(
            Gland(
                x=x, y=y, radius=radius, wall=rng.uniform(0.5, 0.72) * radius, aspect=rng.uniform(1.0, 1.9),
                angle=rng.uniform(0, np.pi), phase=rng.uniform(0, 6.3), roughness=rng.uniform(0.05, 0.12),
                fill=rng.uniform(0, 0.5),
            )
        )  # fmt: skip
    return acini
