"""A run that the tests of this folder look at."""

from pathlib import Path

from helpers import tissue_picture, write_redness_bundle
from tiffs import write_pyramid

from wsi_pipeline import pipeline
from wsi_pipeline.config import Settings, load_settings

HOSTILE = """<img src=x onerror="alert(1)">&amp;'{{ 7 * 7 }}"""
SMALL = {"tissue_min_area_um2": 500, "tissue_min_hole_um2": 500, "tissue_closing_um": 4, "min_region_um2": 0}


def make_settings(bundle: Path, **more: object) -> Settings:
    given = {"model": str(bundle), "workers": 0, "batch_size": 32, "device": "cpu", "threshold": 0.85, **SMALL}
    return load_settings(None, given | more)


def make_run(folder: Path) -> Path:
    """A run over three slides, one of an unpleasant name, and two that fail."""
    slides = folder / "slides"
    slides.mkdir()
    write_pyramid(slides / "small.tiff", base=tissue_picture(500, 400))
    write_pyramid(slides / "large.tiff", base=tissue_picture(1000, 800))
    write_pyramid(slides / f"{HOSTILE}.tiff", base=tissue_picture(600, 500))
    (slides / "cut & dried.tiff").write_bytes((slides / "large.tiff").read_bytes()[:3000])
    (slides / "empty.svs").touch()
    bundle = write_redness_bundle(folder / "model <i>", mpp=0.25)
    pipeline.run([str(slides)], folder / "out", make_settings(bundle))
    return folder / "out"
