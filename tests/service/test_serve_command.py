"""The command: a real server that is killed, stopped, started twice."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from waiting import wait_for

from wsi_pipeline import pipeline
from wsi_pipeline.cli import SOME_FAILED, USAGE, main
from wsi_pipeline.config import load_settings
from wsi_pipeline.heatmap import Heatmap
from wsi_pipeline.service.store import JobStore

CONFIG = {"tissue": {"tissue_min_area_um2": 500, "tissue_min_hole_um2": 500, "tissue_closing_um": 4},
          "inference": {"workers": 0, "batch_size": 64, "device": "cpu", "engine": "torch"}}  # fmt: skip
FINE = {"cell": "2um", "tta": True}
"""Thousands of cells in several blocks: time enough to kill somebody in the middle."""


@contextmanager
def server(root: Path, out: Path, bundle: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`wsi-pipeline serve` in a process of its own, and its address."""
    config = out.with_name("config.yaml")
    config.write_text(json.dumps(CONFIG))
    command = [sys.executable, "-m", "wsi_pipeline.cli", "serve", "--root", str(root), "--out", str(out), "--port", "0",
               "--model", str(bundle), "--config", str(config), *more]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            line = process.stdout.readline()
            assert line.startswith("Service: http://"), line + process.stderr.read()
            yield process, line.removeprefix("Service: ").strip().rstrip("/")
        finally:
            process.kill()


def ask(address: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"Content-Type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def libraries(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


def children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.slow
def test_killed_in_the_middle_of_a_job_it_goes_on_to_the_same_map(root, tmp_path, bundle):
    out = tmp_path / "results"
    with server(root, out, bundle) as (process, address):
        _, first = ask(address, "/api/jobs", {"slide": "slide.tiff", "settings": FINE})
        _, second = ask(address, "/api/jobs", {"slide": "case 7/röt.tiff"})
        workers = [pid for pid in children(process.pid) if "libtorch" in libraries(pid)]
        assert len(workers) == 1
        assert "libtorch" not in libraries(process.pid)

        def half_way() -> bool:
            cells = ask(address, f"/api/jobs/{first['id']}")[1]["cells"]
            return cells is not None and 0 < cells["done"] < cells["total"]

        wait_for(half_way)
        process.kill()
        process.wait()
        # The worker notices by itself.
        wait_for(lambda: is_gone(workers[0]), 20)
    assert not (out / first["id"] / "slide" / "summary.json").exists()

    with server(root, out, bundle) as (process, address):
        ends = [wait_for(lambda job=job: ended(address, job["id"])) for job in (first, second)]
        assert [end["status"] for end in ends] == ["done", "done"], ends
        assert ends[0]["started"] < ends[0]["finished"] < ends[1]["finished"]
        # An orderly end, with a job that runs and somebody who follows it.
        _, third = ask(address, "/api/jobs", {"slide": "slide.tiff", "settings": FINE})
        wait_for(lambda: ask(address, f"/api/jobs/{third['id']}")[1]["status"] == "running")
        with urllib.request.urlopen(f"{address}/api/jobs/{third['id']}/events", timeout=30) as stream:
            assert stream.readline() == b"id: 1\n"
            process.send_signal(signal.SIGINT)
            assert b"event: end" not in stream.read()
        _, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (0, "")
    store = JobStore(out / ".service")
    assert (store.get(third["id"]).status, store.get(third["id"]).tries) == ("queued", 0)
    store.close()
    settings = load_settings(tmp_path / "config.yaml", {"model": str(bundle), **FINE})
    pipeline.run([str(root / "slide.tiff")], tmp_path / "direct", settings)
    maps = [Heatmap.open(folder / "slide" / "heatmap.zarr").probability("IDC") for folder in
            (out / first["id"], tmp_path / "direct")]  # fmt: skip
    np.testing.assert_array_equal(maps[0], maps[1])


def ended(address: str, job_id: str) -> dict[str, Any] | None:
    job: dict[str, Any] = ask(address, f"/api/jobs/{job_id}")[1]
    return job if job["status"] in {"done", "failed", "cancelled"} else None


@pytest.mark.slow
def test_cancelled_in_the_middle_and_killed_worker_and_a_second_server(root, tmp_path, bundle, capsys):
    out = tmp_path / "results"
    with server(root, out, bundle) as (process, address):
        refused = ["serve", "--root", str(root), "--out", str(out), "--port", "0", "--model", str(bundle)]
        assert main(refused) == SOME_FAILED
        assert "is writing here" in capsys.readouterr().err

        _, first = ask(address, "/api/jobs", {"slide": "slide.tiff", "settings": FINE})
        wait_for(lambda: ask(address, f"/api/jobs/{first['id']}")[1]["cells"])
        assert ask(address, f"/api/jobs/{first['id']}/cancel", {})[0] == 200
        assert wait_for(lambda: ended(address, first["id"]))["status"] == "cancelled"
        assert not (out / first["id"]).exists()

        _, second = ask(address, "/api/jobs", {"slide": "slide.tiff"})
        wait_for(lambda: ask(address, f"/api/jobs/{second['id']}")[1]["status"] == "running")
        (worker,) = [pid for pid in children(process.pid) if "libtorch" in libraries(pid)]
        os.kill(worker, signal.SIGKILL)
        assert wait_for(lambda: ended(address, second["id"]))["status"] == "done"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in {0, -signal.SIGTERM}


@pytest.mark.slow
def test_an_address_beyond_this_machine_needs_the_token(root, tmp_path, bundle):
    with server(root, tmp_path / "results", bundle, "--host", "0.0.0.0") as (_, address):
        base, _, token = address.partition("/?token=")
        here = f"http://127.0.0.1:{base.rsplit(':', 1)[1]}"
        assert ask(here, "/api/service")[0] == 401
        assert ask(here, "/api/service", headers={"Authorization": f"Bearer {token}"})[0] == 200


def test_wrong_usage(root, tmp_path, capsys):
    out = str(tmp_path / "results")
    assert main(["serve", "--root", str(tmp_path / "nowhere"), "--out", out, "--port", "0"]) == USAGE
    assert "is no folder" in capsys.readouterr().err
    assert main(["serve", "--root", str(root), "--out", out, "--port", "0", "--token", "short"]) == USAGE
    assert "--token" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["serve", "--out", out])


@pytest.mark.slow
def test_a_model_that_is_none_is_told_at_the_start(root, tmp_path, capsys):
    arguments = ["serve", "--root", str(root), "--out", str(tmp_path / "results"), "--port", "0", "--model", "soup"]
    assert main(arguments) == USAGE
    assert "soup: is no model bundle" in capsys.readouterr().err
