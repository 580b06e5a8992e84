"""The slide that a DICOM export is derived from: its own attributes, or made-up ones that say so."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from wsi_pipeline.errors import SlideReadError
from wsi_pipeline.export.results import Result
from wsi_pipeline.geometry import Size

MAX_TILE_PX = 256

GENERATED = "Generated identifiers: the slide itself is not DICOM"
"""Stands as the study's description where the slide has no identifiers of its own."""

_ASKED_OF_EVERY_IMAGE = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber"),
    *("StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
"""May be empty in DICOM, must not be missing."""

_FROM_ABOVE = (0.0, -1.0, 0.0, -1.0, 0.0, 0.0)
"""Orientation of a slide whose label is on the left: columns run along -y, rows along -x."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a DICOM object is derived from."""

    image: Any
    """pydicom Dataset of the slide's finest level, or one made up in its place; without pixels."""
    generated: bool
    """Whether it is made up, because the slide is not DICOM."""


def find_origin(result: Result) -> Origin:
    """The slide's own DICOM attributes, or generated ones where it is in another format.

    Raises:
        SlideNotFoundError, ResultsMismatchError: where the slide is not there any more, or is another.
        SlideReadError: where the slide's DICOM attributes cannot be found.
    """
    with result.open_slide() as slide:
        info = slide.info
    if info.vendor != "dicom":
        return Origin(image=_make_up(result, info.size), generated=True)
    return Origin(image=_complete(_finest_level(Path(info.path), info.size)), generated=False)


def _finest_level(file: Path, size: Size) -> Any:
    """Attributes of the instance of the file's series that has the slide's full size."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    series = str(dcmread(file, specific_tags=["SeriesInstanceUID"], stop_before_pixels=True).SeriesInstanceUID)
    for candidate in (file, *sorted(path for path in file.parent.iterdir() if path.is_file() and path != file)):
        try:
            found = dcmread(candidate, stop_before_pixels=True)
        except (InvalidDicomError, OSError):
            continue
        shape = found.get("TotalPixelMatrixColumns"), found.get("TotalPixelMatrixRows")
        if found.get("SeriesInstanceUID") == series and shape == (size.width, size.height):
            return found
    raise SlideReadError(
        file, f"no file of its series has {size} px", "Keep the files of a DICOM slide together in one folder."
    )


def _complete(image: Any) -> Any:
    """Attributes that DICOM asks for and some converters leave out, empty or as DICOM's defaults."""
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

    for keyword in _ASKED_OF_EVERY_IMAGE:
        if keyword not in image:
            setattr(image, keyword, "")
    if "FrameOfReferenceUID" not in image:
        image.FrameOfReferenceUID = UID(_uid(image.SeriesInstanceUID, "frame of reference"))
    if "TotalPixelMatrixOriginSequence" not in image:
        corner = Dataset()
        corner.XOffsetInSlideCoordinateSystem = corner.YOffsetInSlideCoordinateSystem = 0
        image.TotalPixelMatrixOriginSequence = [corner]
    return image


def _make_up(result: Result, size: Size) -> Any:
    """Attributes for a slide that is not DICOM: the same for the same slide, and marked as generated.

    Study and frame of reference are shared by everything that is exported of one slide.
    """
    from pydicom.dataset import Dataset
    from pydicom.uid import VLWholeSlideMicroscopyImageStorage

    slide, mpp = result.summary.identity.slide, result.heatmap.grid.mpp
    image = Dataset()
    image.SOPClassUID = VLWholeSlideMicroscopyImageStorage
    image.SOPInstanceUID, image.SeriesInstanceUID = _uid(slide, "image"), _uid(slide, "series")
    image.StudyInstanceUID, image.FrameOfReferenceUID = _uid(slide, "study"), _uid(slide, "frame of reference")
    image.SpecificCharacterSet = "ISO_IR 192"
    image.PatientID = f"GENERATED-{slide[:16]}"
    image.PatientName = "GENERATED^"
    image.StudyDescription = GENERATED
    image.PositionReferenceIndicator = "SLIDE_CORNER"
    image.ImageOrientationSlide = list(_FROM_ABOVE)
    image.Rows = image.Columns = MAX_TILE_PX
    image.TotalPixelMatrixColumns, image.TotalPixelMatrixRows = size.width, size.height
    image.NumberOfFrames = -(-size.width // MAX_TILE_PX) * -(-size.height // MAX_TILE_PX)
    image.DimensionOrganizationType = "TILED_FULL"
    corner, measures, shared = Dataset(), Dataset(), Dataset()
    # The far corner of the picture is the slide's origin, so that no coordinate is negative.
    corner.XOffsetInSlideCoordinateSystem = _decimal(size.height * mpp.y / 1000)
    corner.YOffsetInSlideCoordinateSystem = _decimal(size.width * mpp.x / 1000)
    image.TotalPixelMatrixOriginSequence = [corner]
    measures.PixelSpacing = [_decimal(mpp.y / 1000), _decimal(mpp.x / 1000)]
    shared.PixelMeasuresSequence = [measures]
    image.SharedFunctionalGroupsSequence = [shared]
    return _complete(image)


def _uid(*parts: str) -> str:
    """A UID that is the same for the same parts, made from a UUID as DICOM allows (PS3.5, B.2)."""
    return f"2.25.{uuid5(NAMESPACE_OID, '/'.join(('wsi-pipeline', *parts))).int}"


def _decimal(value: float) -> Any:
    """A number in the 16 characters that DICOM gives it."""
    from pydicom.valuerep import DS

    return DS(value, auto_format=True)
