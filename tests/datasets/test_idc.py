import json
import pickle

import numpy as np
import pytest
from labelled_patches import idc_files, idc_name, picture
from patches import write_folder, write_zip

from wsi_pipeline.datasets import load_images, open_dataset
from wsi_pipeline.datasets.image_files import decode
from wsi_pipeline.errors import DatasetError
from wsi_pipeline.geometry import Size

FILES = idc_files(["8863", "8864"])


@pytest.fixture(params=["folder", "zip", "folder of zips"])
def pack(request, tmp_path):
    """Writes files as a folder, a zip, or a folder with a zip for each case."""

    def write(files):
        if request.param == "folder":
            return write_folder(tmp_path / "patches", files)
        if request.param == "zip":
            return write_zip(tmp_path / "patches.zip", files)
        (tmp_path / "zips").mkdir()
        by_case = {}
        for name, data in files.items():
            by_case.setdefault(name.split("/")[0], {})[name] = data
        for case, members in by_case.items():
            write_zip(tmp_path / "zips" / f"{case}.zip", members)
        return tmp_path / "zips"

    return write


def test_patches_come_with_case_label_and_place(pack):
    dataset = open_dataset(pack(FILES))
    assert (dataset.layout, dataset.class_names, dataset.positive_class) == ("idc", ("non-IDC", "IDC"), "IDC")
    assert (dataset.patch_size, dataset.mpp, dataset.group_kind) == (Size(50, 50), 4.0, "case")
    assert dataset.groups.tolist() == ["8863"] * 4 + ["8864"] * 4
    assert dataset.labels.tolist() == [0, 1, 0, 1] * 2
    assert [sample.position for sample in dataset.samples[:4]] == [(0, 0), (50, 0), (100, 0), (150, 0)]
    assert len({sample.name for sample in dataset.samples}) == 8
    assert dataset.findings == ()
    assert [dataset.read(n)[5, 5, 0] for n in range(8)] == [0, 1, 2, 3, 7, 8, 9, 10]


def test_the_nested_second_copy_is_read_once(pack):
    nested = {f"IDC_regular_ps50_idx5/{name}": data for name, data in FILES.items()}
    dataset = open_dataset(pack(FILES | nested))
    assert len(dataset) == 8
    assert not any("IDC_regular" in sample.name for sample in dataset.samples)
    (finding,) = dataset.findings
    assert finding.startswith("8 files repeat a patch")


def test_a_place_with_both_labels_keeps_idc_and_is_told(pack):
    dataset = open_dataset(pack(FILES | {idc_name("8863", 2, 1): picture(50, 50, 99)}))
    assert dataset.labels[:4].tolist() == [0, 1, 1, 1]
    assert dataset.read(2)[5, 5, 0] == 99
    assert dataset.findings == ("1 places occur with both labels; the positive one is kept: 8863 x101 y1.",)


def test_small_patches_of_the_edge_are_kept_counted_and_padded(pack):
    dataset = open_dataset(
        pack(FILES | {idc_name("8863", 4, 0): picture(50, 1, 20), idc_name("8863", 5, 0): picture(31, 50, 21)})
    )
    assert dataset.patch_size == Size(50, 50)
    assert [dataset.read(n).shape for n in (4, 5)] == [(1, 50, 3), (50, 31, 3)]
    assert dataset.findings[0].startswith("2 of 10 patches are not 50 x 50 px (edges of a case, 2 sizes")
    images = load_images(dataset, [5, 4])
    assert images.shape == (2, 50, 50, 3)
    assert (images[0, 1:, :31] == 21).all()
    assert (images[0, :, 31:] == 255).all()
    assert (images[1, 1:] == 255).all()


def test_pictures_of_other_names_are_told(pack):
    dataset = open_dataset(pack(FILES | {"8863/overview.png": b"", "8863/notes.txt": b"", "8863/.DS_Store": b""}))
    (finding,) = dataset.findings
    assert finding.startswith("1 pictures are not named like patches")
    assert "overview.png" in finding


def test_a_label_outside_the_classes_is_refused_with_its_file(pack):
    name = "8863/2/8863_idx5_x1_y1_class2.png"
    with pytest.raises(DatasetError, match=r"8863_idx5_x1_y1_class2\.png: has the label '2'"):
        open_dataset(pack(FILES | {name: b""}))


def test_an_unreadable_picture_is_refused_with_its_name(pack):
    bad = idc_name("8864", 9, 0)
    root = pack(FILES | {bad: b"no picture"})
    with pytest.raises(DatasetError, match=f"{bad}: is no readable PNG"):
        open_dataset(root)


def test_many_unreadable_pictures_are_told_at_once(pack):
    bad = [idc_name("8864", 9 + n, 0) for n in range(7)]
    root = pack(FILES | dict.fromkeys(bad, b"no picture"))
    with pytest.raises(DatasetError, match=rf"7 of {len(FILES) + 7} patches cannot be used: ") as told:
        open_dataset(root)
    assert sum(name in str(told.value) for name in bad) == 5
    assert "and 2 more. Copy it again" in str(told.value)


def test_cases_with_the_same_pictures_are_told(pack):
    def case(name, shades):
        return {idc_name(name, n, n % 2): picture(50, 50, shade) for n, shade in enumerate(shades)}

    files = case("8863", range(4)) | case("8864", range(4)) | case("8865", [0, 4, 5, 6]) | case("8866", range(8, 12))
    (finding,) = open_dataset(pack(files)).findings
    assert finding.startswith("Cases with the same pictures: 8863 and 8864. ")


def test_what_is_no_picture_at_all_is_told_in_words():
    with pytest.raises(DatasetError, match=r"is no readable image \(of no known format\)"):
        decode(b"nothing", "a.png")


def test_a_torn_picture_is_refused_when_it_is_read(pack):
    torn = idc_name("8864", 9, 0)
    noise = np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)
    data = picture(50, 50, 3)
    dataset = open_dataset(pack(FILES | {torn: data[: len(data) // 2] + noise.tobytes()[:40]}))
    index = [sample.name.endswith(torn) for sample in dataset.samples].index(True)
    with pytest.raises(DatasetError, match=f"{torn}: is no readable image"):
        dataset.read(index)
    with pytest.raises(DatasetError, match=torn):
        load_images(dataset)


def test_a_patch_in_the_other_class_s_folder_is_refused(pack):
    with pytest.raises(DatasetError, match="stands in the folder of class 1, but its name says class 0"):
        open_dataset(pack(FILES | {"8863/1/8863_idx5_x901_y1_class0.png": picture(50, 50, 3)}))


def test_own_patches_say_their_size_and_resolution(pack):
    facts = {"patch_size_px": 64, "mpp": 0.5, "class_names": ["stroma", "tumour"], "more": "ignored"}
    dataset = open_dataset(pack(idc_files("ab", side=64) | {"a/dataset.json": json.dumps(facts).encode()}))
    assert (dataset.patch_size, dataset.mpp) == (Size(64, 64), 0.5)
    assert (dataset.class_names, dataset.positive_class) == (("stroma", "tumour"), "tumour")
    assert dataset.findings == ("The patches are 64 x 64 px, so they are not the published ones.",)


def test_patches_that_are_no_squares_have_no_places(tmp_path):
    """A mosaic has square cells: their places would lead several of them to the same one."""
    names = [f"a/{n % 2}/a_idx5_x1_y{50 * n + 1}_class{n % 2}.png" for n in range(6)]
    dataset = open_dataset(write_folder(tmp_path, {name: picture(60, 50, n) for n, name in enumerate(names)}))
    assert {sample.position for sample in dataset.samples} == {None}
    assert any(finding.startswith("patches of 60 x 50 px are no squares: no") for finding in dataset.findings)


def test_where_patches_share_a_square_no_place_is_used(tmp_path):
    """Else two of them would share a cell of the case's mosaic, and one would have the other's answer."""
    dataset = open_dataset(write_folder(tmp_path, FILES | {"8863/0/8863_idx5_x26_y1_class0.png": picture(50, 50, 9)}))
    assert {sample.position for sample in dataset.samples} == {None}
    (finding,) = dataset.findings
    assert finding.startswith("2 patches share a square of 50 x 50 px with another, such as 8863/0/8863_idx5_x")


@pytest.mark.parametrize(("name", "reach"), [("x999999951_y1", "20,000,000 x 1"), ("x170001_y150001", "3,401 x 3,001")])
def test_where_patches_lie_farther_apart_than_on_any_slide_no_place_is_used(tmp_path, name, reach):
    """Else a slip in one name asks for a mosaic that no memory holds."""
    dataset = open_dataset(write_folder(tmp_path, FILES | {f"8863/0/8863_idx5_{name}_class0.png": picture(50, 50, 9)}))
    assert {sample.position for sample in dataset.samples} == {None}
    (finding,) = dataset.findings
    assert finding.startswith(
        f"the patches of 8863 reach over {reach} squares of 50 x 50 px, such as 8863/0/8863_idx5_{name}"
    )
    near = {"8863/0/8863_idx5_x150001_y150001_class0.png": picture(50, 50, 9)}
    assert None not in {
        sample.position for sample in open_dataset(write_folder(tmp_path / "near", FILES | near)).samples
    }


def test_a_patient_s_cases_are_one_group_but_keep_their_own_places(pack):
    one = json.dumps({"patients": {"a": "P1", "b": "P1", "c": "P2"}, "patch_size_px": 50, "mpp": 4}).encode()
    dataset = open_dataset(pack(idc_files("abc") | {"a/dataset.json": one}))
    assert dataset.group_kind == "patient"
    assert dataset.groups.tolist() == ["P1"] * 8 + ["P2"] * 4
    assert dataset.cases.tolist() == ["a"] * 4 + ["b"] * 4 + ["c"] * 4


def test_cases_tell_of_their_patients_themselves(tmp_path):
    files = idc_files("abc")
    for case, patient in (("a", "P1"), ("b", "P1"), ("c", "c")):
        facts = {"case": case, "patient": patient, "patch_size_px": 50, "mpp": 2.0}
        files[f"{case}/case.json"] = json.dumps(facts).encode()
    dataset = open_dataset(write_folder(tmp_path, files))
    assert dataset.groups.tolist() == ["P1"] * 8 + ["c"] * 4
    assert dataset.mpp == 2.0
    other = files["c/case.json"].replace(b"2.0", b"1.0")
    with pytest.raises(DatasetError, match=r"c/case\.json: differs from another"):
        open_dataset(write_folder(tmp_path, files | {"c/case.json": other}))


def test_patches_of_another_size_have_no_assumed_resolution(tmp_path):
    root = write_folder(tmp_path, idc_files("ab", side=64))
    assert open_dataset(root).mpp is None
    assert open_dataset(root, mpp=0.5).mpp == 0.5


@pytest.mark.parametrize(
    "facts", ['{"mpp": 0}', '{"mpp": "x"}', '{"patch_size_px": 1.5}', '{"class_names": ["a"]}', "{", "[]"]
)
def test_nonsense_about_own_patches_is_refused(tmp_path, facts):
    with pytest.raises(DatasetError, match=r"dataset\.json"):
        open_dataset(write_folder(tmp_path, FILES | {"dataset.json": facts.encode()}))


def test_subsets_and_pickles_read_the_same(pack):
    dataset = open_dataset(pack(FILES))
    some = dataset.subset([6, 1])
    assert len(some) == 2
    assert [sample.name for sample in some.samples] == [dataset.samples[n].name for n in (6, 1)]
    again = pickle.loads(pickle.dumps(some))
    for n, index in enumerate((6, 1)):
        assert (again.read(n) == dataset.read(index)).all()
        assert (some.read(n) == dataset.read(index)).all()


@pytest.mark.data
def test_the_real_patches(data_dir):
    dataset = open_dataset(data_dir / "idc")
    assert len(dataset) == 13_377 + 10_373
    assert len(set(dataset.groups)) == 15 + 212
    assert len(dataset.findings) == 1
    assert "not 50 x 50 px" in dataset.findings[0]
    images = load_images(dataset.subset(range(0, len(dataset), 500)))
    assert images.shape == (48, 50, 50, 3)
    assert 100 < images.mean() < 250
