"""Which patches an epoch shows, in which order and cut where. Pure numpy: index arrays in, index arrays out.

A whole case is a mosaic: where a patch has its three neighbours to the right and below, a window may begin at any
pixel of it and straddle all four. Such windows are what a dense heatmap is made of. Their label is the area-weighted
mean of the four.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.datasets.base import Sample
from wsi_pipeline.geometry import Size

Indices = NDArray[np.int64]
WHOLE = 0.2
"""A case counts as whole where at least this share of its patches has the three neighbours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Windows to show, row by row."""

    rows: Indices
    """[n]: rows of the pool."""
    offset: Indices
    """[n, 2]: (x, y) in px, where in the patch the window begins; it may go on in the patch's neighbours."""

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, index: slice | Indices) -> "Draw":
        """Some of the rows."""
        return Draw(rows=self.rows[index], offset=self.offset[index])


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Patches that training draws from; row n of each array is one patch."""

    labels: Indices
    """[n]."""
    cases: Indices
    """[n]: number of the patch's case."""
    neighbours: Indices
    """[n, 4]: the patch itself, right, below, below right; -1 where there is none in the pool."""
    size: Size
    """Of a patch, px."""
    classes: int

    @classmethod
    def of(cls, samples: Sequence[Sample], *, size: Size, classes: int) -> Self:
        """Patches with their neighbours at one patch's distance in the same case."""
        at = {(s.case or s.group, *s.position): n for n, s in enumerate(samples) if s.position is not None}
        steps = ((0, 0), (size.width, 0), (0, size.height), (size.width, size.height))
        neighbours = np.full((len(samples), 4), -1, np.int64)
        for n, sample in enumerate(samples):
            neighbours[n, 0] = n
            if sample.position is not None:
                x, y = sample.position
                neighbours[n] = [at.get((sample.case or sample.group, x + dx, y + dy), -1) for dx, dy in steps]
        return cls(
            labels=np.array([sample.label for sample in samples], np.int64),
            cases=np.unique([sample.group for sample in samples], return_inverse=True)[1].astype(np.int64),
            neighbours=neighbours,
            size=size,
            classes=classes,
        )

    def targets(self, draw: Draw) -> NDArray[np.float32]:
        """Class shares [n, classes] of windows, area-weighted over the patches they straddle."""
        fx, fy = (draw.offset / (self.size.width, self.size.height)).T
        inside = self.neighbours[draw.rows, 3] >= 0
        fx, fy = np.where(inside, fx, 0), np.where(inside, fy, 0)
        areas = np.stack([(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy], axis=1)
        shares = np.zeros((len(draw), self.classes), np.float32)
        for quarter in range(4):
            labels = self.labels[self.neighbours[draw.rows, quarter]]
            np.add.at(shares, (np.arange(len(draw)), labels), areas[:, quarter].astype(np.float32))
        return shares


def draw_epoch(
    pool: Pool,
    rows: Indices,
    *,
    offsets: float,
    per_case: int | None,
    crop: Size,
    random_crop: bool,
    seed: Sequence[int],
) -> Draw:
    """What one epoch shows, in random order. Its length is the same for every seed.

    Args:
        pool: The patches.
        rows: Those that train.
        offsets: Share of a whole case's patches that are replaced by windows across four patches.
        per_case: Most patches of one case; None for all.
        crop: Of the windows, px; smaller than the patch where patches are no squares.
        random_crop: Crop anywhere instead of in the centre.
        seed: Of the draw: the training's and the epoch.
    """
    rng = np.random.default_rng(seed)
    whole, across = rows, rows[:0]
    if offsets or per_case:
        parts = [_of_case(rng, members, origins, offsets, per_case) for members, origins in _cases(pool, rows)]
        whole, across = (np.concatenate(part) for part in zip(*parts, strict=True))
    crops = _crops(len(whole), pool.size, crop, rng if random_crop else None)
    order = rng.permutation(len(whole) + len(across))
    offset = np.concatenate([crops, _below(rng, len(across), (pool.size.width, pool.size.height))])
    return Draw(rows=np.concatenate([whole, across])[order], offset=offset[order])


def _cases(pool: Pool, rows: Indices) -> Iterator[tuple[Indices, Indices]]:
    """Of each case its rows, and those of them where a window across four patches may begin."""
    trains = np.zeros(len(pool.labels) + 1, bool)  # the last one answers for -1, no neighbour
    trains[rows] = True
    begins: NDArray[np.bool_] = np.all(trains[pool.neighbours[rows]], axis=1)
    order = np.argsort(pool.cases[rows], kind="stable")
    starts = np.flatnonzero(np.diff(pool.cases[rows][order]))
    for members in np.split(order, starts + 1):
        yield rows[members], rows[members[begins[members]]]


def _of_case(
    rng: np.random.Generator, members: Indices, origins: Indices, offsets: float, per_case: int | None
) -> tuple[Indices, Indices]:
    shown = min(len(members), per_case or len(members))
    windows = round(shown * offsets) if len(origins) >= max(1, WHOLE * len(members)) else 0
    return rng.choice(members, shown - windows, replace=False), rng.choice(origins, windows) if windows else origins[:0]


def shown_of_classes(pool: Pool, rows: Indices, per_case: int | None) -> NDArray[np.float64]:
    """[classes]: patches of each class that an epoch shows, on average over epochs.

    A window across patches counts as one of its case like any other.

    Args:
        pool: The patches.
        rows: Those that train.
        per_case: Most patches of one case; None for all.
    """
    of_case = np.bincount(pool.cases[rows])[pool.cases[rows]]
    shares = np.minimum(1, (per_case or of_case) / of_case)
    return np.asarray(np.bincount(pool.labels[rows], weights=shares, minlength=pool.classes), np.float64)


def every(rows: Indices, pool: Pool, crop: Size) -> Draw:
    """Each of some patches once, in order, cropped in the centre: for validation."""
    return Draw(rows=rows, offset=_crops(len(rows), pool.size, crop, None))


def truncate(labels: Indices, indices: Indices, seed: int) -> Indices:
    """As many of each class as there are of the rarest, drawn at random, in the order of `indices`."""
    rng = np.random.default_rng((seed, 1))
    of = labels[indices]
    fewest = min(np.count_nonzero(of == label) for label in np.unique(of))
    kept = [rng.choice(np.flatnonzero(of == label), fewest, replace=False) for label in np.unique(of)]
    order: Indices = np.sort(np.concatenate(kept))
    return np.asarray(indices[order], np.int64)


def _crops(count: int, size: Size, crop: Size, rng: np.random.Generator | None) -> Indices:
    room = (size.width - crop.width, size.height - crop.height)
    if rng is None or room == (0, 0):
        return np.tile(np.array([side // 2 for side in room], np.int64), (count, 1))
    return _below(rng, count, (room[0] + 1, room[1] + 1))


def _below(rng: np.random.Generator, count: int, ends: tuple[int, int]) -> Indices:
    columns: Indices = np.stack([rng.integers(0, end, count) for end in ends], axis=1)
    return columns
