"""From the probability map to regions with their outlines and measurements. Pure: arrays in, objects out."""

from dataclasses import dataclass
from uuid import NAMESPACE_OID, uuid5

import numpy as np
from numpy.typing import NDArray
from shapely import Polygon

from wsi_pipeline.config import RegionSettings
from wsi_pipeline.errors import ConfigError
from wsi_pipeline.grid import Grid
from wsi_pipeline.masks import label
from wsi_pipeline.outlines import outline_labels, smooth_outlines


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Cells that hang together by their sides and are IDC at the threshold."""

    id: str
    """UUID; the same result gives the same one."""
    number: int
    """Rank by area, 1 for the largest; regions of one size are numbered from the top of the slide."""
    polygon: Polygon
    """Outline with its holes, level-0 pixels of the slide file (not of the bounds), valid."""
    cells: int
    """Number of heatmap cells."""
    area_um2: float
    """Area of its cells in µm², whatever the smoothing of the outline."""
    mean_probability: float
    """Mean probability of its cells."""
    max_probability: float
    """Highest probability of its cells."""
    mean_spread: float | None = None
    """Mean of its cells' spread, None where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measures:
    """What is measured of each label; [labels + 1], entry 0 stands for no label."""

    cells: NDArray[np.int64]
    area_px: NDArray[np.float64]
    mean: NDArray[np.float64]
    highest: NDArray[np.float32]
    spread: NDArray[np.float64] | None


def find_regions(
    probability: NDArray[np.float32],
    grid: Grid,
    *,
    threshold: float,
    settings: RegionSettings,
    namespace: str,
    spread: NDArray[np.float32] | None = None,
) -> list[Region]:
    """The regions of a map, largest first.

    A cell belongs when its probability is at least `threshold`; with ``settings.low_threshold``, regions grow from
    such cells over neighbours (by side) down to that probability (hysteresis, Canny 1986). Areas, means and the
    minimum area are those of the raw cells, never of the smoothed outline.

    Args:
        probability: float32 [rows, cols] of one class, NaN where not visited.
        grid: The cells of the map.
        threshold: Probability from which a cell is IDC. It is compared as float32, as the map is stored.
        settings: Hysteresis, minimum area, smoothing; its own threshold is not looked at.
        namespace: Digest of what the result depends on (slide, model, settings); ids are made from it.
        spread: float32 [rows, cols], to be averaged over each region; no region depends on it.

    Raises:
        ValueError: where the map does not have the grid's shape.
        ConfigError: where the low threshold lies above `threshold`.
    """
    numbers = number_regions(probability, grid, threshold=threshold, settings=settings)
    measures = _measure(numbers, probability, grid, spread)
    polygons = _outlines(numbers, grid, settings.smooth_um)
    base = uuid5(NAMESPACE_OID, namespace)
    return [
        Region(
            id=str(uuid5(base, polygon.wkb_hex)),
            number=rank,
            polygon=polygon,
            cells=int(measures.cells[rank]),
            area_um2=float(measures.area_px[rank]) * grid.mpp.pixel_um2,
            mean_probability=float(measures.mean[rank]),
            max_probability=float(measures.highest[rank]),
            mean_spread=None if measures.spread is None else float(measures.spread[rank]),
        )
        for rank, polygon in enumerate(polygons, start=1)
    ]


def number_regions(
    probability: NDArray[np.float32], grid: Grid, *, threshold: float, settings: RegionSettings
) -> NDArray[np.int32]:
    """Which region each cell belongs to, int32 [rows, cols]: `Region.number`, 0 for none.

    Arguments and errors are those of `find_regions`.
    """
    if probability.shape != grid.shape:
        raise ValueError(f"the map has {probability.shape} cells, the grid {grid.shape}")
    labels, seeded = _label(probability, threshold, settings.low_threshold)
    area_px = _area_px(labels, grid, len(seeded))
    large = area_px * grid.mpp.pixel_um2 >= settings.min_region_um2
    kept = np.flatnonzero(seeded & large)
    # Labels rise from the top left, so a stable sort leaves regions of one size in that order.
    kept = kept[np.argsort(-area_px[kept], kind="stable")]
    number = np.zeros(len(seeded), np.int32)
    number[kept] = np.arange(1, len(kept) + 1)
    return number[labels]


def _label(
    probability: NDArray[np.float32], threshold: float, low_threshold: float | None
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Label 4-connected cells from the low threshold up, and say which labels hold a cell at the threshold.

    Four neighbours, so that a region's outline never crosses itself at a corner.
    """
    low = threshold if low_threshold is None else low_threshold
    if low > threshold:
        raise ConfigError(
            "low_threshold",
            f"{low:g} lies above the threshold {threshold:g}",
            "Give a lower one with --low-threshold, or a higher --threshold.",
        )
    # NaN, which is a cell not visited, is above no threshold.
    labels, sizes = label(probability >= np.float32(low))
    seeded = np.zeros(len(sizes), bool)
    seeded[labels[probability >= np.float32(threshold)]] = True
    return labels, seeded


def _measure(
    labels: NDArray[np.int32],
    probability: NDArray[np.float32],
    grid: Grid,
    spread: NDArray[np.float32] | None,
) -> _Measures:
    row, col = np.nonzero(labels)
    label, score = labels[row, col], probability[row, col]
    count = int(labels.max(initial=0)) + 1
    cells = np.bincount(label, minlength=count)
    highest = np.zeros(count, np.float32)
    np.maximum.at(highest, label, score)

    def mean(values: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.bincount(label, values.astype(np.float64), count) / np.maximum(cells, 1)

    return _Measures(
        cells=cells,
        area_px=_area_px(labels, grid, count),
        mean=mean(score),
        highest=highest,
        spread=None if spread is None else mean(spread[row, col]),
    )


def _area_px(labels: NDArray[np.int32], grid: Grid, count: int) -> NDArray[np.float64]:
    """[count]: area of each label's cells in level-0 pixels; entry 0 stands for no label and is 0."""
    row, col = np.nonzero(labels)
    # Whole pixels add up exactly in any order, so that equal areas are equal.
    pixels = np.diff(grid.row_edges)[row] * np.diff(grid.col_edges)[col]
    return np.bincount(labels[row, col], pixels, count).astype(np.float64, copy=False)


def _outlines(labels: NDArray[np.int32], grid: Grid, smooth_um: float) -> NDArray[np.object_]:
    if not labels.any() or smooth_um == 0:
        return outline_labels(labels, grid.col_edges, grid.row_edges)
    return smooth_outlines(labels, grid.col_edges, grid.row_edges, mpp=(grid.mpp.x, grid.mpp.y), smooth_um=smooth_um)
