"""A finished run shared by the tests of this folder; none of them may change it."""

from pathlib import Path

import pytest
from report_runs import make_run


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("report"))
