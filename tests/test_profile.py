"""The table adds up; the trace is what viewers of traces read."""

import json
import os
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_pipeline import timing
from wsi_pipeline.profile import PROFILE, exclusive_seconds, process_start, profile_table, profiled, write_trace
from wsi_pipeline.timing import Span

HERE = os.getpid(), threading.main_thread().name


def span(name: str, start: float, end: float, place=HERE, **facts) -> Span:
    return Span(name=name, start=start, end=end, process=place[0], thread=place[1], facts=facts)


@st.composite
def nested(draw, low=0, high=64, depth=3):
    """Spans of one thread as a program makes them: side by side or one within the other."""
    cuts = sorted(draw(st.lists(st.integers(low, high), max_size=6, unique=True)))
    found = []
    for start, end in zip(cuts[::2], cuts[1::2], strict=False):
        found.append(span(draw(st.sampled_from("abc")), start, end))
        if depth and end - start > 1:
            found += draw(nested(start, end, depth - 1))
    return found


@given(nested())
def test_each_moment_counts_for_the_innermost_span(spans):
    expected = dict.fromkeys({one.name for one in spans}, 0.0)
    for tick in range(64):
        around = [one for one in spans if one.start <= tick and tick + 1 <= one.end]
        if around:  # of equal ones the later is the inner
            inner = min(enumerate(around), key=lambda pair: (pair[1].seconds, -pair[0]))[1]
            expected[inner.name] += 1
    assert exclusive_seconds(spans) == pytest.approx(expected)


def test_the_table_tells_stages_shares_and_speed():
    reader = 77, "reader"
    text = profile_table(
        [
            span("network", 1, 9),
            span("wait", 2, 4),
            span("read", 0, 3, reader, decode_seconds=2.5),
            span("read", 3, 6, reader, decode_seconds=1.5),
        ],
        began=0.0,
        ended=10.0,
        cells=5000,
    )
    rows = {line[:28].strip(): line[28:].split() for line in text.splitlines() if line.startswith("  ")}
    assert rows["network"] == ["6.00", "60.0"]
    assert rows["wait"] == ["2.00", "20.0"]
    assert rows["other"] == ["2.00", "20.0"]
    assert rows["total"] == ["10.00", "100.0"]
    assert rows["read"] == ["6.00", "60.0"]
    assert rows["read: of that, decoding"] == ["4.00", "40.0"]
    assert text.endswith("5,000 cells, 500 cells/s")


def test_the_trace_has_the_form_of_trace_events(tmp_path):
    spans = [span("network", 10.5, 11.0), span("read", 10.0, 10.25, (77, "reader"), slide="a.svs", decodes=None)]
    write_trace(tmp_path / PROFILE, spans, began=10.0)
    trace = json.loads((tmp_path / PROFILE).read_text(encoding="utf-8"))
    assert set(trace) == {"traceEvents", "displayTimeUnit"}
    complete = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    named = [event for event in trace["traceEvents"] if event["ph"] == "M"]
    assert len(complete) + len(named) == len(trace["traceEvents"])
    for event in complete:
        assert {"name", "cat", "ph", "ts", "dur", "pid", "tid", "args"} == set(event)
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert event["ts"] >= 0
        assert event["dur"] >= 0
    assert [(e["name"], e["ts"], e["dur"], e["pid"]) for e in complete] == [
        ("network", 500_000, 500_000, os.getpid()),
        ("read", 0, 250_000, 77),
    ]
    rows = {(event["pid"], event["tid"]) for event in complete}
    for what in ("process_name", "thread_name"):
        assert {(event["pid"], event["tid"]) for event in named if event["name"] == what} == rows
    assert all(isinstance(event["args"]["name"], str) for event in named)


def test_a_process_knows_when_it_began():
    assert process_start() <= time.perf_counter()
    assert time.perf_counter() - process_start() < 24 * 3600


def test_a_profile_is_kept_where_the_run_fails():
    with pytest.raises(KeyError), profiled() as profile, timing.stage("network"):
        raise KeyError
    assert "network" in {one.name for one in profile.spans}
    assert profile.ended > profile.began
    assert "total" in profile.table(0)
