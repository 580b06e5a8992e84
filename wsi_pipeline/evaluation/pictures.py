"""Patches and maps as pictures that stand inside an HTML page."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.datasets import fit_size
from wsi_pipeline.errors import DatasetError
from wsi_pipeline.evaluation.predict import shrink
from wsi_pipeline.evaluation.result import Evaluation
from wsi_pipeline.geometry import Size
from wsi_pipeline.mosaic import Mosaic, mosaics
from wsi_pipeline.render.page import data_address

MAX_PATCH_PX = 160
"""Larger patches are made smaller for the page."""

MAX_CASE_PX = 2400
"""Of a case's longer side: a case of very many small cells has smaller pictures of each."""

CASES_SHOWN = 40

COLORMAP = "viridis"
"""That of a run's overlays."""

WHITE, GREY = (255, 255, 255), (222, 222, 222)
LABELLED = (60, 60, 60)
HIT, MISSED, FALSE_ALARM = (0, 90, 160), (213, 94, 0), (240, 190, 70)
"""Blue, vermilion and yellow: told apart by every eye, and in grey by their brightness."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CasePictures:
    """One case, as addresses of pictures of the same shape."""

    case: str
    width: int
    """Of the grid, in cells."""
    height: int
    tissue: str | None
    labels: str
    probability: str
    agreement: str


def patch_picture(evaluation: Evaluation, row: int) -> str:
    """A patch as the network sees it; white where it cannot be read any more."""
    side = evaluation.bundle.card.patch_size_px
    try:
        image = Image.fromarray(fit_size(evaluation.patches.dataset.read(row), Size(side, side)))
    except DatasetError:
        image = Image.new("RGB", (side, side), "white")
    if side <= MAX_PATCH_PX:
        return data_address(image)
    return data_address(image.resize((MAX_PATCH_PX, MAX_PATCH_PX), Image.Resampling.LANCZOS), photo=True)


def case_pictures(evaluation: Evaluation) -> list[CasePictures]:
    """The cases with the most patches, at most `CASES_SHOWN`, the one with the lowest Dice first."""
    overlaps, positions = evaluation.whole_slide, evaluation.patches.dataset.positions
    if overlaps is None or positions is None:
        return []
    cells = {case: values["cells"] or 0 for case, values in overlaps.per_case.items()}
    shown = sorted(cells, key=lambda case: (-cells[case], case))[:CASES_SHOWN]
    dice = {case: overlaps.per_case[case]["dice"] for case in shown}
    patches = evaluation.patches
    found = dict[str, CasePictures]()
    for mosaic in mosaics(positions, patches.cases, patches.dataset.patch_size.width):
        case = str(patches.cases[mosaic.rows[0]])
        if case in dice:
            found[case] = _pictures(evaluation, case, mosaic)
    return [found[case] for case in sorted(dice, key=lambda case: (_or_two(dice[case]), case))]


def _or_two(value: float | None) -> float:
    """For sorting: cases without positive cells come last."""
    return 2.0 if value is None else value


def _pictures(evaluation: Evaluation, case: str, mosaic: Mosaic) -> CasePictures:
    from matplotlib import colormaps

    patches, positive, rows = evaluation.patches, evaluation.positive, mosaic.rows
    there = mosaic.lay_out(np.ones(len(rows), np.bool_), empty=False)
    true = mosaic.lay_out(patches.labels[rows] == positive, empty=False)
    called = mosaic.lay_out(evaluation.called[rows] == positive, empty=False)
    probability = mosaic.lay_out(patches.shipped[rows, positive], empty=0)
    colours = (colormaps[COLORMAP](probability)[..., :3] * 255).astype(np.uint8)
    return CasePictures(
        case=case,
        width=mosaic.shape[1],
        height=mosaic.shape[0],
        tissue=_tissue(evaluation, mosaic),
        labels=data_address(Image.fromarray(_paint(there, {LABELLED: true}))),
        probability=data_address(Image.fromarray(np.where(there[..., None], colours, 255).astype(np.uint8))),
        agreement=data_address(
            Image.fromarray(
                _paint(
                    there,
                    {
                        HIT: true & called,
                        MISSED: true & ~called,
                        FALSE_ALARM: called & ~true,
                    },
                )
            )
        ),
    )


def _paint(there: NDArray[np.bool_], parts: dict[tuple[int, int, int], NDArray[np.bool_]]) -> NDArray[np.uint8]:
    """RGB [rows, cols, 3]: the parts in their colours, other cells grey, white where there is none."""
    pixels = np.where(there[..., None], np.array(GREY), np.array(WHITE)).astype(np.uint8)
    for colour, part in parts.items():
        pixels[part] = colour
    return pixels


def _tissue(evaluation: Evaluation, mosaic: Mosaic) -> str | None:
    thumbs = evaluation.patches.thumbs
    if thumbs is None:
        return None
    rows, cols = mosaic.shape
    side = int(np.clip(MAX_CASE_PX // max(rows, cols), 1, thumbs.shape[1]))
    tiles = mosaic.lay_out(shrink(thumbs[mosaic.rows], side), empty=255)
    return data_address(Image.fromarray(tiles.swapaxes(1, 2).reshape(rows * side, cols * side, 3)), photo=True)
