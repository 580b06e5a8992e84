"""Where things are on the phantom: the specimen, the tumour, fat, glands and the pen, as functions of the place.

All fields are signed distances in µm, or nearly so: positive inside. They are evaluated on any raster, so the true
masks agree at every scale.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from wsi_pipeline.phantom.glands import GlandFields, Glands, gland_fields, place_glands
from wsi_pipeline.phantom.noise import (
    FAR,
    FloatMap,
    Raster,
    fibre_texture,
    jittered_lattice,
    salt,
    spline_noise,
    turned,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mass:
    """One field of invasive tumour: an ellipse before its outline is roughened."""

    x: float
    y: float
    radius: float
    """Geometric mean of the half axes, µm."""
    aspect: float
    """Long by short axis, at least 1."""
    angle: float
    """Of the long axis, radians."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The phantom's large structures, from its size and seed alone."""

    width: float
    """µm."""
    height: float
    """µm."""
    seed: int

    @property
    def short_side(self) -> float:
        """Of the slide, µm."""
        return min(self.width, self.height)

    def noise(self, raster: Raster, period: float, name: str) -> FloatMap:
        """The noise called `name` of this seed."""
        return spline_noise(raster, period, salt(self.seed, name))

    def outline(self, raster: Raster) -> FloatMap:
        """Distance inside the specimen's coarse outline, before it is roughened, µm."""
        half_x, half_y = 0.415 * self.width, 0.405 * self.height
        x = (np.abs(raster.xs / self.width - 0.5) * self.width / half_x).astype(np.float32)[None, :]
        y = (np.abs(raster.ys / self.height - 0.5) * self.height / half_y).astype(np.float32)[:, None]
        power = np.float32(2.4)
        radius = (x**power + y**power) ** (1 / power)
        side = self.short_side
        wobble = 0.03 * self.noise(raster, 0.3 * side, "outline0") + 0.014 * self.noise(raster, 0.11 * side, "outline1")
        outline = (1 - radius) * np.float32(min(half_x, half_y)) + np.float32(side) * wobble
        return outline.astype(np.float32, copy=False)

    def specimen(self, raster: Raster) -> FloatMap:
        """Distance inside the specimen, µm: positive is tissue, negative is glass."""
        side = self.short_side
        inside = self.outline(raster)
        for period, amplitude, name in ((220.0, 16.0, "edge220"), (60.0, 6.0, "edge60"), (14.0, 2.2, "edge14")):
            inside = inside + np.float32(min(amplitude, 0.02 * side)) * self.noise(raster, period, name)
        x = np.minimum(raster.xs, self.width - raster.xs).astype(np.float32)[None, :]
        y = np.minimum(raster.ys, self.height - raster.ys).astype(np.float32)[:, None]
        return np.minimum(inside, np.minimum(x, y) - np.float32(0.02 * side))

    @cached_property
    def masses(self) -> tuple[Mass, ...]:
        """The tumour's fields: one main one, and more on large slides."""
        rng = np.random.default_rng((self.seed, 1))
        main = float(np.clip(0.27 * self.short_side, 60, 3000))
        area_mm2 = self.width * self.height * 1e-6
        count = 1 + min(14, int(area_mm2 / 30))
        masses = []
        for n in range(count):
            spread = 0.09 if n == 0 else 0.3
            masses.append(
                Mass(
                    x=self.width * (0.5 + rng.uniform(-spread, spread)),
                    y=self.height * (0.5 + rng.uniform(-spread, spread)),
                    radius=main if n == 0 else main * rng.uniform(0.15, 0.6),
                    aspect=rng.uniform(1.1, 1.6),
                    angle=rng.uniform(0, np.pi),
                )
            )
        return tuple(masses)

    def tumour(self, raster: Raster) -> FloatMap:
        """Distance inside the fields of invasive tumour, µm: nests, cords and the stroma between them.

        This is what a pathologist outlines, and what the Kaggle patches are labelled by.
        """
        inside: FloatMap = np.full((raster.rows, raster.cols), -FAR, np.float32)
        for mass in self.masses:
            long, short = mass.radius * mass.aspect**0.5, mass.radius / mass.aspect**0.5
            u, v = turned(raster, mass.x, mass.y, mass.angle)
            distance = np.float32(short) * (1 - np.hypot(u / np.float32(long), v / np.float32(short)))
            np.maximum(inside, distance, out=inside)
        main = self.masses[0].radius
        for share, limit, name in ((0.55, 900.0, "mass0"), (0.22, 260.0, "mass1"), (0.09, 80.0, "mass2")):
            period = min(share * main, limit)
            inside += np.float32(0.22 * period) * self.noise(raster, period, name)
        # A rim of normal tissue stays between tumour and glass.
        np.minimum(inside, self.specimen(raster) - np.float32(0.03 * self.short_side), out=inside)
        return inside

    def fat(self, raster: Raster, tumour: FloatMap) -> FloatMap:
        """How fatty the tissue is: adipocytes lie where this is positive."""
        unit = min(1.0, self.short_side / 1800)
        wide = self.noise(raster, 420 * unit, "fat0") + 0.5 * self.noise(raster, 170 * unit, "fat1")
        rim = np.float32(1) - np.clip(self.outline(raster) / np.float32(0.22 * self.short_side), 0, 1)
        septa = np.abs(self.noise(raster, 300 * unit, "septa"))
        fat = 0.55 * wide + 1.5 * rim - 0.62 + 0.25 * self.noise(raster, 45, "fat2")
        fat = np.minimum(fat, (septa - np.float32(0.11)) * 6)
        reach = np.clip((tumour + np.float32(90 * unit)) / np.float32(140 * unit), 0, 1)
        fatty: FloatMap = fat - reach * np.float32(1.35)
        return fatty

    @cached_property
    def _coarse(self) -> tuple[Raster, FloatMap, FloatMap, FloatMap]:
        """A raster of the whole slide with its specimen, tumour and fat, to place glands by."""
        step = max(16.0, self.short_side / 400)
        raster = Raster.around((0, 0), (self.width, self.height), step, 0)
        tumour = self.tumour(raster)
        return raster, self.specimen(raster), tumour, self.fat(raster, tumour)

    @cached_property
    def glands(self) -> Glands:
        """All ducts, acini, vessels and lobules."""
        raster, specimen, tumour, fat = self._coarse
        unit = float(np.clip(self.short_side / 1800, 0.25, 1))
        sites = jittered_lattice(raster, 340 * unit, 0.22, salt(self.seed, "glands"))
        room = np.minimum(raster.at(specimen, sites.x, sites.y), -raster.at(tumour, sites.x, sites.y))
        kept = (room > 105 * unit) & (raster.at(fat, sites.x, sites.y) < 0.9)
        sites, room = sites.where(kept), room[kept]
        return place_glands(sites, room, unit)

    def prepare(self) -> None:
        """Work out now what is otherwise worked out at first use: threads that share a layout must not race for it."""
        _ = self.masses, self.glands
        fibre_texture()

    def gland_fields(self, raster: Raster) -> GlandFields:
        """The glands and lobules near a raster, their outlines roughened."""
        fields = gland_fields(self.glands, raster)
        fields.lobule[...] += 22 * self.noise(raster, 60, "lobule")
        fields.depth[...] += np.float32(1.2) * self.noise(raster, 14, "gland")
        return fields

    def pen(self, raster: Raster) -> FloatMap:
        """Distance inside the stroke of a pen that follows part of the specimen's edge, µm."""
        side = self.short_side
        outward = -self.outline(raster) - np.float32(0.028 * side)
        half_width = np.float32(np.clip(0.022 * side, 6, 450))
        stroke = half_width - np.abs(outward + 0.006 * np.float32(side) * self.noise(raster, 0.15 * side, "pen"))
        start = float(np.random.default_rng((self.seed, 2)).uniform(0, 2 * np.pi))
        x = ((raster.xs - self.width / 2) / self.width)[None, :]
        y = ((raster.ys - self.height / 2) / self.height)[:, None]
        turn = np.abs((np.arctan2(y, x) - start + np.pi) % (2 * np.pi) - np.pi)
        ends = np.float32(0.4 * side) * (np.float32(0.62) - turn.astype(np.float32))
        inside: FloatMap = np.minimum(stroke, ends)
        return inside
