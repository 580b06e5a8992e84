"""What a person looks at: the probability map over the slide, and the tissue that was found. Pure but for the file.

Pictures are at most about 2,000 px, whatever the slide; numbers on them are those of the regions, never of pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_pipeline.geometry import Mpp, Scale, Thumbnail
from wsi_pipeline.grid import Grid
from wsi_pipeline.regions import Region
from wsi_pipeline.sheet import INK, Sheet
from wsi_pipeline.tissue import TissueMask

MIN_PICTURE_PX, MAX_PICTURE_PX = 800, 1700
"""Bounds on the longer side of the slide in a picture: smaller thumbnails are enlarged, larger ones reduced."""

MIN_SHORT_SIDE_PX = 8

COLORMAP = "viridis"
"""Perceptually uniform, safe for red-green blindness, and its colours are none of haematoxylin and eosin's."""

MAX_OPACITY = 0.5
"""Opacity of the tint at a probability of 1; nuclei still show through."""

LEGEND_SIZE = (170, 346)
BAR_WIDTH, BAR_HEIGHT = 22, 220

TISSUE_OUTLINE = (0, 114, 178)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Picture:
    """The slide as it is drawn."""

    pixels: NDArray[np.uint8]
    """RGB [height, width, 3]."""
    scale: Scale
    """Level-0 pixels per picture pixel."""
    um_per_px: float
    """The same along both axes, even where the scanner's pixels are not square."""


def draw_overlay(
    path: Path,
    thumbnail: Thumbnail,
    probability: NDArray[np.float32],
    grid: Grid,
    regions: Sequence[Region],
    *,
    title: str,
    model: str,
    threshold: float,
    threshold_source: str,
    class_name: str = "IDC",
) -> None:
    """Write the thumbnail with the probability as a tint and the regions as outlines, as PNG.

    The tint is the more opaque the higher the probability, so tissue of low probability stays as it is.

    Args:
        path: The ``.png`` file.
        thumbnail: The slide.
        probability: float32 [rows, cols], NaN where not visited.
        grid: The cells of the map.
        regions: What `find_regions` found.
        title: The slide's name.
        model: Name of the model.
        threshold: Probability from which a cell belongs to a region; marked on the colour bar.
        threshold_source: Where the threshold comes from.
        class_name: What the probability is of.

    Raises:
        OutputError: where the file cannot be written.
    """
    picture = _fit(thumbnail, grid.mpp)
    seen = _resample(probability, grid, picture)
    visited = ~np.isnan(seen)
    ground = np.median(picture.pixels[visited], axis=0) if visited.any() else np.array([235.0, 215.0, 228.0])
    sheet = Sheet(
        _tint(picture.pixels, seen),
        title=title,
        details=[
            f"Model {model} · threshold {threshold:.3g} ({threshold_source}) · cells of {grid.cell_um:g} µm",
        ],
        legend_size=LEGEND_SIZE,
    )
    _draw_outlines(sheet, regions, picture)
    _draw_legend(sheet, regions, ground, threshold, class_name)
    sheet.footer(picture.um_per_px, _notes(thumbnail))
    if not visited.any():
        sheet.banner("no tissue found")
    sheet.save(path)


def draw_tissue(path: Path, thumbnail: Thumbnail, tissue: TissueMask, mpp: Mpp, *, title: str) -> None:
    """Write the thumbnail with the tissue outlined and everything else dimmed, as PNG.

    Args:
        path: The ``.png`` file.
        thumbnail: The slide.
        tissue: What was found; its raster need not be the thumbnail's.
        mpp: Resolution of level 0.
        title: The slide's name.

    Raises:
        OutputError: where the file cannot be written.
    """
    picture = _fit(thumbnail, mpp)
    inside = tissue.mask[np.ix_(*_sources(tissue.mask.shape, tissue.scale, picture))]
    pixels = np.where(inside[..., None], picture.pixels, _blend(picture.pixels, np.full(3, 170, np.float32), 0.6))
    pixels[_rim(inside)] = TISSUE_OUTLINE
    details = f"Tissue {tissue.area_mm2(mpp):.3g} mm²"
    if tissue.mask.any():
        details += ", outlined; the dimmed rest is not analysed"
    sheet = Sheet(pixels, title=title, details=[details])
    sheet.footer(picture.um_per_px, _notes(thumbnail))
    if not tissue.mask.any():
        sheet.banner("no tissue found")
    sheet.save(path)


def _fit(thumbnail: Thumbnail, mpp: Mpp) -> _Picture:
    """The thumbnail in a good size for a picture, with square pixels; unreadable parts are hatched."""
    from PIL import Image

    height, width = thumbnail.pixels.shape[:2]
    width_um, height_um = width * thumbnail.scale.x * mpp.x, height * thumbnail.scale.y * mpp.y
    longest = min(max(width, height, MIN_PICTURE_PX), MAX_PICTURE_PX)
    um_per_px = max(width_um, height_um) / longest
    size = max(MIN_SHORT_SIDE_PX, round(width_um / um_per_px)), max(MIN_SHORT_SIDE_PX, round(height_um / um_per_px))
    shown = np.array(Image.fromarray(thumbnail.pixels).resize(size, Image.Resampling.LANCZOS))
    if thumbnail.unreadable.any():
        lost = np.array(Image.fromarray(thumbnail.unreadable).resize(size, Image.Resampling.NEAREST))
        y, x = np.nonzero(lost)
        shown[y, x] = np.where(((x + y) % 12 < 4)[:, None], 90, 200).astype(np.uint8)
    scale = Scale(width * thumbnail.scale.x / size[0], height * thumbnail.scale.y / size[1])
    return _Picture(pixels=shown, scale=scale, um_per_px=um_per_px)


def _notes(thumbnail: Thumbnail) -> list[str]:
    return ["hatched: unreadable in the file"] if thumbnail.unreadable.any() else []


def _resample(probability: NDArray[np.float32], grid: Grid, picture: _Picture) -> NDArray[np.float32]:
    """[height, width] of the picture: the cell under each pixel, or the mean of the cells in it; NaN where none."""
    height, width = picture.pixels.shape[:2]
    visited = ~np.isnan(probability)
    total, count = np.where(visited, probability, 0).astype(np.float64), visited.astype(np.float64)
    inside = np.ones((height, width), bool)
    for axis, edges, scale, length in (
        (0, grid.row_edges, picture.scale.y, height),
        (1, grid.col_edges, picture.scale.x, width),
    ):
        # Cells larger than a pixel are looked up at its centre; smaller ones are added up from its edge on.
        offset = 0.5 if edges[-1] - edges[0] > (len(edges) - 1) * scale else 0.0
        index = np.searchsorted(edges, (np.arange(length) + offset) * scale, side="right") - 1
        on_grid = (index >= 0) & (index < len(edges) - 1)
        inside &= on_grid[:, None] if axis == 0 else on_grid[None, :]
        index = np.clip(index, 0, len(edges) - 2)
        total, count = np.add.reduceat(total, index, axis=axis), np.add.reduceat(count, index, axis=axis)
    mean = np.full((height, width), np.nan, np.float32)
    np.divide(total, count, out=mean, where=inside & (count > 0), casting="same_kind")
    return mean


def _tint(pixels: NDArray[np.uint8], probability: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The probability's colour laid over the pixels; NaN leaves them as they are."""
    from matplotlib import colormaps

    shown = np.clip(np.nan_to_num(probability, nan=0.0), 0, 1)
    table = (colormaps[COLORMAP](np.arange(256))[:, :3] * 255).astype(np.float32)
    return _blend(pixels, table[np.rint(shown * 255).astype(np.uint8)], _opacity(shown)[..., None])


def _opacity(probability: NDArray[np.float32]) -> NDArray[np.float32]:
    """Nothing at 0, half of the full opacity at about 0.4, nearly all of it from 0.8 on."""
    rising: NDArray[np.float32] = np.sin(probability * np.float32(np.pi / 2)) ** np.float32(1.5)
    return rising * np.float32(MAX_OPACITY)


def _blend(
    below: NDArray[np.uint8], above: NDArray[np.float32], opacity: float | NDArray[np.float32]
) -> NDArray[np.uint8]:
    return np.rint(below + (above - below) * opacity).astype(np.uint8)


def _sources(shape: tuple[int, ...], scale: Scale, picture: _Picture) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of a raster of `shape` at `scale` under the centres of the picture's pixels."""
    height, width = picture.pixels.shape[:2]
    rows = (np.arange(height) + 0.5) * picture.scale.y / scale.y
    cols = (np.arange(width) + 0.5) * picture.scale.x / scale.x
    return np.clip(rows.astype(np.intp), 0, shape[0] - 1), np.clip(cols.astype(np.intp), 0, shape[1] - 1)


def _rim(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of the mask within two pixels of its outside."""
    padded = np.pad(mask, 2)
    height, width = mask.shape
    deep = mask.copy()
    for dy, dx in ((-2, 0), (2, 0), (0, -2), (0, 2), (-1, -1), (-1, 1), (1, -1), (1, 1)):
        deep &= padded[2 + dy : 2 + dy + height, 2 + dx : 2 + dx + width]
    return mask & ~deep


def _draw_outlines(sheet: Sheet, regions: Sequence[Region], picture: _Picture) -> None:
    shapes = np.array([region.polygon for region in regions], dtype=object)
    factor = np.array([picture.scale.x, picture.scale.y])
    origin = np.array([sheet.left, sheet.top])
    placed = shapely.transform(shapes, lambda xy: xy / factor + origin)
    # What is finer than a pixel costs time and shows nothing.
    placed = shapely.simplify(placed, 0.4, preserve_topology=True)
    paths = [shapely.get_coordinates(ring) for ring in shapely.get_rings(placed)]
    _stroke(sheet, paths)


def _stroke(sheet: Sheet, paths: Sequence[NDArray[np.float64]]) -> None:
    """An outline that shows on every ground and to every eye: dark with a white edge."""
    sheet.lines(paths, color="white", width=4)
    sheet.lines(paths, color=INK, width=2)


def _draw_legend(
    sheet: Sheet, regions: Sequence[Region], ground: NDArray[np.float64], threshold: float, class_name: str
) -> None:
    """Colour bar as the colours look over this slide's tissue, threshold, and what the outlines are."""
    x, y = sheet.legend_x + 50, sheet.top + 30
    ramp = np.broadcast_to(np.linspace(1, 0, BAR_HEIGHT, dtype=np.float32)[:, None], (BAR_HEIGHT, BAR_WIDTH))
    tissue = np.broadcast_to(np.rint(ground).astype(np.uint8), (BAR_HEIGHT, BAR_WIDTH, 3))
    sheet.text(x, y - 20, f"p({class_name})", bold=True)
    sheet.image(x, y, _tint(tissue, ramp))
    for tick in np.linspace(0, 1, 6):
        at = y + (1 - tick) * BAR_HEIGHT
        sheet.lines([np.array([(x + BAR_WIDTH, at), (x + BAR_WIDTH + 5, at)])], color=INK, width=1)
        sheet.text(x + BAR_WIDTH + 9, at, f"{tick:.1f}")
    at = y + (1 - threshold) * BAR_HEIGHT
    sheet.lines([np.array([(x - 1, at), (x + BAR_WIDTH + 1, at)])], color=INK, width=1.5)
    sheet.marker(x - 2, at)
    sheet.text(x - 13, at, f"{threshold:.3g}", bold=True, align="right")
    bottom = y + BAR_HEIGHT + 32
    if not regions:
        sheet.text(sheet.legend_x, bottom, f"no {class_name} region")
        return
    _stroke(sheet, [np.array([(sheet.legend_x, bottom), (sheet.legend_x + 24, bottom)], np.float64)])
    noun = "region" if len(regions) == 1 else "regions"
    sheet.text(sheet.legend_x + 34, bottom, f"{len(regions):,} {class_name} {noun}")
    sheet.text(sheet.legend_x + 34, bottom + 19, f"{sum(region.area_um2 for region in regions) * 1e-6:.3g} mm²")
