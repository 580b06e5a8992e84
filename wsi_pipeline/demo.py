"""The main job on an example slide that the program makes itself, and how well the map finds the true nests."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsi_pipeline import pipeline
from wsi_pipeline.config import Settings
from wsi_pipeline.files import make_folder
from wsi_pipeline.geometry import Scale, Size
from wsi_pipeline.grid import mask_fraction
from wsi_pipeline.heatmap import Heatmap
from wsi_pipeline.manifest import TABLE_FILE, RunRecord
from wsi_pipeline.outputs import HEATMAP, OVERLAY, REGIONS, TISSUE
from wsi_pipeline.phantom import Phantom, write_phantom
from wsi_pipeline.progress import Progress
from wsi_pipeline.report import REPORT_FILE

SLIDE_NAME = "phantom"
MASK_DOWNSAMPLE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """Where the demo's results are, and how good they are."""

    folder: Path
    record: RunRecord
    auroc: float | None
    """Of the cells' probability against the true tumour mask; None where the slide failed or has no tumour."""

    def text(self) -> str:
        """What to look at."""
        results, slide = self.folder / "results", slide_path(self.folder)
        found = "the slide drew no tumour" if self.auroc is None else f"AUROC {self.auroc:.3f}"
        files = {
            OVERLAY: "the map over the tissue",
            TISSUE: "what was taken for tissue",
            REGIONS: f"the outlines: in QuPath, drag them onto {slide}",
            HEATMAP: "OME-Zarr, for napari, dask and Python",
        }
        return "\n".join(
            [
                f"How well the map finds the drawn nests: {found}.",
                "(The tissue is drawn, the model learnt from real tissue: this shows that the program works, not how",
                "accurate the model is. Its accuracy on unseen real cases stands in the README. The model's second",
                "stage is switched off, as --no-context does: on drawn tissue it holds back.)",
                "",
                "Look at:",
                *(f"  {results / SLIDE_NAME / name}\n      {what}" for name, what in files.items()),
                f"  {results / TABLE_FILE}\n      the numbers",
                f"  {results / REPORT_FILE}\n      all of it on one page, for a browser",
            ]
        )


def slide_path(folder: Path) -> Path:
    """Where the demo's slide lies."""
    return folder / "slides" / f"{SLIDE_NAME}.tiff"


def run_demo(folder: Path, size: Size, seed: int, progress: Progress) -> DemoResult:
    """Make a slide, run the whole job on it, compare the map with the truth.

    Raises:
        OutputError: where the slide cannot be written.
    """
    slide = slide_path(folder)
    make_folder(slide.parent)
    phantom = write_phantom(slide, size, seed=seed, progress=lambda done, total: progress.cells("drawing", done, total))
    record = pipeline.run(
        [str(slide)],
        folder / "results",
        Settings.model_validate({"prediction": {"context": False}}),  # see `DemoResult.text`
        overwrite=True,
        on_plan=progress.plan,
        on_cells=progress.cells,
        on_slide=progress.slide,
    )
    auroc = None if record.failed else map_auroc(Heatmap.open(folder / "results" / SLIDE_NAME / HEATMAP), phantom)
    return DemoResult(folder=folder, record=record, auroc=auroc)


def map_auroc(heatmap: Heatmap, phantom: Phantom, class_name: str = "IDC") -> float | None:
    """AUROC of the scored cells' probability; a cell is positive where at least half of it is tumour."""
    from sklearn.metrics import roc_auc_score

    scale = Scale(MASK_DOWNSAMPLE, MASK_DOWNSAMPLE)
    share = mask_fraction(phantom.tumour_mask(scale), scale, heatmap.grid.row_edges, heatmap.grid.col_edges)
    probability = heatmap.probability(class_name)
    scored = np.isfinite(probability)
    truth = share[scored] >= 0.5
    if truth.all() or not truth.any():
        return None
    return float(roc_auc_score(truth, probability[scored]))
