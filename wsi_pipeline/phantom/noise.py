"""Noise that is a function of the place: the same point has the same value whichever tile asks for it.

Everything the phantom draws comes from integer hashes of lattice positions, so no state is carried from tile to
tile and memory does not grow with the slide. Lengths are µm.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

FloatMap = NDArray[np.float32]
Hashes = NDArray[np.uint32]

FAR = 1e4
"""A distance that stands for "nowhere near", µm."""

_SPLINE_STD = 0.2766
"""Standard deviation of cubic-spline noise whose lattice values are uniform in -1..1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Raster:
    """A raster anchored at the slide's corner: pixel i has its centre at ``(i + 0.5) * step``."""

    x: int
    """Index of the first column."""
    y: int
    """Index of the first row."""
    cols: int
    rows: int
    step_x: float
    """µm between columns."""
    step_y: float
    """µm between rows."""

    @classmethod
    def around(cls, low: tuple[float, float], high: tuple[float, float], step: float, margin: float) -> "Raster":
        """The smallest raster with square pixels that covers `low` to `high`, both (x, y) in µm, and `margin` more."""
        x, y = (int(np.floor((at - margin) / step)) for at in low)
        right, bottom = (int(np.ceil((at + margin) / step)) for at in high)
        return cls(x=x, y=y, cols=right - x, rows=bottom - y, step_x=step, step_y=step)

    @property
    def xs(self) -> NDArray[np.float64]:
        """[cols]: x of the columns' centres, µm."""
        return (self.x + np.arange(self.cols, dtype=np.float64) + 0.5) * np.float64(self.step_x)

    @property
    def ys(self) -> NDArray[np.float64]:
        """[rows]: y of the rows' centres, µm."""
        return (self.y + np.arange(self.rows, dtype=np.float64) + 0.5) * np.float64(self.step_y)

    def at(self, field: FloatMap, x: NDArray[np.float64], y: NDArray[np.float64]) -> FloatMap:
        """Value of `field` [rows, cols] at the pixels that hold the points (x, y); beyond the rim, the rim's."""
        col = np.clip(np.floor(x / self.step_x).astype(np.int64) - self.x, 0, self.cols - 1)
        row = np.clip(np.floor(y / self.step_y).astype(np.int64) - self.y, 0, self.rows - 1)
        return field[row, col]


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """Points of a jittered lattice, in the same order whichever area they were asked for."""

    x: NDArray[np.float64]
    """[n]: µm."""
    y: NDArray[np.float64]
    """[n]: µm."""
    key: Hashes
    """[n]: a random number of each point's own."""

    def where(self, kept: NDArray[np.bool_]) -> "Points":
        """The points for which `kept` [n] is True."""
        return Points(x=self.x[kept], y=self.y[kept], key=self.key[kept])

    def draw(self, number: int) -> FloatMap:
        """[n]: the points' random number `number`, uniform in 0..1."""
        return unit(_mix(self.key + np.uint32(number * 7919 + 1)))


def salt(seed: int, name: str) -> int:
    """A number that tells the noise called `name` of one seed from every other."""
    value = np.array([seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF], np.uint32)
    for letter in name.encode():
        value = _mix(value * np.uint32(31) + np.uint32(letter))
    return int(_mix(value[:1] ^ _mix(value[1:]))[0])


def unit(hashes: Hashes) -> FloatMap:
    """Hashes as numbers in 0..1."""
    return (hashes >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)


def spline_noise(raster: Raster, period: float, noise_salt: int) -> FloatMap:
    """Smooth noise of mean 0 and standard deviation 1 without a period.

    Args:
        raster: Where it is wanted.
        period: Distance of the lattice behind it, µm; its blobs are about twice as large.
        noise_salt: Which noise, from `salt`.

    Returns:
        float32 [raster.rows, raster.cols].
    """
    (left, wx), (top, wy) = _spline_weights(raster.xs / period), _spline_weights(raster.ys / period)
    cols, rows = np.arange(left[0], left[-1] + 4), np.arange(top[0], top[-1] + 4)
    lattice = unit(_hash(cols[None, :], rows[:, None], noise_salt)) * np.float32(2) - np.float32(1)
    # Sums of four terms rather than matrix products: the same bits for every raster, and no threads of a BLAS.
    across = np.zeros((len(rows), raster.cols), np.float32)
    noise = np.zeros((raster.rows, raster.cols), np.float32)
    for n in range(4):
        across += lattice[:, left - left[0] + n] * wx[n]
    for n in range(4):
        noise += across[top - top[0] + n] * wy[n][:, None]
    return noise


def jittered_lattice(raster: Raster, spacing: float, jitter: float, lattice_salt: int) -> Points:
    """Points of a hexagonal lattice, each moved by up to `jitter` spacings, that may lie on `raster`."""
    rise = spacing * np.sqrt(3) / 2
    rows = np.arange(np.floor(raster.ys[0] / rise) - 1, np.ceil(raster.ys[-1] / rise) + 2)[:, None]
    cols = np.arange(np.floor(raster.xs[0] / spacing) - 2, np.ceil(raster.xs[-1] / spacing) + 2)[None, :]
    key = _hash(cols, rows, lattice_salt)
    shift_x, shift_y = unit(_mix(key + np.uint32(11))) - 0.5, unit(_mix(key + np.uint32(23))) - 0.5
    x = (cols + 0.5 * (rows % 2) + 2 * jitter * shift_x) * spacing
    y = (rows + 2 * jitter * shift_y) * rise
    return Points(x=x.ravel(), y=y.ravel(), key=key.ravel())


def smoothstep(value: FloatMap, low: float, high: float) -> FloatMap:
    """0 below `low`, 1 above `high`, smooth between; falls where `low` is above `high`."""
    t = np.clip((value - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)
    step: FloatMap = t * t * (3 - 2 * t)
    return step


def turned(raster: Raster, x: float, y: float, angle: float) -> tuple[FloatMap, FloatMap]:
    """Coordinates (u, v) of a raster, µm, around (x, y) and turned by `angle`."""
    dx, dy = (raster.xs - x)[None, :], (raster.ys - y)[:, None]
    u = dx * np.cos(angle) + dy * np.sin(angle)
    v = dy * np.cos(angle) - dx * np.sin(angle)
    return u.astype(np.float32), v.astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class FibreTexture:
    """Periodic textures of fibres that run along the rows' direction, mean 0 and standard deviation 1."""

    fine: FloatMap
    """[across, along]: single fibres, about 1 µm thick."""
    bundle: FloatMap
    """[across, along]: bundles of fibres, about 10 µm thick."""
    step_across: float = 0.25
    """µm between rows."""
    step_along: float = 2.0
    """µm between columns."""

    def cells(self, along: FloatMap, across: FloatMap) -> NDArray[np.int32]:
        """Flat index of the texture's pixel at the coordinates (µm), which wrap round."""
        rows, cols = self.fine.shape
        row = np.floor(across * np.float32(1 / self.step_across)).astype(np.int32) & (rows - 1)
        col = np.floor(along * np.float32(1 / self.step_along)).astype(np.int32) & (cols - 1)
        flat: NDArray[np.int32] = row * cols + col
        return flat


@lru_cache(maxsize=1)
def fibre_texture() -> FibreTexture:
    """The fibre textures, made once: white noise filtered by anisotropic Gaussians in the frequency domain."""
    rows, cols = 4096, 1024
    return FibreTexture(
        fine=_filtered(rows, cols, ((1.4, 12.0, 1.0), (3.5, 26.0, 0.8)), 1),
        bundle=_filtered(rows, cols, ((7.0, 40.0, 1.0), (18.0, 90.0, 0.7)), 2),
    )


@lru_cache(maxsize=1)
def grain_texture() -> NDArray[np.float32]:
    """[1024, 1024]: periodic grain of about two pixels, as of a camera and a stain; standard deviation 1."""
    noise = np.random.default_rng(3).standard_normal((1024, 1024)).astype(np.float32)
    for axis in (0, 1):
        noise = noise + 0.8 * np.roll(noise, 1, axis)
    grain: FloatMap = noise / noise.std()
    return grain


def _filtered(rows: int, cols: int, parts: tuple[tuple[float, float, float], ...], seed: int) -> FloatMap:
    """Sum of Gaussian-filtered noises; each part is (width µm, length µm, weight)."""
    rng = np.random.default_rng(seed)
    across = np.fft.fftfreq(rows, 0.25)[:, None]
    along = np.fft.rfftfreq(cols, 2.0)[None, :]
    total = np.zeros((rows, cols), np.float32)
    for width, length, weight in parts:
        shape = np.exp(-2 * (np.pi / 2.355) ** 2 * ((across * width) ** 2 + (along * length) ** 2)).astype(np.float32)
        part = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((rows, cols), np.float32)) * shape, s=(rows, cols))
        total += weight * part / part.std()
    texture: FloatMap = total / total.std()
    return texture


def _spline_weights(at: NDArray[np.float64]) -> tuple[NDArray[np.int64], FloatMap]:
    """The first of four lattice points [n] that shape each lattice coordinate, and their weights [4, n]."""
    cell = np.floor(at)
    t = at - cell
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3])
    # Each axis carries half of the normalisation.
    return cell.astype(np.int64) - 1, (weights / (6 * np.sqrt(_SPLINE_STD))).astype(np.float32)


def _hash(x: NDArray[np.generic], y: NDArray[np.generic], hash_salt: int) -> Hashes:
    """One random uint32 for each pair of whole numbers (they broadcast), with good mixing of all bits."""
    columns = x.astype(np.int64).astype(np.uint32) * np.uint32(0x9E3779B1)
    rows = y.astype(np.int64).astype(np.uint32)
    return _mix(_mix(columns + np.uint32(hash_salt)) + rows * np.uint32(0x85EBCA6B))


def _mix(hashes: Hashes) -> Hashes:
    """Bijective mixing of 32 bits (multiply and xor-shift, constants of the lowbias32 search)."""
    hashes = hashes ^ (hashes >> np.uint32(16))
    hashes = hashes * np.uint32(0x7FEB352D)
    hashes = hashes ^ (hashes >> np.uint32(15))
    hashes = hashes * np.uint32(0x846CA68B)
    return hashes ^ (hashes >> np.uint32(16))
