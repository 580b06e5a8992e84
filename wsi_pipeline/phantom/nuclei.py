"""Banks of drawn nuclei, stamped onto the phantom's stains."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.phantom.noise import FloatMap, Points, Raster, smoothstep, spline_noise

TURNS = 16
"""How many directions of long nuclei are drawn, over half a turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NucleusKind:
    """How the nuclei of one kind of cell look."""

    name: str
    length_um: tuple[float, float]
    """Shortest and longest."""
    aspect: tuple[float, float]
    """Length by width."""
    ink: tuple[float, float]
    """Haematoxylin of the palest and the darkest."""
    vesicular: float
    """0 for even, dense chromatin; 1 for clear nuclei with a dark membrane."""
    nucleoli: int
    """At most so many."""
    clumps: float
    """Contrast of the chromatin."""
    irregular: float
    """Waviness of the outline as a fraction of the radius."""
    variants: int
    """How many are drawn for each direction."""
    halo: float = 0.0
    """How much the cytoplasm beside the nucleus is cleared."""


TUMOUR = NucleusKind(
    name="tumour", length_um=(8.0, 14.5), aspect=(1.05, 1.6), ink=(0.85, 1.45), vesicular=0.5, nucleoli=2,
    clumps=0.22, irregular=0.07, variants=8,
)  # fmt: skip
EPITHELIUM = NucleusKind(
    name="epithelium", length_um=(7.0, 9.5), aspect=(1.25, 1.8), ink=(0.95, 1.3), vesicular=0.2, nucleoli=1,
    clumps=0.14, irregular=0.03, variants=4,
)  # fmt: skip
SPINDLE = NucleusKind(
    name="spindle", length_um=(9.0, 17.0), aspect=(2.8, 5.5), ink=(0.8, 1.25), vesicular=0.05, nucleoli=0,
    clumps=0.12, irregular=0.06, variants=5,
)  # fmt: skip
LYMPHOCYTE = NucleusKind(
    name="lymphocyte", length_um=(5.8, 7.4), aspect=(1.0, 1.2), ink=(1.25, 1.6), vesicular=0.0, nucleoli=0,
    clumps=0.28, irregular=0.04, variants=3, halo=0.35,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stamp:
    """One nucleus, on a square of odd side."""

    keep: FloatMap
    """How much of what lies below stays, 0..1."""
    ink: FloatMap
    """Haematoxylin to add."""
    clear: FloatMap
    """Factor on eosin."""


@lru_cache(maxsize=16)
def bank(kind: NucleusKind, mpp: float) -> tuple[tuple[Stamp, ...], ...]:
    """Stamps [direction][variant] of a kind at `mpp` µm/px. The same for every seed."""
    rng = np.random.default_rng(list(kind.name.encode()))
    return tuple(
        tuple(_draw(kind, mpp, np.pi * turn / TURNS, rng) for _ in range(kind.variants)) for turn in range(TURNS)
    )


def stamp_nuclei(
    haematoxylin: FloatMap,
    eosin: FloatMap,
    points: Points,
    *,
    kind: NucleusKind,
    corner: tuple[float, float],
    mpp: float,
    angle: NDArray[np.float32] | None = None,
) -> None:
    """Draw nuclei at points onto both stains, in place.

    Args:
        haematoxylin: [rows, cols] concentrations.
        eosin: [rows, cols] concentrations.
        points: Their centres.
        kind: Which cells' nuclei.
        corner: (x, y) of the arrays' corner, µm.
        mpp: µm per pixel of the arrays.
        angle: [n] direction of the long axes, radians; at random without it.
    """
    stamps = bank(kind, mpp)
    turned = points.draw(1) * np.pi if angle is None else angle + (points.draw(1) - 0.5) * 0.35
    turn = np.rint(turned * (TURNS / np.pi)).astype(np.int64) % TURNS
    variant = (points.draw(2) * kind.variants).astype(np.int64)
    col = np.floor((points.x - corner[0]) / mpp).astype(np.int64)
    row = np.floor((points.y - corner[1]) / mpp).astype(np.int64)
    rows, cols = haematoxylin.shape
    for r, c, t, v in zip(row.tolist(), col.tolist(), turn.tolist(), variant.tolist(), strict=True):
        stamp = stamps[t][v]
        half = stamp.ink.shape[0] // 2
        top, left = max(0, r - half), max(0, c - half)
        bottom, right = min(rows, r + half + 1), min(cols, c + half + 1)
        if top >= bottom or left >= right:
            continue
        to = slice(top, bottom), slice(left, right)
        cut = slice(top - r + half, bottom - r + half), slice(left - c + half, right - c + half)
        haematoxylin[to] = haematoxylin[to] * stamp.keep[cut] + stamp.ink[cut]
        eosin[to] *= stamp.clear[cut]


def _draw(kind: NucleusKind, mpp: float, angle: float, rng: np.random.Generator) -> Stamp:
    length = rng.uniform(*kind.length_um)
    width = length / rng.uniform(*kind.aspect)
    half = int(np.ceil((0.62 * length + 1.0) / mpp))
    axis = np.arange(-half, half + 1) * mpp
    u = axis[None, :] * np.cos(angle) + axis[:, None] * np.sin(angle)
    v = axis[:, None] * np.cos(angle) - axis[None, :] * np.sin(angle)
    turn = np.arctan2(v, u)
    waves = sum(rng.normal() * np.sin(k * turn + rng.uniform(0, 6.3)) for k in (2, 3, 4))
    radius = np.hypot(u / (length / 2), v / (width / 2)) / (1 + 0.6 * kind.irregular * waves)
    inside = ((1 - radius) * width / 2).astype(np.float32)
    soft = max(0.35, 0.75 * mpp)
    alpha = smoothstep(inside, -soft, soft)
    return Stamp(
        keep=1 - alpha,
        ink=alpha * _chromatin(kind, inside, (u, v), mpp, rng),
        clear=(1 - 0.3 * alpha) * (1 - kind.halo * smoothstep(inside, -1.4, -0.2) * (1 - alpha)),
    )


def _chromatin(
    kind: NucleusKind,
    inside: FloatMap,
    place: tuple[NDArray[np.float64], NDArray[np.float64]],
    mpp: float,
    rng: np.random.Generator,
) -> FloatMap:
    side = inside.shape[0]
    raster = Raster(x=0, y=0, cols=side, rows=side, step_x=mpp, step_y=mpp)
    ink = 1 + kind.clumps * spline_noise(raster, 1.1, int(rng.integers(2**31)))
    membrane = smoothstep(inside, 1.5, 0.5)
    ink = ink * (1 - kind.vesicular * 0.5 * (1 - membrane)) * (1 + 0.22 * kind.vesicular * membrane)
    for _ in range(int(rng.integers(0, kind.nucleoli + 1))):
        at_u, at_v = rng.normal(0, 0.16, 2) * 2 * float(inside.max())
        spot = np.hypot(place[0] - at_u, place[1] - at_v).astype(np.float32)
        ink = ink + 0.65 * smoothstep(spot, rng.uniform(1.0, 1.5), 0.4)
    chromatin: FloatMap = np.multiply(ink, rng.uniform(*kind.ink)).astype(np.float32)
    return chromatin
