"""The database of jobs."""

import sqlite3
import threading

import pytest

from wsi_pipeline.errors import ConfigError, OutputError
from wsi_pipeline.service.store import DATABASE, JobStore


def add(store: JobStore, slide: str = "a.tiff", max_queued: int = 10):
    return store.add(
        slide=slide, model="m", bundle="d", asked={"cell": "native"}, settings={"model": "m"}, max_queued=max_queued
    )


@pytest.fixture
def store(tmp_path):
    opened = JobStore(tmp_path / "state")
    yield opened
    opened.close()


def test_a_job_from_queue_to_end(store):
    job = add(store)
    assert (job.status, job.tries, job.ended) == ("queued", 0, False)
    assert (job.asked, job.settings) == ({"cell": "native"}, {"model": "m"})
    begun = store.begin(job.id)
    assert (begun.status, begun.tries) == ("running", 1)
    assert begun.started is not None
    assert store.begin(job.id) is None
    store.progress(job.id, 3, 9, further=False)
    store.end(job.id, "done")
    done = store.get(job.id)
    assert (done.status, done.cells_done, done.cells_total, done.ended) == ("done", 3, 9, True)
    store.end(job.id, "failed", {"why": "too late"})
    assert store.get(job.id) == done


def test_first_come_first_served(store):
    jobs = [add(store, f"{n}.tiff") for n in range(3)]
    assert [store.ahead_of(job) for job in jobs] == [0, 1, 2]
    assert store.next_queued() == jobs[0]
    store.begin(jobs[0].id)
    assert store.next_queued() == jobs[1]
    assert store.ahead_of(jobs[2]) == 2
    store.requeue(jobs[0].id)
    assert store.next_queued().id == jobs[0].id
    assert [job.slide for job in store.page(status=None, before=None, limit=2)] == ["2.tiff", "1.tiff"]
    assert [job.slide for job in store.page(status=None, before=jobs[1].number, limit=9)] == ["0.tiff"]
    assert store.page(status="done", before=None, limit=9) == []


def test_the_bound_holds_against_many_at_once(store):
    taken = []
    threads = [threading.Thread(target=lambda: taken.append(add(store, max_queued=5))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(job is not None for job in taken) == 5
    assert store.queued() == 5
    store.begin(store.next_queued().id)
    assert add(store, max_queued=5) is not None


def test_tries_count_only_without_getting_further(store):
    job = add(store)
    for tries in (1, 2):
        assert store.begin(job.id).tries == tries
        store.requeue(job.id)
    store.begin(job.id)
    store.progress(job.id, 5, 9, further=True)
    assert store.get(job.id).tries == 1
    store.requeue(job.id, uncounted=True)
    assert store.get(job.id).tries == 0


def test_cancelling(store):
    waiting, running = add(store), add(store)
    store.begin(running.id)
    assert store.cancel(waiting.id).status == "cancelled"
    assert store.cancel(waiting.id).status == "cancelled"
    marked = store.cancel(running.id)
    assert (marked.status, marked.cancelling) == ("running", True)
    assert store.cancel("none") is None
    assert store.begin(waiting.id) is None


def test_it_is_there_after_a_crash(store, tmp_path):
    job = add(store)
    # Another connection sees what is on the disk, as the next process would.
    again = JobStore(tmp_path / "state")
    assert again.get(job.id) == job
    again.close()


def test_databases_of_other_versions_and_damaged_ones(tmp_path):
    JobStore(tmp_path).close()
    with sqlite3.connect(tmp_path / DATABASE) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ConfigError, match="version 99"):
        JobStore(tmp_path)
    for file in tmp_path.glob(f"{DATABASE}*"):
        file.unlink()
    (tmp_path / DATABASE).write_bytes(b"no database at all, but long enough to be taken for one" * 40)
    with pytest.raises(OutputError, match="database of jobs failed"):
        JobStore(tmp_path)
