"""One run per folder."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from wsi_pipeline.errors import OutputError
from wsi_pipeline.locks import LOCK_NAME, folder_lock

HOLDER = """
import os, sys, time
from pathlib import Path
from wsi_pipeline.locks import folder_lock
with folder_lock(Path(sys.argv[1])):
    if "fork" in sys.argv and os.fork() == 0:
        time.sleep(60)
    print("held", flush=True)
    time.sleep(60)
"""


def hold(folder: Path, *how: str) -> subprocess.Popen[str]:
    """A process that holds `folder` until it is killed."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), *how], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def end(holder: subprocess.Popen[str]) -> None:
    """Kill the holder and all that it forked."""
    os.killpg(holder.pid, signal.SIGKILL)
    holder.wait()
    holder.stdout.close()


def test_another_process_is_refused_at_once_and_by_name(tmp_path: Path) -> None:
    holder = hold(tmp_path)
    try:
        with pytest.raises(OutputError, match="is writing here") as refused, folder_lock(tmp_path):
            pass
        assert f"pid {holder.pid} on {socket.gethostname()}" in str(refused.value)
        assert str(tmp_path) in str(refused.value)
    finally:
        end(holder)


def test_a_killed_run_leaves_the_folder_free(tmp_path: Path) -> None:
    end(hold(tmp_path))
    with folder_lock(tmp_path):
        assert (tmp_path / LOCK_NAME).exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_readers_that_outlive_a_killed_run_do_not_hold_the_folder(tmp_path: Path) -> None:
    holder = hold(tmp_path, "fork")
    try:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        with folder_lock(tmp_path):
            assert (tmp_path / LOCK_NAME).exists()
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.stdout.close()


def test_one_process_cannot_hold_a_folder_twice_nor_lose_it_by_trying(tmp_path: Path) -> None:
    with folder_lock(tmp_path):
        with pytest.raises(OutputError, match=f"pid {os.getpid()}"), folder_lock(tmp_path / "." / "x" / ".."):
            pass
        with pytest.raises(OutputError, match="is writing here"):
            run_in_other_process(tmp_path)


def run_in_other_process(folder: Path) -> None:
    """Take the lock elsewhere; raises what is raised there."""
    code = "import sys; from pathlib import Path; from wsi_pipeline.locks import folder_lock\n"
    code += "with folder_lock(Path(sys.argv[1])): pass"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OutputError(folder, done.stderr.strip().splitlines()[-1])


def test_an_error_inside_frees_the_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyError), folder_lock(tmp_path):
        raise KeyError
    with folder_lock(tmp_path):
        pass
    run_in_other_process(tmp_path)


def test_the_folder_is_made(tmp_path: Path) -> None:
    with folder_lock(tmp_path / "a b" / "ü"):
        assert (tmp_path / "a b" / "ü").is_dir()


def test_a_file_in_the_way_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("not a folder")
    with pytest.raises(OutputError, match="cannot be written") as refused, folder_lock(tmp_path / "results"):
        pass
    assert "--out" in refused.value.hint


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_an_output_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(OutputError, match="cannot be written"), folder_lock(tmp_path):
        pass
    tmp_path.chmod(0o755)
