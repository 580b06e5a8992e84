"""Cases put together again: the patches of each on the grid that they were cut along."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Value = TypeVar("Value", bound=np.generic)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mosaic:
    """Where the patches of one case lie."""

    rows: NDArray[np.intp]
    """[n]: its patches, as places in the arrays it was made from."""
    cells: tuple[NDArray[np.integer], NDArray[np.integer]]
    """(row, col) of each of them, from 0 on."""

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols) of the smallest grid that holds them."""
        rows, cols = self.cells
        return int(rows.max()) + 1, int(cols.max()) + 1

    def lay_out(self, values: NDArray[Value], *, empty: float) -> NDArray[Value]:
        """A picture of its patches.

        Args:
            values: [n, ...], one of each patch.
            empty: Of cells without a patch.

        Returns:
            [rows, cols, ...], dtype of the values.
        """
        picture = np.full((*self.shape, *values.shape[1:]), empty, values.dtype)
        picture[self.cells] = values
        return picture


def mosaics(
    positions: NDArray[np.integer], cases: NDArray[np.str_] | NDArray[np.int64], patch_px: int
) -> Iterator[Mosaic]:
    """The cases in their order, and the patches of each in theirs.

    Args:
        positions: [n, 2], (x, y) of each patch's top-left pixel in its case's image.
        cases: [n].
        patch_px: Side of a patch in the same pixels.
    """
    order = np.argsort(cases, kind="stable")
    changes = np.flatnonzero(cases[order][1:] != cases[order][:-1]) + 1
    for rows in np.split(order, changes) if len(order) else ():
        at = positions[rows] // patch_px
        at = at - at.min(axis=0)
        yield Mosaic(rows=rows, cells=(at[:, 1], at[:, 0]))
