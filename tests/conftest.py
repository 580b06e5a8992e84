"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
from needs import unavailable


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with real slides and patches; skips the test where there is none, fails it under CI."""
    folder = Path(os.environ.get("WSI_PIPELINE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        unavailable(f"no real data at {folder} (set WSI_PIPELINE_DATA)")
    return folder
