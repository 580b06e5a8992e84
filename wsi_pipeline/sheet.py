"""A sheet of paper in pixels: a picture with a heading above, a legend beside and a scale bar below. Pure."""

import json
from collections.abc import Sequence
from functools import cache
from math import floor, log10
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.config import RESEARCH_USE
from wsi_pipeline.files import atomic_path

if TYPE_CHECKING:
    from PIL import Image

MARGIN, GAP = 24, 14
PLACES = "wsi-pipeline places"
"""Key of a PNG's text that says as JSON where on the page what is: ``picture`` and ``legend`` as (left, top, width,
height) in px, and ``um_per_px``; so that a report can take the picture from the page."""

TITLE_PX, TEXT_PX = 20, 13
TITLE_LINE_PX, LINE_PX = 28, 19
FOOTER_PX = 40
MIN_TEXT_WIDTH = 620
BAR_MAX_PX = 180

INK, GREY, FRAME = "#1a1a1a", "#555555", "#b0b0b0"

PNG_EFFORT = {"compress_level": 1, "compress_type": 3}
"""zlib's least effort, on runs of equal bytes (Z_RLE): on tissue a quarter to two thirds of the usual effort's time,
for files 0 to 9 % larger."""

_FALLBACK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Noto Sans JP", "Noto Sans", "Source Han Sans",
    "WenQuanYi Micro Hei", "Droid Sans Fallback", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "PingFang SC",
    "PingFang HK", "Hiragino Sans", "Apple SD Gothic Neo", "Arial Unicode MS", "Unifont",
)  # fmt: skip
"""Fonts asked, where installed, for letters that matplotlib's own DejaVu Sans does not have."""

_UNKNOWN_LETTER = "\u25a1"


class Sheet:
    """One page: heading, picture, room for a legend on its right, footer. Positions are pixels from the top left."""

    def __init__(
        self, picture: NDArray[np.uint8], *, title: str, details: Sequence[str], legend_size: tuple[int, int] = (0, 0)
    ) -> None:
        """Lay the page out.

        Args:
            picture: RGB uint8 [height, width, 3]; shown pixel by pixel.
            title: Heading; its middle is left out where it takes more than two lines.
            details: Lines below it; each is wrapped.
            legend_size: (width, height) to keep free on the right of the picture.
        """
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        height, width = picture.shape[:2]
        beside = legend_size[0] + MARGIN if legend_size[0] else 0
        text_width = max(width + beside, MIN_TEXT_WIDTH)
        # 72 dots per inch: a font size in points is one in pixels.
        self._figure = Figure(figsize=(1, 1), dpi=72, facecolor="none")
        self._canvas: Any = FigureCanvasAgg(self._figure)
        heading = _heading(_drawable(title), text_width)
        lines = [line for detail in details for line in _wrap(_drawable(detail), text_width)]
        self.left, self.right = MARGIN, MARGIN + text_width
        self.top = MARGIN + TITLE_LINE_PX * len(heading) + LINE_PX * len(lines) + GAP
        self.picture_bottom = self.top + height
        self.bottom = max(self.picture_bottom + FOOTER_PX, self.top + legend_size[1])
        self.legend_x = MARGIN + width + MARGIN
        self._places: dict[str, Any] = {"picture": (self.left, self.top, width, height)}
        if legend_size[0]:
            self._places["legend"] = (self.legend_x, self.top, *legend_size)
        self._size = (self.right + MARGIN, self.bottom + MARGIN)
        self._paper = np.full((self._size[1], self._size[0], 3), 255, np.uint8)
        self._prepare(picture)
        for n, line in enumerate(heading):
            self.text(MARGIN, MARGIN + TITLE_LINE_PX * (n + 0.4), line, size=TITLE_PX, bold=True)
        for n, line in enumerate(lines):
            self.text(MARGIN, MARGIN + TITLE_LINE_PX * len(heading) + LINE_PX * (n + 0.5), line, color=GREY)

    def _prepare(self, picture: NDArray[np.uint8]) -> None:
        width, height = self._size
        self._figure.set_size_inches(width / 72, height / 72)
        axes = self._figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        self._axes = axes
        self.image(self.left, self.top, picture)

    def image(self, x: int, y: int, picture: NDArray[np.uint8]) -> None:
        """An RGB picture with its top left corner at (x, y), unscaled, in a thin frame."""
        from matplotlib.patches import Rectangle

        height, width = picture.shape[:2]
        # Not by way of matplotlib, which takes three times as long as all the rest to draw it as it is.
        self._paper[y : y + height, x : x + width] = picture
        corner, size = (x - 0.5, y - 0.5), (width + 1, height + 1)
        self._axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=FRAME, linewidth=1, snap=False))

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: int = TEXT_PX,
        bold: bool = False,
        color: str = INK,
        align: str = "left",
    ) -> None:
        """One line of text, centred on y."""
        self._axes.text(
            x, y, _drawable(text), color=color, ha=align, va="center_baseline", parse_math=False, usetex=False,
            fontproperties=_font(size, bold),
        )  # fmt: skip

    def banner(self, text: str) -> None:
        """A statement in the middle of the picture's place."""
        x, y = (self.left + self.legend_x - MARGIN) / 2, (self.top + self.picture_bottom) / 2
        half = text_width(text, 16, bold=True) / 2
        self._axes.text(
            max(x, self.left + half + 12), y, text, color=INK, ha="center", va="center", parse_math=False, usetex=False,
            fontproperties=_font(16, bold=True),
            bbox={"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": GREY, "alpha": 0.9},
        )  # fmt: skip

    def lines(self, paths: Sequence[NDArray[np.float64]], *, color: str, width: float) -> None:
        """Lines through [n, 2] points (x, y)."""
        from matplotlib.collections import LineCollection

        self._axes.add_collection(
            LineCollection(list(paths), colors=color, linewidths=width, joinstyle="round", capstyle="round")
        )

    def outlines(self, paths: Sequence[NDArray[np.float64]], color: str = INK) -> None:
        """Lines that show on every ground and to every eye: in their colour, with a white edge."""
        self.lines(paths, color="white", width=4)
        self.lines(paths, color=color, width=2)

    def marker(self, x: float, y: float) -> None:
        """A small triangle that points right at (x, y)."""
        from matplotlib.patches import Polygon

        self._axes.add_patch(Polygon([(x, y), (x - 8, y - 5), (x - 8, y + 5)], facecolor=INK, edgecolor="none"))

    def footer(self, um_per_px: float, notes: Sequence[str] = ()) -> None:
        """The scale bar under the picture; notes and the notice that every output carries at the bottom right."""
        self._places["um_per_px"] = um_per_px
        length_um = round_length(um_per_px * BAR_MAX_PX)
        y, end = self.picture_bottom + GAP + 6, self.left + length_um / um_per_px
        bar = [(self.left, y - 4), (self.left, y + 4), (self.left, y), (end, y), (end, y - 4), (end, y + 4)]
        self.lines([np.array(bar, np.float64)], color=INK, width=2)
        self.text(self.left, y + 19, length_text(length_um))
        self.text(self.right, self.bottom, RESEARCH_USE, bold=True, align="right")
        if notes:
            self.text(self.left + BAR_MAX_PX + MARGIN, y, " · ".join(notes), color=GREY)

    def save(self, path: Path) -> None:
        """Write the page as PNG, or as JPEG where the file is named so, whole or not at all.

        Raises:
            OutputError: where the file cannot be written.
        """
        from PIL.PngImagePlugin import PngInfo

        page = self._drawn()
        with atomic_path(path) as part:
            if path.suffix.lower() in {".jpg", ".jpeg"}:
                page.save(part, "JPEG", quality=88)
                return
            facts = PngInfo()
            facts.add_text(PLACES, json.dumps(self._places))
            page.save(part, "PNG", pnginfo=facts, **PNG_EFFORT)

    def _drawn(self) -> "Image.Image":
        """The pictures with everything else over them, RGB."""
        from PIL import Image

        self._canvas.draw()
        page = Image.fromarray(self._paper).convert("RGBA")
        page.alpha_composite(Image.fromarray(np.asarray(self._canvas.buffer_rgba())))
        return page.convert("RGB")


def _heading(text: str, room: float) -> list[str]:
    """The title in at most two lines, without as much of its middle as that takes."""
    keep, short = len(text), text
    while len(lines := _wrap(short, room, TITLE_PX, bold=True)) > 2:
        keep -= 1
        short = text[: (keep + 1) // 2] + "…" + text[len(text) - keep // 2 :]
    return lines


def _wrap(text: str, room: float, size: int = TEXT_PX, *, bold: bool = False) -> list[str]:
    """Lines that fit; a word longer than a line is broken."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if text_width(longer, size, bold) <= room:
            lines[-1] = longer
            continue
        lines.append("")
        for letter in word:
            if text_width(lines[-1] + letter, size, bold) > room:
                lines.append("")
            lines[-1] += letter
    return [line for line in lines if line]


def text_width(text: str, size: int, bold: bool) -> float:
    """Width in pixels; the sum of the letters', which kerning makes a little smaller."""
    return sum(_letter_width(letter, size, bold) for letter in text)


@cache
def _letter_width(letter: str, size: int, bold: bool) -> float:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    canvas: Any = FigureCanvasAgg(Figure(figsize=(1, 1), dpi=72))
    renderer = canvas.get_renderer()
    return float(renderer.get_text_width_height_descent(f"{letter}{letter}", _font(size, bold), False)[0]) / 2


def round_length(longest_um: float) -> float:
    """The longest of 1, 2, 5, 10, 20, 50 ... µm that is at most `longest_um`."""
    power = 10.0 ** floor(log10(longest_um))
    return next(factor * power for factor in (5, 2, 1) if factor * power <= longest_um * (1 + 1e-9))


def length_text(length_um: float) -> str:
    """A length for people: in mm, or in µm below a tenth of a millimetre."""
    return f"{length_um / 1000:g} mm" if length_um >= 100 else f"{length_um:g} µm"


@cache
def _families() -> tuple[str, ...]:
    """DejaVu Sans, which comes with matplotlib, and the fallback fonts that this machine has."""
    from matplotlib.font_manager import fontManager

    installed = {entry.name for entry in fontManager.ttflist}
    return ("DejaVu Sans", *(name for name in _FALLBACK_FONTS if name in installed))


@cache
def _font(size: int, bold: bool) -> Any:
    from matplotlib.font_manager import FontProperties

    return FontProperties(family=list(_families()), size=size, weight="bold" if bold else "normal")


@cache
def _has_glyph(letter: str) -> bool:
    from matplotlib.font_manager import findfont, get_font

    return any(get_font(findfont(family)).get_char_index(ord(letter)) for family in _families())


def _drawable(text: str) -> str:
    """The text on one line, with a box in place of each letter that no font here has."""
    plain = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return "".join(letter if _has_glyph(letter) else _UNKNOWN_LETTER for letter in plain)
