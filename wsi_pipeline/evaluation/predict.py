"""The network's answers to every patch of a data set."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from wsi_pipeline.datasets.ahead import read_ahead
from wsi_pipeline.datasets.base import PatchDataset
from wsi_pipeline.errors import DatasetError
from wsi_pipeline.inference import Predictor
from wsi_pipeline.inference.arrays import HostArrays
from wsi_pipeline.scoring.calibration import calibrate

THUMB_PX = 8
"""Side of the pictures that a case is put together from again."""


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
        for chunk in read_ahead(dataset, predictor.bundle.card.patch_size_px):
            bar.update(len(chunk.rows) + len(chunk.errors))
            unreadable += [Unreadable(name=name, why=error.why) for name, error in chunk.errors.items()]
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
