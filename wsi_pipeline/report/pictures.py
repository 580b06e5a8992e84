"""The pictures of a slide's folder, small enough for a page, in a size that follows from how many slides there are."""

import json
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsi_pipeline.outputs import OVERLAY, TISSUE, UNCERTAINTY
from wsi_pipeline.render.page import data_address
from wsi_pipeline.sheet import PLACES, length_text, round_length

if TYPE_CHECKING:
    from PIL import Image

PICTURE_BYTES = 30_000_000
"""All pictures of a page together, before they are written as text (which makes them a third longer)."""

BAR_SHARE = 0.3
"""The scale bar is at most this part of a picture's width."""

MAX_ASPECT = 0.8
"""Height of a picture over the width it is given; a taller one is shown narrower."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One way to show a slide: longer sides in px, and the quality of the JPEG."""

    large: int
    small: int
    thumb: int
    quality: int


LADDER = (
    Rung(large=1000, small=420, thumb=144, quality=84),
    Rung(large=760, small=340, thumb=120, quality=80),
    Rung(large=560, small=260, thumb=96, quality=76),
    Rung(large=400, small=190, thumb=80, quality=72),
    Rung(large=280, small=140, thumb=64, quality=64),
)
"""From the best to the smallest; each slide gets the best that its part of `PICTURE_BYTES` has room for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A picture as an address that stands inside the page."""

    address: str
    width: int
    height: int
    share: float
    """Of the width it is given, in %."""
    bar: float | None = None
    """Width of the scale bar in % of the picture's; None where the scale is not known."""
    bar_text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlidePictures:
    """What is shown of one slide; None where its folder lacks it or it cannot be read."""

    overlay: Shown | None
    tissue: Shown | None
    uncertainty: Shown | None
    legend: Shown | None
    """Colour bar of the overlay."""
    spread_legend: Shown | None
    overlay_thumb: Shown | None
    tissue_thumb: Shown | None

    @property
    def bytes(self) -> int:
        """Size of all of them in the page."""
        return sum(len(one.address) for one in (getattr(self, name) for name in self.__slots__) if one)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sheet:
    """A picture of a run, taken apart."""

    picture: "Image.Image"
    legend: "Image.Image | None"
    um_per_px: float | None


def slide_pictures(folder: Path, slides: int) -> SlidePictures:
    """The pictures in a slide's folder, in the best size of which so many slides fit a page.

    Args:
        folder: Of one slide.
        slides: Number of slides on the page.
    """
    sheets = {name: _open(folder / name) for name in (OVERLAY, TISSUE, UNCERTAINTY)}
    room = PICTURE_BYTES * 4 / 3 / max(1, slides)

    @cache
    def at(rung: Rung) -> SlidePictures:
        return _at(sheets, rung)

    def has_room(rung: Rung) -> bool:
        return at(rung).bytes <= room

    if has_room(LADDER[0]):  # as it does but for hundreds of slides
        return at(LADDER[0])
    # Sizes fall along the ladder, so halving finds the first that has room without making all of them.
    return at(LADDER[bisect_left(LADDER[:-1], True, lo=1, key=has_room)])


def _at(sheets: Mapping[str, _Sheet | None], rung: Rung) -> SlidePictures:
    overlay, tissue, uncertainty = sheets[OVERLAY], sheets[TISSUE], sheets[UNCERTAINTY]
    return SlidePictures(
        overlay=_shown(overlay, rung.large, rung.quality),
        tissue=_shown(tissue, rung.small, rung.quality),
        uncertainty=_shown(uncertainty, rung.small, rung.quality),
        legend=_legend(overlay),
        spread_legend=_legend(uncertainty),
        overlay_thumb=_shown(overlay, rung.thumb, rung.quality),
        tissue_thumb=_shown(tissue, rung.thumb, rung.quality),
    )


def _open(file: Path) -> _Sheet | None:
    """A page of `sheet.Sheet` without its heading, which would be too small to read; None where there is none."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            places = _places(image.info.get(PLACES))
            page = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return _Sheet(
        picture=_cut(page, places.get("picture")) or page,
        legend=_cut(page, places.get("legend")),
        um_per_px=places.get("um_per_px"),
    )


def _places(text: Any) -> dict[str, Any]:
    """Where on the page what is; empty for pictures that do not say it."""
    try:
        found = json.loads(text)
    except (TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _cut(page: "Image.Image", place: Any) -> "Image.Image | None":
    if not isinstance(place, list) or len(place) != 4:
        return None
    left, top, width, height = place
    return page.crop((left, top, min(left + width, page.width), min(top + height, page.height)))


def _shown(sheet: _Sheet | None, side: int, quality: int) -> Shown | None:
    from PIL import Image

    if sheet is None:
        return None
    image = sheet.picture.copy()
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    bar, text = _bar(sheet)
    return Shown(
        address=data_address(image, photo=True, quality=quality),
        width=image.width,
        height=image.height,
        share=round(min(100.0, 100 * MAX_ASPECT * image.width / image.height), 1),
        bar=bar,
        bar_text=text,
    )


def _bar(sheet: _Sheet) -> tuple[float | None, str]:
    if not sheet.um_per_px:
        return None, ""
    width_um = sheet.um_per_px * sheet.picture.width
    length_um = round_length(width_um * BAR_SHARE)
    return round(100 * length_um / width_um, 2), length_text(length_um)


def _legend(sheet: _Sheet | None) -> Shown | None:
    """A colour bar as it is: few colours, letters that must stay sharp."""
    if sheet is None or sheet.legend is None:
        return None
    image = sheet.legend
    return Shown(address=data_address(image.quantize(64)), width=image.width, height=image.height, share=100.0)
