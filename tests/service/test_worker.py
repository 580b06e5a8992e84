"""What the worker does with errors: told to the server in short, and in the log where the program is at fault."""

from io import BytesIO

import pytest

from wsi_pipeline.errors import DatasetError
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
