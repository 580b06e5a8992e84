"""The worker as the server sees it: a process that may die at any time."""

import itertools
import logging
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from threading import Lock, Thread

from wsi_pipeline.service.messages import Message, error_of, read_message, write_message
from wsi_pipeline.viewer.problems import RequestError

log = logging.getLogger(__name__)

WORKER = (sys.executable, "-m", "wsi_pipeline.service.worker")


class WorkerProcess:
    """A worker, started.

    Args:
        start: The first message to it: models, inference, folder of the locks.
        command: What is run.
    """

    def __init__(self, start: Message, command: Sequence[str] = WORKER) -> None:
        # In a session of its own, Ctrl-C in the terminal reaches the server alone.
        self._process = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self._lock, self._numbers = Lock(), itertools.count()
        self._patches: dict[int, Future[Message]] = {}
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._gone = False
        Thread(target=self._listen, daemon=True, name="worker").start()
        self.send(start)

    @property
    def alive(self) -> bool:
        """Whether it still listens."""
        return not self._gone

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def send(self, message: Message) -> None:
        """Tell it something; where it is gone, that is told by `next_message`."""
        with self._lock, suppress(OSError, ValueError):
            assert self._process.stdin is not None
            write_message(self._process.stdin, message)  # type: ignore[arg-type]

    def next_message(self, timeout: float) -> Message | None:
        """What it says next, patches left out; ``{"died": status}`` once it is gone; None where it says nothing."""
        try:
            return self._messages.get(timeout=timeout)
        except queue.Empty:
            return None

    def ask(self, order: Message) -> "Future[Message]":
        """Let it answer a patch; the future fails where it dies before."""
        future: Future[Message] = Future()
        number = next(self._numbers)
        with self._lock:
            if self._gone:
                future.set_exception(_died())
                return future
            self._patches[number] = future
        self.send({**order, "patch": number})
        return future

    def kill(self) -> None:
        """End it and the processes that read for it, now."""
        with suppress(OSError):
            if os.name == "posix" and self._process.returncode is None:
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()

    def close(self, patience: float = 5.0) -> None:
        """Let it end, and see to it that it does."""
        if self._lock.acquire(timeout=patience):  # else somebody waits for it to listen
            with suppress(OSError):
                assert self._process.stdin is not None
                self._process.stdin.close()
            self._lock.release()
        else:
            self.kill()
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            while True:
                try:
                    message = read_message(stream)  # type: ignore[arg-type]
                except (ValueError, OSError):
                    log.exception("the worker said something strange")
                    self.kill()
                    message = None
                if message is None:
                    break
                if "patch" in message:
                    self._answer(message)
                else:
                    self._messages.put(message)
        status = self._process.wait()
        with self._lock:
            self._gone = True
            left, self._patches = self._patches, {}
            with suppress(OSError):
                assert self._process.stdin is not None
                self._process.stdin.close()
        for future in left.values():
            future.set_exception(_died())
        self._messages.put({"died": status})

    def _answer(self, message: Message) -> None:
        with self._lock:
            future = self._patches.pop(message["patch"], None)
        if future is None:
            return
        if "error" in message:
            future.set_exception(error_of(message["error"]))
        else:
            future.set_result(message)


def _died() -> RequestError:
    return RequestError(503, "worker", "died before it answered", "Try again.", {"Retry-After": "5"})


def describe_end(status: int) -> str:
    """How a process ended."""
    if status < 0:
        with suppress(ValueError):
            name = signal.Signals(-status).name
            return f"by signal {name}" + (", as it is when memory runs out" if name == "SIGKILL" else "")
    return f"with status {status}"
