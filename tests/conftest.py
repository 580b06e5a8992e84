"""Fixtures shared by all tests."""

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
