"""Regions, or the probability in steps, as a DICOM Segmentation."""

from pathlib import Path

import numpy as np

from wsi_pipeline.export.dicom import (
    describe_maker,
    filled,
    identify_algorithm,
    lenient,
    name_class,
    place_cells,
    save,
)
from wsi_pipeline.export.dicom_origin import find_origin
from wsi_pipeline.export.results import Result


@lenient()
def write_segmentation(result: Result, folder: Path, name: str) -> list[Path]:
    """Write ``<name>.seg.dcm``: one segment, a pixel a cell, tiled, in the slide's frame of reference.

    Binary: the cells of the regions at the threshold. Fractional: the probability in steps of 1/255, 0 also where
    nothing was analysed (the parametric map keeps these apart).

    Raises:
        SlideNotFoundError, ResultsMismatchError: where the slide is not there any more, or is another.
        SlideReadError: where the slide's DICOM attributes cannot be found.
        OutputError: where the file cannot be written.
    """
    import highdicom as hd

    path = folder / f"{name}.seg.dcm"
    origin = find_origin(result)
    category, kind = name_class(result.class_name)
    segment = hd.seg.SegmentDescription(
        segment_number=1,
        segment_label=result.class_name,
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=identify_algorithm(result),
        tracking_uid=hd.UID(),
        tracking_id=f"{name} {result.class_name}",
    )
    fractional = result.options.segmentation == "fractional"
    pixels = filled(result.probability, 0) if fractional else (result.region_numbers > 0).astype(np.uint8)
    dataset = hd.seg.Segmentation(
        source_images=[origin.image],
        pixel_array=pixels[None, ..., None] if fractional else pixels,
        segmentation_type="FRACTIONAL" if fractional else "BINARY",
        segment_descriptions=[segment],
        omit_empty_frames=False,
        dimension_organization_type="TILED_FULL",
        content_label="REGIONS" if not fractional else "PROBABILITY",
        **place_cells(origin, result),
        **describe_maker(result, number=901),
    )
    save(dataset, origin, path)
    return [path]
