"""Jobs in a database of SQLite: what was taken is on the disk before anybody is told."""

import json
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock
from typing import Any, Literal

from wsi_pipeline.errors import ConfigError, OutputError
from wsi_pipeline.files import make_folder

DATABASE = "jobs.sqlite3"
_VERSION = 1

JobStatus = Literal["queued", "running", "done", "failed", "cancelled"]

_TABLE = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    slide TEXT NOT NULL,
    model TEXT NOT NULL,
    bundle TEXT NOT NULL,
    asked TEXT NOT NULL,
    settings TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    cancelling INTEGER NOT NULL DEFAULT 0,
    tries INTEGER NOT NULL DEFAULT 0,
    cells_done INTEGER,
    cells_total INTEGER,
    created TEXT NOT NULL,
    started TEXT,
    finished TEXT,
    error TEXT
)
"""
_COLUMNS = (
    "number, id, slide, model, bundle, asked, settings, status, cancelling, tries, cells_done, cells_total, "
    "created, started, finished, error"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredJob:
    """A job as the database has it."""

    number: int
    """Order of arrival."""
    id: str
    """Also the name of its folder in the results."""
    slide: str
    """Name under the roots."""
    model: str
    bundle: str
    """Digest of the model when the job was taken."""
    asked: dict[str, Any]
    """Settings that the request chose."""
    settings: dict[str, Any]
    """All settings."""
    status: JobStatus
    cancelling: bool
    """Somebody wants a running job to stop."""
    tries: int
    """Begun so often without getting further."""
    cells_done: int | None
    cells_total: int | None
    created: str
    """ISO 8601, UTC, like the other times."""
    started: str | None
    finished: str | None
    error: dict[str, str] | None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in {"done", "failed", "cancelled"}


class JobStore:
    """The database, for threads of one process; two processes are kept apart by a lock of the folder.

    Args:
        folder: Where it is, made where it is missing.

    Raises:
        OutputError: where it cannot be opened or written.
        ConfigError: where it is of another version.
    """

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        self._path, self._lock = folder / DATABASE, RLock()
        with self._translated():
            self._connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=10)
            try:
                self._open()
            except BaseException:
                self._connection.close()
                raise

    def _open(self) -> None:
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")  # WAL alone may lose the last jobs with the power
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version not in {0, _VERSION}:
            hint = "Use the version of wsi-pipeline that made it, or another folder with --out."
            raise ConfigError(self._path, f"is a database of version {version}", hint)
        self._connection.execute(_TABLE)
        self._connection.execute("CREATE INDEX IF NOT EXISTS jobs_by_status ON jobs (status, number)")
        self._connection.execute(f"PRAGMA user_version = {_VERSION}")

    def close(self) -> None:
        """Close the database; nothing may be asked afterwards."""
        with self._lock:
            self._connection.close()

    def add(
        self,
        *,
        slide: str,
        model: str,
        bundle: str,
        asked: Mapping[str, Any],
        settings: Mapping[str, Any],
        max_queued: int,
    ) -> StoredJob | None:
        """Take a job; None where as many as `max_queued` wait already. It is on the disk when this returns."""
        now = datetime.now(UTC)
        job_id = f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"
        values = (job_id, slide, model, bundle, json.dumps(asked), json.dumps(settings), _text(now), max_queued)
        with self._translated():
            self._connection.execute(
                "INSERT INTO jobs (id, slide, model, bundle, asked, settings, status, created) "
                "SELECT ?, ?, ?, ?, ?, ?, 'queued', ? "
                "WHERE (SELECT count(*) FROM jobs WHERE status = 'queued') < ?",
                values,
            )
            return self.get(job_id)

    def get(self, job_id: str) -> StoredJob | None:
        """The job of an id."""
        return next(iter(self._select("WHERE id = ?", job_id)), None)

    def page(self, *, status: JobStatus | None, before: int | None, limit: int) -> list[StoredJob]:
        """Jobs, the newest first.

        Args:
            status: Only these.
            before: Only those that came before the job of this number.
            limit: At most so many.
        """
        return self._select(
            "WHERE (?1 IS NULL OR status = ?1) AND (?2 IS NULL OR number < ?2) ORDER BY number DESC LIMIT ?3",
            status,
            before,
            limit,
        )

    def queued(self) -> int:
        """How many wait."""
        return self._count("status = 'queued'")

    def ahead_of(self, job: StoredJob) -> int:
        """How many come before a job that waits, the running one included."""
        return self._count("status = 'running' OR (status = 'queued' AND number < ?)", job.number)

    def next_queued(self) -> StoredJob | None:
        """The job that has waited longest."""
        return next(iter(self._select("WHERE status = 'queued' ORDER BY number LIMIT 1")), None)

    def begin(self, job_id: str) -> StoredJob | None:
        """Let a job that waits run, and count the try; None where it waits no longer."""
        changed = self._update(
            "status = 'running', tries = tries + 1, started = coalesce(started, ?)",
            "id = ? AND status = 'queued'",
            _now(),
            job_id,
        )
        return self.get(job_id) if changed else None

    def progress(self, job_id: str, done: int, total: int, *, further: bool) -> None:
        """Note how far a running job is; where it got further in this try, earlier tries do not count any more."""
        tries = ", tries = 1" if further else ""
        self._update(f"cells_done = ?, cells_total = ?{tries}", "id = ? AND status = 'running'", done, total, job_id)

    def end(self, job_id: str, status: JobStatus, error: Mapping[str, str] | None = None) -> None:
        """Note how a job ended."""
        text = json.dumps(error) if error is not None else None
        where = "id = ? AND status IN ('queued', 'running')"
        self._update("status = ?, finished = ?, error = ?", where, status, _now(), text, job_id)

    def requeue(self, job_id: str, *, uncounted: bool = False) -> bool:
        """Let a job that ran wait again, before those that came later; one that is being cancelled stays as it is.

        Args:
            job_id: Which.
            uncounted: The try was broken off by no fault of the job.

        Returns:
            Whether it waits now.
        """
        tries = "max(0, tries - 1)" if uncounted else "tries"
        where = "id = ? AND status = 'running' AND cancelling = 0"
        return self._update(f"status = 'queued', tries = {tries}", where, job_id)

    def cancel(self, job_id: str) -> StoredJob | None:
        """Cancel a job that waits, and mark one that runs; others stay as they are. None where there is none."""
        with self._lock:
            self._update("status = 'cancelled', finished = ?", "id = ? AND status = 'queued'", _now(), job_id)
            self._update("cancelling = 1", "id = ? AND status = 'running'", job_id)
            return self.get(job_id)

    def running(self) -> list[StoredJob]:
        """Jobs that run, or ran when the server ended."""
        return self._select("WHERE status = 'running' ORDER BY number")

    def _select(self, rest: str, *values: object) -> list[StoredJob]:
        with self._translated():
            rows = self._connection.execute(f"SELECT {_COLUMNS} FROM jobs {rest}", values).fetchall()  # noqa: S608
        return [_job(row) for row in rows]

    def _count(self, where: str, *values: object) -> int:
        with self._translated():
            row = self._connection.execute(f"SELECT count(*) FROM jobs WHERE {where}", values).fetchone()  # noqa: S608
        return int(row[0])

    def _update(self, what: str, where: str, *values: object) -> bool:
        with self._translated():
            return self._connection.execute(f"UPDATE jobs SET {what} WHERE {where}", values).rowcount > 0  # noqa: S608

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """One thread at a time, and errors of the database as ours."""
        with self._lock:
            try:
                yield
            except sqlite3.DatabaseError as error:
                hint = "Check the free space and that the file is whole; the results themselves lie beside it."
                raise OutputError(self._path, f"the database of jobs failed ({error})", hint) from error


def _job(row: sqlite3.Row) -> StoredJob:
    values: dict[str, Any] = dict(row)
    values["cancelling"] = bool(values["cancelling"])
    for name in ("asked", "settings", "error"):
        values[name] = json.loads(values[name]) if values[name] is not None else None
    return StoredJob(**values)


def _now() -> str:
    return _text(datetime.now(UTC))


def _text(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds")
