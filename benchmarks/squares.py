"""Squares of tissue on the border of a tumour in real cases, and their full maps, which are kept."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.config import Settings
from wsi_pipeline.feed import read_blocks
from wsi_pipeline.geometry import FieldOfView
from wsi_pipeline.grid import Grid
from wsi_pipeline.inference import Predictor
from wsi_pipeline.inference.adaptive import Rule
from wsi_pipeline.plan import plan_slide
from wsi_pipeline.prediction import cells_per_view
from wsi_pipeline.slides import open_slide
from wsi_pipeline.slides.assemble import assemble_case
from wsi_pipeline.slides.patch_slide import NO_PATCH, PatchSlide
from wsi_pipeline.slides.source import SlideSource

FILLED = 0.8
"""A square is used where at least this part of it has patches."""

TUMOUR = 0.4
"""The square whose part of tumour is nearest to this is taken; of several, the one with the longest border."""

Map = NDArray[np.float32]
"""[rows, cols] of a case's grid, NaN outside the square."""


def border_square(labels: NDArray[np.uint8], side: int) -> tuple[int, int] | None:
    """First row and column, in patches, of the square of a case that lies best on the border of a tumour.

    Args:
        labels: [rows, cols] of patches: 1 IDC, 0 none, 255 no patch.
        side: In patches.

    Returns:
        None where no square is filled well enough and has both kinds of patches.
    """
    found: dict[tuple[int, int], tuple[float, int]] = {}
    for row in range(labels.shape[0] - side + 1):
        for col in range(labels.shape[1] - side + 1):
            part = labels[row : row + side, col : col + side]
            there = part != NO_PATCH
            tumour = float((part == 1).sum() / max(1, there.sum()))
            if there.mean() >= FILLED and 0 < tumour < 1:
                found[row, col] = abs(tumour - TUMOUR), -_border(part)
    return min(found, key=found.__getitem__) if found else None


def _border(labels: NDArray[np.uint8]) -> int:
    """How many neighbours differ in their label."""
    pairs = (labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])
    return sum(int(((a != b) & (a != NO_PATCH) & (b != NO_PATCH)).sum()) for a, b in pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Square:
    """Part of a case."""

    name: str
    source: SlideSource
    grid: Grid
    """Of the whole case; its cells are those of the part."""


def find_squares(data: Path, count: int, side: int, work: Path, view: FieldOfView) -> list[Square]:
    """A square in each of the first cases that have one."""
    squares: list[Square] = []
    for file in sorted(data.glob("*.zip")):
        if len(squares) == count:
            break
        with PatchSlide(file) as case:
            at = border_square(case.labels, side)
        if at is not None:
            squares.append(_square(file, at, side, work, view))
    return squares


def _square(file: Path, at: tuple[int, int], side: int, work: Path, view: FieldOfView) -> Square:
    picture = work / f"{file.stem}.ome.tif"
    if not picture.exists():
        assemble_case(file, work, overwrite=True)
    with open_slide(picture) as slide:
        grid = plan_slide(slide, view, Settings()).grid
    per_view = cells_per_view(grid)
    low = np.array(at) * per_view
    inside = ((grid.cells >= low) & (grid.cells < low + side * per_view)).all(1)
    source = SlideSource(path=str(picture), reader="auto", mpp=None)
    return Square(name=file.stem, source=source, grid=replace(grid, cells=grid.cells[inside]))


def run_map(square: Square, predictor: Predictor, rule: Rule | None) -> tuple[Map, float]:
    """Probabilities of the square by the network, [rows, cols] of the case's grid, and the seconds they took."""
    started, positive = time.perf_counter(), predictor.bundle.positive
    found = np.full(square.grid.shape, np.nan, np.float32)
    blocks = read_blocks(square.source, square.grid, square.grid.blocks(), workers=0)
    for scored in predictor.predict(blocks, rule):
        found[tuple(scored.block.cells.T)] = scored.scores[:, positive]
    return found, time.perf_counter() - started


def full_map(square: Square, predictor: Predictor, file: Path) -> tuple[Map, float]:
    """The same of every cell; kept in `file`."""
    if not file.exists():
        found, seconds = run_map(square, predictor, None)
        np.savez_compressed(file, probability=found, seconds=seconds)
    with np.load(file) as kept:
        return kept["probability"], float(kept["seconds"])
