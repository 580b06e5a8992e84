"""From a slide's size and its tissue to the cells of the heatmap and the blocks they are read in. Pure."""

import math
import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import ConfigError, ResolutionError, SlideFormatError
from wsi_pipeline.geometry import REFERENCE_MPP_AT_40X, Box, FieldOfView, Mpp, Scale, SlideInfo
from wsi_pipeline.tissue import TissueMask

UPSAMPLE_TOLERANCE = 1.1
"""A slide up to this factor coarser than the model's resolution counts as the same nominal magnification."""

MAX_BLOCK_SIDE_PX = 4096
"""Bound on the side of a block in pixels of the level it is read from: 50 MB of RGB."""

MAX_BLOCK_CELLS = 64
"""Bound on the side of a block in cells."""

_CELL_FORM = re.compile(r"(?P<px>\d+(?:\.\d+)?)px@(?P<power>\d+(?:\.\d+)?)x|(?P<um>\d+(?:\.\d+)?)um|native")


@dataclass(frozen=True, slots=True)
class CellSpec:
    """Side of a heatmap cell in µm; None makes it as large as the model's field of view (``native``)."""

    size_um: float | None

    @classmethod
    def parse(cls, text: str) -> "CellSpec":
        """Read ``50px@40x``, ``12.5um`` or ``native``.

        Raises:
            ConfigError: where the text has none of these forms or the size is zero.
        """
        match = _CELL_FORM.fullmatch(text.strip())
        if match is None:
            raise ConfigError("cell", f"{text!r} is no cell size", "Write 50px@40x, 12.5um or native.")
        if match["px"]:
            size_um = float(match["px"]) * REFERENCE_MPP_AT_40X * 40 / _positive(float(match["power"]), text)
        elif match["um"]:
            size_um = float(match["um"])
        else:
            return cls(None)
        return cls(_positive(size_um, text))


def _positive(value: float, text: str) -> float:
    if value <= 0:
        raise ConfigError("cell", f"{text!r} has no size", "Write 50px@40x, 12.5um or native.")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Cells that are read together: a rectangle of the cell raster, of which `cells` are wanted."""

    index: tuple[int, int]
    """Row and column of the block in the raster of blocks."""
    rows: tuple[int, int]
    """First cell row, and the first one below."""
    cols: tuple[int, int]
    """First cell column, and the first one to the right."""
    cells: NDArray[np.int32]
    """[n, 2]: (row, col) of each wanted cell, row by row."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The heatmap's cells on one slide, and the field of view around each.

    Cell (row, col) starts at the level-0 pixel ``round(origin + (col, row) * step)``; steps are never summed up.
    """

    mpp: Mpp
    """Resolution of level 0."""
    view: FieldOfView
    """What the network sees, centred on the cell."""
    cell_um: float
    """Side of a cell in µm."""
    extent: Box
    """Part of level 0 that the cells cover: the slide's bounds."""
    block_side: int
    """Cells along one side of a block."""
    cells: NDArray[np.int32]
    """[n, 2]: (row, col) of the cells that belong to the run, row by row."""

    @property
    def origin(self) -> tuple[int, int]:
        """(x, y) of the first cell's corner, level-0 pixels."""
        return self.extent.x, self.extent.y

    @property
    def step(self) -> tuple[float, float]:
        """(x, y) distance between cells, level-0 pixels."""
        return self.cell_um / self.mpp.x, self.cell_um / self.mpp.y

    @property
    def scale(self) -> Scale:
        """Scale of the raster that fields of view are cut from."""
        return Scale.to_mpp(self.mpp, self.view.mpp)

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Rows and columns; the last ones may reach over the edge of the slide."""
        return len(self.row_edges) - 1, len(self.col_edges) - 1

    @cached_property
    def col_edges(self) -> NDArray[np.int64]:
        """[cols + 1]: level-0 x where each column starts; the last entry is the slide's edge."""
        return _edges(self.extent.x, self.extent.width, self.step[0])

    @cached_property
    def row_edges(self) -> NDArray[np.int64]:
        """[rows + 1]: level-0 y where each row starts; the last entry is the slide's edge."""
        return _edges(self.extent.y, self.extent.height, self.step[1])

    def cell_box(self, row: int, col: int) -> Box:
        """Level-0 pixels of a cell, as far as they lie on the slide."""
        x, y = int(self.col_edges[col]), int(self.row_edges[row])
        return Box(x, y, int(self.col_edges[col + 1]) - x, int(self.row_edges[row + 1]) - y)

    @cached_property
    def cell_area_um2(self) -> NDArray[np.float64]:
        """[rows, cols]: area of each cell in µm², as far as it lies on the slide."""
        return np.outer(np.diff(self.row_edges), np.diff(self.col_edges)) * self.mpp.pixel_um2

    def windows(self, cells: NDArray[np.int32]) -> NDArray[np.int64]:
        """[n, 2]: (x, y) of each cell's field of view: its first pixel in the raster at `scale`."""
        centres = (np.asarray(cells)[:, ::-1] + 0.5) * np.array(self.step) + np.array(self.origin)
        # The small shift keeps halves from falling either way on floating-point dust.
        corner = centres / np.array([self.scale.x, self.scale.y]) - self.view.size_px / 2
        first: NDArray[np.int64] = np.floor(corner + 0.5 + 1e-6).astype(np.int64)
        return first

    def block_box(self, cells: NDArray[np.int32]) -> Box:
        """The smallest box of the raster at `scale` that holds the fields of view of `cells`."""
        windows = self.windows(cells)
        (x, y), (right, bottom) = windows.min(axis=0), windows.max(axis=0) + self.view.size_px
        return Box(int(x), int(y), int(right - x), int(bottom - y))

    @cached_property
    def padded_cells(self) -> int:
        """How many cells' fields of view reach over the edge of the slide, where white is put instead."""
        if not len(self.cells):
            return 0
        start = self.windows(self.cells) * np.array([self.scale.x, self.scale.y])
        end = start + self.view.size_px * np.array([self.scale.x, self.scale.y])
        # Half a raster pixel of tolerance: rounding is not padding.
        slack = 0.5 * max(self.scale.x, self.scale.y)
        low = np.array([self.extent.x, self.extent.y]) - slack
        high = np.array([self.extent.right, self.extent.bottom]) + slack
        return int(((start < low) | (end > high)).any(axis=1).sum())

    def cell_mask(self) -> NDArray[np.bool_]:
        """[rows, cols]: True where a cell belongs to the run."""
        mask = np.zeros(self.shape, np.bool_)
        mask[self.cells[:, 0], self.cells[:, 1]] = True
        return mask

    def blocks(self) -> list[Block]:
        """The blocks that hold at least one cell, top to bottom, left to right; every cell is in exactly one."""
        if not len(self.cells):
            return []
        side, (rows, cols) = self.block_side, self.shape
        block_of = self.cells // side
        key = block_of[:, 0].astype(np.int64) * (cols // side + 1) + block_of[:, 1]
        order = np.argsort(key, kind="stable")
        starts = np.flatnonzero(np.diff(key[order], prepend=-1))
        blocks = []
        for members in np.split(self.cells[order], starts[1:]):
            row, col = int(members[0, 0]) // side, int(members[0, 1]) // side
            blocks.append(
                Block(
                    index=(row, col),
                    rows=(row * side, min(rows, (row + 1) * side)),
                    cols=(col * side, min(cols, (col + 1) * side)),
                    cells=members,
                )
            )
        return blocks


def plan_grid(
    info: SlideInfo,
    view: FieldOfView,
    tissue: TissueMask,
    *,
    cell: CellSpec,
    min_tissue: float,
    allow_upsampling: bool = False,
) -> Grid:
    """Lay cells over the slide's bounds and keep those of which at least `min_tissue` is tissue.

    A cell over the edge of the slide is judged by the part that lies on it.

    Args:
        info: The slide; its resolution must be known.
        view: The model's field of view.
        tissue: Where tissue is.
        cell: Size of a cell.
        min_tissue: Fraction of the cell, 0 to 1. A cell without any tissue never belongs.
        allow_upsampling: Accept a slide that is coarser than the model's pixels.

    Raises:
        ResolutionError: where the resolution is missing, or too coarse for the model.
        ConfigError: where a cell is smaller than a pixel.
        SlideFormatError: where the slide is smaller than one cell.
    """
    mpp = info.require_mpp()
    _check_resolution(info, mpp, view, allow_upsampling)
    cell_um = cell.size_um or view.size_um
    step = cell_um / mpp.x, cell_um / mpp.y
    bounds = info.bounds
    if min(step) < 1:
        why = f"a cell of {cell_um:g} µm is smaller than a pixel of {info.path}"
        raise ConfigError("cell", why, "Choose larger cells with --cell.")
    if bounds.width < round(step[0]) and bounds.height < round(step[1]):
        raise SlideFormatError(
            info.path,
            f"its {bounds.size} px are smaller than one cell of {cell_um:g} µm ({step[0]:.0f} x {step[1]:.0f} px)",
            "Check the resolution, or choose smaller cells with --cell.",
        )
    grid = Grid(
        mpp=mpp,
        view=view,
        cell_um=cell_um,
        extent=bounds,
        block_side=_block_side(info, view, mpp, max(step)),
        cells=np.empty((0, 2), np.int32),
    )
    fraction = mask_fraction(tissue.mask, tissue.scale, grid.row_edges, grid.col_edges)
    kept = np.argwhere((fraction >= min_tissue) & (fraction > 0)).astype(np.int32)
    return Grid(mpp=mpp, view=view, cell_um=cell_um, extent=bounds, block_side=grid.block_side, cells=kept)


def _check_resolution(info: SlideInfo, mpp: Mpp, view: FieldOfView, allow_upsampling: bool) -> None:
    coarsest = max(mpp.x, mpp.y)
    if coarsest > view.mpp * UPSAMPLE_TOLERANCE and not allow_upsampling:
        raise ResolutionError(
            info.path,
            f"the slide has {coarsest:g} µm/px, the model needs {view.mpp:g} µm/px",
            "Use a model trained at the slide's resolution, or accept invented detail with --allow-upsampling.",
        )


def _block_side(info: SlideInfo, view: FieldOfView, mpp: Mpp, step: float) -> int:
    """Cells along a block's side, so that a block's pixels stay within `MAX_BLOCK_SIDE_PX` where it is read."""
    scale = Scale.to_mpp(mpp, view.mpp)
    source = info.levels[info.level_for(scale)].scale
    source_px_per_cell = step / min(source.x, scale.x)
    return int(max(1, min(MAX_BLOCK_CELLS, MAX_BLOCK_SIDE_PX // max(1.0, source_px_per_cell))))


def cells_along(length: int, step: float) -> int:
    """How many cells of `step` pixels `length` pixels take. A last sliver of under half a pixel is dropped."""
    return max(1, math.ceil((length - 0.5) / step))


def _edges(origin: int, length: int, step: float) -> NDArray[np.int64]:
    """Where cells start along one axis, closed by the slide's edge."""
    starts = np.floor(origin + np.arange(cells_along(length, step)) * step + 0.5).astype(np.int64)
    return np.append(starts, origin + length)


def mask_fraction(
    mask: NDArray[np.bool_], scale: Scale, row_edges: NDArray[np.int64], col_edges: NDArray[np.int64]
) -> NDArray[np.float64]:
    """[rows, cols]: the fraction of each cell that the mask covers, exact even where cells are smaller than its pixels.

    Args:
        mask: [height, width], on a raster anchored at level 0.
        scale: Level-0 pixels per mask pixel.
        row_edges: [rows + 1], level-0 y.
        col_edges: [cols + 1], level-0 x.
    """
    height, width = mask.shape
    summed = np.zeros((height + 1, width + 1))
    np.cumsum(np.cumsum(mask, axis=0, dtype=np.float64), axis=1, out=summed[1:, 1:])
    y = np.clip(row_edges / scale.y, 0, height)
    x = np.clip(col_edges / scale.x, 0, width)
    corner = _interpolate(_interpolate(summed, y).T, x).T
    covered = np.diff(np.diff(corner, axis=0), axis=1)
    area = np.outer(np.diff(y), np.diff(x))
    # Sums of many terms carry dust of about 1e-9; a cell is not covered because of it.
    return np.where(area > 0, np.round(covered / np.where(area > 0, area, 1), 6), 0.0)


def _interpolate(table: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of `table` at fractional row numbers."""
    low = np.minimum(at.astype(np.int64), len(table) - 2)
    weight = (at - low)[:, None]
    between: NDArray[np.float64] = table[low] * (1 - weight) + table[low + 1] * weight
    return between
