"""What a slide is and what a run on it would do, without running the network."""

from wsi_pipeline.config import Settings
from wsi_pipeline.errors import BundleError, ConfigError, ResolutionError, SlideFormatError
from wsi_pipeline.models.bundle import ModelBundle
from wsi_pipeline.plan import plan_slide
from wsi_pipeline.prediction import choose_threshold, describe_prediction
from wsi_pipeline.slides import Slide
from wsi_pipeline.slides.source import SlideSource


def inspect_slide(source: SlideSource, settings: Settings, bundle: ModelBundle) -> dict[str, object]:
    """Facts about a slide by name, in the order to show them.

    Args:
        source: The slide.
        settings: Of slides, tissue, grid and prediction.
        bundle: The model whose fields of view the cells would have.

    Raises:
        WsiPipelineError: where the slide cannot be opened.
    """
    with source.open() as slide:
        info = slide.info
        resolution = (
            f"{info.mpp.x:g} x {info.mpp.y:g} µm/px ({info.mpp_source})" if info.mpp else "not known: give --mpp"
        )
        facts: dict[str, object] = {
            "slide": source.path,
            "size": f"{info.size} px",
            "resolution": resolution,
            "levels": ", ".join(f"{level.size} (1/{level.scale.x:g})" for level in info.levels),
            "vendor": f"{info.vendor} (reader: {info.reader})",
            "bounds": f"{info.bounds.size} px at ({info.bounds.x}, {info.bounds.y})",
        }
        if info.mpp is not None:
            facts["extent"] = (
                f"{info.size.width * info.mpp.x / 1000:.2f} x {info.size.height * info.mpp.y / 1000:.2f} mm"
            )
            try:
                facts |= _run_facts(slide, settings, bundle)
            except (ResolutionError, SlideFormatError, ConfigError, BundleError) as error:
                facts["cells"] = f"none: {error.why}"
        facts["model"] = describe_prediction(settings, bundle.card)
        facts["threshold"] = "{:.3g} ({})".format(*choose_threshold(settings, bundle.card))
        if info.warnings:
            facts["notes"] = "; ".join(info.warnings)
    return facts


def _run_facts(slide: Slide, settings: Settings, bundle: ModelBundle) -> dict[str, object]:
    info = slide.info
    plan = plan_slide(slide, bundle.view, settings)
    mpp, grid = info.require_mpp(), plan.grid
    rows, cols = grid.shape
    area = info.bounds.width * info.bounds.height * mpp.pixel_um2 * 1e-6
    return {
        "tissue": f"{plan.tissue.area_mm2(mpp):.3g} mm² of {area:.3g} mm²",
        "cells": f"{len(grid.cells):,} of {cols} x {rows}, {grid.cell_um:g} µm a side",
    }
