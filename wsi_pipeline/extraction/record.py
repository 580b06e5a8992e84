"""What a data set and its cases say of themselves: ``dataset.json`` at the top, ``case.json`` in every case."""

import json
import shutil
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline import __version__
from wsi_pipeline.config import RESEARCH_USE
from wsi_pipeline.errors import OutputError, ResultsMismatchError
from wsi_pipeline.extraction.annotations import AnnotationFile
from wsi_pipeline.extraction.labels import Areas, Outcome, first_window
from wsi_pipeline.extraction.rules import PatchRules, SlideSpec
from wsi_pipeline.files import write_json
from wsi_pipeline.geometry import SlideInfo
from wsi_pipeline.grid import Grid
from wsi_pipeline.locks import LOCK_NAME
from wsi_pipeline.slides.files import without_query
from wsi_pipeline.slides.kaggle import CASE_FILE, DATASET_FILE

FORMAT_VERSION = 1
PARTIAL_PREFIX = ".extracting-"
"""Begins the name of a folder of a case that is not complete."""

Record = dict[str, Any]


def case_identity(rules: PatchRules, slide: SlideSpec, info: SlideInfo, annotations: AnnotationFile) -> str:
    """SHA-256 (hex) of all that a case's patches depend on."""
    parts = [FORMAT_VERSION, rules.as_json(), slide.reader, slide.mpp, info.fingerprint, annotations.digest]
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def case_record(
    case: str,
    rules: PatchRules,
    slide: SlideSpec,
    *,
    info: SlideInfo,
    annotations: AnnotationFile,
    areas: Areas,
    grid: Grid,
    outcome: NDArray[np.uint8],
) -> Record:
    """Everything about a case, as ``case.json`` keeps it.

    ``origin_px`` is where the case's image starts in the raster at the patches' resolution that is anchored at the
    slide's level 0: the patch at x1_y1 shows that raster from there on.
    """
    counts = np.bincount(outcome.ravel(), minlength=len(Outcome))
    mpp = info.require_mpp()
    return {
        "format_version": FORMAT_VERSION,
        "case": case,
        "patient": slide.patient or case,
        "patch_size_px": rules.size_px,
        "mpp": rules.mpp,
        "class_names": list(rules.class_names),
        "counts": {item.name.lower(): int(counts[item]) for item in Outcome if item != Outcome.NO_TISSUE},
        "class_0_is": areas.basis,
        "origin_px": list(first_window(grid)),
        "slide": {
            "path": without_query(slide.path),
            "fingerprint": info.fingerprint,
            "size": [info.size.width, info.size.height],
            "bounds": [info.bounds.x, info.bounds.y, info.bounds.width, info.bounds.height],
            "mpp": [mpp.x, mpp.y],
            "mpp_source": info.mpp_source,
        },
        "annotations": {"file": annotations.path.name, "sha256": annotations.digest, "objects": annotations.counts},
        "identity": case_identity(rules, slide, info, annotations),
        "notes": [*info.warnings, *areas.notes, *_notes(counts, rules)],
        "note": RESEARCH_USE,
    }


def _notes(counts: NDArray[np.int64], rules: PatchRules) -> list[str]:
    notes = []
    if bare := int(counts[Outcome.BARE]):
        share = f"less than {rules.min_tissue:.0%} tissue"
        notes.append(f"Patches annotated {rules.positive[0]} with {share} or over the slide's edge, left out: {bare}.")
    if lost := int(counts[Outcome.UNREADABLE]):
        notes.append(f"Patches that the file's damage hides, left out: {lost}.")
    return notes


def missing_patches(folder: Path, record: Record) -> int:
    """How many of a case's patches are no longer in its folder."""
    there = sum(1 for path in folder.glob("[01]/*.png") if path.name.startswith(f"{record['case']}_idx"))
    return int(record["counts"]["negative"] + record["counts"]["positive"]) - there


def read_record(file: Path) -> Record | None:
    """A ``case.json`` or ``dataset.json``; None where there is none that can be read."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("format_version") == FORMAT_VERSION else None


def case_records(out: Path) -> dict[str, Record]:
    """The records of the cases that are in a data set, by the name of their folder."""
    found = ((file.parent.name, read_record(file)) for file in sorted(out.glob(f"*/{CASE_FILE}")))
    return {name: record for name, record in found if record is not None and not name.startswith(".")}


def known_patients(out: Path) -> dict[str, str]:
    """The patient of each case that is or was in a data set."""
    return dict((read_record(out / DATASET_FILE) or {}).get("patients", {}))


def write_dataset(out: Path, rules: PatchRules) -> None:
    """Write ``dataset.json``: what training needs to know, the settings, and the cases that are there.

    Patients of cases that are gone stay, so that cases which are cut again keep theirs.
    """
    cases = case_records(out)
    write_json(
        out / DATASET_FILE,
        {
            "format_version": FORMAT_VERSION,
            "layout": "idc",
            "patch_size_px": rules.size_px,
            "mpp": rules.mpp,
            "class_names": list(rules.class_names),
            "patients": known_patients(out) | {name: record["patient"] for name, record in cases.items()},
            "patches": [sum(record["counts"][key] for record in cases.values()) for key in ("negative", "positive")],
            "settings": rules.as_json(),
            "cases": cases,
            "made_by": f"wsi-pipeline {__version__}",
            "note": RESEARCH_USE,
        },
    )


def prepare_folder(out: Path, rules: PatchRules, cases: Iterable[str], *, overwrite: bool) -> list[str]:
    """Remove what an interrupted run left half done, and see whether a folder can take cases cut by these rules.

    A data set is of one piece: all of its cases are cut by the same rules. With `overwrite`, those cut by other rules
    may be replaced, as far as all of them are cut again.

    Returns:
        The cases that were cut by other rules, and must be removed first.

    Raises:
        OutputError: where the folder holds other things.
        ResultsMismatchError: where it holds cases cut by other rules.
    """
    for partial in out.glob(f"{PARTIAL_PREFIX}*"):
        discard(partial)
    there = read_record(out / DATASET_FILE)
    if there is None:
        others = sorted(path.name for path in out.iterdir() if path.name != LOCK_NAME)
        if others:
            why = f"holds other things ({', '.join(others[:3])}), and no data set of this program"
            raise OutputError(out, why, "Choose another folder with --out.")
        return []
    return _of_other_rules(out, rules, there["settings"], set(cases), overwrite=overwrite)


def _of_other_rules(out: Path, rules: PatchRules, settings: Record, cases: set[str], *, overwrite: bool) -> list[str]:
    other = [key for key, value in rules.as_json().items() if settings.get(key) != value]
    if not other:
        return []
    there = case_records(out)
    why = f"holds cases cut by other settings ({', '.join(other)})"
    if there and not overwrite:
        hint = "Cut them again with --overwrite, or choose another folder with --out."
        raise ResultsMismatchError(out, why, hint)
    if kept := sorted(there.keys() - cases):
        hint = f"Name their slides too ({', '.join(kept[:3])}), or choose another folder with --out."
        raise ResultsMismatchError(out, why, hint)
    return list(there)


def set_aside(folder: Path) -> Path:
    """Give the folder of a case a name that nobody takes for a case, in one step; the new one.

    Raises:
        OutputError: where it cannot be renamed.
    """
    hidden = folder.with_name(f"{PARTIAL_PREFIX}{uuid4().hex}")
    try:
        folder.rename(hidden)
    except OSError as error:
        raise OutputError(folder, f"cannot be removed ({error.strerror or error})", "Check the permissions.") from error
    return hidden


def discard(folder: Path) -> None:
    """Remove a folder under such a name, as far as it can be; what is left does no harm."""
    if folder.is_symlink():
        folder.unlink(missing_ok=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)
