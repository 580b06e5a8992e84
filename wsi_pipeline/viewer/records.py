"""Records of runs as they lie in a folder, wherever they came from: read as JSON, and looked at before use."""

import json
import math
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MAX_BYTES = 32 << 20
"""A record larger than this is none of ours."""

_MAX_DEPTH = 32
_LARGEST = 1e15

NUMBERS = (
    *("idc_mm2", "idc_fraction", "tissue_mm2", "analysed_mm2", "regions", "largest_region_mm2"),
    *("mean_probability", "threshold"),
)
"""Numbers of a summary that the gallery shows; each may be missing or null."""

_TEXTS = ("slide", "path", "model", "class_name")


def read_record(file: Path) -> Mapping[str, Any]:
    """The content of a JSON file; empty where it is no object.

    Raises:
        OSError: where it cannot be read.
        ValueError: where it is no regular file, too large, or holds what JSON has no word for, such as NaN.
        RecursionError: where it is nested without end.
    """
    state = file.stat()
    if not stat.S_ISREG(state.st_mode) or state.st_size > MAX_BYTES:
        raise ValueError("no record")
    value = json.loads(file.read_text(encoding="utf-8"))
    if not _is_plain(value, _MAX_DEPTH):
        raise ValueError("no JSON that can be passed on")
    return value if isinstance(value, dict) else {}


def fault_of(summary: Mapping[str, Any]) -> str | None:
    """What is wrong with a ``summary.json``; None where the viewer can show it."""
    if not summary:
        return "its results are no longer there, or are damaged"
    if not isinstance(summary.get("identity"), dict) or not summary["identity"]:
        return "its summary.json is damaged: it does not say what it is of"
    wrong = [name for name in NUMBERS if not _is_number(summary.get(name))]
    wrong += [name for name in _TEXTS if not isinstance(summary.get(name, ""), str)]
    warnings = summary.get("warnings") or []
    if not isinstance(warnings, list) or not all(isinstance(text, str) for text in warnings):
        wrong.append("warnings")
    return f"its summary.json is damaged: see {', '.join(wrong)}" if wrong else None


def _is_number(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and abs(value) < _LARGEST)


def _is_plain(value: Any, depth: int) -> bool:
    """Whether a value of `json.loads` can be written as JSON again: Python's takes NaN, and ``1e999`` for infinite."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return depth > 0 and all(_is_plain(inner, depth - 1) for inner in value.values())
    if isinstance(value, list):
        return depth > 0 and all(_is_plain(inner, depth - 1) for inner in value)
    return True
