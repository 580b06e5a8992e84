"""Spans and stopwatches, with threads."""

import os
import threading

import pytest

from wsi_pipeline import timing
from wsi_pipeline.timing import Stopwatch


def test_a_stopwatch_sums_stages_over_threads(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(clock)))
    watch = Stopwatch(started=timing.time.perf_counter())

    def work():
        for _ in range(5):
            with watch.stage("write"):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = watch.finish()
    assert seconds["write"] >= 20  # each took at least one tick
    assert seconds["total"] == 41  # ticks since it was made: two for each of 20 stages, and this one


def test_waiting_for_its_turn_does_not_count(monkeypatch):
    now = 0.0
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)
    watch = Stopwatch(started=now)
    now = 2.0
    watch.pause()
    now = 100.0
    watch.go_on()
    now = 103.0
    assert watch.finish() == {"total": 5.0}


def test_spans_are_noted_only_while_recording():
    timing.note("before", 0, 1)
    with timing.recording() as spans:
        timing.note("here", 0, 1)
        thread = threading.Thread(target=timing.note, args=("there", 1, 2), name="other")
        thread.start()
        thread.join()
        timing.note("elsewhere", 2, 3, process=7, thread="reader", slide="a.svs")
    timing.note("after", 0, 1)
    assert [(span.name, span.process, span.thread) for span in spans] == [
        ("here", os.getpid(), threading.current_thread().name),
        ("there", os.getpid(), "other"),
        ("elsewhere", 7, "reader"),
    ]
    assert spans[2].facts == {"slide": "a.svs"}
    assert spans[2].seconds == 1


def test_recording_ends_with_an_error():
    with pytest.raises(KeyError), timing.recording() as spans, timing.stage("failing"):
        raise KeyError
    assert [span.name for span in spans] == ["failing"]
    with timing.stage("later"):
        pass
    assert len(spans) == 1


def test_items_pass_through_with_the_time_each_took():
    with timing.recording() as spans:
        assert list(timing.spanned("wait", iter("abc"))) == ["a", "b", "c"]
    assert [span.name for span in spans] == ["wait"] * 4  # the last is for the end
