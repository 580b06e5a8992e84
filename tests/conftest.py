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


@pytest.fixture(scope="session", autouse=True)
def kept_networks(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Converted networks are kept for these tests alone, not in the user's own folder."""
    os.environ["WSI_PIPELINE_CACHE"] = str(tmp_path_factory.mktemp("kept"))
