"""Which cells of a block the network looks at: a coarse lattice first, then more of them where it matters. Pure.

Where the fields of view of neighbouring cells overlap, their probabilities are much alike, and most of a map can be
interpolated. A block's cells are looked at on a lattice four points to a field of view, and along its last row and
column; the squares between the points are halved where their corners differ or come near the threshold (adaptive mesh
refinement, Berger & Oliger 1984). What is not looked at in the end is interpolated, bilinearly in log-odds.

A block knows nothing of its neighbours: its map depends on its own pixels alone, so the order of blocks, the number of
readers and an interruption change nothing, to the last bit.
"""

from dataclasses import dataclass
from math import log2

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.grid import Block
from wsi_pipeline.inference.adaptive_squares import Flags, Floats, Places, Squares

COARSEST_PER_VIEW = 4
"""Points of the first lattice along a field of view."""

MIN_PER_VIEW = 2 * COARSEST_PER_VIEW
"""Cells along a field of view from which on the first lattice leaves any out."""

_EXTREME = 1e-6
"""Probabilities are kept this far from 0 and 1 where logarithms are taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Where a map is refined; the numbers were chosen by ``python -m benchmarks.adaptive``."""

    threshold: float
    """Probability from which a cell is of the positive class."""
    positive: int
    """Column of the positive class."""
    classes: int
    """Columns that are probabilities; the spread, where there is one, follows."""
    per_view: int
    """Cells along a field of view."""
    coarsest: int
    """Cells between points of the first lattice: a power of 2."""
    finest: int
    """Squares of this side are not halved any more; 1 ends in every cell where it matters."""
    margin: float = 1.2
    """A square is refined where the log-odds of its corners come this near the threshold's, times the root of its side
    in fields of view: between them a map strays the farther, as a random walk does."""
    tolerance: float = 0.3
    """And where the probabilities of its corners differ by more than this."""

    @classmethod
    def suited(cls, per_view: int, *, threshold: float, positive: int, classes: int) -> "Rule | None":
        """The rule for a density of cells; None where fields of view overlap so little that nothing can be saved."""
        if per_view < MIN_PER_VIEW:
            return None
        coarsest: int = 2 ** int(log2(per_view / COARSEST_PER_VIEW))
        return cls(
            threshold=threshold,
            positive=positive,
            classes=classes,
            per_view=per_view,
            coarsest=coarsest,
            finest=coarsest // 2,
        )

    def matters(self, corners: NDArray[np.floating], side: int) -> Flags:
        """Which squares to refine.

        Args:
            corners: [n, 4] probabilities of the positive class.
            side: Cells along their sides.
        """
        low, high = corners.min(1), corners.max(1)
        margin = self.margin * np.sqrt(side / self.per_view)
        level = _log_odds(np.array(self.threshold))
        near = (_log_odds(low) - margin < level) & (_log_odds(high) + margin >= level)
        flags: Flags = near | (high - low > self.tolerance)
        return flags


class Refinement:
    """One block on its way: `wanted` names cells, `give` takes what the network says of them, until none is wanted.

    Args:
        block: The block.
        readable: [n], which of its cells have pixels.
        columns: What the network gives a cell: classes, and the spread where there is one.
        rule: Where to refine.
    """

    def __init__(self, block: Block, readable: Flags, columns: int, rule: Rule) -> None:
        self._rule, self._side = rule, rule.coarsest
        self._index = _raster(block, readable)
        self._nearest = _nearest(self._index)
        self._values = np.full((len(block.cells), columns), np.nan, np.float32)
        self._asked = np.zeros(len(block.cells), np.bool_)
        self._squares = Squares(self._index.shape, self._side)
        self._leaves: list[tuple[Squares, Flags]] = []
        self._active = self._squares.holding(self._index >= 0)
        self.wanted: Places = self._new()
        """Cells to look at now, by their place in ``block.cells``."""

    @property
    def evaluated(self) -> Flags:
        """[n]: which cells were looked at so far."""
        return self._asked

    def give(self, values: NDArray[np.float32]) -> None:
        """What the network says of the cells of `wanted`, [len(wanted), columns]; names the next ones."""
        self._values[self.wanted] = values
        self.wanted = self.wanted[:0]
        while self._active.any() and not len(self.wanted):
            refined = self._refined()
            self._leaves.append((self._squares, self._active & ~refined))
            self._active = refined
            if refined.any():
                self._halve()

    def columns(self) -> NDArray[np.float32]:
        """[n, columns] of all cells, once none is wanted: as given, else interpolated, NaN where not readable."""
        out = self._values.copy()
        for squares, leaf in self._leaves:
            self._interpolate(out, squares, leaf)
        return out

    def _refined(self) -> Flags:
        """Of the active squares, those to be halved."""
        refined = np.zeros_like(self._active)
        if self._side > self._rule.finest:
            corners = self._values[:, self._rule.positive][self._squares.corners(self._nearest, self._active)]
            refined[self._active] = self._rule.matters(corners.astype(np.float64), self._side)
        return refined

    def _halve(self) -> None:
        """Go on with the parts of the active squares, at half the side."""
        self._side //= 2
        finer = Squares(self._index.shape, self._side)
        self._active = finer.inside(self._squares, self._active) & finer.holding(self._index >= 0)
        self._squares = finer
        self.wanted = self._new()

    def _new(self) -> Places:
        """The cells at corners of active squares that were not looked at yet; from here on they count as if."""
        wanted = np.unique(self._squares.corners(self._nearest, self._active))
        wanted = wanted[~self._asked[wanted]]
        self._asked[wanted] = True
        return wanted

    def _interpolate(self, out: NDArray[np.float32], squares: Squares, leaf: Flags) -> None:
        """Fill the cells of some squares that were not looked at."""
        row, col = np.nonzero((self._index >= 0) & squares.covered(leaf))
        cells = self._index[row, col]
        there = ~self._asked[cells]
        row, col, cells = row[there], col[there], cells[there]
        if not len(cells):
            return
        corners, weights = squares.weights(self._nearest, row, col)
        classes = self._rule.classes
        given = self._values[corners].astype(np.float64)
        logs = (weights[..., None] * _logs(given[..., :classes])).sum(1)
        shares = np.exp(logs - logs.max(1, keepdims=True))
        out[cells, :classes] = shares / shares.sum(1, keepdims=True)
        out[cells, classes:] = (weights[..., None] * given[..., classes:]).sum(1)


def _raster(block: Block, readable: Flags) -> Places:
    """[rows, cols] of the block: each readable cell's place in ``block.cells``, -1 elsewhere."""
    index = np.full((block.rows[1] - block.rows[0], block.cols[1] - block.cols[0]), -1, np.int64)
    row, col = (block.cells - np.array([block.rows[0], block.cols[0]])).T
    index[row, col] = np.where(readable, np.arange(len(block.cells)), -1)
    return index


def _nearest(index: Places) -> Places:
    """For each place of a raster the cell there, else the nearest one; -1 where there are none at all."""
    if (index >= 0).all() or (index < 0).all():
        return index
    from scipy.ndimage import distance_transform_edt

    row, col = distance_transform_edt(index < 0, return_distances=False, return_indices=True)
    nearest: Places = index[row, col]
    return nearest


def _log_odds(probability: NDArray[np.floating]) -> Floats:
    odds: Floats = _logs(probability) - _logs(1 - probability)
    return odds


def _logs(probability: NDArray[np.floating]) -> Floats:
    logs: Floats = np.log(np.clip(probability, _EXTREME, 1.0))
    return logs
