"""Fixtures shared by all tests."""

import logging
import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with real slides and patches; skips the test where there is none, fails it under CI."""
    folder = Path(os.environ.get("WSI_PIPELINE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        reason = f"no real data at {folder} (set WSI_PIPELINE_DATA)"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(autouse=True)
def heard():
    """Our warnings are heard: libraries that other tests load set up logging as if they were alone."""
    logging.disable(logging.NOTSET)
    logging.root.setLevel(logging.WARNING)
    for name in list(logging.root.manager.loggerDict):
        if name.split(".")[0] == "wsi_pipeline":
            logging.getLogger(name).disabled = False
            logging.getLogger(name).propagate = True
