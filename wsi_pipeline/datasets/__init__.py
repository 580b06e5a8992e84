"""Labelled patch data sets as users have them: folders, zips, CSV, HDF5. No torch here."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from wsi_pipeline.datasets.base import PatchDataset, Sample
from wsi_pipeline.datasets.images import check_readable, fit_size, load_images
from wsi_pipeline.datasets.splits import Split, folds, split_dataset
from wsi_pipeline.datasets.store import PatchStore
from wsi_pipeline.errors import DatasetError
from wsi_pipeline.geometry import Mpp

__all__ = [
    "Layout",
    "PatchDataset",
    "Sample",
    "Split",
    "check_readable",
    "fit_size",
    "folds",
    "load_images",
    "open_dataset",
    "split_dataset",
]

Layout = Literal["auto", "idc", "breakhis", "pcam"]
_Known = Literal["idc", "breakhis", "pcam"]

_KNOWN = (
    "Known are IDC (<case>_idx5_x<X>_y<Y>_class<C>.png), BreakHis (SOB_M_DC-14-12312-40-001.png) and PatchCamelyon "
    "(train_labels.csv with train/*.tif, or camelyonpatch_level_2_split_*.h5)."
)


def open_dataset(
    root: str | Path,
    *,
    layout: Layout = "auto",
    magnifications: Sequence[str] = (),
    mpp: float | None = None,
    strict: bool = True,
) -> PatchDataset:
    """Open labelled patches.

    Args:
        root: A folder (zips in it are looked into) or a zip.
        layout: ``auto`` tells it by the files' names.
        magnifications: BreakHis only: those to keep, of ``40X``, ``100X``, ``200X``, ``400X``; all where empty.
        mpp: Resolution in µm/px, where it is not what the layout says.
        strict: Refuse what no training can use: patches of one class only, and patches that are no pictures. Without
            it, the latter fail one by one when they are read.

    Raises:
        SlideNotFoundError: where `root` does not exist.
        DatasetError: where it holds no labelled patches, those of several layouts, one class only, or files that
            contradict each other or cannot be read.
        ResolutionError: where `mpp` is no believable resolution.
    """
    if mpp is not None:
        Mpp(mpp, mpp)
    store = _open_store(Path(root))
    if not store.names:
        raise DatasetError(root, "is empty", "Give a folder or zip with labelled patches.")
    found = _layout(store) if layout == "auto" else layout
    if magnifications and found != "breakhis":
        raise DatasetError(root, f"has no magnifications to choose from (layout {found})", "Leave them out.")
    dataset = _open(store, found, magnifications, mpp, strict=strict)
    present = np.unique(dataset.labels)
    if strict and len(present) < 2:
        name = dataset.class_names[present[0]]
        raise DatasetError(root, f"holds patches of one class only ({name})", "At least two classes are needed.")
    return dataset


def _open_store(root: Path) -> PatchStore:
    """The files of a folder or a zip; of a HDF5 file those that belong to it and lie beside it."""
    if root.suffix.lower() not in {".h5", ".hdf5"} or not root.exists():
        return PatchStore(root)
    store = PatchStore(root.parent)
    stem = re.sub("_[xy]$", "", root.stem)
    store.keep(name for name in store.names if name.startswith(f"{stem}_"))
    return store


def _layout(store: PatchStore) -> _Known:
    from wsi_pipeline.datasets.breakhis import holds_breakhis
    from wsi_pipeline.datasets.idc import holds_idc
    from wsi_pipeline.datasets.pcam import holds_pcam

    tests: dict[_Known, Callable[[Sequence[str]], bool]]
    tests = {"idc": holds_idc, "breakhis": holds_breakhis, "pcam": holds_pcam}
    found = [name for name, holds in tests.items() if holds(store.names)]
    if not found:
        raise DatasetError(store.root, "holds no labelled patches of a known layout", _KNOWN)
    if len(found) > 1:
        hint = "Give the folder of one of them, or name the layout."
        raise DatasetError(store.root, f"holds several data sets ({', '.join(found)})", hint)
    return found[0]


def _open(
    store: PatchStore, layout: _Known, magnifications: Sequence[str], mpp: float | None, *, strict: bool
) -> PatchDataset:
    if layout == "idc":
        from wsi_pipeline.datasets.idc import open_idc

        return open_idc(store, mpp=mpp, strict=strict)
    if layout == "breakhis":
        from wsi_pipeline.datasets.breakhis import open_breakhis

        return open_breakhis(store, magnifications=magnifications, mpp=mpp, strict=strict)
    from wsi_pipeline.datasets.pcam import open_pcam

    return open_pcam(store, mpp=mpp)
