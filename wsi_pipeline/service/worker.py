"""The worker: the one process that runs networks. It ends with the server, however that ends.

Slides are run one after the other by the main thread; patches are answered beside them by a thread with networks of
its own, so that nobody waits an hour for one patch.
"""

import logging
import os
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import TYPE_CHECKING, BinaryIO

from wsi_pipeline.config import Settings
from wsi_pipeline.errors import OutputError, WsiPipelineError
from wsi_pipeline.locks import folder_lock
from wsi_pipeline.manifest import describe_error
from wsi_pipeline.service.messages import Message, pack, read_message, unpack, write_message

if TYPE_CHECKING:
    from wsi_pipeline.service.patch_models import PatchModels

log = logging.getLogger(__name__)

PREDECESSOR_S = 60.0
"""A worker of a server that was killed has so long to notice."""

_REPORT_S = 0.2
"""Progress is told no more often."""


class _CancelledError(BaseException):
    """Not an `Exception`: a slide's own errors end up in its record, this one ends the job."""


class _Worker:
    def __init__(self, answers: BinaryIO) -> None:
        self._answers, self._lock = answers, Lock()
        self.slides: SimpleQueue[Message] = SimpleQueue()
        self.patches: SimpleQueue[Message] = SimpleQueue()
        self._cancelled: set[str] = set()
        self._reported = 0.0

    def tell(self, message: Message) -> None:
        """Send to the server; where that is gone, so is this process."""
        try:
            with self._lock:
                write_message(self._answers, message)
        except OSError:
            _leave()

    def listen(self, orders: BinaryIO) -> None:
        """Take orders until the server is gone."""
        while (order := read_message(orders)) is not None:
            kind = order["do"]
            if kind == "cancel":
                self._cancelled.add(order["job"])
            else:
                (self.slides if kind == "slide" else self.patches).put(order)
        _leave()

    def run_slides(self) -> None:
        """Run slides for ever."""
        while True:
            order = self.slides.get()
            try:
                self.tell({"ended": order["job"], **self._run_slide(order)})
            except _CancelledError:
                self.tell({"ended": order["job"], "status": "cancelled"})
            self._cancelled.discard(order["job"])

    def _run_slide(self, order: Message) -> Message:
        from wsi_pipeline import pipeline
        from wsi_pipeline.service.bounds import require_moderate

        job = order["job"]

        def on_cells(_: str, done: int, total: int) -> None:
            if job in self._cancelled:
                raise _CancelledError
            now = time.monotonic()
            if done == total or now - self._reported >= _REPORT_S:
                self._reported = now
                self.tell({"cells": job, "done": done, "total": total})

        try:
            settings = Settings.model_validate(order["settings"])
            require_moderate(order["slide"], settings)
            record = pipeline.run([order["slide"]], Path(order["folder"]), settings, on_cells=on_cells)
        except Exception as error:  # noqa: BLE001 - the end of a job: the next one in the queue is to run
            return {"status": "failed", "error": _failed(f"job {job}", error)}
        failed = record.failed
        return {"status": "failed", "error": _told(failed[0].error or {})} if failed else {"status": "done"}

    def answer_patches(self, models: "PatchModels") -> None:
        """Answer patches for ever."""
        while True:
            order = self.patches.get()
            data = unpack(order["image"])
            try:
                if order["do"] == "explain":
                    found: Message = {"image": pack(models.explain(order["model"], data, order["class"]))}
                else:
                    found = {"found": models.predict(order["model"], data)}
            except Exception as error:  # noqa: BLE001 - the end of a question: the thread is to answer the next one
                found = {"error": _failed("a patch", error)}
            self.tell({"patch": order["patch"], **found})


def main() -> int:
    """Serve the server at the other end of the standard streams."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    answers = _own_stdout()
    orders = sys.stdin.buffer
    start = read_message(orders)
    if start is None:
        return 1
    worker = _Worker(answers)
    Thread(target=worker.listen, args=(orders,), daemon=True, name="orders").start()
    try:
        with ExitStack() as stack:
            _wait_for_predecessor(Path(start["state"]), stack)
            return _work(worker, start)
    except Exception as error:  # noqa: BLE001 - the end of the process: the server is to know why
        worker.tell({"refused": _failed("the worker", error)})
        return 1


def _work(worker: _Worker, start: Message) -> int:
    from wsi_pipeline.config import InferenceSettings
    from wsi_pipeline.service.patch_models import PatchModels

    models = PatchModels(start["models"], InferenceSettings.model_validate(start["inference"]))
    worker.tell({"ready": models.facts()})
    Thread(target=worker.answer_patches, args=(models,), daemon=True, name="patches").start()
    worker.run_slides()
    return 0


def _wait_for_predecessor(state: Path, stack: ExitStack) -> None:
    """Wait until the worker of an earlier server has gone, which may still be writing."""
    until = time.monotonic() + PREDECESSOR_S
    while True:
        try:
            stack.enter_context(folder_lock(state / "worker"))
        except OutputError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
        else:
            return


def _own_stdout() -> BinaryIO:
    """The standard output for answers alone; what libraries print goes where errors go."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def _failed(what: str, error: Exception) -> dict[str, str]:
    """An error as the server is told. A fault of the program is logged with its traceback: no record keeps this one."""
    level = logging.DEBUG if isinstance(error, WsiPipelineError) else logging.ERROR
    log.log(level, "%s failed", what, exc_info=error)
    return _told(describe_error(error))


def _told(error: dict[str, str]) -> dict[str, str]:
    """Without the traceback, which is in the run's record or in the log."""
    return {key: error.get(key, "") for key in ("type", "where", "why", "hint")}


def _leave() -> None:
    """End at once, with the processes that read slides: what was finished is on the disk."""
    if os.name == "posix" and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
