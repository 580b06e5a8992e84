"""From slides and annotations to a data set of labelled patches, case by case."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import (
    ConfigError,
    DatasetError,
    OutputError,
    ResolutionError,
    ResultsMismatchError,
    WsiPipelineError,
)
from wsi_pipeline.extraction.annotations import AnnotationFile, find_annotations, read_annotations
from wsi_pipeline.extraction.labels import Areas, Outcome, gather_areas, label_patches
from wsi_pipeline.extraction.patches import PatchNames, write_patches
from wsi_pipeline.extraction.picture import draw_labels
from wsi_pipeline.extraction.record import (
    PARTIAL_PREFIX,
    Record,
    case_identity,
    case_record,
    discard,
    known_patients,
    missing_patches,
    prepare_folder,
    read_record,
    set_aside,
    write_dataset,
)
from wsi_pipeline.extraction.rules import PatchRules, SlideSpec, fold
from wsi_pipeline.files import SPACE_HINT, sync, write_json
from wsi_pipeline.locks import folder_lock
from wsi_pipeline.plan import SlidePlan, plan_slide
from wsi_pipeline.slides import Slide, open_slide
from wsi_pipeline.slides.files import slide_id
from wsi_pipeline.slides.kaggle import CASE_FILE, LABELS_PICTURE_SUFFIX

OnPatches = Callable[[str, int, int], None]
"""Called with a case, its patches written so far, and in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """How one slide ended."""

    case: str
    path: str
    status: Literal["done", "skipped", "failed"]
    """``skipped``: cut before from the same slide and annotations by the same rules."""
    record: Record | None = None
    error: WsiPipelineError | None = None


def extract(
    slides: Sequence[SlideSpec],
    annotations: str | Path,
    out: str | Path,
    rules: PatchRules,
    *,
    overwrite: bool = False,
    workers: int | None = None,
    on_slide: Callable[[CaseResult], None] | None = None,
    on_patches: OnPatches | None = None,
) -> list[CaseResult]:
    """Cut the annotated patches of slides into the layout of the IDC set, with ``dataset.json`` at its top.

    A case appears whole or not at all; run again, cases that are done are skipped. A slide that fails does not stop
    the others. Cases cut by other rules are removed once it is clear that all of them can be cut by these.

    Args:
        slides: The slides; each is a case of its name.
        annotations: A folder with a QuPath GeoJSON file for each slide, or the file where there is one slide.
        out: Folder of the data set; made where it does not exist.
        rules: What is cut and how it is labelled.
        overwrite: Replace cases that were cut from another slide, other annotations or by other rules.
        workers: Threads that read and write.
        on_slide: Called when a slide has ended.
        on_patches: Called with a case, its patches written so far and in all.

    Returns:
        How each slide ended, in their order.

    Raises:
        ConfigError: where two slides have one name, or one annotation file is given for several slides.
        DatasetError: where there are no annotations at all.
        OutputError: where the folder cannot be written, is in use or holds other things.
        ResultsMismatchError: where it holds cases cut by other rules, or one that could not be cut by these.
    """
    source, out = Path(annotations), Path(out)
    cases = _cases(slides, source)
    results = []
    with folder_lock(out):
        outdated = prepare_folder(out, rules, cases, overwrite=overwrite)
        known = known_patients(out)  # also of cases that are cut again
        common: dict[str, Any] = {
            "annotations": source,
            "out": out,
            "rules": rules,
            "overwrite": overwrite,
            "workers": workers,
        }
        jobs = {
            case: _Job(case=case, slide=replace(slide, patient=slide.patient or known.get(case)), **common)
            for case, slide in cases.items()
        }
        _make_room([jobs[case] for case in outdated])
        write_dataset(out, rules)
        for job in jobs.values():
            try:
                result = _extract_case(job, on_patches)
            except WsiPipelineError as error:
                result = CaseResult(case=job.case, path=job.slide.path, status="failed", error=error)
            write_dataset(out, rules)
            results.append(result)
            if on_slide is not None:
                on_slide(result)
    return results


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One case and how to make it."""

    case: str
    slide: SlideSpec
    annotations: Path
    out: Path
    rules: PatchRules
    overwrite: bool
    workers: int | None

    @property
    def folder(self) -> Path:
        return self.out / self.case

    @property
    def partial(self) -> Path:
        return self.out / f"{PARTIAL_PREFIX}{self.case}"


def _cases(slides: Sequence[SlideSpec], annotations: Path) -> dict[str, SlideSpec]:
    """Slides by the name of their case."""
    if not annotations.exists():
        raise DatasetError(annotations, "does not exist", "Name a folder of annotations, or a file.")
    if annotations.is_file() and len(slides) > 1:
        why = f"is one file of annotations for {len(slides)} slides"
        raise ConfigError(annotations, why, "Name the folder that holds a file for each.")
    cases: dict[str, SlideSpec] = {}
    for slide in slides:
        case = slide_id(slide.path)
        other = next((cases[name] for name in cases if fold(name) == fold(case)), None)
        if other is not None:
            why = f"has the same name as {other.path}: patches and annotations could not be told apart"
            raise ConfigError(slide.path, why, "Rename one of them, or give each a data set of its own.")
        cases[case] = slide
    return cases


def _make_room(outdated: Sequence[_Job]) -> None:
    """Remove cases that were cut by other rules, once it is clear that each can be cut again."""
    for job in outdated:
        _check(job)
    for folder in [set_aside(job.folder) for job in outdated]:
        discard(folder)


def _check(job: _Job) -> None:
    """Refuse settings by which a case that is there already could not be cut again."""
    try:
        with _opened(job) as (slide, annotations):
            _label(job, slide, annotations)
    except WsiPipelineError as error:
        why = f"keeps its cases, as {job.case} cannot be cut by these settings ({error.where}: {error.why})"
        raise ResultsMismatchError(job.out, why, error.hint) from error


@contextmanager
def _opened(job: _Job) -> Iterator[tuple[Slide, AnnotationFile]]:
    """The slide and its annotations."""
    spec = job.slide
    annotations = read_annotations(find_annotations(job.annotations, spec.path, job.case))
    with open_slide(spec.path, reader=spec.reader, mpp=spec.mpp) as slide:
        yield slide, annotations


def _extract_case(job: _Job, on_patches: OnPatches | None) -> CaseResult:
    slide = job.slide
    with _opened(job) as (opened, annotations):
        identity = case_identity(job.rules, slide, opened.info, annotations)
        there = _already(job, identity)
        if there is not None:
            return CaseResult(case=job.case, path=slide.path, status="skipped", record=there)
        try:
            record = _cut(job, opened, annotations, on_patches)
            _move(job.partial, job.folder)
        finally:
            shutil.rmtree(job.partial, ignore_errors=True)
    return CaseResult(case=job.case, path=slide.path, status="done", record=record)


def _already(job: _Job, identity: str) -> Record | None:
    """The record of a case that is done; None where it is to be made."""
    if not job.folder.exists():
        return None
    record = read_record(job.folder / CASE_FILE)
    if record is None:
        hint = "Remove it, or choose another folder with --out."
        raise OutputError(job.folder, "is there, but was not made by this program", hint)
    same = record["identity"] == identity
    missing = missing_patches(job.folder, record) if same else 0
    if same and missing <= 0:
        record["patient"] = job.slide.patient or record["patient"]  # changes no patch
        write_json(job.folder / CASE_FILE, record)
        return record
    if job.overwrite:
        return None
    why = "was cut from another version of the slide or of its annotations"
    if same:
        why = f"lacks {missing:,} of the patches that were cut"
    raise ResultsMismatchError(job.folder, why, "Cut it again with --overwrite, or choose another folder with --out.")


def _label(job: _Job, opened: Slide, annotations: AnnotationFile) -> tuple[Areas, SlidePlan, NDArray[np.uint8]]:
    """What is annotated, and the `Outcome` of every position of the slide's grid."""
    info, rules = opened.info, job.rules
    if info.mpp is None:
        hint = (
            "Give it in µm/px with --slide-mpp, such as 0.25 for a usual 40x scan, or --mpp-csv FILE for many slides."
        )
        raise ResolutionError(info.path, "the file does not say its resolution", hint)
    areas = gather_areas(annotations, rules, info)
    plan = plan_slide(opened, rules.view, rules.settings())
    outcome = label_patches(plan.grid, areas, rules)
    _require_patches(job, outcome)
    return areas, plan, outcome


def _require_patches(job: _Job, outcome: NDArray[np.uint8]) -> None:
    if (outcome <= Outcome.POSITIVE).any():
        return
    numbers = np.bincount(outcome.ravel(), minlength=len(Outcome))
    counts = [f"{item.name.lower()} {numbers[item]}" for item in Outcome if item != Outcome.NO_TISSUE and numbers[item]]
    why = f"gives no patch ({', '.join(counts) or 'no tissue found'})"
    raise DatasetError(job.slide.path, why, "Check the annotations and the settings of tissue.")


def _cut(job: _Job, opened: Slide, annotations: AnnotationFile, on_patches: OnPatches | None) -> Record:
    """All files of a case into its partial folder."""
    info, rules, done = opened.info, job.rules, 0
    areas, plan, outcome = _label(job, opened, annotations)
    total = int((outcome <= Outcome.POSITIVE).sum())

    def count(patches: int) -> None:
        nonlocal done
        done += patches
        if on_patches is not None:
            on_patches(job.case, done, total)

    names = PatchNames(folder=job.partial, case=job.case, size_px=rules.size_px)
    lost = write_patches(job.slide, plan.grid, outcome, names, workers=job.workers, on_patches=count)
    outcome[lost[:, 0], lost[:, 1]] = Outcome.UNREADABLE
    _require_patches(job, outcome)
    record = case_record(
        job.case, rules, job.slide, info=info, annotations=annotations, areas=areas, grid=plan.grid, outcome=outcome
    )
    draw_labels(job.partial / f"{job.case}{LABELS_PICTURE_SUFFIX}", plan, outcome, areas, record)
    write_json(job.partial / CASE_FILE, record)
    return record


def _move(partial: Path, folder: Path) -> None:
    """Put the finished case in its place."""
    try:
        if hasattr(os, "sync"):
            os.sync()  # once for all of its files: each by itself would take minutes
        old = set_aside(folder) if folder.exists() else None
        partial.rename(folder)
        sync(folder.parent)
        if old is not None:
            discard(old)
    except OSError as error:
        raise OutputError(folder, f"cannot be written ({error.strerror or error})", SPACE_HINT) from error
