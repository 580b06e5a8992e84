"""Files that appear whole: written beside, synced, renamed."""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from wsi_pipeline.errors import OutputError, WsiPipelineError

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What a spreadsheet takes a cell for a formula by: the start of its text, wide forms too (OWASP, CSV injection)."""

SPACE_HINT = "Check the permissions and the free space, then run again: finished work is kept."


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends well and removed when it does not.

    The temporary name keeps the suffix, because many writers choose the format by it.

    Raises:
        OutputError: where the file cannot be written.
    """
    part = path.with_name(f".{os.getpid()}-part-{path.name}")
    try:
        yield part
        sync(part)
        part.replace(path)
        sync(path.parent)
    except WsiPipelineError:
        raise
    except OSError as error:
        raise OutputError(path, f"cannot be written ({error.strerror or error})", SPACE_HINT) from error
    finally:
        with suppress(OSError):  # what went wrong before is what matters
            part.unlink(missing_ok=True)


def remove_parts(folder: Path, *, below: bool = False) -> None:
    """Remove what killed programs left unfinished in a folder; nobody may be writing there.

    Args:
        folder: Where to look.
        below: Whether to look in the folders below it too.

    Raises:
        OSError: where it cannot be removed.
    """
    for stray in folder.glob("**/.*-part-*" if below else ".*-part-*"):
        stray.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises:
        OutputError: where that cannot be done.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(folder, f"cannot be made ({error.strerror or error})", "Choose another folder.") from error


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk. Folders cannot be synced on Windows; there it does nothing."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented UTF-8 JSON, whole or not at all.

    Of a file's name that is no UTF-8 the odd bytes are written as escapes of JSON, and come back when it is read.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a table as CSV (UTF-8, comma, a heading), whole or not at all. None becomes an empty field.

    A slide's name may be anything, also what a spreadsheet would run: text that begins like a formula is written
    with an apostrophe before it. Numbers stay as they are. Of a name that is no UTF-8 the odd bytes become escapes.

    Raises:
        OutputError: where the file cannot be written.
    """
    with (
        atomic_path(path) as part,
        part.open("w", newline="", encoding="utf-8", errors="backslashreplace") as text,
    ):
        table = csv.writer(text)
        table.writerow(columns)
        table.writerows([_harmless(value) if isinstance(value, str) else value for value in row] for row in rows)


def _harmless(text: str) -> str:
    """Text that no spreadsheet runs. A negative number that was put into words already is none to run."""
    if not text.startswith(_FORMULA):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text
