"""Patches in the layout of the Kaggle IDC set, the published ones or one's own.

A patch is a file ``<case>_idx5_x<X>_y<Y>_class<C>.png`` in a folder ``<case>/<C>/``; X and Y are the 1-based top-left
pixel in the case's image. The published patches are 50 x 50 px at 4 µm/px. Others say what they are in a file
``dataset.json`` beside the cases: ``{"patch_size_px": 256, "mpp": 0.5, "class_names": ["stroma", "tumour"]}``, where
class 1 comes last; what is not there is as in the published set. ``"patients": {"case": "patient"}`` keeps the cases of
a patient in one part of a split.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wsi_pipeline.datasets.base import PatchDataset, Sample
from wsi_pipeline.datasets.content import first_alike
from wsi_pipeline.datasets.image_files import ImageFiles, png_sizes
from wsi_pipeline.datasets.store import PatchStore
from wsi_pipeline.errors import DatasetError
from wsi_pipeline.geometry import MAX_MPP, MIN_MPP, Size
from wsi_pipeline.mosaic import mosaics
from wsi_pipeline.slides.kaggle import (
    CASE_FILE,
    DATASET_FILE,
    OTHER_LABEL,
    PATCH_MPP,
    PATCH_PX,
    Patch,
    PatchIndex,
    index_names,
)
from wsi_pipeline.wording import some_names

CLASS_NAMES = ("non-IDC", "IDC")
SOURCE = "Kaggle Breast Histopathology Images (IDC_regular_ps50_idx5), CC0; Janowczyk & Madabhushi 2016"
LIMITS = (
    "The labels it learnt from are coarse outlines drawn by one group of pathologists.",
    "Its patches hold little glass and fat: probabilities there mean little.",
    (
        "Its cases are large sections, not biopsies: on small foci a second stage, if it has one, may hold back "
        "(--no-context switches it off)."
    ),
    "DCIS, necrosis, skin, lymph node and other organs are outside what it learnt.",
    (
        "Its cases are of two series, one outlined more generously: one calibration cannot suit both, so probabilities "
        "may run high or low."
    ),
)
"""For the card of a model of the published cases."""

_FIRST_CASE, _LAST_CASE = 8863, 16896
"""Numbers of the published cases."""

MAX_SQUARES = 10_000_000
"""Of a case's mosaic: 4 cm x 4 cm in patches of 50 px at 0.25 µm/px. Each takes a quarter of a kilobyte in places."""

_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


class DatasetFacts(BaseModel):
    """What `dataset.json` and `case.json` hold; further keys are for others."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    patch_size_px: Annotated[int, Field(gt=0)] | None = None
    """Side of a full patch."""
    mpp: Annotated[float, Field(ge=MIN_MPP, le=MAX_MPP)] | None = None
    """Resolution in µm/px."""
    class_names: tuple[str, str] = CLASS_NAMES
    """Of class 0 and class 1."""
    patients: dict[str, str] = {}
    """Whose a case is, where a patient has several: a split keeps patients whole."""
    case: str | None = None
    patient: str | None = None
    """In the file of one case: its name and whose it is."""


def holds_idc(names: Sequence[str]) -> bool:
    """Whether any file is named like a patch of this layout."""
    return any("_idx" in name and index_names("", [name]).cases for name in names)


def open_idc(store: PatchStore, *, mpp: float | None = None, strict: bool = True) -> PatchDataset:
    """Open a folder, a zip or a folder of zips.

    Each place of a case is read once: the published zip holds a nested second copy of everything. Of a place that
    occurs with both labels the IDC one is kept. Smaller patches of the last row and column are kept as they are.

    Args:
        store: The files.
        mpp: Resolution in µm/px, overrides what the files say.
        strict: Refuse patches that are no PNG; without it they fail when they are read.

    Raises:
        DatasetError: where there is no patch, a file is no PNG, a patch stands in the other class's folder, or
            `dataset.json` is nonsense, or a label is neither 0 nor 1.
    """
    index = index_names(store.root, store.names)
    patches = [patch for members in index.cases.values() for patch in members]
    if not patches:
        raise DatasetError(store.root, "holds no IDC patch", "They are named <case>_idx5_x<X>_y<Y>_class<0 or 1>.png.")
    _check_labels(store, index.foreign)
    _check_folders(store, patches)
    facts = _read_facts(store)
    sizes = png_sizes(store, [patch.member for patch in patches], strict=strict)
    counts = Counter(sizes or [Size(PATCH_PX, PATCH_PX)])
    full = max(counts, key=lambda size: (counts[size], size.width * size.height))
    if facts.patch_size_px is not None:
        full = Size(facts.patch_size_px, facts.patch_size_px)
    usual = full == Size(PATCH_PX, PATCH_PX)
    published = usual and _says_nothing(facts) and _are_published(index.cases)
    unplaced = _why_no_places(patches, full)
    return ImageFiles(
        store,
        layout="idc",
        class_names=facts.class_names,
        positive_class=facts.class_names[1],
        patch_size=full,
        mpp=mpp or facts.mpp or (PATCH_MPP if usual else None),
        samples=[
            Sample(
                name=patch.member,
                label=patch.label,
                group=facts.patients.get(patch.case, patch.case),
                position=None if unplaced else (patch.x, patch.y),
                case=patch.case,
            )
            for patch in patches
        ],
        findings=[*_findings(index, sizes, full), *_tell_places(unplaced), *_tell_twins(store, patches)],
        source=SOURCE if published else "",
        limits=LIMITS if published else (),
        group_kind="patient" if any(facts.patients.get(case, case) != case for case in index.cases) else "case",
    )


def _says_nothing(facts: DatasetFacts) -> bool:
    """Whether no file says what the patches are, as none does of the published ones."""
    return facts.patch_size_px is None and facts.mpp is None and facts.class_names == CLASS_NAMES


def _are_published(cases: Iterable[str]) -> bool:
    """Whether all cases have numbers as the published ones have."""
    return all(case.isdecimal() and _FIRST_CASE <= int(case) <= _LAST_CASE for case in cases)


def _check_labels(store: PatchStore, foreign: Sequence[str]) -> None:
    for name in foreign:
        if match := OTHER_LABEL.fullmatch(name.rsplit("/", 1)[-1]):
            hint = "This layout has the classes 0 and 1: leave the patches of others out, or name them 0 or 1."
            raise DatasetError(store.address(name), f"has the label {match['label']!r}", hint)


def _check_folders(store: PatchStore, patches: Sequence[Patch]) -> None:
    for patch in patches:
        *_, folder, _ = ("", "", *patch.member.split("/"))
        if folder in {"0", "1"} and folder != str(patch.label):
            raise DatasetError(
                store.address(patch.member),
                f"stands in the folder of class {folder}, but its name says class {patch.label}",
                "Rename it or move it.",
            )


def _read_facts(store: PatchStore) -> DatasetFacts:
    """What `dataset.json` and the cases' own files say. Those of several cases or zips must say the same."""
    found: DatasetFacts | None = None
    patients: dict[str, str] = {}
    for name in store.names:
        if name.rsplit("/", 1)[-1] in {DATASET_FILE, CASE_FILE}:
            facts = _parse_facts(store, name)
            patients |= facts.patients
            if facts.case and facts.patient:
                patients[facts.case] = facts.patient
            facts = facts.model_copy(update={"patients": {}, "case": None, "patient": None})
            if found is not None and facts != found:
                raise DatasetError(
                    store.address(name), f"differs from another {DATASET_FILE} or {CASE_FILE}", "Open them one by one."
                )
            found = facts
    return (found or DatasetFacts()).model_copy(update={"patients": patients})


def _parse_facts(store: PatchStore, name: str) -> DatasetFacts:
    try:
        return DatasetFacts.model_validate_json(store.read(name))
    except ValidationError as error:
        first = error.errors()[0]
        why = f"is not usable ({'.'.join(map(str, first['loc'])) or 'file'}: {first['msg']})"
        raise DatasetError(store.address(name), why, "Correct it, or write it again.") from error


def _why_no_places(patches: Sequence[Patch], full: Size) -> str:
    """What keeps the cases from being put together again; empty where nothing does."""
    if full.width != full.height:
        return f"patches of {full} px are no squares"
    squares = [(patch.case, patch.x // full.width, patch.y // full.height) for patch in patches]
    taken = Counter(squares)
    sharing = [patch.member for patch, square in zip(patches, squares, strict=True) if taken[square] > 1]
    if sharing:
        return f"{len(sharing):,} patches share a square of {full} px with another, such as {sharing[0]}"
    positions = np.array([(patch.x, patch.y) for patch in patches])
    for mosaic in mosaics(positions, np.array([patch.case for patch in patches]), full.width):
        high, wide = mosaic.shape
        if wide * high > MAX_SQUARES:
            far = patches[mosaic.rows[positions[mosaic.rows].max(axis=1).argmax()]]
            return (
                f"the patches of {far.case} reach over {wide:,} x {high:,} squares of {full} px, such as {far.member}"
            )
    return ""


def _tell_places(unplaced: str) -> list[str]:
    lost = "no second stage over the neighbourhood, no map of a case and no windows across patches in training"
    return [f"{unplaced}: no patch's place is used, so there is {lost}."] if unplaced else []


def _tell_twins(store: PatchStore, patches: Sequence[Patch]) -> list[str]:
    """Cases that share most of their pictures: one slide under two names stands on both sides of a split by case."""
    case_of = {patch.member: patch.case for patch in patches}
    sizes = Counter(case_of.values())
    try:
        alike = first_alike(store, list(case_of))
    except DatasetError:  # told where the patches are read
        return []
    pairs = Counter((case_of[first], case_of[name]) for name, first in alike.items())
    twins = [pair for pair, shared in pairs.items() if pair[0] != pair[1] and 2 * shared > min(sizes[c] for c in pair)]
    if not twins:
        return []
    named = some_names([f"{one} and {other}" for one, other in twins])
    return [f"Cases with the same pictures: {named}. Keep one of each, or what trains also measures."]


def _findings(index: PatchIndex, sizes: Sequence[Size], full: Size) -> list[str]:
    found = []
    if repeated := sum(index.duplicates.values()):
        found.append(
            f"{repeated:,} files repeat a patch (same case, place and label), as the published zip's second copy "
            "does; each patch is read once."
        )
    if index.conflicts:
        places = [f"{case} x{x + 1} y{y + 1}" for case, at in index.conflicts.items() for x, y in at]
        found.append(f"{len(places):,} places occur with both labels; the positive one is kept: {some_names(places)}.")
    if odd := Counter(size for size in sizes if size != full):
        total = sum(odd.values())
        found.append(
            f"{total:,} of {len(sizes):,} patches are not {full} px (edges of a case, {len(odd)} sizes, the smallest "
            f"{min(odd, key=lambda size: size.width * size.height)}); they are kept."
        )
    if pictures := [name for name in index.foreign if name.lower().endswith(_PICTURES)]:
        found.append(f"{len(pictures):,} pictures are not named like patches and are left out: {some_names(pictures)}.")
    if full != Size(PATCH_PX, PATCH_PX):
        found.append(f"The patches are {full} px, so they are not the published ones.")
    return found
