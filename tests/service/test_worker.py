"""What the worker does with errors: told to the server in short, and in the log where the program is at fault."""

from io import BytesIO

import pytest

from wsi_pipeline.config import load_settings
from wsi_pipeline.errors import ConfigError, DatasetError
from wsi_pipeline.service import bounds
from wsi_pipeline.service.messages import pack
from wsi_pipeline.service.worker import _Worker


class ToldError(Exception):
    """Ends the thread's loop with what it said."""


class Models:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def predict(self, *_: object) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "logged"), [(ZeroDivisionError("by naught"), True), (DatasetError("a.png", "is no image"), False)]
)
def test_a_fault_of_the_program_is_logged_with_its_traceback(monkeypatch, caplog, error, logged):
    def tell(_, message):
        raise ToldError(message)

    monkeypatch.setattr(_Worker, "tell", tell)
    worker = _Worker(BytesIO())
    worker.patches.put({"do": "predict", "patch": "1", "model": "m", "image": pack(b"bytes")})
    with caplog.at_level("WARNING"), pytest.raises(ToldError) as told:
        worker.answer_patches(Models(error))
    (message,) = told.value.args
    assert (message["patch"], message["error"]["type"]) == ("1", type(error).__name__)
    assert "traceback" not in message["error"]
    assert ("Traceback" in caplog.text and "by naught" in caplog.text) == logged


class TestCells:
    """A request may name any slide under the roots and cells of 1 µm: together they may not fill the memory."""

    def order(self, slide, tmp_path, **settings):
        values = load_settings(None, settings).model_dump(mode="json")
        return {"job": "1", "slide": str(slide), "folder": str(tmp_path / "1"), "settings": values}

    def test_a_map_too_large_is_refused_before_the_slide_is_run(self, slide, tmp_path, monkeypatch):
        monkeypatch.setattr("wsi_pipeline.pipeline.run", lambda *_, **__: pytest.fail("it ran"))
        monkeypatch.setattr(bounds, "MAX_CELLS", 49_999)
        found = _Worker(BytesIO())._run_slide(self.order(slide, tmp_path, cell="1um"))
        assert found["status"] == "failed"
        assert (found["error"]["type"], found["error"]["where"]) == ("ConfigError", "cell")
        assert "50,000 cells" in found["error"]["why"]  # 250 x 200 µm

    def test_the_resolution_of_the_request_counts(self, slide, monkeypatch):
        monkeypatch.setattr(bounds, "MAX_CELLS", 50_000)
        bounds.require_moderate(str(slide), load_settings(None, {"cell": "1um"}))
        bounds.require_moderate(str(slide), load_settings(None, {"cell": "native", "mpp": 10}))
        with pytest.raises(ConfigError, match="200,000 cells"):
            bounds.require_moderate(str(slide), load_settings(None, {"cell": "1um", "mpp": 0.5}))

    def test_a_slide_that_cannot_be_opened_is_left_to_the_run(self, tmp_path):
        bounds.require_moderate(str(tmp_path / "nowhere.svs"), load_settings(None, {"cell": "1um"}))
