"""LazySlide through its Python API: tiles added as its own tiling adds them, logits as its features."""

import lazyslide as zs
import numpy as np
import torch
from job import Job, Predict, network, perform
from torchvision.transforms import v2
from wsidata import TileSpec, open_wsi
from wsidata.io import add_tiles


def prepare(job: Job) -> Predict:
    """Open the slide, add the tiles."""
    corners = job.corners()
    wsi = open_wsi(job.slide, store=None, reader="openslide")
    spec = TileSpec.from_wsidata(wsi, tile_px=job.side, stride_px=job.side, mpp=job.mpp)
    add_tiles(wsi, "tiles", corners, spec, np.zeros(len(corners), int))
    transform = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(job.mean, job.std)])
    model = network(job)

    def predict() -> tuple[np.ndarray, np.ndarray]:
        logits = zs.tl.feature_extraction(
            wsi,
            model,
            model_name="benchmark",
            transform=transform,
            device=job.device,
            amp=False,
            batch_size=job.batch,
            num_workers=job.workers,
            pbar=False,
            return_features=True,
        )
        return corners, torch.softmax(torch.as_tensor(logits), 1)[:, 1].numpy()

    return predict


if __name__ == "__main__":
    perform(prepare)
