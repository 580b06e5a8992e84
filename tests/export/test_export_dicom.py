"""DICOM by the eyes of pydicom and highdicom, on slides that are DICOM and slides that are not."""

import highdicom as hd
import numpy as np
import pydicom
import pytest
from finished_results import make_finished, write_run
from highdicom.spatial import PixelToReferenceTransformer
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, VLWholeSlideMicroscopyImageStorage, generate_uid

from wsi_pipeline.errors import SlideReadError
from wsi_pipeline.export import ExportOptions, dicom, dicom_origin, export
from wsi_pipeline.geometry import Box, Size

ROWS, COLUMNS = 805, 1010


def export_one(finished, to, folder, **options):
    record = export(finished.folder, to=to, out=folder, options=ExportOptions(**options))
    assert not record.failed, record.failed
    (file,) = record.files
    return file


def slide_dataset(size: tuple[int, int] = (COLUMNS, ROWS), series: str | None = None) -> Dataset:
    """A DICOM slide's attributes, turned on its side, with patient, specimen and an odd origin."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = VLWholeSlideMicroscopyImageStorage
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = generate_uid()
    image.SpecificCharacterSet = "ISO_IR 100"
    image.StudyInstanceUID, image.SeriesInstanceUID = generate_uid(), series or generate_uid()
    image.FrameOfReferenceUID, image.PositionReferenceIndicator = generate_uid(), "SLIDE_CORNER"
    image.PatientID, image.PatientName, image.PatientBirthDate, image.PatientSex = "4711", "Müller^Ä", "19500101", "F"
    image.AccessionNumber, image.StudyID = "ACC1", "S1"
    image.StudyDate, image.StudyTime, image.StudyDescription = "20200102", "030405", "Breast"
    image.ContainerIdentifier = "SPEC-1"
    image.Rows, image.Columns, image.NumberOfFrames = 256, 256, 16
    image.TotalPixelMatrixColumns, image.TotalPixelMatrixRows = size
    image.ImageOrientationSlide = [0, 1, 0, 1, 0, 0]
    corner, measures, shared = Dataset(), Dataset(), Dataset()
    corner.XOffsetInSlideCoordinateSystem, corner.YOffsetInSlideCoordinateSystem = 12.5, 31.25
    measures.PixelSpacing, measures.SliceThickness = [0.000252, 0.000248], 0.001
    shared.PixelMeasuresSequence = [measures]
    image.TotalPixelMatrixOriginSequence, image.SharedFunctionalGroupsSequence = [corner], [shared]
    return image


@pytest.fixture
def dicom_slide(finished, tmp_path, monkeypatch):
    """A result whose slide is DICOM; only the reader of its pixels is made up, and its file has no pixels."""
    image = slide_dataset()
    (tmp_path / "series").mkdir()
    path = tmp_path / "series" / "level.dcm"
    image.save_as(path, enforce_file_format=True)
    made = make_finished(
        tmp_path / "result", path, fingerprint="d" * 64, mpp=(0.248, 0.252), extent=Box(0, 0, COLUMNS, ROWS)
    )

    class Slide:
        class info:  # noqa: N801
            vendor, path, size, fingerprint = "dicom", str(tmp_path / "series" / "level.dcm"), Size(1010, 805), "d" * 64

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    monkeypatch.setattr("wsi_pipeline.slides.open_slide", lambda *_, **__: Slide())
    return image, made


def centres_mm(image: Dataset, shape: tuple[int, int]) -> np.ndarray:
    """[rows, cols, 3]: where the pixels of a total pixel matrix lie on the slide, by highdicom."""
    transform = PixelToReferenceTransformer.for_image(image, for_total_pixel_matrix=True)
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    return transform(np.stack([cols, rows], -1).reshape(-1, 2)).reshape(*shape, 3)


def slide_mm(image: Dataset, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """[n, 3]: where places of the slide's pixel matrix lie; pixel 0 has its centre at 0."""
    corner = image.TotalPixelMatrixOriginSequence[0]
    down, across = (float(v) for v in image.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing)
    direction = np.array(image.ImageOrientationSlide, float)
    start = np.array([corner.XOffsetInSlideCoordinateSystem, corner.YOffsetInSlideCoordinateSystem, 0], float)
    return start + np.outer(x * across, direction[:3]) + np.outer(y * down, direction[3:])


def check_place(exported: Dataset, slide: Dataset, grid) -> None:
    """Every cell lies where its pixels lie: its centre is that of its pixels, to half a pixel of rounding."""
    shape = (exported.TotalPixelMatrixRows, exported.TotalPixelMatrixColumns)
    assert shape == grid.shape
    mm = centres_mm(exported, shape)
    for row, col in [(0, 0), (3, 7), (shape[0] - 2, shape[1] - 2)]:
        # Pixel k covers k - 1/2 .. k + 1/2 where its centre is k.
        x = (grid.col_edges[col] + grid.col_edges[col + 1]) / 2 - 0.5
        y = (grid.row_edges[row] + grid.row_edges[row + 1]) / 2 - 0.5
        expected = slide_mm(slide, np.array([x]), np.array([y]))[0]
        assert np.abs(mm[row, col] - expected).max() < 0.51 * 0.000252


def check_common(exported: Dataset) -> None:
    assert "research use only" in exported.ContentDescription
    assert exported.DimensionOrganizationType == "TILED_FULL"
    assert exported.Manufacturer == "wsi-pipeline"


@pytest.mark.parametrize("to", ["dicom-seg", "dicom-parametric-map"])
def test_a_dicom_slide_lends_its_identity_and_its_geometry(dicom_slide, tmp_path, to):
    slide, made = dicom_slide
    exported = pydicom.dcmread(export_one(made, to, tmp_path / "out"))
    check_common(exported)
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientBirthDate", "AccessionNumber"):
        assert exported[keyword].value == slide[keyword].value
    assert (str(exported.PatientName), exported.StudyDescription) == ("Müller^Ä", "Breast")
    assert exported.SeriesInstanceUID != slide.SeriesInstanceUID
    assert exported.ContainerIdentifier == "SPEC-1"
    (series,) = exported.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == slide.SeriesInstanceUID
    assert series.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == slide.SOPInstanceUID
    check_place(exported, slide, made.grid)


def test_a_segmentation_holds_the_regions(finished, tmp_path):
    path = export_one(finished, "dicom-seg", tmp_path, threshold=0.6)
    exported = hd.seg.segread(path)
    check_common(exported)
    matrix = exported.get_total_pixel_matrix(combine_segments=True)
    np.testing.assert_array_equal(matrix == 1, finished.probability >= 0.6)
    (segment,) = exported.SegmentSequence
    assert segment.SegmentLabel == "IDC"
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == codes.SCT.InfiltratingDuctCarcinoma.value
    (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("a-model", "b" * 64)
    assert "threshold=0.6" in algorithm.AlgorithmParameters
    assert exported.SegmentationType == "BINARY"


def test_a_fractional_segmentation_holds_the_probability_in_steps(finished, tmp_path):
    exported = hd.seg.segread(export_one(finished, "dicom-seg", tmp_path, segmentation="fractional"))
    assert (exported.SegmentationType, exported.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
    matrix = exported.get_total_pixel_matrix()[..., 0]
    np.testing.assert_allclose(matrix, np.nan_to_num(finished.probability), atol=0.51 / 255)


def test_a_parametric_map_holds_the_probability(finished, tmp_path):
    path = export_one(finished, "dicom-parametric-map", tmp_path)
    exported = pydicom.dcmread(path)
    check_common(exported)
    assert exported.ContentQualification == "RESEARCH"
    assert exported.FloatPixelPaddingValue == -1
    makers = {
        item.ManufacturerModelName: item.get("SoftwareVersions") for item in exported.ContributingEquipmentSequence
    }
    assert makers["a-model"] == "b" * 64
    mapping = exported.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert mapping.MeasurementUnitsCodeSequence[0].CodeMeaning == "no units"
    matrix = hd.imread(path).get_total_pixel_matrix(apply_real_world_transform=False)
    np.testing.assert_array_equal(matrix, np.nan_to_num(finished.probability, nan=-1))


def test_larger_maps_are_tiled(finished, tmp_path):
    values = np.random.default_rng(1).random((300, 520)).astype(np.float32)
    made = make_finished(
        tmp_path / "big", finished.slide, probability=values, extent=Box(0, 0, 520 * 4, 300 * 4), cell_um=1.0
    )
    write_run(tmp_path)
    path = export_one(made, "dicom-parametric-map", tmp_path / "out")
    exported = hd.imread(path)
    assert (exported.Rows, exported.Columns, exported.NumberOfFrames) == (256, 256, 6)
    np.testing.assert_array_equal(exported.get_total_pixel_matrix(apply_real_world_transform=False), values)
    seg = hd.seg.segread(export_one(made, "dicom-seg", tmp_path / "out"))
    np.testing.assert_array_equal(seg.get_total_pixel_matrix(combine_segments=True) > 0, values >= 0.5)


def test_a_slide_that_is_not_dicom_gets_identifiers_that_say_so(finished, tmp_path):
    first, second = (
        pydicom.dcmread(export_one(finished, to, tmp_path)) for to in ("dicom-seg", "dicom-parametric-map")
    )
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID"):
        assert first[keyword].value == second[keyword].value
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.StudyDescription == "Generated identifiers: the slide itself is not DICOM"
    assert first.PatientID.startswith("GENERATED-")
    assert str(first.PatientName).startswith("GENERATED")
    # An image that does not exist is not referred to.
    for exported in (first, second):
        assert "ReferencedSeriesSequence" not in exported
        assert "SourceImageSequence" not in exported
    slide = slide_dataset()
    slide.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    measures = slide.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.PixelSpacing = [0.00025, 0.00025]
    corner = slide.TotalPixelMatrixOriginSequence[0]
    corner.XOffsetInSlideCoordinateSystem, corner.YOffsetInSlideCoordinateSystem = ROWS * 0.00025, COLUMNS * 0.00025
    for exported in (first, second):
        check_place(exported, slide, finished.grid)
        assert centres_mm(exported, finished.grid.shape).min(initial=1, where=[True, True, False]) > -0.0125


def test_the_finest_level_of_a_series_is_the_origin(tmp_path):
    series = generate_uid()
    small, large = slide_dataset((252, 201), series), slide_dataset(series=series)
    other = slide_dataset()  # of the same size, but of another series
    for name, image in (("a", other), ("b", small), ("c", large)):
        image.save_as(tmp_path / f"{name}.dcm", enforce_file_format=True)
    (tmp_path / "notes.txt").write_text("no DICOM")
    found = dicom_origin._finest_level(tmp_path / "b.dcm", Size(COLUMNS, ROWS))
    assert found.SOPInstanceUID == large.SOPInstanceUID
    with pytest.raises(SlideReadError, match="no file of its series"):
        dicom_origin._finest_level(tmp_path / "b.dcm", Size(5, 5))


def test_other_classes_get_a_code_of_our_own():
    _, kind = dicom.name_class("tumour: in situ, and more")
    assert (kind.value, kind.scheme_designator) == ("tumourinsituandm", "99WSIPIPELINE")
    assert dicom.name_class("idc")[1] == codes.SCT.InfiltratingDuctCarcinoma


def test_long_texts_fit_into_dicom():
    assert dicom.shorten("a\\b") == "a/b"
    assert len(dicom.shorten("x" * 200)) == 64


@pytest.mark.data
@pytest.mark.filterwarnings("ignore:The value length:UserWarning")  # of one of the slide's own UIDs
def test_a_real_dicom_slide(data_dir, tmp_path):
    slide = data_dir / "wsi" / "ezwsi_multiframe_camelyon_challenge_image.dcm"
    image = pydicom.dcmread(slide, stop_before_pixels=True)
    size = Box(0, 0, image.TotalPixelMatrixColumns, image.TotalPixelMatrixRows)
    made = make_finished(tmp_path / "x", slide, mpp=(1, 1), mpp_source="user", extent=size, cell_um=50.0)
    for to in ("dicom-seg", "dicom-parametric-map"):
        exported = pydicom.dcmread(export_one(made, to, tmp_path / "out"))
        assert exported.FrameOfReferenceUID == image.FrameOfReferenceUID
        spacing = exported.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
        # The file's own spacing, whatever the run was told.
        np.testing.assert_allclose([float(v) for v in spacing], [0.028968 * 50, 0.028969 * 50], rtol=1e-6)
