"""The network's answers to every patch of a data set: patches are decoded ahead while the network works."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from wsi_pipeline.datasets import fit_size
from wsi_pipeline.datasets.base import PatchDataset
from wsi_pipeline.errors import DatasetError
from wsi_pipeline.geometry import Size
from wsi_pipeline.inference import DEFAULT_BATCH, Predictor
from wsi_pipeline.inference.arrays import HostArrays
from wsi_pipeline.inference.devices import Device, kind_of
from wsi_pipeline.models.card import Card
from wsi_pipeline.scoring.calibration import calibrate

THUMB_PX = 8
"""Side of the pictures that a case is put together from again."""

CHUNK_BYTES = 48 << 20
"""Decoded patches that are held at once, and as much again that is read ahead."""

MAX_CHUNK = 4096
READERS = 4
READ_TOGETHER = 64
"""Patches that a reading thread takes at a time."""

_USUAL_PX = 50
"""Input side that the default batch sizes are meant for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A patch that could not be decoded."""

    name: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """What the network says of the patches that could be read."""

    rows: NDArray[np.int64]
    """[m]: their places in the data set."""
    before: NDArray[np.float32]
    """[m, classes]: softmax of the logits as they are, classes in the card's order."""
    after: NDArray[np.float32]
    """[m, classes]: calibrated as the card says."""
    thumbs: NDArray[np.uint8] | None
    """[m, THUMB_PX, THUMB_PX, 3], where they were asked for."""
    unreadable: tuple[Unreadable, ...]


def batch_size(card: Card, device: Device, patches: int) -> int:
    """Fields of view in a batch: fewer where they are large, and never many more than there are."""
    usual = DEFAULT_BATCH[kind_of(device)] * (_USUAL_PX / max(card.input_px, _USUAL_PX)) ** 2
    return max(1, min(int(usual), patches))


def predict_dataset(
    dataset: PatchDataset, predictor: Predictor, *, tta: bool = False, thumbs: bool = False
) -> Predictions:
    """Show the network every patch.

    Args:
        dataset: Whose patches fit the bundle.
        predictor: The bundle on its device, without symmetries of its own: `tta` is applied here, to have the
            probabilities before the calibration as well.
        tta: Mean over the 8 symmetries of the square.
        thumbs: Keep a small picture of each patch.

    Raises:
        DatasetError: where no patch at all could be read.
        InferenceError: where the network fails.
    """
    rows, before, after, small, unreadable = [], [], [], [], list[Unreadable]()
    with tqdm(total=len(dataset), desc="patches", unit="patch", disable=None, leave=False) as bar:
        for chunk in _chunks(dataset, predictor.bundle.card.patch_size_px):
            bar.update(len(chunk.rows) + len(chunk.unreadable))
            unreadable += chunk.unreadable
            if not len(chunk.rows):
                continue
            raw, calibrated = _answers(predictor, chunk.fields, tta=tta)
            rows.append(chunk.rows)
            before.append(raw)
            after.append(calibrated)
            if thumbs:
                small.append(shrink(chunk.fields))
    if not rows:
        first = unreadable[0]
        raise DatasetError(dataset.root, f"none of its patches can be read ({first.name}: {first.why})")
    return Predictions(
        rows=np.concatenate(rows),
        before=np.concatenate(before),
        after=np.concatenate(after),
        thumbs=np.concatenate(small) if small else None,
        unreadable=tuple(unreadable),
    )


def shrink(fields: NDArray[np.uint8], side: int = THUMB_PX) -> NDArray[np.uint8]:
    """Small pictures [n, side, side, 3] of fields of view [n, size_px, size_px, 3]: means of nearly equal parts."""
    if fields.shape[1] <= side:
        nearest = np.arange(side) * fields.shape[1] // side
        return fields[:, nearest][:, :, nearest]
    edges = np.linspace(0, fields.shape[1], side + 1).round().astype(np.int64)
    sums = np.add.reduceat(np.add.reduceat(fields.astype(np.uint32), edges[:-1], axis=1), edges[:-1], axis=2)
    area = np.diff(edges)[:, None] * np.diff(edges)[None, :]
    return np.asarray(np.rint(sums / area[..., None]), np.uint8)


def _answers(
    predictor: Predictor, fields: NDArray[np.uint8], *, tta: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Probabilities before and after calibration, [n, classes] each."""
    card = predictor.bundle.card
    before, after = [], []
    for turned in HostArrays().symmetries(fields) if tta else (fields,):
        logits = predictor.logits(turned)
        before.append(calibrate(logits))
        # The same steps as the predictor's own, so that a map of the same patches is equal to the last bit.
        after.append(calibrate(logits, card.temperature, card.bias))
    return np.stack(before, 1).mean(1), np.stack(after, 1).mean(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chunk:
    rows: NDArray[np.int64]
    fields: NDArray[np.uint8]
    """[n, side, side, 3]."""
    unreadable: list[Unreadable]


def _chunks(dataset: PatchDataset, side: int) -> Iterator[_Chunk]:
    """The data set in order, a chunk read ahead by a few threads."""
    count = max(1, min(MAX_CHUNK, CHUNK_BYTES // (3 * side * side)))
    parts = [range(start, min(start + count, len(dataset))) for start in range(0, len(dataset), count)]
    ahead: deque[list[Future[_Chunk]]] = deque()
    with ThreadPoolExecutor(READERS) as pool:
        for n, _ in enumerate(parts):
            while len(ahead) < 2 and n + len(ahead) < len(parts):
                part = parts[n + len(ahead)]
                pieces = [part[start : start + READ_TOGETHER] for start in range(0, len(part), READ_TOGETHER)]
                ahead.append([pool.submit(_read, dataset, piece, side) for piece in pieces])
            yield _join([future.result() for future in ahead.popleft()])


def _read(dataset: PatchDataset, rows: Sequence[int], side: int) -> _Chunk:
    """Some patches, all at once; where that fails, one by one, so that only the broken ones are lost."""
    size, found, unreadable = Size(side, side), dict[int, NDArray[np.uint8]](), list[Unreadable]()
    try:
        for place, pixels in dataset.read_each(rows):
            found[rows[place]] = fit_size(pixels, size)
    except DatasetError:
        for row in rows:
            if row not in found:
                try:
                    found[row] = fit_size(dataset.read(row), size)
                except DatasetError as error:
                    unreadable.append(Unreadable(name=dataset.samples[row].name, why=error.why))
    kept = sorted(found)
    pixels = np.stack([found[row] for row in kept]) if kept else np.empty((0, side, side, 3), np.uint8)
    return _Chunk(rows=np.array(kept, np.int64), fields=pixels, unreadable=unreadable)


def _join(pieces: Sequence[_Chunk]) -> _Chunk:
    return _Chunk(
        rows=np.concatenate([piece.rows for piece in pieces]),
        fields=np.concatenate([piece.fields for piece in pieces]),
        unreadable=[bad for piece in pieces for bad in piece.unreadable],
    )
