"""A finished run shared by the tests of this folder; none of them may change it."""

from pathlib import Path

import pytest
from finished_results import Finished, make_finished, make_slide, write_run


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two slides; the slide of the second is gone."""
    folder = tmp_path_factory.mktemp("finished")
    run = folder / "run"
    make_finished(run / "a slide", make_slide(folder / "a slide.tiff"))
    gone = make_slide(folder / "gone.tiff", seed=1)
    make_finished(run / "gone", gone, refined=True)
    gone.unlink()
    write_run(run)
    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One slide with all that a map can have, in a run that keeps every region."""
    folder = tmp_path_factory.mktemp("one")
    made = make_finished(folder / "run" / "slide", make_slide(folder / "slide.tiff"), refined=True)
    write_run(folder / "run")
    return made
