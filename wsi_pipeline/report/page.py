"""``report.html``: a run as one page that needs nothing else, for the screen and for paper."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from wsi_pipeline.errors import BundleError
from wsi_pipeline.files import atomic_path, make_folder
from wsi_pipeline.machine import available_cores
from wsi_pipeline.manifest import RunRecord, SlideResult
from wsi_pipeline.render.page import render_page
from wsi_pipeline.report.card import CardFacts, card_facts
from wsi_pipeline.report.numbers import add_up, changed_settings, run_facts, slide_facts, stage_seconds, took
from wsi_pipeline.report.pictures import SlidePictures, slide_pictures
from wsi_pipeline.slides.files import without_query

REPORT_FILE = "report.html"

TEMPLATE = Path(__file__).parent / "report.html.j2"

MAX_THREADS = 4
"""Each holds a slide's pictures, some 30 MB."""


def write_report(folder: Path, record: RunRecord) -> Path:
    """Write the page of a run, whole or not at all.

    Pictures are taken from the slides' folders and made smaller, so that the page stays below about 50 MB for a
    thousand slides (`pictures.PICTURE_BYTES`).

    Args:
        folder: Of the run, with a folder for each slide.
        record: How the slides ended, with their summaries.

    Returns:
        The page.

    Raises:
        OutputError: where it cannot be written.
    """
    make_folder(folder)
    page = render(folder, record)
    with atomic_path(folder / REPORT_FILE) as part:
        part.write_text(page, encoding="utf-8", errors="backslashreplace")
    return folder / REPORT_FILE


def render(folder: Path, record: RunRecord) -> str:
    """The page's text."""
    done = in_order(record.results)
    card, problem = _card(record)
    return render_page(
        TEMPLATE,
        {
            "made": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
            "folder": folder.resolve().name,
            "numbers": add_up(record),
            "facts": run_facts(record),
            "slides": list(_slides(folder, done)),
            "failed": record.failed,
            "missing": record.planned - len(record.results),
            "card": card,
            "card_problem": problem,
            "bundle": record.bundle,
            "settings": changed_settings(record.settings),
            "versions": record.versions,
            "hardware": {name: value for name, value in record.hardware.items() if name != "host"},
            "stages": stage_seconds(record),
            "took": took(record),
            "inputs": [without_query(address) for address in record.inputs],
        },
    )


def in_order(results: Sequence[SlideResult]) -> list[SlideResult]:
    """The slides that have numbers, the largest area of regions first; of equal ones, in the order of their names."""
    done = [(result.summary.idc_mm2, result) for result in results if result.summary is not None]
    return [result for _, result in sorted(done, key=lambda pair: (-pair[0], pair[1].slide, pair[1].path))]


def _slides(folder: Path, done: Sequence[SlideResult]) -> Iterator[dict[str, Any]]:
    def pictures(result: SlideResult) -> SlidePictures:
        return slide_pictures(folder / Path(result.folder).name, len(done))

    # Decoding and encoding let other threads run.
    with ThreadPoolExecutor(min(MAX_THREADS, len(available_cores()))) as pool:
        made = pool.map(pictures, done)
        for result, shown in zip(tqdm(done, desc="report", unit="slide", disable=None, leave=False), made, strict=True):
            yield {
                "slide": result.slide,
                "folder": result.folder,
                "summary": result.summary,
                "facts": slide_facts(result),
                "pictures": shown,
            }


def _card(record: RunRecord) -> tuple[CardFacts | None, str]:
    """The card of the run's model; where it is no longer there, or another, none and the reason."""
    from wsi_pipeline.models.bundle import load_bundle

    path = str(record.bundle.get("path", ""))
    try:
        bundle = load_bundle(path)
    except BundleError as error:
        return None, f"The model's card cannot be shown: {error}"
    if bundle.digest != record.bundle.get("digest"):
        return None, f"The model's card cannot be shown: what lies at {path} now is another model than the run's."
    return card_facts(bundle.card), ""
