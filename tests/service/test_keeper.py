"""The queue with a worker that dies, hangs, stumbles and refuses: without a network."""

import os
import shutil
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from waiting import wait_for, wait_for_end

from wsi_pipeline.errors import BundleError, InferenceError, OutputError
from wsi_pipeline.service.app import create_app
from wsi_pipeline.service.options import ServiceOptions
from wsi_pipeline.service.service import open_service
from wsi_pipeline.viewer.problems import RequestError

FAKE = (sys.executable, str(Path(__file__).with_name("fake_worker.py")))


@pytest.fixture
def slides(root):
    """Files of which the worker's behaviour is the name."""
    for name in ("dies", "stumbles", "waits", "hangs", "fails", "passes"):
        shutil.copyfile(root / "slide.tiff", root / f"{name}.tiff")
    return root


@pytest.fixture
def begin(slides, options):
    """Starts a service with the false worker; gives it and a client."""
    with ExitStack() as stack:

        def start(**more):
            service = stack.enter_context(open_service(options(**more), FAKE))
            app = create_app(service)
            client = TestClient(app, base_url="http://127.0.0.1:8765", raise_server_exceptions=False)
            return service, stack.enter_context(client)

        yield start


def submit(client, name: str, **more) -> str:
    answer = client.post("/api/jobs", json={"slide": f"{name}.tiff", **more})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def test_a_slide_that_kills_the_worker_fails_after_three_tries_and_the_next_one_runs(begin):
    _, client = begin()
    killer, other = submit(client, "dies"), submit(client, "passes")
    job = wait_for_end(client, killer)
    assert (job["status"], job["tries"]) == ("failed", 3)
    assert "died 3 times" in job["error"]["why"]
    assert "SIGKILL" in job["error"]["why"]
    assert job["error"]["where"] == "dies.tiff"
    assert wait_for_end(client, other)["status"] == "done"


def test_deaths_do_not_count_while_the_job_gets_further(begin):
    _, client = begin()
    job = wait_for_end(client, submit(client, "stumbles"))
    assert job["status"] == "done"
    assert job["cells"] == {"done": 10, "total": 10, "fraction": 1.0}


def test_what_a_slide_fails_of_is_told(begin):
    _, client = begin()
    job = wait_for_end(client, submit(client, "fails"))
    assert job["status"] == "failed"
    assert job["error"] == {"where": "fails.tiff", "why": "is damaged", "hint": "Copy it again."}
    answer = client.get(f"/api/jobs/{job['id']}/summary")
    assert answer.status_code == 409
    assert "is damaged" in answer.json()["error"]["why"]


def test_a_running_job_is_cancelled_and_leaves_nothing(begin):
    service, client = begin()
    job_id, later = submit(client, "waits"), submit(client, "passes")
    wait_for(lambda: client.get(f"/api/jobs/{job_id}").json()["cells"])
    assert client.get(f"/api/jobs/{later}").json()["ahead"] == 1
    folder = service.options.out / job_id
    assert folder.is_dir()
    answer = client.post(f"/api/jobs/{job_id}/cancel").json()
    assert answer["cancelling"]
    assert wait_for_end(client, job_id)["status"] == "cancelled"
    assert not folder.exists()
    assert client.post(f"/api/jobs/{job_id}/cancel").json()["status"] == "cancelled"
    assert wait_for_end(client, later)["status"] == "done"
    assert client.post(f"/api/jobs/{later}/cancel").status_code == 409


def test_one_that_does_not_listen_loses_its_worker(begin):
    service, client = begin(cancel_grace_s=0.3)
    job_id = submit(client, "hangs")
    wait_for(lambda: client.get(f"/api/jobs/{job_id}").json()["status"] == "running")
    before = service.keeper.worker_pid
    client.post(f"/api/jobs/{job_id}/cancel")
    assert wait_for_end(client, job_id)["status"] == "cancelled"
    assert wait_for_end(client, submit(client, "passes"))["status"] == "done"
    assert service.keeper.worker_pid not in {None, before}


def test_a_job_that_waits_is_cancelled_at_once(begin):
    _, client = begin()
    running, waiting = submit(client, "waits"), submit(client, "passes")
    wait_for(lambda: client.get(f"/api/jobs/{running}").json()["status"] == "running")
    assert client.post(f"/api/jobs/{waiting}/cancel").json()["status"] == "cancelled"
    events = client.get(f"/api/jobs/{waiting}/events")
    assert "event: end" in events.text


def test_a_full_queue_says_when_to_come_back(begin):
    _, client = begin(max_queued=2)
    running = submit(client, "waits")
    wait_for(lambda: client.get(f"/api/jobs/{running}").json()["status"] == "running")
    waiting = [submit(client, "passes"), submit(client, "passes")]
    refused = client.post("/api/jobs", json={"slide": "passes.tiff"})
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0
    assert "2 jobs wait" in refused.json()["error"]["why"]
    client.post(f"/api/jobs/{waiting[0]}/cancel")
    submit(client, "passes")


def test_jobs_go_on_where_the_server_ended(begin, options):
    with open_service(options(), FAKE) as first:
        running, waiting = first.submit("waits.tiff", None, {}), first.submit("passes.tiff", None, {})
        wait_for(lambda: first.job(running.id).status == "running")
    _, client = begin()
    again = wait_for(lambda: (job := client.get(f"/api/jobs/{running.id}").json())["status"] == "running" and job)
    assert again["tries"] == 1  # an ordered end is no fault of the job
    assert client.get(f"/api/jobs/{waiting.id}").json()["status"] == "queued"
    client.post(f"/api/jobs/{running.id}/cancel")
    assert wait_for_end(client, waiting.id)["status"] == "done"


def test_a_cancelled_job_does_not_come_back(begin, options):
    with open_service(options(cancel_grace_s=60), FAKE) as first:
        job = first.submit("hangs.tiff", None, {})
        wait_for(lambda: first.job(job.id).status == "running")
        first.store.cancel(job.id)
    _, client = begin()
    assert wait_for_end(client, job.id)["status"] == "cancelled"


def test_a_worker_killed_between_jobs_is_replaced(begin):
    service, client = begin()
    os.kill(service.keeper.worker_pid, signal.SIGKILL)
    assert wait_for_end(client, submit(client, "passes"))["status"] == "done"


def test_a_patch_that_kills_the_worker_is_answered_and_the_next_job_runs(begin):
    _, client = begin()
    answer = client.post("/api/patches/probabilities", content=b"x", headers={"Content-Type": "image/png"})
    assert answer.status_code == 503
    assert answer.json()["error"]["why"] == "died before it answered"
    assert answer.headers["retry-after"]
    assert wait_for_end(client, submit(client, "passes"))["status"] == "done"


def test_patches_wait_in_bounds(begin):
    service, client = begin(patch_patience_s=0.5, max_patches=1)
    job = submit(client, "hangs")
    wait_for(lambda: service.keeper.progress(service.job(job)))  # the worker itself has begun
    send = {"content": b"x", "headers": {"Content-Type": "image/png"}}
    answer = client.post("/api/patches/probabilities", **send)
    assert answer.status_code == 503
    assert "more than 0.5 s" in answer.json()["error"]["why"]
    with service.patches:
        assert client.post("/api/patches/probabilities", **send).status_code == 429


def test_the_slide_is_looked_at_again_before_it_runs(begin, slides):
    _, client = begin()
    running, waiting = submit(client, "waits"), submit(client, "passes")
    (slides / "passes.tiff").unlink()
    (slides / "passes.tiff").symlink_to("/etc/passwd")
    client.post(f"/api/jobs/{running}/cancel")
    job = wait_for_end(client, waiting)
    assert job["status"] == "failed"
    assert "link" in job["error"]["why"]


def test_two_services_on_one_folder_are_refused(begin, options):
    begin()
    with pytest.raises(OutputError, match="is writing here"), open_service(options(), FAKE):
        pass


@pytest.mark.parametrize(("model", "error", "why"), [("refused", BundleError, "is damaged"),
                                                     ("breaks", InferenceError, "with status 3")])  # fmt: skip
def test_a_worker_that_cannot_start_stops_the_start(options, model, error, why):
    with pytest.raises(error, match=why), open_service(options(models=(model,)), FAKE):
        pass
    # The lock is free again.
    with open_service(options(), FAKE) as service:
        assert service.keeper.ready


def test_models_of_one_name_are_refused(tmp_path):
    for folder in ("a/m", "b/m"):
        (tmp_path / folder).mkdir(parents=True)
    models = (str(tmp_path / "a" / "m"), str(tmp_path / "b" / "m"))
    with pytest.raises(Exception, match="two models have the name 'm'"):
        ServiceOptions(roots=(tmp_path,), out=tmp_path, models=models).bundles()


def test_too_many_who_follow(begin, monkeypatch):
    monkeypatch.setattr("wsi_pipeline.service.events.MAX_LISTENERS", 0)
    _, client = begin()
    answer = client.get(f"/api/jobs/{submit(client, 'passes')}/events")
    assert answer.status_code == 503
    assert answer.headers["retry-after"]


def test_unknown_ones(begin):
    service, client = begin()
    for path in ("20260101-000000-00000000", "x", "20260101-000000-0000000%30"):
        assert client.get(f"/api/jobs/{path}").status_code == 404
    assert client.post("/api/jobs", json={"slide": "passes.tiff", "model": "../m"}).status_code == 422
    with pytest.raises(RequestError, match="none of the name"):
        service.choose_model("idc-resnet18")
