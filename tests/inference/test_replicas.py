"""Several predictors on the blocks of one slide."""

import threading
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_pipeline.inference.devices import each_device
from wsi_pipeline.inference.replicas import share_blocks


def one_by_one(blocks):
    for block in blocks:
        yield 10 * block


def one_behind(blocks):
    """Holds a result back until it has taken the next block, as a GPU does."""
    held = []
    for block in blocks:
        held.append(10 * block)
        if len(held) > 1:
            yield held.pop(0)
    yield from held


def slow(blocks):
    for block in blocks:
        time.sleep(0.001)
        yield 10 * block


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 40), st.lists(st.sampled_from([one_by_one, one_behind, slow]), min_size=1, max_size=4))
def test_every_block_comes_once_and_in_order(count, predictors):
    assert list(share_blocks(predictors, range(count))) == [10 * n for n in range(count)]


def test_the_blocks_are_shared():
    taken = [[], []]
    together = threading.Barrier(2, timeout=10)

    def noting(number):
        def predict(blocks):
            for block in blocks:
                taken[number].append(block)
                if len(taken[number]) == 1:
                    together.wait()  # neither goes on before both have one
                yield block

        return predict

    assert list(share_blocks([noting(0), noting(1)], range(6))) == list(range(6))
    assert all(taken)
    assert sorted(taken[0] + taken[1]) == list(range(6))


def test_what_goes_wrong_is_raised_and_the_others_stop():
    def failing(blocks):
        for block in blocks:
            if block == 3:
                raise OSError("the device is gone")
            yield block

    with pytest.raises(OSError, match="the device is gone"):
        list(share_blocks([failing, failing], iter(range(10**9))))

    def unreadable():
        yield 0
        raise ValueError("no such tile")

    with pytest.raises(ValueError, match="no such tile"):
        list(share_blocks([one_behind, one_by_one], unreadable()))


def test_who_stops_listening_stops_the_work():
    taken = []

    def endless():
        for n in range(10**9):
            taken.append(n)
            yield n

    results = share_blocks([one_by_one, one_behind], endless())
    assert next(results) == 0
    results.close()
    count, threads = len(taken), threading.active_count()
    time.sleep(0.02)
    assert (len(taken), threading.active_count()) == (count, threads)


def test_a_device_by_number_or_of_another_kind_stands_for_itself(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert each_device("cuda") == ["cuda:0", "cuda:1", "cuda:2"]
    assert each_device("cuda:1") == ["cuda:1"]
    assert each_device("cpu") == ["cpu"]
