"""TIAToolbox's PatchPredictor on a whole slide. It chooses patches by a mask: one that marks the wanted ones only."""

from pathlib import Path

import numpy as np
import torch
import zarr
from job import Job, Predict, network, perform
from tiatoolbox.models.architecture.vanilla import _infer_batch
from tiatoolbox.models.engine.io_config import IOPatchPredictorConfig
from tiatoolbox.models.engine.patch_predictor import PatchPredictor
from tiatoolbox.models.models_abc import ModelABC

MASK_PX = 5
"""Mask pixels along a patch; only the inner ones are set, so that rounding marks no neighbour."""


class Classifier(ModelABC):
    """The network as TIAToolbox's own classifiers are: normalisation in the network, softmax at its end."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.network = network(job)
        self.register_buffer("mean", torch.tensor(job.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(job.std)[:, None, None])

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """[n, 3, side, side], 0 to 255, to probabilities."""
        return torch.softmax(self.network((batch / 255 - self.mean) / self.std), 1)

    @staticmethod
    def infer_batch(model: torch.nn.Module, batch_data: torch.Tensor, *, device: str) -> np.ndarray:
        """As TIAToolbox's `CNNModel` does."""
        return _infer_batch(model=model, batch_data=batch_data, device=device)

    @staticmethod
    def postproc(image: np.ndarray) -> np.ndarray:
        """The class of each patch."""
        return np.argmax(image, axis=-1)


def prepare(job: Job) -> Predict:
    """The mask and the engine."""
    mask = np.zeros((job.grid[1] * MASK_PX, job.grid[0] * MASK_PX), np.uint8)
    rows, cols = np.nonzero(job.mask())
    for y in range(1, MASK_PX - 1):
        for x in range(1, MASK_PX - 1):
            mask[rows * MASK_PX + y, cols * MASK_PX + x] = 1
    engine = PatchPredictor(
        model=Classifier(job), batch_size=job.batch, num_workers=job.workers, device=job.device, verbose=False
    )
    config = IOPatchPredictorConfig(
        input_resolutions=[{"units": "mpp", "resolution": job.mpp}],
        patch_input_shape=(job.side, job.side),
        stride_shape=(job.side, job.side),
    )

    def predict() -> tuple[np.ndarray, np.ndarray]:
        found = engine.run(
            images=[Path(job.slide)],
            masks=[mask],
            ioconfig=config,
            patch_mode=False,
            save_dir=Path(job.scratch) / "results",
            output_type="zarr",
            return_probabilities=True,
            wsireader_kwargs={"mpp": (job.mpp, job.mpp), "power": 10 / job.mpp},
        )
        store = zarr.open(str(next(iter(found.values()))), mode="r")
        return np.asarray(store["coordinates"])[:, :2].astype(np.int64), np.asarray(store["probabilities"])[:, 1]

    return predict


if __name__ == "__main__":
    perform(prepare)
