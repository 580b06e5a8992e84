import pytest
from labelled_patches import idc_files, picture
from patches import write_folder, write_zip

from wsi_pipeline.datasets import open_dataset
from wsi_pipeline.errors import DatasetError, ResolutionError, SlideNotFoundError

FILES = idc_files(["8863"])


def test_what_is_not_there_empty_or_unknown_is_refused(tmp_path):
    with pytest.raises(SlideNotFoundError, match="nowhere: does not exist"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(SlideNotFoundError, match=r"nowhere\.h5: does not exist"):
        open_dataset(tmp_path / "nowhere.h5")
    with pytest.raises(DatasetError, match="is empty"):
        open_dataset(tmp_path)
    with pytest.raises(DatasetError, match=r"no labelled patches of a known layout\. Known are IDC"):
        open_dataset(write_folder(tmp_path / "a", {"cat.png": picture(9, 9, 1)}))
    (tmp_path / "patch.png").write_bytes(picture(9, 9, 1))
    with pytest.raises(DatasetError, match=r"patch\.png: is no readable zip"):
        open_dataset(tmp_path / "patch.png")


def test_several_data_sets_in_one_place_are_refused_unless_one_is_named(tmp_path):
    root = write_folder(tmp_path, FILES | {"b/SOB_M_DC-14-2523-40-012.png": picture(700, 460, 1)})
    with pytest.raises(DatasetError, match=r"several data sets \(idc, breakhis\)"):
        open_dataset(root)
    assert len(open_dataset(root, layout="idc")) == 4


@pytest.mark.parametrize("mpp", [0.0, float("nan"), -1.0, 1e9])
def test_a_resolution_that_cannot_be_is_refused(tmp_path, mpp):
    with pytest.raises(ResolutionError):
        open_dataset(tmp_path, mpp=mpp)


def test_one_class_only_is_refused(tmp_path):
    only = {name: data for name, data in FILES.items() if "class0" in name}
    with pytest.raises(DatasetError, match=r"one class only \(non-IDC\)"):
        open_dataset(write_zip(tmp_path / "a.zip", only))


@pytest.mark.parametrize(
    ("layout", "why"), [("breakhis", "holds no BreakHis image"), ("pcam", "has no train_labels.csv")]
)
def test_a_wrong_layout_is_refused(tmp_path, layout, why):
    with pytest.raises(DatasetError, match=why):
        open_dataset(write_folder(tmp_path, FILES), layout=layout)


def test_magnifications_are_for_breakhis_only(tmp_path):
    with pytest.raises(DatasetError, match="no magnifications"):
        open_dataset(write_folder(tmp_path, FILES), magnifications=["40X"])


@pytest.mark.data
def test_all_real_data_at_once_is_refused(data_dir):
    with pytest.raises(DatasetError, match=r"several data sets \(idc, breakhis, pcam\)"):
        open_dataset(data_dir)
