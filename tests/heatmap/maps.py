"""Heatmaps made by the tests, with scores that any test can compute again."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from wsi_pipeline.geometry import Box, FieldOfView, Level, Mpp, Scale, Size, SlideInfo
from wsi_pipeline.grid import Block, CellSpec, Grid, plan_grid
from wsi_pipeline.heatmap import Heatmap
from wsi_pipeline.manifest import Identity
from wsi_pipeline.tissue import TissueMask

CLASSES = ("non-IDC", "IDC")
IDENTITY = Identity(slide="s" * 64, bundle="b" * 64, settings="c" * 64)


def make_grid(rows: int = 150, cols: int = 100, seed: int = 0, fraction: float = 0.5) -> Grid:
    """A grid of 4 x 4 px cells on a made-up slide with an offset, whose tissue is noise in lumps of 10 cells."""
    size, bounds = Size(cols * 4 + 300, rows * 4 + 300), Box(200, 100, cols * 4 - 1, rows * 4 - 2)
    info = SlideInfo(
        slide_id="made-up",
        path="made-up.tif",
        size=size,
        mpp=Mpp(0.25, 0.25),
        mpp_source="file",
        levels=(Level(size=size, scale=Scale(1, 1)),),
        bounds=bounds,
        vendor="none",
        reader="none",
        fingerprint="0",
    )
    lumps = np.random.default_rng(seed).random((size.height // 40 + 1, size.width // 40 + 1)) < fraction
    tissue = TissueMask(mask=lumps, scale=Scale(40, 40))
    view = FieldOfView(size_px=4, mpp=0.25)
    return plan_grid(info, view, tissue, cell=CellSpec(1.0), min_tissue=0.5)


def scores_of(block: Block) -> np.ndarray:
    """A score that any test can compute again."""
    idc = (number_of(block) % 1000 / 999).astype(np.float32)
    return np.stack([1 - idc, idc], axis=1)


def torn_scores_of(block: Block) -> np.ndarray:
    """The same where one cell in 97 could not be read."""
    scores = scores_of(block)
    scores[number_of(block) % 97 == 0] = np.nan
    return scores


def number_of(block: Block) -> np.ndarray:
    return block.cells[:, 0].astype(np.int64) * 1009 + block.cells[:, 1]


Scores = Callable[[Block], np.ndarray]


def expected_map(grid: Grid, scores: Scores = scores_of) -> np.ndarray:
    """[rows, cols]: p(IDC) as it must come out."""
    whole = np.full(grid.shape, np.nan, np.float32)
    for block in grid.blocks():
        whole[block.cells[:, 0], block.cells[:, 1]] = scores(block)[:, 1]
    return whole


def tissue_of(grid: Grid) -> np.ndarray:
    tissue = np.zeros(grid.shape, np.bool_)
    tissue[grid.cells[:, 0], grid.cells[:, 1]] = True
    return tissue


def spread_of(block: Block) -> np.ndarray:
    """A spread that any test can compute again."""
    return (number_of(block) % 501 / 1000).astype(np.float32)


def blurred(probability: np.ndarray) -> np.ndarray:
    """A second stage: half of the cell's own and half of the mean of all known cells of its row."""
    known = ~np.isnan(probability)
    total = np.where(known, probability, 0).sum(1, dtype=np.float64)
    mean = total / np.maximum(known.sum(1), 1)
    return ((probability + mean[:, None]) / 2).astype(np.float32)


def begin(path: Path, grid: Grid, **changes: object) -> Heatmap:
    arguments = {
        "class_names": CLASSES,
        "identity": IDENTITY,
        "provenance": {"threshold": 0.5},
        "name": "made-up",
        "tissue": tissue_of(grid),
    }
    return Heatmap.create(path, grid, **(arguments | changes))


def run(path: Path, grid: Grid, scores: Scores = scores_of, **finish: object) -> Heatmap:
    """Begin or go on, and finish."""
    heatmap = begin(path, grid)
    for block in heatmap.pending():
        heatmap.write(block, scores(block))
    heatmap.finish(**finish)
    return heatmap


def fill_layered(path: Path, grid: Grid, scores: Scores = scores_of, **changes: object) -> Heatmap:
    """The same with a spread, up to the last block."""
    heatmap = begin(path, grid, spread=True, **changes)
    for block in heatmap.pending():
        given = scores(block)
        heatmap.write(block, given, np.where(np.isnan(given[:, 0]), np.float32(np.nan), spread_of(block)))
    return heatmap


def run_layered(path: Path, grid: Grid, scores: Scores = scores_of, **finish: object) -> Heatmap:
    """The same with a second stage, to the end."""
    heatmap = fill_layered(path, grid, scores)
    heatmap.finish(refine=blurred, **finish)
    return heatmap


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
