"""Open slides for many threads: bounded in number, one thread at a time, none left open."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Lock

import pytest

from wsi_pipeline.errors import SlideFormatError, SlideReadError
from wsi_pipeline.viewer import pool as pool_module
from wsi_pipeline.viewer.pool import SlideFile, SlidePool, stamp_of
from wsi_pipeline.viewer.problems import RequestError


class CountingSlides:
    """In place of `open_slide`: counts what is open, and cries where two threads are in one slide."""

    def __init__(self) -> None:
        self.lock, self.open, self.most, self.opened = Lock(), 0, 0, 0

    def __call__(self, address: str, *, reader: str) -> "CountingSlides.Slide":
        with self.lock:
            self.opened += 1
            self.open += 1
            self.most = max(self.most, self.open)
        return CountingSlides.Slide(self)

    class Slide:
        def __init__(self, owner: "CountingSlides") -> None:
            self.owner, self.busy, self.closed = owner, Lock(), False

        def read(self) -> None:
            assert self.busy.acquire(blocking=False), "two threads in one slide"
            assert not self.closed
            time.sleep(0.001)
            self.busy.release()

        def close(self) -> None:
            assert not self.closed, "closed twice"
            self.closed = True
            with self.owner.lock:
                self.owner.open -= 1


@pytest.fixture
def slides(monkeypatch) -> CountingSlides:
    counting = CountingSlides()
    monkeypatch.setattr(pool_module, "open_slide", counting)
    return counting


def file(name: str) -> SlideFile:
    return SlideFile(address=name, reader="auto", stamp="1")


def test_threads_share_a_bounded_number_of_slides(slides):
    pool = SlidePool(limit=4, per_slide=2)

    def work(n: int) -> None:
        with pool.borrow(file(f"slide {n % 5}")) as slide:
            slide.read()

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(work, range(400)))
    assert slides.most <= 4
    assert pool.open == slides.open <= 4
    pool.close()
    assert slides.open == pool.open == 0


def test_a_slide_is_opened_again_only_for_a_second_thread(slides):
    pool = SlidePool(limit=4, per_slide=2)
    for _ in range(5):
        with pool.borrow(file("a")) as slide:
            slide.read()
    assert slides.opened == 1
    barrier = Barrier(2)

    def work(_: int) -> None:
        with pool.borrow(file("a")):
            barrier.wait(timeout=10)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(work, range(2)))
    assert slides.opened == 2
    pool.close()


def test_a_file_that_was_replaced_is_opened_anew(slides):
    pool = SlidePool(limit=2)
    with pool.borrow(file("a")):
        pass
    with pool.borrow(SlideFile(address="a", reader="auto", stamp="2")):
        pass
    assert slides.opened == 2
    pool.close()


def test_a_slide_stays_after_a_tile_that_cannot_be_read_and_goes_after_any_other_error(slides):
    pool = SlidePool(limit=2)
    with pytest.raises(SlideReadError), pool.borrow(file("a")):
        raise SlideReadError("a", "tile 3 is broken")
    assert slides.open == 1
    with pytest.raises(ZeroDivisionError), pool.borrow(file("a")):
        raise ZeroDivisionError
    assert slides.open == pool.open == 0
    pool.close()


def test_a_slide_that_cannot_be_opened_takes_no_place(tmp_path):
    pool = SlidePool(limit=1)
    path = tmp_path / "a.svs"
    path.write_bytes(b"nothing")
    for _ in range(3):
        with (
            pytest.raises(SlideFormatError),
            pool.borrow(SlideFile(address=str(path), reader="auto", stamp=stamp_of(str(path)))),
        ):
            pass
    assert pool.open == 0


def test_a_request_does_not_wait_for_ever(slides, monkeypatch):
    monkeypatch.setattr(pool_module, "_PATIENCE_S", 0.05)
    pool = SlidePool(limit=1)
    with pool.borrow(file("a")), pytest.raises(RequestError, match="too many") as refused, pool.borrow(file("b")):
        pass
    assert refused.value.status == 503
    pool.close()


def test_slides_in_use_when_the_pool_closes_are_closed_on_return(slides):
    pool = SlidePool(limit=2)
    with pool.borrow(file("a")):
        pool.close()
        assert slides.open == 1
    assert slides.open == 0
