"""The page of a run on paper, as Chromium prints it: every sheet says what it is for, and nothing is cut off."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers import run_alone
from needs import needed, unavailable

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PAPER_PX = round((210 - 2 * 13) / 25.4 * 96)
"""Width of an A4 sheet between the page's margins."""

STICK_OUT = """paper => [...document.querySelectorAll('body *')]
    .filter(one => one.getClientRects().length && one.getBoundingClientRect().right > paper + 1
        || one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).overflowX !== 'visible')
    .map(one => one.outerHTML.slice(0, 120))"""


@dataclass(frozen=True)
class Printed:
    pdf: Path
    words: str
    sticks_out: list[str]
    missing_pictures: int


@pytest.fixture(scope="module")
def printed(results, tmp_path_factory) -> Printed:
    playwright = needed("playwright.sync_api")
    found = os.environ.get("WSI_PIPELINE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not found or not Path(found).is_file():
        unavailable(f"no Chromium at {found or '/usr/bin/chromium'} (set WSI_PIPELINE_CHROMIUM)")
    pdf = tmp_path_factory.mktemp("printed") / "report.pdf"
    return run_alone(print_out, playwright, found, results / "report.html", pdf)


def print_out(playwright: Any, chromium: str, html: Path, pdf: Path) -> Printed:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=chromium, args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": PAPER_PX, "height": 1000})
        page.goto(html.as_uri())
        page.emulate_media(media="print")
        made = Printed(
            pdf=pdf,
            words=page.inner_text("body"),
            sticks_out=page.evaluate(STICK_OUT, PAPER_PX),
            missing_pictures=page.evaluate("() => [...document.images].filter(one => !one.naturalWidth).length"),
        )
        page.pdf(path=pdf, prefer_css_page_size=True, print_background=True)
        browser.close()
    return made


def pages_of(pdf: Path) -> int:
    return len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf.read_bytes()))


def squeezed(text: str) -> str:
    """Lines are broken anywhere on paper."""
    return re.sub(r"\s+", "", text)


def test_it_has_a_sheet_for_the_list_and_further_ones_for_slides_and_model(printed):
    assert 3 <= pages_of(printed.pdf) <= 12


def test_nothing_sticks_out_of_the_sheet(printed):
    assert printed.sticks_out == []
    assert printed.missing_pictures == 0
    assert "For research use only" in printed.words


def test_every_sheet_has_the_notice_and_all_that_is_on_the_page_is_on_paper(printed, results):
    tool = shutil.which("pdftotext")
    if tool is None:
        unavailable("nothing here reads the text of a PDF (Debian: apt-get install poppler-utils)")
    read = subprocess.run([tool, "-layout", str(printed.pdf), "-"], capture_output=True, check=True).stdout.decode()
    sheets = read.split("\f")[:-1]
    assert len(sheets) == pages_of(printed.pdf)
    for number, sheet in enumerate(sheets, start=1):
        assert "For research use only, not for diagnosis" in sheet
        assert squeezed(f"{number} / {len(sheets)}") in squeezed(sheet)
    paper = squeezed(read)
    for file in results.glob("*/summary.json"):
        summary = json.loads(file.read_text(encoding="utf-8"))
        assert f"{summary['cells']:,}of12.5µm" in paper
        assert all(squeezed(warning) in paper for warning in summary["warnings"])
    for heading in ("Slides, by IDC area", "The model: ", "Settings", "How it ran", "Hardware"):
        assert squeezed(heading) in paper
