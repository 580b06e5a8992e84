"""A picture of the labels of a slide, to check by eye: the patches in colours, the annotations as lines."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_pipeline.extraction.coverage import Lattice
from wsi_pipeline.extraction.labels import Areas, Outcome, patch_lattice
from wsi_pipeline.extraction.record import Record
from wsi_pipeline.geometry import Scale
from wsi_pipeline.outlines import lines_to_draw
from wsi_pipeline.plan import SlidePlan
from wsi_pipeline.render.picture import Picture, blend, fit, notes
from wsi_pipeline.sheet import Sheet

GAP_FROM_PX = 5
"""Patches at least so large in the picture are shown with a gap between them."""

LEGEND_SIZE = (270, 420)
LEGEND_LINE_PX = 24

POSITIVE, NEGATIVE, LEFT_OUT = (230, 159, 0), (0, 114, 178), (70, 70, 70)
"""Tints that are told apart without red and green, and from haematoxylin and eosin."""

POSITIVE_LINE, NEGATIVE_LINE, EXCLUDED_LINE, REGION_LINE = "#1a1a1a", "#005080", "#707070", "#009e73"

_TINTS: dict[Outcome, tuple[tuple[int, int, int], float]] = {
    Outcome.NEGATIVE: (NEGATIVE, 0.3),
    Outcome.POSITIVE: (POSITIVE, 0.5),
    Outcome.BORDER: (LEFT_OUT, 0.45),
    Outcome.EXCLUDED: (LEFT_OUT, 0.45),
    Outcome.BARE: (LEFT_OUT, 0.45),
    Outcome.UNREADABLE: (LEFT_OUT, 0.8),
}
"""Colour and opacity; positions of other outcomes stay as they are."""

_WORDS = {
    Outcome.BORDER: "on a border",
    Outcome.EXCLUDED: "excluded or contradictory",
    Outcome.BARE: "annotated, without tissue",
    Outcome.UNREADABLE: "unreadable",
    Outcome.UNANNOTATED: "not annotated",
    Outcome.OUTSIDE: "outside the region",
    Outcome.NOT_DRAWN: "not drawn",
}


def draw_labels(path: Path, plan: SlidePlan, outcome: NDArray[np.uint8], areas: Areas, record: Record) -> None:
    """Write the slide with its patches tinted by label and its annotations outlined, as JPEG.

    Args:
        path: The ``.jpg`` file.
        plan: The slide's thumbnail and grid.
        outcome: [rows, cols] as `label_patches` gives it.
        areas: What is annotated.
        record: As `case_record` gives it.

    Raises:
        OutputError: where the file cannot be written.
    """
    picture, side = fit(plan.thumbnail, plan.grid.mpp), record["patch_size_px"]
    tinted = _tint(picture, outcome, patch_lattice(plan.grid))
    details = f"Patches of {side} x {side} px at {record['mpp']:g} µm/px ({plan.grid.view.size_um:g} µm a side)"
    details += f" · class 0 is {record['class_0_is']}"
    sheet = Sheet(tinted, title=f"{record['case']}: labels", details=[details], legend_size=LEGEND_SIZE)
    lines = {
        "region": (areas.region, REGION_LINE),
        "excluded": (areas.excluded, EXCLUDED_LINE),
        f"annotated {record['class_names'][0]}": (areas.negative, NEGATIVE_LINE),
        f"annotated {record['class_names'][1]}": (areas.positive, POSITIVE_LINE),
    }
    shown = {words: (shape, color) for words, (shape, color) in lines.items() if shape is not None and shape.area}
    for shape, color in shown.values():
        _outline(sheet, shape, picture.scale, color)
    _legend(sheet, outcome, record["class_names"], {words: color for words, (_, color) in shown.items()})
    sheet.footer(picture.um_per_px, notes(plan.thumbnail))
    sheet.save(path)


def _tint(picture: Picture, outcome: NDArray[np.uint8], lattice: Lattice) -> NDArray[np.uint8]:
    """The colour of each patch's outcome laid over the slide."""
    colors = np.zeros((len(Outcome), 3), np.float32)
    opacity = np.zeros(len(Outcome), np.float32)
    for item, (color, strength) in _TINTS.items():
        colors[item], opacity[item] = color, strength
    height, width = picture.pixels.shape[:2]
    rows, row_gap = _places(height, picture.scale.y, lattice.corner[1], lattice.step[1], lattice.rows)
    cols, col_gap = _places(width, picture.scale.x, lattice.corner[0], lattice.step[0], lattice.cols)
    shown = np.pad(outcome, 1, constant_values=Outcome.NO_TISSUE)[np.ix_(rows + 1, cols + 1)]
    shown[row_gap, :] = shown[:, col_gap] = Outcome.NO_TISSUE
    return blend(picture.pixels, colors[shown], opacity[shown][..., None])


def _places(
    length: int, scale: float, corner: float, step: float, count: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The row or column of patches under each pixel, -1 or `count` beside them; and which pixels part two patches."""
    place = ((np.arange(length) + 0.5) * scale - corner) / step
    number = np.clip(np.floor(place), -1, count).astype(np.int64)
    gap = np.diff(number, append=number[-1:]) != 0
    return number, gap & (step / scale >= GAP_FROM_PX)


def _outline(sheet: Sheet, shape: shapely.MultiPolygon, scale: Scale, color: str) -> None:
    """An outline in its colour, with a white edge that shows on every ground."""
    factor, corner = np.array([scale.x, scale.y]), np.array([sheet.left, sheet.top])
    placed = shapely.transform(shape, lambda xy: xy / factor + corner)
    sheet.outlines([shapely.get_coordinates(line) for line in lines_to_draw(placed, 1.0)], color)


def _legend(sheet: Sheet, outcome: NDArray[np.uint8], class_names: Sequence[str], lines: Mapping[str, str]) -> None:
    """How many patches there are of each colour, and what the lines are."""
    counts = np.bincount(outcome.ravel(), minlength=len(Outcome))
    x, y = sheet.legend_x, sheet.top + 10
    labels = {label: f"class {label:d}, {class_names[label]}" for label in (Outcome.POSITIVE, Outcome.NEGATIVE)}
    left_out = {item: words for item, words in _WORDS.items() if counts[item]}
    for heading, items in (("Patches", labels), ("Left out", left_out)):
        if not items:
            continue
        sheet.text(x, y, heading, bold=True)
        for item, words in items.items():
            y += LEGEND_LINE_PX
            if item in _TINTS:
                sheet.image(x, y - 7, np.full((14, 14, 3), _TINTS[item][0], np.uint8))
            sheet.text(x + 34, y, f"{words}: {counts[item]:,}")
        y += LEGEND_LINE_PX + 10
    for words, color in lines.items():
        sheet.outlines([np.array([(x, y), (x + 24, y)], np.float64)], color)
        sheet.text(x + 34, y, words)
        y += LEGEND_LINE_PX
