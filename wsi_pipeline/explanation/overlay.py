"""The page about a region of a slide: tissue, evidence over it, probability of its cells, and where it is."""

from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.explanation.colours import colour_bar, ramp, scale_top, ticks_to, tint
from wsi_pipeline.explanation.region import as_text
from wsi_pipeline.explanation.slide import WIDE, ExplainedRegion
from wsi_pipeline.models.card import LEAKY_WARNING
from wsi_pipeline.render.maps import PROBABILITY
from wsi_pipeline.render.picture import blend
from wsi_pipeline.sheet import GREY, TEXT_PX, Sheet, text_width
from wsi_pipeline.wording import counted

PADDING_PX, TITLE_PX, GAP_PX = 16, 30, 30
BAR_ROOM_PX = 72
BAR_PX = 220
THUMBNAIL_PX = 190
PALE = 0.6
"""How much whiter the parts are drawn that are not analysed."""

RED = "#d55e00"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Panel:
    title: str
    pixels: NDArray[np.uint8]
    bar: NDArray[np.uint8] | None = None
    """RGB [height, width, 3], the highest value first, as the colours look over this region's tissue."""
    top: float = 1.0
    """The highest value."""
    mark: float | None = None
    """A value to mark."""


def draw_region(path: Path, found: ExplainedRegion) -> None:
    """Write the page as PNG, or as JPEG where the file is named so.

    Raises:
        OutputError: where the file cannot be written.
    """
    card, name = found.card, found.class_name
    panels = _panels(found)
    page, places = _lay_out(panels)
    sheet = Sheet(
        page,
        title=f"Where {card.name} finds evidence for {name} on {found.slide_id}",
        details=_details(found),
        legend_size=(THUMBNAIL_PX, THUMBNAIL_PX + 60),
    )
    for panel, (x, y) in zip(panels, places, strict=True):
        sheet.text(sheet.left + x, sheet.top + y - 14, panel.title, bold=True)
        if panel.bar is not None:
            _bar(sheet, panel, sheet.left + x + panel.pixels.shape[1] + 14, sheet.top + y)
    _locate(sheet, found)
    sheet.footer(found.um_per_px, ["pale: not analysed"] if np.isnan(found.probability).any() else [])
    sheet.save(path)


def _panels(found: ExplainedRegion) -> list[_Panel]:
    name, card, top = found.class_name, found.card, scale_top(found.evidence)
    unseen = np.isnan(found.probability)
    ground = np.where(unseen[..., None], blend(found.pixels, np.full(3, 255, np.float32), PALE), found.pixels)
    usual, height = np.median(found.pixels[~unseen], axis=0).astype(np.uint8), min(BAR_PX, len(found.pixels))
    return [
        _Panel(title="Tissue", pixels=found.pixels),
        _Panel(
            title=f"Evidence for {name} (Grad-CAM, log-odds)",
            pixels=tint(ground, found.evidence, top),
            bar=tint(*ramp(usual, top, height), top),
            top=top,
        ),
        _Panel(
            title=f"Probability of {name} in cells of {found.cell_um:g} µm",
            pixels=PROBABILITY.over(ground, found.probability),
            bar=PROBABILITY.over(*ramp(usual, 1.0, height)),
            mark=card.threshold.value if _has_threshold(found) else None,
        ),
    ]


def _has_threshold(found: ExplainedRegion) -> bool:
    """Whether the card's threshold is one of the probability that is shown: of the positive one of two, as it is."""
    card = found.card
    return len(card.class_names) == 2 and found.class_name == card.positive_class and card.context is None


def _details(found: ExplainedRegion) -> list[str]:
    card, cells = found.card, found.cells
    maps = " and ".join(f"{rows} x {cols}" for rows, cols in found.positions)
    members = f" and {len(card.members)} networks" if card.members else ""
    says = f"{counted(len(cells), 'cell')}, mean probability {cells.mean(dtype=np.float64):.2f}"
    if _has_threshold(found):
        says += f", {100 * (cells >= card.threshold.value).mean():.0f} % at or above {card.threshold.value:g}"
    if card.context is not None:
        says += "; by each field of view alone, without the context that a run adds"
    grad_cam = (
        f"Grad-CAM (Selvaraju et al. 2017; mean over 8 symmetries{members}): {found.fields:,} overlapping fields of "
        f"view of {card.patch_size_px} px at {card.mpp:g} µm/px, each a map of {maps} positions. What is finer than "
        "such a position does not show."
    )
    lines = [
        f"Region {as_text(found.region)} (level-0 px), {found.how} · {says}",
        grad_cam,
        f"Evidence is shown from 0 to {scale_top(found.evidence):g} log-odds; evidence against the class is not shown.",
    ]
    if card.leaky:
        lines.append(LEAKY_WARNING)
    if found.upsampled:
        lines.append(f"The slide was enlarged to {card.mpp:g} µm/px: its detail is invented.")
    return lines


def _lay_out(panels: list[_Panel]) -> tuple[NDArray[np.uint8], list[tuple[int, int]]]:
    """The pictures on white, side by side or above each other, and the (x, y) of each."""
    height, width = panels[0].pixels.shape[:2]
    stacked = width > WIDE * height
    places, x, y = [], PADDING_PX, PADDING_PX + TITLE_PX
    for panel in panels:
        places.append((x, y))
        if stacked:
            y += height + TITLE_PX + GAP_PX
        else:
            taken = width + (BAR_ROOM_PX if panel.bar is not None else 0)
            x += max(taken, ceil(text_width(panel.title, TEXT_PX, bold=True))) + GAP_PX
    if stacked:
        size = y - TITLE_PX - GAP_PX + PADDING_PX, width + BAR_ROOM_PX + 2 * PADDING_PX
    else:
        size = height + TITLE_PX + 2 * PADDING_PX, x - GAP_PX + PADDING_PX
    page = np.full((*size, 3), 255, np.uint8)
    for panel, (left, top) in zip(panels, places, strict=True):
        page[top : top + height, left : left + width] = panel.pixels
    return page, places


def _bar(sheet: Sheet, panel: _Panel, x: int, y: int) -> None:
    if panel.bar is None:
        return
    colour_bar(sheet, x, y, bar=panel.bar, ticks=ticks_to(panel.top), top=panel.top)
    if panel.mark is not None:
        sheet.marker(x - 1, y + (1 - panel.mark / panel.top) * len(panel.bar))


def _locate(sheet: Sheet, found: ExplainedRegion) -> None:
    """The slide, small, with the region framed."""
    from PIL import Image

    thumb = found.thumbnail
    image = Image.fromarray(thumb.pixels)
    factor = THUMBNAIL_PX / max(image.size)
    size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    x, y = sheet.legend_x, sheet.top + 24
    sheet.text(x, sheet.top + 8, "On the slide", bold=True)
    sheet.image(x, y, np.asarray(image.resize(size, Image.Resampling.LANCZOS)))
    across, down = size[0] / (image.width * thumb.scale.x), size[1] / (image.height * thumb.scale.y)
    box = found.region
    left, right = x + box.x * across, x + box.right * across
    upper, lower = y + box.y * down, y + box.bottom * down
    frame = [(left, upper), (right, upper), (right, lower), (left, lower), (left, upper)]
    sheet.lines([np.array(frame)], color="white", width=3.5)
    sheet.lines([np.array(frame)], color=RED, width=1.8)
    height_mm, width_mm = (length * found.um_per_px / 1000 for length in found.pixels.shape[:2])
    sheet.text(x, y + size[1] + 16, f"{width_mm:.2f} x {height_mm:.2f} mm", color=GREY)
