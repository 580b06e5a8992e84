"""The viewer as a user has it: the command in a process of its own, and Chromium, driven by Playwright."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import pytest
import torch
from helpers import write_bundle_of, write_redness_bundle
from torch import nn

from wsi_pipeline import pipeline
from wsi_pipeline.config import load_settings
from wsi_pipeline.geometry import Size
from wsi_pipeline.heatmap import Heatmap
from wsi_pipeline.phantom import write_phantom

REPOSITORY = Path(__file__).parents[2]
MPP = 0.2431
"""Cells of 12.5 µm are 51.42 px then: their edges are rounded one by one."""

SMALL = {"tissue_min_area_um2": 500, "tissue_min_hole_um2": 500, "tissue_closing_um": 4, "min_region_um2": 400}
STARTED_BY = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
              "--disable-component-update", "--disable-sync")  # fmt: skip
WAIT_MS = 20_000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.flaky(reruns=2))  # a browser on a busy machine may take longer than it is given
            item.add_marker(pytest.mark.slow)


class Darkness(nn.Module):
    """A network whose probability of class 1 rises with how little red there is: nuclei."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logit = 14.0 * (0.68 - x[:, 0].mean(dim=(1, 2)))
        return torch.stack([torch.zeros_like(logit), logit], dim=1)


def _unavailable(reason: str) -> None:
    """Skip; where everything has to be there, fail."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A running Chromium."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _unavailable("Playwright is not installed (pip install .[test])")
    named = os.environ.get("WSI_PIPELINE_CHROMIUM")
    found = named or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found or not Path(found).is_file():
        _unavailable(f"no Chromium at {found or '/usr/bin/chromium'} (set WSI_PIPELINE_CHROMIUM)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(STARTED_BY))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """Results of a drawn slide by two models, the second one with a spread; in the first run another slide failed.

    No run is called like a model.
    """
    folder = tmp_path_factory.mktemp("viewed")
    slide = folder / "slides" / "phantom A.tiff"
    slide.parent.mkdir()
    write_phantom(slide, Size(2400, 2000), seed=3, mpp=MPP, pen=False)
    broken = slide.with_name("broken.tiff")
    broken.write_bytes(slide.read_bytes()[:3000])
    dark = write_bundle_of(folder / "nuclei", Darkness(), size_px=50, mpp=0.25)
    red = write_redness_bundle(folder / "stain", mpp=0.25)
    common = {"workers": 0, "batch_size": 64, "device": "cpu", **SMALL}
    first = {**common, "model": str(dark), "threshold": 0.4}
    pipeline.run([str(slide), str(broken)], folder / "results" / "dark", load_settings(None, first))
    second = {**common, "model": str(red), "threshold": 0.9, "tta": True}
    pipeline.run([str(slide)], folder / "results" / "red", load_settings(None, second))
    return folder / "results"


def viewer_command() -> tuple[list[str], dict[str, str]]:
    """What is tested, and its environment: the installed command that WSI_PIPELINE_COMMAND names, or this checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if named := os.environ.get("WSI_PIPELINE_COMMAND"):
        return shlex.split(named), environment
    return [sys.executable, "-m", "wsi_pipeline.cli"], environment | {"PYTHONPATH": str(REPOSITORY)}


class Server:
    """`wsi-pipeline view` of a folder, in a process of its own, started beside that folder."""

    def __init__(self, results: Path, *options: str) -> None:
        self.results, self.options, self.port, self.url = results, options, 0, ""
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        """Start it, the second time at the port of the first."""
        command, environment = viewer_command()
        self._process = subprocess.Popen(
            [*command, "view", str(self.results), "--no-browser", *self.options, "--port", str(self.port)],
            cwd=self.results.parent,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        said = []
        for line in self._process.stdout or ():
            said.append(line)
            if match := re.search(r"http://[^/]+:(\d+)/", line):
                self.port, self.url = int(match[1]), match[0]
                return
        pytest.fail(f"the viewer did not start: {''.join(said)}")

    def stop(self) -> None:
        """End it, as Ctrl-C does."""
        if self._process is not None:
            self._process.terminate()
            self._process.communicate(timeout=20)
            self._process = None

    def get(self, path: str) -> Any:
        """The JSON answer to a GET."""
        with urlopen(self.url + path, timeout=20) as answer:
            return json.load(answer)

    def slide_id(self, run: str, name: str = "phantom A") -> str:
        """The id of a slide by its run and its name."""
        listing = self.get("api/run")
        run_id = next(entry["id"] for entry in listing["runs"] if entry["name"] == run)
        return next(slide["id"] for slide in listing["slides"] if (slide["run"], slide["name"]) == (run_id, name))


@pytest.fixture(scope="session")
def server(made) -> Iterator[Server]:
    """A viewer that no test writes to."""
    running = Server(made)
    yield running
    running.stop()


@pytest.fixture
def copied(made, tmp_path) -> Path:
    """A copy of the results that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "results"))


@pytest.fixture
def running() -> Iterator[list[Server]]:
    """The viewers that a test has started."""
    started: list[Server] = []
    yield started
    for viewer in started:
        viewer.stop()


@pytest.fixture
def serve(copied, running) -> Callable[..., Server]:
    """Starts viewers of the copy, with options."""

    def start(*options: str) -> Server:
        running.append(Server(copied, *options))
        return running[-1]

    return start


@pytest.fixture
def own_server(serve) -> Server:
    """A viewer for a test that writes or stops it."""
    return serve()


@pytest.fixture
def heatmap(made) -> Heatmap:
    """The map that the server shows."""
    return Heatmap.open(made / "dark" / "phantom A" / "heatmap.zarr")


class Page:
    """A page of the viewer that remembers what its console said."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.faults: list[str] = []
        page.set_default_timeout(WAIT_MS)
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.faults.append(str(error)))

    def _heard(self, message: Any) -> None:
        # A slide that is left while its tiles come is no fault; and it is the tests that read the canvas.
        if message.type in {"error", "warning"} and not message.text.startswith(
            ("Ignoring tile", "Canvas2D: Multiple")
        ):
            self.faults.append(message.text)

    def gallery(self, server: Server) -> Any:
        """Open the gallery."""
        self.page.goto(server.url)
        self.page.wait_for_selector(".card")
        return self.page

    def slide(self, server: Server, run: str = "dark", **values: object) -> Any:
        """Open a slide with values in its address, and wait until its regions are measured."""
        query = "&".join(f"{name}={quote(str(value))}" for name, value in values.items())
        # Away first: what stands on the page afterwards is of this slide and of no earlier one.
        self.page.goto("about:blank")
        self.page.goto(f"{server.url}#/slide/{server.slide_id(run)}?{query}")
        self.page.wait_for_selector(".regions:not(.stale) li, .regions:not(.stale):empty", state="attached")
        return self.page


@pytest.fixture
def new_page(chromium, running) -> Iterator[Callable[..., Page]]:
    """Makes pages of browsers that share nothing; at the end, no console may have said a word of trouble.

    It asks for `running` so that pages are closed before the viewers that they still ask for tiles.
    """
    contexts, pages = [], []

    def make(**options: object) -> Page:
        context = chromium.new_context(viewport={"width": 1280, "height": 800}, **options)
        contexts.append(context)
        pages.append(Page(context.new_page()))
        return pages[-1]

    yield make
    for context in contexts:
        context.close()
    assert [fault for page in pages for fault in page.faults] == []


@pytest.fixture
def page(new_page) -> Page:
    """One page."""
    return new_page()
