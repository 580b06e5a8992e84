"""One slide's result where a notebook shows it."""

from html import escape
from pathlib import Path

from wsi_pipeline.manifest import Summary
from wsi_pipeline.render.page import area, data_address, percent

SIDE_PX = 1000


def notebook_view(overlay: Path, summary: Summary) -> str:
    """HTML: the overlay with its heading, colour bar and scale bar, and the main numbers below.

    Args:
        overlay: ``overlay.png`` of a slide's results.
        summary: Of the same slide.
    """
    from PIL import Image

    with Image.open(overlay) as image:
        page = image.convert("RGB")
    page.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
    text = (
        f"{summary.slide}: {summary.class_name} {area(summary.idc_mm2)} mm² of {area(summary.analysed_mm2)} mm² "
        f"({percent(summary.idc_fraction)}), {summary.regions:,} regions at {summary.threshold:g}. {summary.note}."
    )
    return (
        f'<figure><img src="{data_address(page, photo=True)}" alt=""><figcaption>{escape(text)}</figcaption></figure>'
    )
