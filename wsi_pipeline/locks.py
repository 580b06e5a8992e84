"""One run per results folder: a lock that the operating system releases when its process ends, however it ends."""

import errno
import json
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from wsi_pipeline.errors import OutputError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK_NAME = ".wsi-pipeline.lock"
"""The file that carries the lock. It stays behind empty-handed: what counts is the lock on it, not its existence."""

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
_LOCKED_BYTE = 1 << 30
"""Offset of the locked byte: far behind the text, which Windows could not show to others otherwise."""

_held: set[Path] = set()
"""Folders locked by this process; the operating system's lock does not keep a process from itself."""


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold `folder` for this run alone; the folder is made where it is missing.

    The lock is a POSIX record lock (a byte lock on Windows). It belongs to this process and not to the readers it
    forks, so a killed run whose workers linger does not keep the next one out.

    Raises:
        OutputError: at once where another run holds the folder, or where it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder = folder.resolve()
        if folder in _held:
            raise _taken(folder, f"pid {os.getpid()} on {socket.gethostname()}")
        handle = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o666)
    except OutputError:
        raise
    except OSError as error:
        why = f"cannot be written ({error.strerror or error})"
        raise OutputError(folder, why, "Check the permissions, or choose another folder with --out.") from error
    try:
        if not _try_lock(handle):
            raise _taken(folder, _owner(handle))
        _held.add(folder)
        try:
            _sign(handle)
            yield
        finally:
            _held.discard(folder)
    finally:
        # Closing releases the lock.
        os.close(handle)


def _taken(folder: Path, owner: str) -> OutputError:
    why = f"another run ({owner}) is writing here"
    return OutputError(folder, why, "Wait until it ends, stop it, or choose another folder with --out.")


def _try_lock(handle: int) -> bool:
    """Take the lock, or say that another process has it."""
    try:
        if sys.platform == "win32":
            os.lseek(handle, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _LOCKED_BYTE)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            logging.getLogger(__name__).warning(
                "this file system has no locks: do not run twice on one output folder at once"
            )
            return True
        return False
    return True


def _sign(handle: int) -> None:
    """Write who holds the lock, for the message that the next one gets."""
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
    try:
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, json.dumps(owner).encode())
    except OSError as error:
        # A full disk must not keep a run from resuming: the name is for people, the lock holds without it.
        logging.getLogger(__name__).debug("the lock file could not be signed: %s", error)


def _owner(handle: int) -> str:
    """Who holds the lock, as far as the file says."""
    os.lseek(handle, 0, os.SEEK_SET)
    try:
        owner = json.loads(os.read(handle, 4096))
        return f"pid {owner['pid']} on {owner['host']}, since {owner['since']}"
    except (ValueError, KeyError, TypeError):
        return "its name is not known yet"
