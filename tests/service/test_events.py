"""Those who follow jobs: each has a place from the first moment to the last."""

import asyncio
from threading import Event
from typing import Any

import pytest
from helpers import run_alone

from wsi_pipeline.service import events as module
from wsi_pipeline.service.events import Listeners
from wsi_pipeline.service.schema import Job
from wsi_pipeline.viewer.problems import RequestError

JOB = Job(
    id="20260101-000000-00000000", slide="a.svs", model="m", settings={}, status="done", cancelling=False, cells=None,
    ahead=None, tries=1, created="", started=None, finished=None, error=None, links={},
)  # fmt: skip


def send_all(answer) -> list[Any]:
    """What an answer sends."""
    sent: list[Any] = []

    async def send(message) -> None:
        sent.append(message)

    run_alone(asyncio.run, answer({"type": "http", "asgi": {"spec_version": "2.4"}}, receive, send))
    return sent


async def receive() -> Any:
    await asyncio.sleep(20)


@pytest.fixture
def listeners(monkeypatch) -> Listeners:
    monkeypatch.setattr(module, "MAX_LISTENERS", 1)
    return Listeners(Event())


def test_a_place_is_taken_before_the_first_event(listeners):
    """Else any number get in between the question and the answer."""
    first = listeners.answer(lambda: JOB)
    with pytest.raises(RequestError) as refused:
        listeners.answer(lambda: JOB)
    assert refused.value.status == 503
    sent = send_all(first)
    assert b"event: end" in sent[1]["body"]
    assert send_all(listeners.answer(lambda: JOB)) == sent


def test_who_breaks_off_gives_the_place_back(listeners):
    async def gone(_) -> None:
        raise OSError("the connection is gone")

    for _ in range(3):
        answer = listeners.answer(lambda: JOB)
        with pytest.raises(Exception):  # noqa: B017, PT011  (which one is the server's affair)
            run_alone(asyncio.run, answer({"type": "http", "asgi": {"spec_version": "2.4"}}, receive, gone))
    assert send_all(listeners.answer(lambda: JOB))
