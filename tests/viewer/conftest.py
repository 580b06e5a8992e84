"""Results of two small runs on one slide, a failed slide, and clients of a viewer of them."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from helpers import tissue_picture, write_redness_bundle
from starlette.testclient import TestClient
from tiffs import write_pyramid

from wsi_pipeline import pipeline
from wsi_pipeline.config import load_settings
from wsi_pipeline.viewer.app import create_app
from wsi_pipeline.viewer.options import ViewerOptions

SMALL = {"tissue_min_area_um2": 500, "tissue_min_hole_um2": 500, "tissue_closing_um": 4, "min_region_um2": 200}
BASE_URL = "http://127.0.0.1:8765"


@pytest.fixture(scope="session")
def slide(tmp_path_factory) -> Path:
    """1000 x 800 px at 0.25 µm/px: one piece of tissue, redder to the right."""
    path = tmp_path_factory.mktemp("viewed") / "röt 1.tiff"
    return write_pyramid(path, base=tissue_picture(), compression="deflate", compressionargs={})


@pytest.fixture(scope="session")
def made(tmp_path_factory, slide) -> Path:
    """A folder of two runs: ``plain``, in which a slide failed, and ``tta``, which has a spread."""
    folder = tmp_path_factory.mktemp("made") / "results"
    model = str(write_redness_bundle(tmp_path_factory.mktemp("bundle") / "redness", mpp=0.25))
    broken = slide.with_name("broken.tiff")
    broken.write_bytes(slide.read_bytes()[:2000])
    common = {"model": model, "workers": 0, "batch_size": 64, "device": "cpu", "threshold": 0.85, **SMALL}
    pipeline.run([str(slide), str(broken)], folder / "plain", load_settings(None, common))
    pipeline.run([str(slide)], folder / "tta", load_settings(None, {**common, "tta": True, "threshold": 0.8}))
    return folder


@pytest.fixture
def results(tmp_path, made) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "results"))


@pytest.fixture
def open_viewer() -> Iterator[Callable[..., TestClient]]:
    """Gives clients of viewers; an error within one is an answer, as for a browser."""
    with ExitStack() as stack:

        def client(folder: Path, **options) -> TestClient:
            app = create_app(folder, ViewerOptions(**options))
            return stack.enter_context(TestClient(app, base_url=BASE_URL, raise_server_exceptions=False))

        yield client


@pytest.fixture
def viewer(open_viewer, results) -> TestClient:
    """A client of a viewer of both runs."""
    return open_viewer(results)


@pytest.fixture
def find() -> Callable[..., str]:
    """The id of a slide by its run and its name."""

    def slide_id(client: TestClient, run: str = "plain", name: str = "röt 1") -> str:
        listing = client.get("/api/run").json()
        run_id = next(entry["id"] for entry in listing["runs"] if entry["name"] == run)
        return next(entry["id"] for entry in listing["slides"] if (entry["run"], entry["name"]) == (run_id, name))

    return slide_id
