import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelled_patches import picture
from patches import write_folder, write_zip

from wsi_pipeline.datasets import load_images, open_dataset
from wsi_pipeline.datasets.breakhis import CLASS_OF_TYPE, MPP_OF_MAGNIFICATION, parse_name
from wsi_pipeline.errors import DatasetError
from wsi_pipeline.geometry import Size

PNG = picture(700, 460, 120)


def tree(*names: str) -> dict[str, bytes]:
    """The original tree of folders."""
    files = {}
    for name in names:
        parsed = parse_name(name)
        kind = CLASS_OF_TYPE[parsed.type].replace(" ", "_")
        side = "malignant" if parsed.malignant else "benign"
        slide = name.rsplit("-", 2)[0].replace("-", "_", 1)
        folder = f"BreaKHis_v1/histology_slides/breast/{side}/SOB/{kind}/{slide}/{parsed.magnification}"
        files[f"{folder}/{name}"] = PNG
    return files


NAMES = (
    "SOB_B_A-14-22549AB-40-001.png", "SOB_B_A-14-22549CD-100-002.png", "SOB_B_F-14-29960AB-40-001.png",
    "SOB_M_DC-14-13412-200-001.png", "SOB_M_LC-14-13412-400-003.png", "SOB_M_DC-14-2523-40-011.png",
)  # fmt: skip


@pytest.fixture(params=["tree", "flat", "zip"])
def root(request, tmp_path):
    if request.param == "flat":
        return write_folder(tmp_path, dict.fromkeys(NAMES, PNG))
    return (
        write_folder(tmp_path, tree(*NAMES)) if request.param == "tree" else write_zip(tmp_path / "b.zip", tree(*NAMES))
    )


def test_class_patient_and_magnification_come_from_the_name(root):
    dataset = open_dataset(root)
    assert (dataset.layout, dataset.patch_size, dataset.mpp) == ("breakhis", Size(700, 460), None)
    assert len(dataset.class_names) == 8
    assert dataset.positive_class in dataset.class_names
    found = {
        sample.name.rsplit("/", 1)[-1]: (dataset.class_names[sample.label], sample.group, sample.stratum)
        for sample in dataset.samples
    }
    assert found == {
        NAMES[0]: ("adenosis", "14-22549", "40X"),
        NAMES[1]: ("adenosis", "14-22549", "100X"),
        NAMES[2]: ("fibroadenoma", "14-29960", "40X"),
        NAMES[3]: ("ductal carcinoma", "14-13412", "200X"),
        NAMES[4]: ("lobular carcinoma", "14-13412", "400X"),
        NAMES[5]: ("ductal carcinoma", "14-2523", "40X"),
    }
    assert dataset.read(0).shape == (460, 700, 3)


def test_odd_patients_and_missing_classes_are_told(root):
    told = " ".join(open_dataset(root).findings)
    assert "14-13412 (DC, LC)" in told
    assert "14-22549 (AB, CD)" in told
    assert "4 of the eight classes do not occur: phyllodes tumor, tubular adenoma" in told


def test_magnifications_are_chosen_and_give_the_resolution(root):
    dataset = open_dataset(root, magnifications=["40X"])
    assert {sample.stratum for sample in dataset.samples} == {"40X"}
    assert dataset.mpp == MPP_OF_MAGNIFICATION["40X"]
    assert open_dataset(root, magnifications=["40X"], mpp=0.5).mpp == 0.5
    assert len(open_dataset(root, magnifications=["40", "200x"])) == 4
    with pytest.raises(DatasetError, match="no magnification 63X"):
        open_dataset(root, magnifications=["63X"])
    with pytest.raises(DatasetError, match="no one resolution"):
        open_dataset(root, mpp=0.5)
    with pytest.raises(DatasetError, match=r"one class only \(adenosis\)"):
        open_dataset(root, magnifications=["100X"])


def test_an_image_that_is_there_twice_is_read_once(tmp_path):
    dataset = open_dataset(
        write_folder(tmp_path, tree(*NAMES) | {f"copy/{name}": data for name, data in tree(*NAMES).items()})
    )
    assert len(dataset) == len(NAMES)
    assert "6 files repeat the name of another image; each name is read once." in dataset.findings


@pytest.mark.parametrize("folder", ["adenosis", "benign", "100X", "Lobular_Carcinoma", "400x"])
def test_a_folder_that_contradicts_the_name_is_refused(tmp_path, folder):
    with pytest.raises(DatasetError, match=f"its name says ductal carcinoma, 40X, but its folder {folder}"):
        open_dataset(write_folder(tmp_path, dict.fromkeys(NAMES, PNG) | {f"{folder}/SOB_M_DC-14-2523-40-012.png": PNG}))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("SOB_B_DC-14-2523-40-012.png", "says benign, but ductal carcinoma is not"),
        ("SOB_M_XX-14-2523-40-012.png", "XX is no tumour type"),
        ("SOB_M_DC-14-2523-50-012.png", "50X is no magnification"),
    ],
)
def test_a_name_that_cannot_be_is_refused_with_its_file(tmp_path, name, why):
    with pytest.raises(DatasetError, match=f"sub/{name}: {why}"):
        open_dataset(write_folder(tmp_path, dict.fromkeys(NAMES, PNG) | {f"sub/{name}": PNG}))


def test_smaller_images_are_kept_and_told_and_other_pictures_left_out(tmp_path):
    files = dict.fromkeys(NAMES, PNG) | {"SOB_M_DC-14-2523-40-012.png": picture(700, 456, 9), "plot.png": PNG}
    dataset = open_dataset(write_folder(tmp_path, files))
    assert len(dataset) == 7
    told = " ".join(dataset.findings)
    assert "1 of 7 images are not 700 x 460 px: 700 x 456 px (1)" in told
    assert "1 pictures are not named like BreakHis images and are left out: plot.png" in told
    assert load_images(dataset, size=Size(460, 460)).shape == (7, 460, 460, 3)


def test_a_file_that_is_no_image_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"SOB_M_DC-14-2523-40-012\.png: is no readable PNG"):
        open_dataset(write_folder(tmp_path, dict.fromkeys(NAMES, PNG) | {"SOB_M_DC-14-2523-40-012.png": b"<html>"}))


@given(
    kind=st.sampled_from(sorted(CLASS_OF_TYPE)),
    slide=st.integers(1, 99_999),
    block=st.sampled_from(["", "AB", "C", "DE"]),
    magnification=st.sampled_from([40, 100, 200, 400]),
    number=st.integers(1, 999),
)
def test_names_are_read_back(kind, slide, block, magnification, number):
    side = "B" if kind in {"A", "F", "PT", "TA"} else "M"
    parsed = parse_name(f"SOB_{side}_{kind}-14-{slide}{block}-{magnification}-{number:03d}.png")
    assert (parsed.procedure, parsed.year, parsed.block, parsed.number) == ("SOB", "14", block, number)
    assert (parsed.type, parsed.patient, parsed.magnification) == (kind, f"14-{slide}", f"{magnification}X")
    assert parsed.malignant == (side == "M")


@pytest.mark.data
def test_the_real_images(data_dir):
    dataset = open_dataset(data_dir / "breakhis")
    assert len(dataset) == 41
    assert np_unique_labels(dataset) == 8
    assert {sample.stratum for sample in dataset.samples} == set(MPP_OF_MAGNIFICATION)
    assert "14-22549 (AB, CD)" in " ".join(dataset.findings)
    assert dataset.read(40).shape == (460, 700, 3)


def np_unique_labels(dataset) -> int:
    return len(set(dataset.labels.tolist()))
