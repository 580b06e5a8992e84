"""This program's own reading and network over a slide's cells, without what a run writes: its feeding by itself."""

from pathlib import Path

import numpy as np
from job import Job, Predict, perform

from wsi_pipeline.config import Settings
from wsi_pipeline.feed import read_blocks
from wsi_pipeline.inference import Predictor, choose_device
from wsi_pipeline.models.bundle import load_bundle
from wsi_pipeline.plan import plan_slide
from wsi_pipeline.slides.source import SlideSource


def prepare(job: Job) -> Predict:
    """The plan, whose cells must be those that all programs are given, and the network."""
    source = SlideSource(path=job.slide, reader="auto", mpp=None)
    bundle = load_bundle(Path(job.script))
    with source.open() as slide:
        grid = plan_slide(slide, bundle.view, Settings()).grid
    if len(grid.cells) != len(job.corners()):
        raise RuntimeError(f"{len(grid.cells)} cells planned, {len(job.corners())} wanted")
    predictor = Predictor(bundle=bundle, device=choose_device(job.device), batch_size=job.batch)

    def predict() -> tuple[np.ndarray, np.ndarray]:
        blocks = read_blocks(source, grid, grid.blocks(), workers=None if job.workers < 0 else job.workers)
        scored = list(predictor.predict(blocks))
        cells = np.concatenate([block.block.cells for block in scored])[:, ::-1].astype(np.int64)
        return cells * job.side, np.concatenate([block.scores for block in scored])[:, 1]

    return predict


if __name__ == "__main__":
    perform(prepare)
