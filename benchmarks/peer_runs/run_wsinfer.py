"""WSInfer through its Python API: the patches come from its own HDF5 form, the model from a folder, not the network."""

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from job import Job, Predict, perform
from wsinfer.modellib.models import LocalModelTorchScript
from wsinfer.modellib.run_inference import run_inference
from wsinfer_zoo.client import ModelConfiguration


def prepare(job: Job) -> Predict:
    """A folder of slides that holds a link, a folder of results that holds the patches."""
    slides, results = Path(job.scratch) / "slides", Path(job.scratch) / "results"
    slides.mkdir()
    (results / "patches").mkdir(parents=True)
    (slides / Path(job.slide).name).symlink_to(job.slide)
    with h5py.File(results / "patches" / f"{Path(job.slide).stem}.h5", "w") as file:
        coords = file.create_dataset("/coords", data=job.corners())
        coords.attrs.update({"patch_size": job.side, "patch_level": 0, "patch_spacing_um_px": job.mpp})
    config = json.loads((Path(job.script) / "config.json").read_text())
    model = LocalModelTorchScript(
        config=ModelConfiguration.from_dict(config), model_path=str(Path(job.script) / "torchscript_model.pt")
    )

    def predict() -> tuple[np.ndarray, np.ndarray]:
        _, failed = run_inference(slides, results, model, batch_size=job.batch, num_workers=job.workers)
        if failed:
            raise RuntimeError(f"failed on {failed}")
        table = pd.read_csv(next((results / "model-outputs-csv").glob("*.csv")))
        return table[["minx", "miny"]].to_numpy(np.int64), table.iloc[:, -1].to_numpy(np.float32)

    return predict


if __name__ == "__main__":
    perform(prepare)
