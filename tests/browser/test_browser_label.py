"""The picture of a slide's label: on the page only where the viewer was started with --show-label."""

import json
from pathlib import Path

import numpy as np
import tifffile
from looking import forgive_lost_requests, settle
from tiffs import APERIO

from wsi_pipeline.slides import open_slide

LABEL_SIZE = (90, 60)


def give_a_label(results: Path) -> None:
    """Let the result be of a slide whose file holds a picture of its label."""
    path = results.with_name("labelled.svs")
    glass = np.full((2000, 2400, 3), 240, np.uint8)
    label = np.full((*LABEL_SIZE[::-1], 3), (250, 240, 120), np.uint8)
    options = {"photometric": "rgb", "compression": "lzw", "metadata": None, "software": False}
    with tifffile.TiffWriter(path) as writer:
        writer.write(glass, tile=(256, 256), description=APERIO, **options)
        writer.write(glass[::5, ::5], rowsperstrip=16, description=APERIO, **options)
        writer.write(label, rowsperstrip=16, subfiletype=1, description="Aperio\r\nlabel 90x60", **options)
    with open_slide(path) as slide:
        fingerprint = slide.info.fingerprint
    file = results / "dark" / "phantom A" / "summary.json"
    summary = json.loads(file.read_text()) | {"path": str(path), "reader": "openslide"}
    summary["identity"] |= {"slide": fingerprint}
    file.write_text(json.dumps(summary))


def test_the_label_is_shown_where_the_viewer_was_started_so(page, copied, serve):
    give_a_label(copied)
    shown = page.slide(serve("--show-label"))
    picture = shown.get_by_alt_text("Label of phantom A")
    picture.scroll_into_view_if_needed()
    shown.wait_for_function("() => document.querySelector('.slide-label img').naturalWidth > 0")
    size = picture.evaluate("picture => [picture.naturalWidth, picture.naturalHeight]")
    assert tuple(size) == LABEL_SIZE
    assert picture.locator("xpath=ancestor::details").get_attribute("id") == "part-about"


def test_otherwise_the_page_does_not_even_ask_for_it(page, copied, serve):
    give_a_label(copied)
    asked = []
    page.page.on("request", lambda request: "label" in request.url and asked.append(request.url))
    shown = page.slide(serve())
    settle(shown)
    assert shown.locator(".slide-label").count() == 0
    assert asked == []


def test_a_file_without_a_label_is_told_as_such(page, serve):
    shown = page.slide(serve("--show-label"))
    shown.wait_for_function("() => document.querySelector('.slide-label')?.innerText.includes('no picture')")
    assert shown.locator(".slide-label img").count() == 0
    forgive_lost_requests(page)
