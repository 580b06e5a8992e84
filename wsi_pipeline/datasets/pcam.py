"""PatchCamelyon in the form of the Kaggle competition, and the choice between it and the original HDF5 files.

``train_labels.csv`` (id,label) and ``train/<id>.tif``: 96 x 96 px at 0.97 µm/px, label 1 where the middle 32 x 32 px
hold metastasis (Veeling 2018). Which slide a patch comes from is not known in this form.
"""

import csv
import re
from collections.abc import Sequence
from io import StringIO

from wsi_pipeline.datasets.base import PatchDataset, Sample
from wsi_pipeline.datasets.content import first_alike
from wsi_pipeline.datasets.image_files import ImageFiles, decode
from wsi_pipeline.datasets.store import PatchStore
from wsi_pipeline.errors import DatasetError
from wsi_pipeline.geometry import Size
from wsi_pipeline.wording import some_names

CLASS_NAMES = ("normal", "metastasis")
SOURCE = "PatchCamelyon, CC0; Veeling et al. 2018, Bejnordi et al. 2017"
MPP = 0.97
"""Reduced from a 40x scan of 0.243 µm/px by 4."""

PUBLISHED_SIZE = Size(96, 96)
_PUBLISHED_ID = re.compile("[0-9a-f]{40}")

LABELS_FILE = "train_labels.csv"

_COLUMNS = "The columns are id,label; the label is 0 or 1."


def holds_pcam(names: Sequence[str]) -> bool:
    """Whether the files are those of either form."""
    return any(_is_labels(name) or "camelyonpatch" in name.lower() for name in names)


def open_pcam(store: PatchStore, *, mpp: float | None = None) -> PatchDataset:
    """Open either form.

    Args:
        store: The files.
        mpp: Resolution in µm/px, where it is not 0.97.

    Raises:
        DatasetError: where files are missing, contradict each other or cannot be read; see `open_kaggle` and
            `pcam_hdf5.open_hdf5`.
    """
    hdf5 = [name for name in store.names if name.lower().endswith((".h5", ".hdf5", ".h5.gz"))]
    if not hdf5:
        return open_kaggle(store, mpp=mpp)
    if any(_is_labels(name) for name in store.names):
        raise DatasetError(store.root, "holds PatchCamelyon in both its forms", "Give a folder with one of them.")
    from wsi_pipeline.datasets.pcam_hdf5 import open_hdf5

    return open_hdf5(store.root, store.names, mpp=mpp or MPP)


def open_kaggle(store: PatchStore, *, mpp: float | None = None) -> PatchDataset:
    """Open tif files with a CSV of labels. Identical pictures make one group, as otherwise every patch does.

    Raises:
        DatasetError: where the CSV is missing or broken, a label is neither 0 nor 1 or is given twice and
            differently, or no picture has a label.
    """
    labels = _read_labels(store)
    pictures: dict[str, str] = {}
    repeated = 0
    for name in sorted(store.names, key=lambda name: (name.count("/"), name)):
        if name.lower().endswith((".tif", ".tiff")):
            repeated += _id(name) in pictures
            pictures.setdefault(_id(name), name)
    names = sorted(name for key, name in pictures.items() if key in labels)
    if not names:
        raise DatasetError(store.root, f"no picture has a label in {LABELS_FILE}", "The id is the file's name.")
    first = first_alike(store, names)
    samples = [Sample(name=name, label=labels[_id(name)], group=_id(first[name])) for name in names]
    size = _size(store, names)
    return ImageFiles(
        store,
        layout="pcam",
        class_names=CLASS_NAMES,
        positive_class=CLASS_NAMES[1],
        patch_size=size,
        mpp=mpp or MPP,
        samples=samples,
        findings=[*_findings(labels, pictures, repeated), *twins_found(samples), not_by_case()],
        source=SOURCE if size == PUBLISHED_SIZE and all(_PUBLISHED_ID.fullmatch(_id(name)) for name in names) else "",
        group_kind="picture",
    )


def _size(store: PatchStore, names: Sequence[str]) -> Size:
    """Of the first picture that can be decoded: a broken one is told when it is read itself."""
    for name in names:
        try:
            height, width, _ = decode(store.read(name), store.address(name)).shape
        except DatasetError as error:
            broken = error
        else:
            return Size(width, height)
    raise broken


def not_by_case() -> str:
    """What a split by group cannot keep apart where the slides are unknown."""
    return (
        "The files do not say which slide or patient a patch comes from, so no split of them is by case: patches of "
        "one slide are in several parts, and scores may be too good."
    )


def twins_found(samples: Sequence[Sample]) -> list[str]:
    """A finding on identical pictures, where there are any; each group is one picture and its copies."""
    labels: dict[str, set[int]] = {}
    for sample in samples:
        labels.setdefault(sample.group, set()).add(sample.label)
    copies = len(samples) - len(labels)
    if not copies:
        return []
    torn = sum(len(both) > 1 for both in labels.values())
    told = f"; {torn:,} of the pictures have both labels" if torn else ""
    return [f"{copies:,} patches are copies of another one and stay in its part{told}."]


def _is_labels(name: str) -> bool:
    return name.rsplit("/", 1)[-1].lower() == LABELS_FILE


def _id(name: str) -> str:
    """The id of a picture: its file name without the suffix."""
    return name.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def _read_labels(store: PatchStore) -> dict[str, int]:
    files = [name for name in store.names if _is_labels(name)]
    if not files:
        raise DatasetError(store.root, f"has no {LABELS_FILE}", _COLUMNS)
    labels: dict[str, int] = {}
    for file in files:
        where = store.address(file)
        try:
            rows = csv.DictReader(StringIO(store.read(file).decode("utf-8-sig"), newline=""))
            if not {"id", "label"} <= set(rows.fieldnames or ()):
                raise DatasetError(where, f"has the columns {','.join(rows.fieldnames or ())}", _COLUMNS)
            for line, row in enumerate(rows, start=2):
                key, label = str(row["id"] or "").strip(), str(row["label"] or "").strip()
                if label not in {"0", "1"}:
                    raise DatasetError(where, f"line {line}: the label of {key or 'no id'} is {label!r}", _COLUMNS)
                key = key.removesuffix(".tif")
                if labels.setdefault(key, int(label)) != int(label):
                    raise DatasetError(where, f"line {line}: {key} has both labels", "Keep the right one.")
        except (UnicodeDecodeError, csv.Error) as error:
            raise DatasetError(where, f"is no CSV file ({error})", _COLUMNS) from error
    return labels


def _findings(labels: dict[str, int], pictures: dict[str, str], repeated: int) -> list[str]:
    found = []
    if unlabelled := sorted(name for key, name in pictures.items() if key not in labels):
        found.append(f"{len(unlabelled):,} pictures have no label and are left out: {some_names(unlabelled)}.")
    if lost := sorted(labels.keys() - pictures.keys()):
        found.append(f"{len(lost):,} labels have no picture: {some_names(lost)}.")
    if repeated:
        found.append(f"{repeated:,} files repeat the id of another picture; each id is read once.")
    return found
