"""Probabilities as a DICOM Parametric Map."""

from pathlib import Path

from wsi_pipeline.config import RESEARCH_USE
from wsi_pipeline.export.dicom import describe_maker, filled, lenient, place_cells, save, shorten
from wsi_pipeline.export.dicom_origin import find_origin
from wsi_pipeline.export.results import Result

NOT_ANALYSED = -1.0
"""Stands for cells without a probability; the file says so as its padding value."""


@lenient()
def write_parametric_map(result: Result, folder: Path, name: str) -> list[Path]:
    """Write ``<name>.probability.dcm``: float32, a pixel a cell, tiled, in the slide's frame of reference.

    Raises:
        SlideNotFoundError, ResultsMismatchError: where the slide is not there any more, or is another.
        SlideReadError: where the slide's DICOM attributes cannot be found.
        OutputError: where the file cannot be written.
    """
    import highdicom as hd
    from pydicom.sr.codedict import codes

    path = folder / f"{name}.probability.dcm"
    origin, summary = find_origin(result), result.summary
    mapping = hd.pm.RealWorldValueMapping(
        lut_label="PROBABILITY",
        lut_explanation=shorten(f"Probability of {result.class_name}, 0 to 1"),
        unit=codes.UCUM.NoUnits,
        value_range=(0.0, 1.0),
        quantity_definition=codes.DCM.Probability,
    )
    dataset = hd.pm.ParametricMap(
        source_images=[origin.image],
        pixel_array=filled(result.probability, NOT_ANALYSED),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[hd.VOILUTTransformation(window_center=0.5, window_width=1.0)],
        content_label="PROBABILITY",
        content_qualification="RESEARCH",
        dimension_organization_type="TILED_FULL",
        contributing_equipment=[
            hd.ContributingEquipment(
                manufacturer="wsi-pipeline",
                purpose_of_reference=codes.DCM.ProcessingEquipment,
                manufacturer_model_name=shorten(summary.model),
                software_versions=summary.identity.bundle,
                contribution_description=f"Model {summary.model}. {RESEARCH_USE}.",
            )
        ],
        **place_cells(origin, result),
        **describe_maker(result, number=902),
    )
    dataset.FloatPixelPaddingValue = NOT_ANALYSED
    save(dataset, origin, path)
    return [path]
