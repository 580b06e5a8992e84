"""The Kaggle IDC patches and one's own in their layout: which cases and patches a folder or zip holds.

A patch is a file ``<case>_idx5_x<X>_y<Y>_class<C>.png`` in a folder ``<case>/<C>/``; X and Y are the 1-based
top-left pixel in the case's image. The published patches are 50 x 50 px at 4 µm/px, and their zip holds a nested
second copy of each. Patches of another size or resolution say so in a file ``case.json`` in the folder of the case.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

from wsi_pipeline.errors import SlideFormatError
from wsi_pipeline.geometry import Mpp
from wsi_pipeline.slides.patch_files import PatchFiles, open_files

PATCH_PX = 50
"""Side of a full-size published patch in pixels."""

PATCH_MPP = 4.0
"""Resolution of the published patches: slides scanned at 0.25 µm/px, reduced 16 times."""

DATASET_FILE, CASE_FILE, LABELS_PICTURE_SUFFIX = "dataset.json", "case.json", "_labels.jpg"
"""What stands beside patches cut by `wsi-pipeline extract`: what the set is, what each case is, a picture of each."""

_PLACE = r"(?P<case>[^/]+)_idx\d+_x(?P<x>\d{1,9})_y(?P<y>\d{1,9})"
_PATCH_NAME = re.compile(_PLACE + r"_class(?P<label>[01])\.png")
OTHER_LABEL = re.compile(_PLACE + r"_class(?P<label>[^/]*)\.png")
"""Names like a patch's, with a label that is none of this layout's: `PatchIndex.foreign` holds them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """One patch file. Its pixels are not read before they are needed."""

    case: str
    x: int
    """0-based left pixel in the case's image."""
    y: int
    """0-based top pixel in the case's image."""
    label: int
    """1 where the pathologist marked IDC, else 0."""
    root: str
    """The folder or zip file."""
    member: str
    """Path inside `root`, with forward slashes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchIndex:
    """What a folder or zip holds."""

    cases: dict[str, tuple[Patch, ...]]
    """Patches by case, each position once, in order of (y, x)."""
    duplicates: dict[str, int]
    """By case: further files for a position already taken, with the same label (the nested second copy)."""
    conflicts: dict[str, tuple[tuple[int, int], ...]]
    """By case: positions that occur with both labels; the positive one is kept."""
    foreign: tuple[str, ...]
    """Files that are no patches, without what operating systems leave behind."""


def index_patches(root: str | Path) -> PatchIndex:
    """List the patches in a folder or a zip.

    Raises:
        SlideNotFoundError: where `root` does not exist.
        DatasetError: where `root` is a broken zip, or a folder in it may not be read.
    """
    files = open_files(root)
    files.close()
    return index_names(str(root), files.names)


def index_names(root: str, names: Iterable[str]) -> PatchIndex:
    """Sort the files of the folder or zip `root` into the patches of cases and foreign files."""
    best: dict[str, dict[tuple[int, int], Patch]] = {}
    conflicts: dict[str, set[tuple[int, int]]] = {}
    duplicates: Counter[str] = Counter()
    foreign = []
    # Shorter paths first: of two copies the one that is not nested is read.
    for member in sorted(names, key=lambda name: (name.count("/"), name)):
        patch = _parse(root, member)
        if patch is None:
            if not _is_companion(member):
                foreign.append(member)
            continue
        taken = best.setdefault(patch.case, {})
        other = taken.setdefault((patch.x, patch.y), patch)
        if other is patch:
            continue
        if other.label == patch.label:
            duplicates[patch.case] += 1
        else:
            conflicts.setdefault(patch.case, set()).add((patch.x, patch.y))
            taken[patch.x, patch.y] = max(other, patch, key=lambda p: p.label)
    return PatchIndex(
        cases={case: tuple(sorted(taken.values(), key=lambda p: (p.y, p.x))) for case, taken in sorted(best.items())},
        duplicates=dict(duplicates),
        conflicts={case: tuple(sorted(at)) for case, at in sorted(conflicts.items())},
        foreign=tuple(foreign),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchGeometry:
    """Size and resolution of the patches of a case."""

    size_px: int = PATCH_PX
    mpp: float = PATCH_MPP
    source: str = "kaggle"
    """``file`` where `CASE_FILE` says it."""

    def __post_init__(self) -> None:
        Mpp(self.mpp, self.mpp)
        if self.size_px < 1:
            raise ValueError(f"a patch of {self.size_px} px")


def read_geometry(address: str, case: str, files: PatchFiles) -> PatchGeometry:
    """What the patches of a case are: what their `CASE_FILE` says, or the published ones' where there is none.

    Args:
        address: The case, for messages.
        case: Its name.
        files: Of the case, or of its folder's surroundings.

    Raises:
        SlideFormatError: where the file is nonsense.
    """
    name = next((name for name in files.names if name in {CASE_FILE, f"{case}/{CASE_FILE}"}), None)
    name = name or next((name for name in files.names if name.endswith(f"/{case}/{CASE_FILE}")), None)
    if name is None:
        return PatchGeometry()
    try:
        facts = json.loads(files.read(name))
        return PatchGeometry(size_px=int(facts["patch_size_px"]), mpp=float(facts["mpp"]), source="file")
    except (OSError, BadZipFile, ValueError, KeyError, TypeError) as error:
        why = f"{name} does not say what the patches are ({error!r})"
        raise SlideFormatError(address, why, "It holds patch_size_px and mpp: write the case again.") from error


def _is_companion(member: str) -> bool:
    name = member.rsplit("/", 1)[-1]
    return name in {DATASET_FILE, CASE_FILE} or name.endswith(LABELS_PICTURE_SUFFIX)


def _parse(root: str, member: str) -> Patch | None:
    """The patch that a file name tells of; None where it tells of none."""
    match = _PATCH_NAME.fullmatch(member.rsplit("/", 1)[-1])
    if match is None or int(match["x"]) < 1 or int(match["y"]) < 1:
        return None
    return Patch(
        case=match["case"],
        x=int(match["x"]) - 1,
        y=int(match["y"]) - 1,
        label=int(match["label"]),
        root=root,
        member=member,
    )
