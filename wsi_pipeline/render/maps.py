"""Maps over the slide: the probability and its spread, with the regions as outlines and a legend."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_pipeline.geometry import Thumbnail
from wsi_pipeline.grid import Grid
from wsi_pipeline.ngff import BRIGHTEST_SPREAD
from wsi_pipeline.outlines import lines_to_draw
from wsi_pipeline.regions import Region
from wsi_pipeline.render.picture import Picture, blend, fit, notes, resample
from wsi_pipeline.sheet import INK, Sheet
from wsi_pipeline.wording import counted

LEGEND_SIZE = (170, 346)
BAR_WIDTH, BAR_HEIGHT = 22, 220


def _nuclei_show(share: NDArray[np.float32]) -> NDArray[np.float32]:
    """Nothing at 0, half of the highest opacity at about 0.4, nearly all of it from 0.8 on; nuclei show through."""
    rising: NDArray[np.float32] = np.sin(share * np.float32(np.pi / 2)) ** np.float32(1.5)
    return rising * np.float32(0.5)


def _veiled(share: NDArray[np.float32]) -> NDArray[np.float32]:
    """Nearly in proportion: what is in most doubt is hardly seen."""
    rising: NDArray[np.float32] = share ** np.float32(0.8)
    return rising * np.float32(0.8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tint:
    """How values are coloured, in colours that are none of haematoxylin and eosin's."""

    color: str
    """A colormap of matplotlib, or a single colour as #rrggbb."""
    top: float
    """Value of the last colour; what lies above looks the same."""
    opacity: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    """From value / top in 0..1 to 0..1: the lower the value, the more the tissue stays as it is."""

    def over(self, pixels: NDArray[np.uint8], values: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The values' colours laid over the pixels; NaN leaves them as they are."""
        share = np.clip(np.nan_to_num(values / np.float32(self.top), nan=0.0), 0, 1)
        return blend(pixels, self._table()[np.rint(share * 255).astype(np.uint8)], self.opacity(share)[..., None])

    def rgba(self) -> NDArray[np.float32]:
        """[256, 4]: red, green, blue and opacity of the values from 0 to `top`, each 0 to 1."""
        opacity = self.opacity(np.linspace(0, 1, 256, dtype=np.float32))
        return np.column_stack([self._table() / 255, opacity])

    def _table(self) -> NDArray[np.float32]:
        """[256, 3]: RGB of the values from 0 to `top`."""
        from matplotlib import colormaps
        from matplotlib.colors import to_rgb

        if self.color.startswith("#"):
            return np.tile(np.array(to_rgb(self.color), np.float32) * 255, (256, 1))
        return (colormaps[self.color](np.arange(256))[:, :3] * 255).astype(np.float32)


PROBABILITY = Tint(color="viridis", top=1.0, opacity=_nuclei_show)
"""Perceptually uniform and safe for red-green blindness."""

SPREAD = Tint(color="#00b7c4", top=BRIGHTEST_SPREAD, opacity=_veiled)
"""One colour, and not one that stands for tumour in the picture of the probability."""


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
    size_px: int | None = None,
) -> None:
    """Write the thumbnail with the probability as a tint and the regions as outlines, as PNG.

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
        size_px: Longer side of the slide in the picture; None for one that suits the thumbnail.

    Raises:
        OutputError: where the file cannot be written.
    """
    details = f"Model {model} · threshold {threshold:.3g} ({threshold_source}) · cells of {grid.cell_um:g} µm"
    page = _Page(thumbnail, probability, grid, PROBABILITY, title=title, details=details, size_px=size_px)
    page.legend(f"p({class_name})", np.linspace(0, 1, 6), mark=threshold)
    page.regions(regions, class_name)
    page.save(path, thumbnail)


def draw_uncertainty(
    path: Path,
    thumbnail: Thumbnail,
    spread: NDArray[np.float32],
    grid: Grid,
    regions: Sequence[Region],
    *,
    title: str,
    model: str,
    spread_over: str,
    class_name: str = "IDC",
    size_px: int | None = None,
) -> None:
    """Write the thumbnail with the spread of the probability as a tint and the regions as outlines, as PNG.

    Args:
        path: The ``.png`` file.
        thumbnail: The slide.
        spread: float32 [rows, cols], standard deviation of the probability, NaN where not visited.
        grid: The cells of the map.
        regions: What `find_regions` found.
        title: The slide's name.
        model: Name of the model.
        spread_over: What the spread is over, such as ``8 symmetries``.
        class_name: What the probability is of.
        size_px: Longer side of the slide in the picture; None for one that suits the thumbnail.

    Raises:
        OutputError: where the file cannot be written.
    """
    details = (
        f"Where the model is in doubt: standard deviation of p({class_name}) over {spread_over} · Model {model} · "
        f"cells of {grid.cell_um:g} µm"
    )
    page = _Page(thumbnail, spread, grid, SPREAD, title=title, details=details, size_px=size_px)
    page.legend(f"spread of p({class_name})", np.linspace(0, SPREAD.top, 5), above=True)
    page.regions(regions, class_name)
    page.save(path, thumbnail)


class _Page:
    """A map over the slide with room for its legend."""

    def __init__(
        self,
        thumbnail: Thumbnail,
        values: NDArray[np.float32],
        grid: Grid,
        tint: Tint,
        *,
        title: str,
        details: str,
        size_px: int | None,
    ) -> None:
        self._picture, self._tint = fit(thumbnail, grid.mpp, size_px), tint
        seen = resample(values, grid, self._picture)
        visited = ~np.isnan(seen)
        self._empty = not visited.any()
        # What the colours of the legend lie over: this slide's tissue.
        self._ground = np.array([235.0, 215.0, 228.0])
        if not self._empty:
            self._ground = np.median(self._picture.pixels[visited], axis=0)
        shown = tint.over(self._picture.pixels, seen)
        self._sheet = Sheet(shown, title=title, details=[details], legend_size=LEGEND_SIZE)
        self._bar = self._sheet.legend_x + 50, self._sheet.top + 30

    def legend(self, name: str, ticks: NDArray[np.float64], *, mark: float | None = None, above: bool = False) -> None:
        """The colour bar as the colours look over this slide's tissue.

        Args:
            name: What the values are.
            ticks: Values to write beside the bar, the highest last.
            mark: A value to mark.
            above: Whether the last colour stands for all higher values too.
        """
        (x, y), sheet, top = self._bar, self._sheet, self._tint.top
        ramp = np.broadcast_to(np.linspace(top, 0, BAR_HEIGHT, dtype=np.float32)[:, None], (BAR_HEIGHT, BAR_WIDTH))
        tissue = np.broadcast_to(np.rint(self._ground).astype(np.uint8), (BAR_HEIGHT, BAR_WIDTH, 3))
        sheet.text(x, y - 20, name, bold=True)
        sheet.image(x, y, self._tint.over(tissue, ramp))
        digits = 1 if top >= 1 else 2
        for tick in ticks:
            at = y + (1 - tick / top) * BAR_HEIGHT
            sheet.lines([np.array([(x + BAR_WIDTH, at), (x + BAR_WIDTH + 5, at)])], color=INK, width=1)
            sheet.text(x + BAR_WIDTH + 9, at, f"{'≥ ' if above and tick == top else ''}{tick:.{digits}f}")
        if mark is not None:
            at = y + (1 - mark / top) * BAR_HEIGHT
            sheet.lines([np.array([(x - 1, at), (x + BAR_WIDTH + 1, at)])], color=INK, width=1.5)
            sheet.marker(x - 2, at)
            sheet.text(x - 13, at, f"{mark:.3g}", bold=True, align="right")

    def regions(self, regions: Sequence[Region], class_name: str) -> None:
        """The outlines, and below the colour bar what they are."""
        sheet, bottom = self._sheet, self._bar[1] + BAR_HEIGHT + 32
        if not regions:
            sheet.text(sheet.legend_x, bottom, f"no {class_name} region")
            return
        _draw_outlines(sheet, regions, self._picture)
        sheet.outlines([np.array([(sheet.legend_x, bottom), (sheet.legend_x + 24, bottom)], np.float64)])
        sheet.text(sheet.legend_x + 34, bottom, counted(len(regions), f"{class_name} region"))
        sheet.text(sheet.legend_x + 34, bottom + 19, f"{sum(region.area_um2 for region in regions) * 1e-6:.3g} mm²")

    def save(self, path: Path, thumbnail: Thumbnail) -> None:
        """Write the page."""
        self._sheet.footer(self._picture.um_per_px, notes(thumbnail))
        if self._empty:
            self._sheet.banner("no tissue found")
        self._sheet.save(path)


def _draw_outlines(sheet: Sheet, regions: Sequence[Region], picture: Picture) -> None:
    shapes = np.array([region.polygon for region in regions], dtype=object)
    factor = np.array([picture.scale.x, picture.scale.y])
    origin = np.array([sheet.left, sheet.top])
    placed = shapely.transform(shapes, lambda xy: xy / factor + origin)
    sheet.outlines([shapely.get_coordinates(line) for line in lines_to_draw(placed, 1.0)])
