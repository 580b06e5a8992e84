"""The pictures of these pages, taken anew: the demo's overlay, and the viewer in Chromium on drawn tissue.

    pip install ".[test]"
    python docs/pictures.py --chromium /usr/bin/chromium

Slides and results are made in a temporary folder, in a few minutes. Look at the pictures before you commit them.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from math import cos, sin
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import urlopen

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

IMAGES = Path(__file__).parent / "images"
SIZE = {"width": 1280, "height": 800}
JPEG_QUALITY = 85
WAIT_MS = 60_000

MODELS = {"first-model": "idc-resnet18", "second-model": "idc-efficientnet"}
"""By run. The second stage is off, as it holds back on drawn tissue."""
FIRST, SECOND = MODELS
MORE = "more-slides"

DEMO = "phantom"
TUMOUR = (5300, 4200)
"""(x, y) in the demo's slide, in its pixels."""
WINDOW = {"hi": 0.7}
"""Drawn tissue has no high probabilities: the colours end here."""
OVERLAY_WIDTH = 1400


def command(*words: object) -> list[str]:
    """`wsi-pipeline` with these words."""
    return [sys.executable, "-m", "wsi_pipeline.cli", *map(str, words)]


def make_results(folder: Path) -> Path:
    """The demo's slide by two models, three others, and one that is cut short; their results by run."""
    slides, results = folder / "slides", folder / "results"
    run(command("demo", "--out", folder / "demo"))
    (folder / "demo" / "results").rename(folder / "overlay")
    demo = folder / "demo" / "slides" / f"{DEMO}.tiff"
    for seed in (1, 2, 3):
        place = folder / f"demo-{seed}"
        run(command("demo", "--out", place, "--seed", seed, "--width", 7000, "--height", 6000))
        slides.mkdir(exist_ok=True)
        (place / "slides" / f"{DEMO}.tiff").rename(slides / f"specimen-{seed}.tiff")
    (slides / "cut-short.tiff").write_bytes(demo.read_bytes()[:300_000])
    for name, model in MODELS.items():
        run(command("run", demo, "--out", results / name, "--model", model, "--cell", "25um", "--no-context"))
    run(command("run", slides, "--out", results / MORE, "--cell", "25um", "--no-context"), fails=True)
    return results


def run(words: Sequence[str], *, fails: bool = False) -> None:
    """Run a command to its end; one of its slides may fail."""
    subprocess.run(words, check=not fails)


@contextmanager
def served(results: Path) -> Iterator[str]:
    """The address of a viewer of these results."""
    words = command("view", results, "--no-browser", "--port", 0)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield next(match[0] for line in server.stdout or () if (match := re.search(r"http://[^/]+:\d+/", line)))
        finally:
            server.terminate()


class Viewer:
    """The viewer in a browser."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.page: Page = browser.new_page(viewport=SIZE)
        self.page.set_default_timeout(WAIT_MS)
        self._url = url
        with urlopen(f"{url}api/run") as answer:
            listing = json.load(answer)
        runs = {entry["id"]: entry["name"] for entry in listing["runs"]}
        self.ids = {(runs[slide["run"]], slide["name"]): slide["id"] for slide in listing["slides"]}

    def gallery(self) -> None:
        """All slides."""
        self.page.goto(self._url)
        self.page.wait_for_selector(".card img")
        self.page.wait_for_load_state("networkidle")

    def slide(self, run: str, **values: object) -> None:
        """The demo's slide, with what else the address says."""
        self.page.goto("about:blank")
        query = "&".join(f"{name}={value}" for name, value in values.items())
        self.page.goto(f"{self._url}#/slide/{self.ids[run, DEMO]}?{query}")
        self.page.wait_for_selector(".regions:not(.stale) li", state="attached")
        self.settle()

    def settle(self) -> None:
        """Wait until nothing moves and all tiles are there."""
        self.page.wait_for_selector(".panes:not(.loading):not([data-moving])")
        self.page.wait_for_load_state("networkidle")
        self.page.wait_for_timeout(1500)

    def point(self, right: int = 0, down: int = 0) -> tuple[float, float]:
        """Move the pointer to a place, from the middle of the view."""
        box: Any = self.page.locator(".stage").first.bounding_box()
        x, y = box["x"] + box["width"] / 2 + right, box["y"] + box["height"] / 2 + down
        self.page.mouse.move(x, y)
        return x, y

    def take(self, name: str) -> None:
        """Keep what is on the screen."""
        picture = Image.open(BytesIO(self.page.screenshot())).convert("RGB")
        picture.save(IMAGES / f"viewer-{name}.jpg", quality=JPEG_QUALITY, optimize=True)


def take_all(viewer: Viewer) -> None:
    """The five pictures of the viewer."""
    viewer.gallery()
    viewer.take("gallery")
    viewer.slide(FIRST, **WINDOW)
    viewer.point(20, 20)
    viewer.take("slide")
    viewer.slide(FIRST, x=TUMOUR[0], y=TUMOUR[1], z=0.9, smooth=0, **WINDOW)
    viewer.point(40, 40)
    viewer.take("cells")
    viewer.slide(FIRST, cmp=viewer.ids[SECOND, DEMO], **WINDOW)
    viewer.point(20, 20)
    viewer.take("compare")
    annotate(viewer)
    viewer.take("annotate")


def annotate(viewer: Viewer) -> None:
    """A region marked as right, and a lobule drawn that is no tumour."""
    page = viewer.page
    viewer.slide(FIRST, **WINDOW)
    page.locator(".regions li").first.locator("button.right").click()
    page.select_option("#annotation-class", label="Not IDC")
    page.get_by_role("button", name="Freehand").click()
    x, y = viewer.point()
    loop = [(x + 5 + 68 * cos(turn / 6), y - 232 + 52 * sin(turn / 6)) for turn in range(38)]
    page.mouse.move(*loop[0])
    page.mouse.down()
    for place in loop:
        page.mouse.move(*place, steps=3)
    page.mouse.up()
    page.keyboard.press("Escape")
    page.wait_for_selector(".save-status.saved")
    page.locator("#annotation-class").scroll_into_view_if_needed()
    viewer.settle()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--chromium", help="the browser to use (default: Playwright's own)")
    parser.add_argument("--work", type=Path, help="keep slides and results in this folder, and use them again")
    args = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = args.work or Path(temporary)
        results = folder / "results"
        if not results.is_dir():
            make_results(folder)
        overlay = Image.open(folder / "overlay" / DEMO / "overlay.png").convert("RGB")
        overlay.thumbnail((OVERLAY_WIDTH, OVERLAY_WIDTH))
        overlay.save(IMAGES / "demo-overlay.jpg", quality=JPEG_QUALITY, optimize=True)
        with served(results) as url, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=args.chromium, args=["--no-sandbox"])
            take_all(Viewer(browser, url))
            browser.close()


if __name__ == "__main__":
    main()
