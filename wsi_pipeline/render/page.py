"""A page of HTML that needs nothing else: no network, no script, no file beside it. One look for all reports."""

from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from math import floor, log10
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsi_pipeline import __version__
from wsi_pipeline.config import RESEARCH_USE

if TYPE_CHECKING:
    from PIL import Image

BASE = "page.html.j2"
"""What every page's template extends: the stylesheet and the print layout, with blocks to fill in."""

MISSING = "–"


def render_page(template: Path, values: dict[str, Any]) -> str:
    """The text of a page.

    Args:
        template: A Jinja template that extends `BASE`. What it writes is escaped; a name that it lacks is an error.
        values: What it shows. ``research_use`` and ``version`` are there by themselves.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number, "interval": interval, "percent": percent, "area": area, "duration": duration,
    }  # fmt: skip
    return environment.get_template(template.name).render(
        **{"research_use": RESEARCH_USE, "version": __version__} | values
    )


def number(value: float | None, digits: int = 3) -> str:
    """0.927, or a dash."""
    return MISSING if value is None else f"{value:.{digits}f}"


def interval(pair: Sequence[float] | None, digits: int = 3) -> str:
    """0.893–0.954, or a dash."""
    return MISSING if pair is None else f"{pair[0]:.{digits}f}–{pair[1]:.{digits}f}"


def percent(fraction: float | None) -> str:
    """29.3 %, with a space that does not break, or a dash."""
    return MISSING if fraction is None else f"{100 * fraction:.1f}\N{NO-BREAK SPACE}%"


def area(value: float | None) -> str:
    """Three digits that count, at most three after the point: 155, 12.3, 0.012; a dash for None."""
    if value is None:
        return MISSING
    if 0 < value < 0.0005:
        return "<\N{NO-BREAK SPACE}0.001"
    digits = 3 if value <= 0 else min(3, max(0, 2 - floor(log10(value))))
    return f"{value:,.{digits}f}" if value else "0"


def duration(seconds: float | None) -> str:
    """4.2 s, 3 min 20 s, 2 h 05 min; a dash for None."""
    if seconds is None:
        return MISSING
    if seconds < 60:
        return f"{seconds:.1f}\N{NO-BREAK SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60:,} h {minutes % 60:02} min"


def data_address(image: "Image.Image", *, photo: bool = False, quality: int = 82) -> str:
    """``data:`` address of a picture: PNG, of a photo JPEG of that quality."""
    buffer = BytesIO()
    if photo:
        image.save(buffer, "JPEG", quality=quality, optimize=True)
    else:
        image.save(buffer, "PNG", optimize=True)
    return f"data:image/{'jpeg' if photo else 'png'};base64,{b64encode(buffer.getvalue()).decode()}"
