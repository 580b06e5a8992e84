"""The contact sheet: each patch beside itself with the evidence laid over it."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.config import RESEARCH_USE
from wsi_pipeline.explanation.colours import colour_bar, ramp, scale_top, ticks_to, tint
from wsi_pipeline.explanation.patches import ExplainedPatches, Patch
from wsi_pipeline.sheet import GREY, INK, Sheet

SIDE_PX = 150
"""Side of a patch on the sheet."""

PAIR_PX = 2 * SIDE_PX + 4
TEXT_PX = 46
"""Room for two lines below each pair."""

GAP_PX = 26
PADDING_PX = 16
COLUMNS = 4
LEGEND_SIZE = (150, 300)
NAME_LETTERS = 24


def draw_contact_sheet(path: Path, found: ExplainedPatches) -> None:
    """Write the sheet as PNG, or as JPEG where the file is named so.

    All maps share one colour scale, from 0 to the highest value on the sheet: a patch without evidence stays as it is.

    Raises:
        OutputError: where the file cannot be written.
    """
    top = scale_top(found.evidence)
    sheet = Sheet(
        _picture(found, top),
        title=f"Where {found.card.name} finds evidence for {found.class_name}",
        details=_details(found, top),
        legend_size=LEGEND_SIZE,
    )
    for n, patch in enumerate(found.patches):
        x, y = _place(n, len(found.patches))
        _caption(sheet, sheet.left + x, sheet.top + y + SIDE_PX, patch, found)
    ground = np.median(found.pixels.reshape(-1, 3), axis=0).astype(np.uint8)
    bar = tint(*ramp(ground, top, 200), top)
    x, y = sheet.legend_x, sheet.top + 54
    for n, (line, bold) in enumerate([("Evidence for", True), (found.class_name, True), ("in log-odds", False)]):
        sheet.text(x, sheet.top + 8 + 17 * n, line, bold=bold, color=INK if bold else GREY)
    colour_bar(sheet, x, y + 6, bar=bar, ticks=ticks_to(top), top=top)
    if found.card.mpp is None:
        sheet.text(sheet.right, sheet.bottom, RESEARCH_USE, bold=True, align="right")
    else:
        sheet.footer(found.card.patch_size_px * found.card.mpp / SIDE_PX)
    sheet.save(path)


def _details(found: ExplainedPatches, top: float) -> list[str]:
    card, side = found.card, found.card.patch_size_px
    maps = " and ".join(f"{rows} x {cols}" for rows, cols in found.positions)
    called = f"called {card.positive_class} from {card.threshold.value:g}" if len(card.class_names) == 2 else ""
    if called and card.context is not None:
        called += " (chosen for probabilities with that context: a run may call otherwise)"
    says = f"p is the calibrated probability of {found.class_name}"
    if card.context is not None:
        says += " by the patch alone, without the context that a run adds"
    mean = f"mean over 8 symmetries{f' and {len(card.members)} networks' if card.members else ''}"
    how = (
        f"Left the patch, right Grad-CAM over it (Selvaraju et al. 2017; {mean}): maps of {maps} positions enlarged "
        f"to {side} x {side} px. What is finer than such a position does not show."
    )
    return [
        " · ".join(found.notes),
        how,
        f"One scale for all patches: 0 to {top:g} log-odds. Evidence against the class is not shown.",
        " · ".join(part for part in (says, called) if part),
    ]


def _picture(found: ExplainedPatches, top: float) -> NDArray[np.uint8]:
    """All pairs in their places on white."""
    count = len(found.patches)
    columns, rows = min(COLUMNS, count), -(-count // COLUMNS)
    width = 2 * PADDING_PX + columns * PAIR_PX + (columns - 1) * GAP_PX
    height = 2 * PADDING_PX + rows * (SIDE_PX + TEXT_PX) + (rows - 1) * (GAP_PX // 2) - 6
    page = np.full((height, width, 3), 255, np.uint8)
    for n, (pixels, evidence) in enumerate(zip(found.pixels, found.evidence, strict=True)):
        x, y = _place(n, count)
        patch = _resize(pixels)
        over = tint(patch, _enlarge(evidence), top)
        page[y : y + SIDE_PX, x : x + SIDE_PX] = patch
        page[y : y + SIDE_PX, x + PAIR_PX - SIDE_PX : x + PAIR_PX] = over
    return page


def _place(n: int, count: int) -> tuple[int, int]:
    """(x, y) of a pair within the picture."""
    row, column = divmod(n, min(COLUMNS, count))
    return PADDING_PX + column * (PAIR_PX + GAP_PX), PADDING_PX + row * (SIDE_PX + TEXT_PX + GAP_PX // 2)


def _caption(sheet: Sheet, x: int, y: int, patch: Patch, found: ExplainedPatches) -> None:
    """Label and probability, then case and verdict; what is wrong stands out."""
    verdict = _verdict(patch, found.card.positive_class, two=len(found.card.class_names) == 2)
    wrong = patch.label is not None and patch.label != patch.called
    first = patch.label if patch.label is not None else _short(patch.name)
    second = _short(patch.name) if patch.label is not None else ""
    sheet.text(x, y + 14, first, bold=True)
    sheet.text(x + PAIR_PX, y + 14, f"p {patch.probability:.2f}", align="right")
    sheet.text(x, y + 32, second, color=GREY)
    sheet.text(x + PAIR_PX, y + 32, verdict, bold=wrong, color=INK if wrong else GREY, align="right")


def _verdict(patch: Patch, positive: str, *, two: bool) -> str:
    if patch.label is None or (not two and patch.label != patch.called):
        return f"called {patch.called}"
    if patch.label == patch.called:
        return "right"
    return "missed" if patch.label == positive else "false alarm"


def _short(name: str) -> str:
    half = (NAME_LETTERS - 1) // 2
    return name if len(name) <= NAME_LETTERS else f"{name[:half]}…{name[-half:]}"


def _resize(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC))


def _enlarge(evidence: NDArray[np.float32]) -> NDArray[np.float32]:
    from PIL import Image

    return np.asarray(Image.fromarray(evidence).resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR))
