"""What the DICOM exports share: where cells lie on the slide, who made them, how they are written."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.config import RESEARCH_USE
from wsi_pipeline.export.dicom_origin import MAX_TILE_PX, Origin
from wsi_pipeline.export.results import Result
from wsi_pipeline.files import atomic_path


@contextmanager
def lenient() -> Iterator[None]:
    """Without what pydicom and highdicom warn of in attributes that others wrote into the slide."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        logger.setLevel(level)


def place_cells(origin: Origin, result: Result) -> dict[str, Any]:
    """Where the map lies on the slide, as arguments for highdicom: a pixel is a cell.

    Spacing and position are the slide file's own times the cells' size in pixels, so that the map lies on the slide
    even where the run was told another resolution than the file's.
    """
    import highdicom as hd

    image, grid = origin.image, result.heatmap.grid
    spacing = np.array(
        [float(v) for v in image.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing]
    )
    direction = np.array([float(v) for v in image.ImageOrientationSlide])
    corner = image.TotalPixelMatrixOriginSequence[0]
    start = np.array(
        [
            float(corner.XOffsetInSlideCoordinateSystem),
            float(corner.YOffsetInSlideCoordinateSystem),
            float(corner.get("ZOffsetInSlideCoordinateSystem") or 0),
        ]
    )
    # Positions in DICOM are those of pixels' centres: of the slide's first pixel, and of the first cell.
    across = grid.extent.x + grid.step[0] / 2 - 0.5
    down = grid.extent.y + grid.step[1] / 2 - 0.5
    first = start + direction[:3] * spacing[1] * across + direction[3:] * spacing[0] * down
    thickness = image.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].get("SliceThickness")
    return {
        "pixel_measures": hd.PixelMeasuresSequence(
            pixel_spacing=(spacing[0] * grid.step[1], spacing[1] * grid.step[0]),
            slice_thickness=float(thickness) if thickness else 0.001,
        ),
        "plane_orientation": hd.PlaneOrientationSequence(
            coordinate_system=hd.CoordinateSystemNames.SLIDE, image_orientation=tuple(direction)
        ),
        "plane_positions": [
            hd.PlanePositionSequence(
                coordinate_system=hd.CoordinateSystemNames.SLIDE,
                image_position=tuple(first),
                pixel_matrix_position=(1, 1),
            )
        ],
        "tile_pixel_array": True,
        "tile_size": tuple(min(MAX_TILE_PX, side) for side in result.heatmap.grid.shape),
    }


def describe_maker(result: Result, *, number: int) -> dict[str, Any]:
    """Series, instance, software and description, as arguments for highdicom. Every export is a new series."""
    import highdicom as hd

    summary = result.summary
    return {
        "series_instance_uid": hd.UID(),
        "series_number": number,
        "sop_instance_uid": hd.UID(),
        "instance_number": 1,
        "manufacturer": "wsi-pipeline",
        "manufacturer_model_name": "wsi-pipeline",
        "software_versions": version("wsi-pipeline"),
        "specific_character_set": "ISO_IR 192",
        "device_serial_number": summary.identity.bundle[:16],
        "content_description": shorten(f"{RESEARCH_USE}. p({result.class_name}) by {summary.model}"),
        "series_description": shorten(f"{RESEARCH_USE}: {result.class_name} by {summary.model}"),
    }


def identify_algorithm(result: Result) -> Any:
    """The model as a highdicom AlgorithmIdentificationSequence: its name, and its digest as the version."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    summary = result.summary
    return hd.AlgorithmIdentificationSequence(
        name=shorten(summary.model),
        family=codes.DCM.ArtificialIntelligence,
        version=summary.identity.bundle,
        source="wsi-pipeline",
        parameters={
            "threshold": f"{result.threshold:.6g}",
            "threshold_source": result.threshold_source,
            "cell_um": f"{result.heatmap.grid.cell_um:g}",
            "settings": summary.identity.settings,
            "note": RESEARCH_USE,
        },
    )


def name_class(class_name: str) -> tuple[Any, Any]:
    """Category and type of what the probability is of; a code of our own where it is not IDC."""
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    if class_name.casefold() == "idc":
        return codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.InfiltratingDuctCarcinoma
    short = "".join(letter for letter in class_name if letter.isascii() and letter.isalnum())[:16] or "class"
    return codes.SCT.MorphologicallyAbnormalStructure, Code(short, "99WSIPIPELINE", shorten(class_name))


def shorten(text: str) -> str:
    """At most the 64 characters of DICOM's long strings, without the backslash that parts values."""
    plain = text.replace("\\", "/")
    return plain if len(plain) <= 64 else plain[:61] + "..."


def save(dataset: Any, origin: Origin, path: Path) -> None:
    """Write a DICOM file, whole or not at all. References to a slide that is made up are taken out first.

    Raises:
        OutputError: where it cannot be written.
    """
    if origin.generated:
        _forget_source(dataset)
    with atomic_path(path) as part:
        dataset.save_as(part, enforce_file_format=True)


def _forget_source(dataset: Any) -> None:
    """Nobody can look up an image that is not there."""
    for keyword in ("ReferencedSeriesSequence", "SourceImageSequence", "ReferencedImageSequence"):
        if keyword in dataset:
            delattr(dataset, keyword)
    groups = [*dataset.get("SharedFunctionalGroupsSequence", []), *dataset.get("PerFrameFunctionalGroupsSequence", [])]
    for group in groups:
        if "DerivationImageSequence" in group:
            group.DerivationImageSequence = []


def filled(values: NDArray[np.float32], fill: float) -> NDArray[np.float32]:
    """The map with a number in place of NaN, which many DICOM viewers cannot show."""
    return np.where(np.isnan(values), np.float32(fill), values)
