"""A folder of slides, a small model, and services on them."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from helpers import tissue_picture, write_redness_bundle
from starlette.testclient import TestClient
from tiffs import write_pyramid

from wsi_pipeline.config import load_settings
from wsi_pipeline.service.app import create_app
from wsi_pipeline.service.options import ServiceOptions
from wsi_pipeline.service.service import open_service
from wsi_pipeline.viewer.options import ViewerOptions

SMALL = {"tissue_min_area_um2": 500, "tissue_min_hole_um2": 500, "tissue_closing_um": 4, "min_region_um2": 200}
BASE_URL = "http://127.0.0.1:8765"


@pytest.fixture(scope="session")
def slide(tmp_path_factory) -> Path:
    """1000 x 800 px at 0.25 µm/px: one piece of tissue, redder to the right."""
    path = tmp_path_factory.mktemp("submitted") / "slide.tiff"
    return write_pyramid(path, base=tissue_picture(), compression="deflate", compressionargs={})


@pytest.fixture(scope="session")
def bundle(tmp_path_factory) -> Path:
    return write_redness_bundle(tmp_path_factory.mktemp("models") / "redness", mpp=0.25)


@pytest.fixture
def root(tmp_path, slide) -> Path:
    """``slide.tiff``, ``case 7/röt.tiff`` and ``broken.tiff``; ``link.tiff`` and ``way/`` lead to a slide outside."""
    folder, outside = tmp_path / "slides", tmp_path / "outside"
    (folder / "case 7").mkdir(parents=True)
    outside.mkdir()
    for place in (folder / "slide.tiff", folder / "case 7" / "röt.tiff", outside / "secret.tiff"):
        shutil.copyfile(slide, place)
    (folder / "broken.tiff").write_bytes(slide.read_bytes()[:2000])
    (folder / "link.tiff").symlink_to(outside / "secret.tiff")
    (folder / "way").symlink_to(outside)
    return folder


@pytest.fixture
def options(root, tmp_path, bundle) -> Callable[..., ServiceOptions]:
    """Gives options of a service on `root` with the small model."""

    def make(*, viewer: dict[str, Any] | None = None, **more: Any) -> ServiceOptions:
        given = {"workers": 0, "batch_size": 64, "device": "cpu", "engine": "torch", "threshold": 0.85, **SMALL}
        values = {"roots": (root,), "out": tmp_path / "results", "models": (str(bundle),), **more}
        return ServiceOptions(settings=load_settings(None, given), viewer=ViewerOptions(**(viewer or {})), **values)

    return make


@pytest.fixture
def start(options) -> Iterator[Callable[..., TestClient]]:
    """Starts services and gives clients of them; ``client.app.state.service`` is the service."""
    with ExitStack() as stack:

        def client(**more: Any) -> TestClient:
            service = stack.enter_context(open_service(options(**more)))
            return stack.enter_context(
                TestClient(create_app(service), base_url=BASE_URL, raise_server_exceptions=False)
            )

        yield client
