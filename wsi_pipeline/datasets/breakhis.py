"""BreakHis: images of breast tumours, whose names tell class, patient and magnification (Spanhol 2016, BreaKHis v1).

``SOB_M_DC-14-12312-40-001.png`` is procedure, benign or malignant, tumour type, year, slide, magnification, number.
The folders may be the original tree ``BreaKHis_v1/histology_slides/breast/...``, any other, or none.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from wsi_pipeline.datasets.base import PatchDataset, Sample
from wsi_pipeline.datasets.image_files import ImageFiles, png_sizes
from wsi_pipeline.datasets.store import PatchStore
from wsi_pipeline.errors import DatasetError
from wsi_pipeline.geometry import Size
from wsi_pipeline.wording import some_names

CLASS_OF_TYPE = {
    "A": "adenosis",
    "F": "fibroadenoma",
    "PT": "phyllodes tumor",
    "TA": "tubular adenoma",
    "DC": "ductal carcinoma",
    "LC": "lobular carcinoma",
    "MC": "mucinous carcinoma",
    "PC": "papillary carcinoma",
}
"""Classes by the letters in the names, benign ones first."""

CLASS_NAMES = tuple(CLASS_OF_TYPE.values())
POSITIVE_CLASS = "ductal carcinoma"

MPP_OF_MAGNIFICATION = {"40X": 0.49, "100X": 0.20, "200X": 0.10, "400X": 0.05}
"""Resolution in µm/px as far as it is known; the factor is that of a microscope with a camera, not a scanner's."""

FULL_SIZE = Size(700, 460)

_BENIGN = frozenset({"A", "F", "PT", "TA"})
_NAME = re.compile(
    r"(?P<procedure>[A-Z]+)_(?P<tumour>[BM])_(?P<type>[A-Z]+)-(?P<year>\d{2})-(?P<slide>\d+)(?P<block>[A-Z]*)"
    r"-(?P<magnification>\d+)-(?P<number>\d+)\.png",
    re.IGNORECASE,
)
_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakhisName:
    """What the name of an image tells."""

    procedure: str
    """``SOB``, surgical open biopsy."""
    malignant: bool
    type: str
    """Key of `CLASS_OF_TYPE`."""
    year: str
    slide: str
    """Number without the letters behind it."""
    block: str
    """The letters behind the number, such as ``AB``; mostly none."""
    magnification: str
    """Key of `MPP_OF_MAGNIFICATION`."""
    number: int

    @property
    def patient(self) -> str:
        """Year and number: what a split must not divide.

        The letters behind the number are dropped. The set counts 22549AB and 22549CD as two patients, but its number
        is that of one specimen from one person as the laboratory filed it, and the letters are blocks of it: the same
        number occurs with different letters in different classes (29960AB and 29960CD), and one number without
        letters in two (13412 as DC and LC). Nothing published shows that they are different people; taking them for
        one costs little, taking one for several leaks.
        """
        return f"{self.year}-{self.slide}"


def parse_name(file_name: str) -> BreakhisName | None:
    """What a file name (without folders) tells; None where it is not named in this way.

    Raises:
        DatasetError: where type, magnification or benign/malignant are none of the set's, or contradict each other.
    """
    match = _NAME.fullmatch(file_name)
    if match is None:
        return None
    kind, magnification = match["type"].upper(), f"{int(match['magnification'])}X"
    malignant = match["tumour"].upper() == "M"
    if kind not in CLASS_OF_TYPE:
        raise DatasetError(file_name, f"{kind} is no tumour type", f"Known are {', '.join(CLASS_OF_TYPE)}.")
    if malignant == (kind in _BENIGN):
        why = f"says {'malignant' if malignant else 'benign'}, but {CLASS_OF_TYPE[kind]} is not"
        raise DatasetError(file_name, why, "Give it its published name.")
    if magnification not in MPP_OF_MAGNIFICATION:
        known = ", ".join(MPP_OF_MAGNIFICATION)
        raise DatasetError(file_name, f"{magnification} is no magnification of the set", f"Known are {known}.")
    return BreakhisName(
        procedure=match["procedure"].upper(),
        malignant=malignant,
        type=kind,
        year=match["year"],
        slide=match["slide"],
        block=match["block"].upper(),
        magnification=magnification,
        number=int(match["number"]),
    )


def holds_breakhis(names: Sequence[str]) -> bool:
    """Whether any file is named like an image of this set."""
    return any(_NAME.fullmatch(name.rsplit("/", 1)[-1]) for name in names)


def open_breakhis(
    store: PatchStore, *, magnifications: Sequence[str] = (), mpp: float | None = None, strict: bool = True
) -> PatchDataset:
    """Open a folder or zip, whatever folders the images lie in. An image that is there twice is read once.

    Groups are patients (see `BreakhisName.patient`), strata magnifications.

    Args:
        store: The files.
        magnifications: Those to keep, such as ``40X``; all where empty.
        mpp: Resolution in µm/px of the one magnification, where it is not that of `MPP_OF_MAGNIFICATION`.
        strict: Refuse images that are no PNG; without it they fail when they are read.

    Raises:
        DatasetError: where no image is left, a file is no PNG, or a name contradicts itself or the folders it
            lies in.
    """
    wanted = _wanted(store, magnifications)
    found, findings = _find(store)
    chosen = {name: parsed for name, parsed in found.items() if parsed.magnification in wanted}
    if not chosen:
        hint = "They are named like SOB_M_DC-14-12312-40-001.png."
        kept = f" of {', '.join(magnifications)}" if magnifications else ""
        raise DatasetError(store.root, f"holds no BreakHis image{kept}", hint)
    present = {parsed.magnification for parsed in chosen.values()}
    if mpp is not None and len(present) > 1:
        raise DatasetError(store.root, f"{len(present)} magnifications have no one resolution", "Choose one of them.")
    sizes = png_sizes(store, list(chosen), strict=strict)
    return ImageFiles(
        store,
        layout="breakhis",
        class_names=CLASS_NAMES,
        positive_class=POSITIVE_CLASS,
        patch_size=FULL_SIZE,
        mpp=mpp or (MPP_OF_MAGNIFICATION[next(iter(present))] if len(present) == 1 else None),
        samples=[
            Sample(
                name=name,
                label=CLASS_NAMES.index(CLASS_OF_TYPE[parsed.type]),
                group=parsed.patient,
                stratum=parsed.magnification,
            )
            for name, parsed in chosen.items()
        ],
        findings=[*findings, *_findings(chosen, sizes)],
        source="BreakHis, CC BY 4.0; Spanhol et al. 2016",
        group_kind="patient",
    )


def _wanted(store: PatchStore, magnifications: Sequence[str]) -> set[str]:
    wanted = {str(value).upper().removesuffix("X") + "X" for value in magnifications} or set(MPP_OF_MAGNIFICATION)
    if unknown := wanted.difference(MPP_OF_MAGNIFICATION):
        known = ", ".join(MPP_OF_MAGNIFICATION)
        raise DatasetError(store.root, f"has no magnification {min(unknown)}", f"Known are {known}.")
    return wanted


def _find(store: PatchStore) -> tuple[dict[str, BreakhisName], list[str]]:
    """The images by path, each file name once, and what is odd about the files."""
    found: dict[str, BreakhisName] = {}
    seen: set[str] = set()
    repeated, foreign = 0, []
    for path in sorted(store.names, key=lambda name: (name.count("/"), name)):
        *folders, file_name = path.split("/")
        try:
            parsed = parse_name(file_name)
        except DatasetError as error:
            raise DatasetError(store.address(path), error.why, error.hint) from error
        if parsed is None:
            foreign += [path] if path.lower().endswith(_PICTURES) else []
            continue
        _check_folders(store.address(path), folders, parsed)
        if file_name.lower() in seen:
            repeated += 1
            continue
        seen.add(file_name.lower())
        found[path] = parsed
    findings = []
    if repeated:
        findings.append(f"{repeated:,} files repeat the name of another image; each name is read once.")
    if foreign:
        findings.append(f"{len(foreign):,} pictures are not named like BreakHis images and are left out: "
                        f"{some_names(foreign)}.")  # fmt: skip
    return dict(sorted(found.items())), findings


def _check_folders(address: str, folders: Sequence[str], parsed: BreakhisName) -> None:
    """Refuse an image in a folder that is named after another class or magnification."""
    own = {CLASS_OF_TYPE[parsed.type], "malignant" if parsed.malignant else "benign", parsed.magnification}
    others = {*CLASS_NAMES, "malignant", "benign", *MPP_OF_MAGNIFICATION}.difference(own)
    for folder in folders:
        plain = folder.replace("_", " ").replace("-", " ").strip()
        told = plain.upper() if plain.upper() in MPP_OF_MAGNIFICATION else plain.lower()
        if told in others:
            mine = f"{CLASS_OF_TYPE[parsed.type]}, {parsed.magnification}"
            raise DatasetError(address, f"its name says {mine}, but its folder {folder}", "Rename it or move it.")


def _findings(chosen: dict[str, BreakhisName], sizes: Sequence[Size]) -> list[str]:
    classes: dict[str, set[str]] = defaultdict(set)
    blocks: dict[str, set[str]] = defaultdict(set)
    for parsed in chosen.values():
        classes[parsed.patient].add(parsed.type)
        blocks[parsed.patient].add(parsed.block)
    found = []
    if missing := [name for kind, name in CLASS_OF_TYPE.items() if all(kind != p.type for p in chosen.values())]:
        found.append(f"{len(missing)} of the eight classes do not occur: {', '.join(missing)}.")
    if several := sorted(patient for patient, types in classes.items() if len(types) > 1):
        named = [f"{patient} ({', '.join(sorted(classes[patient]))})" for patient in several]
        found.append(f"Patient numbers that occur in several classes ({len(several)}): {some_names(named)}.")
    if joined := sorted(patient for patient, letters in blocks.items() if len(letters) > 1):
        named = [f"{patient} ({', '.join(sorted(b or 'none' for b in blocks[patient]))})" for patient in joined]
        found.append(
            f"Numbers that come with several letters, each one patient here ({len(joined)}): {some_names(named)}."
        )
    if odd := Counter(size for size in sizes if size != FULL_SIZE):
        shown = some_names([f"{size} px ({count:,})" for size, count in odd.most_common()])
        found.append(f"{sum(odd.values()):,} of {len(sizes):,} images are not {FULL_SIZE} px: {shown}; they are kept.")
    return found
