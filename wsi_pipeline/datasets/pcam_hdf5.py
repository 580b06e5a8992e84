"""PatchCamelyon in its original form: HDF5 files of pictures and of labels for each published part (Veeling 2018).

``camelyonpatch_level_2_split_<train|valid|test>_x.h5`` (n pictures of 96 x 96 px), ``..._y.h5`` (n labels) and,
optionally, ``..._meta.csv``, whose column ``wsi`` names the slide of each patch. The files are known to hold some
pictures more than once.
"""

import csv
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from wsi_pipeline.datasets.base import PatchDataset, Sample
from wsi_pipeline.datasets.pcam import CLASS_NAMES, SOURCE, not_by_case, twins_found
from wsi_pipeline.errors import DatasetError
from wsi_pipeline.geometry import Size

CACHE_BYTES = 128 << 20
"""Of unpacked chunks, in each process: neighbouring patches share chunks."""

ROWS = 512
"""Read at once, where many are read."""

SLOW_CHUNK_ROWS = 16
"""Pieces of more rows make single patches slow to read."""

_PARTS = {"train": "train", "valid": "validation", "test": "test"}
_PICTURES = re.compile(r"(?P<stem>.*_(?P<part>train|valid|test))_x\.(?P<suffix>h5|hdf5)", re.IGNORECASE)
_PUBLISHED = "The published parts (--split published) are of different slides."
_UNPACK = "Unpack it first, for instance with gunzip."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One published part."""

    file: str
    """Name of the file of pictures, below the root."""
    part: str
    labels: NDArray[np.int64]
    slides: tuple[str, ...]
    """Slide of each patch; none where there is no `_meta.csv`."""
    size: Size
    chunk_rows: int
    """Patches that are packed together."""


class Hdf5Patches(PatchDataset):
    """Patches in HDF5 files. A sample is named ``<file>#<row>``; each process opens the files for itself."""

    def __init__(self, root: str, *, patch_size: Size, mpp: float) -> None:
        self.layout, self.root, self.source = "pcam", root, SOURCE
        self.class_names, self.positive_class = CLASS_NAMES, CLASS_NAMES[1]
        self.patch_size, self.mpp = patch_size, mpp
        self.samples: tuple[Sample, ...] = ()
        self.findings: tuple[str, ...] = ()
        self._opened: dict[str, Any] = {}
        self._process = os.getpid()

    def read(self, index: int) -> NDArray[np.uint8]:
        """RGB pixels [height, width, 3] of a sample.

        Raises:
            DatasetError: where they cannot be unpacked; the file is named.
        """
        file, _, row = self.samples[index].name.rpartition("#")
        pixels: NDArray[np.uint8] = self.rows(file, int(row), int(row) + 1)[0]
        return pixels

    def read_each(self, indices: Sequence[int] | NDArray[np.integer]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Many samples, each as its place in `indices` and its pixels, row by row of the files.

        Neighbouring rows are read at once: the files may be packed in pieces of many rows.

        Raises:
            DatasetError: as `read`.
        """
        blocks: dict[tuple[str, int], list[tuple[int, int]]] = {}
        for place, index in enumerate(indices):
            file, _, row = self.samples[index].name.rpartition("#")
            blocks.setdefault((file, int(row) // ROWS), []).append((int(row), place))
        for file, block in sorted(blocks):
            members = sorted(blocks[file, block])
            first = members[0][0]
            pixels = self.rows(file, first, members[-1][0] + 1)
            for row, place in members:
                yield place, pixels[row - first]

    def rows(self, file: str, start: int, stop: int) -> NDArray[np.uint8]:
        """RGB pixels [stop - start, height, width, 3] of neighbouring rows of a file.

        Raises:
            DatasetError: as `read`.
        """
        if self._process != os.getpid():
            self._opened, self._process = {}, os.getpid()
        if file not in self._opened:
            self._opened[file] = _only(_open(Path(self.root, file)), "x")  # kept open, as its cache goes with it
        try:
            pixels: NDArray[np.uint8] = self._opened[file][start:stop]
        except (OSError, RuntimeError) as error:
            why = f"row {start} cannot be read ({error})"
            raise DatasetError(Path(self.root, file), why, "Copy it again from its source.") from error
        return pixels

    def published_part(self, index: int) -> str:
        """The part whose file the sample stands in."""
        file = self.samples[index].name.rpartition("#")[0]
        match = _PICTURES.fullmatch(file.rsplit("/", 1)[-1])
        return _PARTS[match["part"].lower()] if match else "train"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}


def open_hdf5(root: str, names: Sequence[str], *, mpp: float) -> PatchDataset:
    """Open the parts that are there.

    Groups are slides where `_meta.csv` names them, else each picture with its copies.

    Args:
        root: The folder.
        names: Paths of the files below it.
        mpp: Resolution in µm/px.

    Raises:
        DatasetError: where the files are packed or incomplete, are no HDF5 files, differ in length, or have labels
            other than 0 and 1.
    """
    parts = [_read_part(Path(root), name, match) for name, match in _find(root, names)]
    dataset = Hdf5Patches(root, patch_size=parts[0].size, mpp=mpp)
    samples, findings, first = [], [], dict[bytes, str]()
    by_slide = all(part.slides for part in parts)  # else a picture and its copy could be of two groups
    for part in parts:
        copies = _first_alike(dataset, part, first)
        for row, label in enumerate(part.labels):
            group = part.slides[row] if by_slide else copies[row]
            samples.append(Sample(name=f"{part.file}#{row:06d}", label=int(label), group=group))
    dataset.samples = tuple(samples)
    dataset.group_kind = "slide" if by_slide else "picture"
    copied = len(samples) - len(first)
    if by_slide:
        findings += [f"{copied:,} patches are copies of another one."] if copied else []
    else:
        findings += [*twins_found(samples), not_by_case(), _PUBLISHED]
    if (rows := max(part.chunk_rows for part in parts)) > SLOW_CHUNK_ROWS:
        findings.append(f"The files pack {rows:,} patches together: single ones are slow to read, all at once are not.")
    dataset.findings = tuple(findings)
    return dataset


def _find(root: str, names: Sequence[str]) -> list[tuple[str, re.Match[str]]]:
    """The files of pictures, training first."""
    matches = [(name, _PICTURES.fullmatch(name.rsplit("/", 1)[-1])) for name in sorted(names)]
    found = [(name, match) for name, match in matches if match]
    if not found:
        packed = next((name for name in names if name.lower().endswith(".gz")), None)
        if packed is not None:
            raise DatasetError(Path(root, packed), "is packed with gzip", _UNPACK)
        raise DatasetError(root, "has no file *_train_x.h5, *_valid_x.h5 or *_test_x.h5", "Complete the download.")
    order = list(_PARTS)
    return sorted(found, key=lambda pair: order.index(pair[1]["part"].lower()))


def _read_part(root: Path, name: str, match: re.Match[str]) -> _Part:
    path = root / name
    if not path.is_file():
        raise DatasetError(path, "lies in a zip, where HDF5 files cannot be read", "Unpack the zip.")
    labels_path = path.with_name(f"{match['stem']}_y.{match['suffix']}")
    if not labels_path.is_file():
        packed = labels_path.with_name(f"{labels_path.name}.gz")
        if packed.is_file():
            raise DatasetError(packed, "is packed with gzip", _UNPACK)
        raise DatasetError(labels_path, "is missing", "Complete the download.")
    with _open(path) as pictures:
        array = _only(pictures, "x")
        shape, dtype, chunks = array.shape, array.dtype, array.chunks
    if len(shape) != 4 or shape[3] != 3 or dtype != np.uint8:
        raise DatasetError(path, f"holds {dtype} {list(shape)}, not uint8 [n, height, width, 3]", "Download it again.")
    with _open(labels_path) as file:
        labels = np.asarray(_only(file, "y")).reshape(-1)
    if len(labels) != shape[0]:
        raise DatasetError(labels_path, f"holds {len(labels):,} labels for {shape[0]:,} pictures", "Download it again.")
    if outside := sorted(set(np.unique(labels).tolist()) - {0, 1}):
        row = int(np.flatnonzero(labels == outside[0])[0])
        raise DatasetError(labels_path, f"row {row} has the label {outside[0]}", "Labels are 0 or 1.")
    return _Part(
        file=name,
        part=_PARTS[match["part"].lower()],
        labels=labels.astype(np.int64),
        slides=_read_slides(path.with_name(f"{match['stem']}_meta.csv"), len(labels)),
        size=Size(shape[2], shape[1]),
        chunk_rows=chunks[0] if chunks else 1,
    )


def _read_slides(file: Path, count: int) -> tuple[str, ...]:
    if not file.is_file():
        return ()
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            slides = tuple(row["wsi"].strip() for row in csv.DictReader(text))
    except (KeyError, AttributeError) as error:
        raise DatasetError(file, "has no column wsi in every line", "Download it again, or remove it.") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(file, f"cannot be read ({error})", "Download it again, or remove it.") from error
    if len(slides) != count:
        raise DatasetError(file, f"names {len(slides):,} slides for {count:,} pictures", "Download it again.")
    return slides


def _first_alike(dataset: Hdf5Patches, part: _Part, first: dict[bytes, str]) -> list[str]:
    """For each row the name of the first sample with the same pixels; `first` goes on from part to part."""
    names = []
    with tqdm(total=len(part.labels), desc=f"duplicates ({part.part})", unit="patch", disable=None, leave=False) as bar:
        for start in range(0, len(part.labels), ROWS):
            block = dataset.rows(part.file, start, min(start + ROWS, len(part.labels)))
            for offset, pixels in enumerate(block):
                digest = blake2b(pixels.tobytes(), digest_size=16).digest()
                names.append(first.setdefault(digest, f"{part.file}#{start + offset:06d}"))
            bar.update(len(block))
    return names


def _open(path: Path) -> Any:
    """An open HDF5 file."""
    try:
        import h5py
    except ImportError as error:
        hint = 'Install the train extra: pip install "wsi-pipeline[train]".'
        raise DatasetError(path, f"reading HDF5 needs another package ({error})", hint) from error
    try:
        return h5py.File(path, "r", rdcc_nbytes=CACHE_BYTES, rdcc_nslots=10_007)
    except OSError as error:
        raise DatasetError(path, f"is no readable HDF5 file ({error})", "Download it again.") from error


def _only(file: Any, key: str) -> Any:
    """The array of a file: that named `key`, or the only one."""
    with suppress(KeyError):
        return file[key]
    keys = list(file)
    if len(keys) == 1:
        return file[keys[0]]
    raise DatasetError(file.filename, f"has no array {key!r}", "Download it again.")
