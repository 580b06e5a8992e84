"""The command, and a real server in a process of its own."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wsi_pipeline.cli import USAGE, main
from wsi_pipeline.errors import ConfigError
from wsi_pipeline.viewer.options import ViewerOptions
from wsi_pipeline.viewer.server import USUAL_PORT, address_of, listen, with_token


@contextmanager
def server(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`wsi-pipeline view` with these options, and the address that it prints."""
    command = [sys.executable, "-m", "wsi_pipeline.cli", "view", *options, "--no-browser"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("Viewer: http://"), line + (process.stderr.read() if process.stderr else "")
            yield process, line.removeprefix("Viewer: ").strip()
        finally:
            process.kill()


def ask(address: str, method: str, target: str, headers: dict[str, str] | None = None) -> tuple[int, bytes, dict]:
    """One request whose target goes over the wire as it is."""
    host = address.removeprefix("http://").split("/")[0]
    connection = http.client.HTTPConnection(host, timeout=30)
    connection.putrequest(method, target, skip_host=bool(headers and "Host" in headers), skip_accept_encoding=True)
    for name, value in (headers or {}).items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
    connection.close()
    return found


@pytest.mark.slow
def test_a_real_server_from_start_to_ctrl_c(made):
    with server(str(made), "--port", "0") as (process, address):
        host = address.removeprefix("http://").rstrip("/")
        assert host.startswith("127.0.0.1:")
        status, body, headers = ask(address, "GET", "/api/run")
        assert status == 200
        rows = json.loads(body)["slides"]
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert "server" not in headers
        done = next(row["id"] for row in rows if row["status"] == "done")
        status, body, _ = ask(address, "GET", f"/api/slides/{done}/tiles/10/1_1.jpg")
        assert (status, body[:3]) == (200, b"\xff\xd8\xff")

        secret = (Path(__file__).parents[2] / "pyproject.toml").read_bytes()[:40]
        for target in (
            *("/static/../../../pyproject.toml", "/static/%2e%2e/%2e%2e/%2e%2e/pyproject.toml", "/../pyproject.toml"),
            *("/static/..%2f..%2f..%2fpyproject.toml", "//etc/passwd", "/static//etc/passwd", "/%2fetc%2fpasswd"),
            *(f"/api/slides/{done}/../../../run.json", f"/api/slides/{done}/%2e%2e/%2e%2e/run.json", "/static/%00"),
            *(f"/api/slides/..%2f..%2f{done}/overlay.png", "/api/slides/%252e%252e/overlay.png", "/\\etc\\passwd"),
            *("http://evil.example/etc/passwd", "/api/slides/\xff", "/static/" + "../" * 30 + "etc/passwd"),
        ):
            try:
                status, body, _ = ask(address, "GET", target)
            except (http.client.InvalidURL, UnicodeEncodeError):
                continue
            assert status in {400, 404, 421}, target
            assert secret not in body
            assert b"root:" not in body

        assert ask(address, "GET", "/api/run", {"Host": "evil.example"})[0] == 421
        assert ask(address, "GET", "/api/run", {"Host": host, "Origin": "http://evil.example"})[0] == 403
        assert ask(address, "GET", "/api/run", {"Host": "localhost:1"})[0] == 200

        assert process.stdout is not None
        assert "For research use only" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 0, err
        assert "Traceback" not in err


@pytest.mark.slow
def test_an_address_beyond_this_machine_needs_the_token_that_is_printed(made):
    with server(str(made), "--port", "0", "--host", "0.0.0.0") as (process, address):
        base, _, token = address.partition("?token=")
        assert len(token) >= 40
        port = base.rstrip("/").rsplit(":", 1)[1]
        here = f"http://127.0.0.1:{port}/"
        assert ask(here, "GET", "/api/run")[0] == 401
        status, _, headers = ask(here, "GET", f"/?token={token}")
        assert (status, headers["location"]) == (303, "/")
        cookie = headers["set-cookie"].split(";")[0]
        assert ask(here, "GET", "/api/run", {"Cookie": cookie})[0] == 200
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        assert process.returncode in {0, -signal.SIGTERM}


def test_the_viewer_never_loads_torch(made):
    code = f"""
import sys
from pathlib import Path
from starlette.testclient import TestClient
import wsi_pipeline.viewer.server
from wsi_pipeline.viewer.app import create_app
with TestClient(create_app(Path({str(made)!r})), base_url="http://127.0.0.1") as viewer:
    for row in viewer.get("/api/run").json()["slides"]:
        for part in ("", "/card", "/tiles/0/0_0.jpg", "/probability", "/regions?threshold=0.8", "/annotations"):
            answer = viewer.get(f"/api/slides/{{row['id']}}{{part}}")
            assert answer.status_code == (200 if row["status"] == "done" or not part else 409), answer.text
print(*sorted({{"torch", "torchvision", "matplotlib", "sklearn", "distributed"}} & sys.modules.keys()))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_results_that_are_none(tmp_path, capsys):
    assert main(["view", str(tmp_path / "nowhere"), "--no-browser"]) == USAGE
    assert "no folder of results" in capsys.readouterr().err
    assert main(["view", str(tmp_path), "--no-browser"]) == USAGE
    assert "holds no results" in capsys.readouterr().err


def test_slides_on_other_machines_only_where_the_user_says_so(tmp_path, monkeypatch):
    seen: list[bool] = []
    monkeypatch.setattr("wsi_pipeline.viewer.server.serve", lambda _, given, **__: seen.append(given.remote_slides))
    for options in ([], ["--remote-slides"]):
        assert main(["view", str(tmp_path), *options]) == 0
    assert seen == [False, True]


@pytest.mark.parametrize("port", ["-1", "65536", "x"])
def test_ports_that_are_none(tmp_path, port, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["view", str(tmp_path), "--port", port])
    assert stopped.value.code == USAGE
    assert "--port" in capsys.readouterr().err


def test_a_port_that_is_taken(made, capsys):
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert main(["view", str(made), "--no-browser", "--port", str(port)]) == USAGE
        assert f"127.0.0.1:{port}: cannot be listened on" in capsys.readouterr().err


def test_the_usual_port_or_any_free_one():
    with listen("127.0.0.1", None) as first, listen("127.0.0.1", None) as second:
        ports = [listener.getsockname()[1] for listener in (first, second)]
        assert ports[0] != ports[1]
        assert ports[1] != USUAL_PORT
        assert first.proto == socket.IPPROTO_TCP  # else each tile waits for Nagle's timer


def test_a_host_that_is_none():
    with pytest.raises(ConfigError, match="cannot be listened on"):
        listen("no such host.invalid", 0)


class TestToken:
    def test_this_machine_needs_none(self):
        for host in ("127.0.0.1", "::1", "localhost"):
            assert with_token(ViewerOptions(host=host)).token is None

    def test_other_addresses_get_one_each_time_another(self):
        tokens = {with_token(ViewerOptions(host=host)).token for host in ("0.0.0.0", "::", "10.1.2.3", "host.example")}
        assert len(tokens) == 4
        assert all(token is not None and len(token) >= 40 for token in tokens)

    def test_a_users_own_is_kept_where_it_is_long_enough(self):
        options = ViewerOptions(token="long enough to be one")
        assert with_token(options) == options
        for token in ("", "short", "x" * 15, "é" * 20, "line\nbreak and so on"):
            with pytest.raises(ConfigError, match="--token"):
                with_token(ViewerOptions(token=token))


@pytest.mark.parametrize(
    ("options", "address"),
    [
        (ViewerOptions(), "http://127.0.0.1:7/"),
        (ViewerOptions(host="::1"), "http://[::1]:7/"),
        (ViewerOptions(host="10.0.0.1", token="t"), "http://10.0.0.1:7/?token=t"),
        (ViewerOptions(host="0.0.0.0"), f"http://{socket.gethostname()}:7/"),
    ],
)
def test_addresses(options, address):
    assert address_of(options, 7) == address
