"""A finished run from its folder, as the run itself had it."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from wsi_pipeline.errors import OutputError, ResultsMismatchError
from wsi_pipeline.manifest import RUN_FILE, SUMMARY_FILE, RunRecord, SlideResult, Summary

_HINT = "Give the folder that `wsi-pipeline run` wrote with --out."


def read_run(folder: Path) -> RunRecord:
    """``run.json`` with the summaries of its slides.

    A slide whose summary is gone, or is of another version, counts as failed and says so: the run's numbers are
    what lies there now.

    Raises:
        OutputError: where there is no run.
        ResultsMismatchError: where ``run.json`` is of another version or damaged.
    """
    file = folder / RUN_FILE
    try:
        values = dict(json.loads(file.read_text(encoding="utf-8")))
        results = [_result(folder, dict(one)) for one in values.pop("results")]
        known = {field.name for field in fields(RunRecord)}
        return RunRecord(folder=folder, results=results, **{k: v for k, v in values.items() if k in known})
    except OSError as error:
        raise OutputError(folder, f"holds no {RUN_FILE} that can be read ({error.strerror})", _HINT) from error
    except (ValueError, TypeError, KeyError) as error:
        raise ResultsMismatchError(file, f"is no run of this version ({error})", "Run the slides again.") from error


def _result(folder: Path, values: dict[str, Any]) -> SlideResult:
    known = {field.name for field in fields(SlideResult)}
    result = SlideResult(**{key: value for key, value in values.items() if key in known})
    if result.status == "failed":
        return result
    # A folder's name is one part of a path: a record that was tampered with leads nowhere else.
    place = folder / Path(result.folder).name / SUMMARY_FILE
    try:
        return replace(result, summary=Summary.read(place))
    except ResultsMismatchError as error:
        told = {"type": type(error).__name__, "where": error.where, "why": error.why, "hint": error.hint}
        return replace(result, status="failed", error=told)
