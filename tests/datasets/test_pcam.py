import gzip
import pickle
from zipfile import ZIP_STORED

import h5py
import numpy as np
import pytest
from labelled_patches import picture
from patches import write_folder, write_zip

from wsi_pipeline.datasets import load_images, open_dataset, pcam_hdf5, split_dataset
from wsi_pipeline.errors import DatasetError
from wsi_pipeline.geometry import Size

IDS = [f"{n:040x}" for n in range(10)]
PICTURES = {f"train/{key}.tif": picture(96, 96, 10 + n, "TIFF") for n, key in enumerate(IDS)}


def labels_csv(labels: dict[str, object], header: str = "id,label") -> dict[str, bytes]:
    lines = [header, *(f"{key},{label}" for key, label in labels.items())]
    return {"train_labels.csv": "\n".join(lines).encode()}


LABELS = {key: n % 2 for n, key in enumerate(IDS)}


@pytest.fixture(params=["folder", "zip", "stored zip"])
def pack(request, tmp_path):
    def write(files):
        if request.param == "folder":
            return write_folder(tmp_path / "pcam", files)
        return write_zip(tmp_path / "pcam.zip", files, **({"method": ZIP_STORED} if "stored" in request.param else {}))

    return write


def test_the_kaggle_form(pack):
    dataset = open_dataset(pack(PICTURES | labels_csv(LABELS)))
    assert (dataset.layout, dataset.patch_size, dataset.mpp) == ("pcam", Size(96, 96), 0.97)
    assert (dataset.class_names, dataset.positive_class) == (("normal", "metastasis"), "metastasis")
    assert dataset.labels.tolist() == [0, 1] * 5
    assert dataset.groups.tolist() == IDS
    assert [dataset.read(n)[9, 9, 0] for n in range(10)] == list(range(10, 20))
    (finding,) = dataset.findings
    assert "no split of them is by case" in finding


def test_pictures_without_label_and_labels_without_picture_are_told(pack):
    labels = {key: label for key, label in LABELS.items() if key != IDS[3]} | {"f" * 40: 1}
    dataset = open_dataset(pack(PICTURES | {"test/abc.tif": PICTURES[f"train/{IDS[0]}.tif"]} | labels_csv(labels)))
    assert len(dataset) == 9
    told = dataset.findings
    assert told[0].startswith("2 pictures have no label and are left out: test/abc.tif, train/")
    assert told[1] == f"1 labels have no picture: {'f' * 40}."


def test_identical_pictures_share_a_group(pack):
    twins = {
        f"train/{'a' * 40}.tif": PICTURES[f"train/{IDS[4]}.tif"],
        f"train/{'b' * 40}.tif": PICTURES[f"train/{IDS[5]}.tif"],
    }
    dataset = open_dataset(pack(PICTURES | twins | labels_csv(LABELS | {"a" * 40: 0, "b" * 40: 0})))
    groups = {sample.name: sample.group for sample in dataset.samples}
    assert groups[f"train/{'a' * 40}.tif"] == IDS[4]
    assert groups[f"train/{'b' * 40}.tif"] == IDS[5]
    assert len(set(dataset.groups)) == 10
    assert (
        "2 patches are copies of another one and stay in its part; 1 of the pictures have both labels."
        in dataset.findings
    )


def test_pictures_that_are_alike_in_the_middle_only_are_no_twins(tmp_path):
    """In a folder only the middle of a file is looked at first."""
    noise = np.random.default_rng(0).integers(0, 256, (2, 20_000), np.uint8)
    noise[:, 5_000:15_000] = 7
    store = write_folder(tmp_path, {"a": noise[0].tobytes(), "b": noise[1].tobytes(), "c": noise[0].tobytes()})
    from wsi_pipeline.datasets.content import first_alike
    from wsi_pipeline.datasets.store import PatchStore

    assert PatchStore(store).checksum("a") == PatchStore(store).checksum("b")
    assert first_alike(PatchStore(store), ["a", "b", "c"]) == {"a": "a", "b": "b", "c": "a"}


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (labels_csv(LABELS | {IDS[2]: 2}), f"line 4: the label of {IDS[2]} is '2'"),
        (labels_csv(LABELS | {IDS[2]: ""}), f"line 4: the label of {IDS[2]} is ''"),
        (labels_csv(LABELS, "name,class"), "has the columns name,class"),
        (labels_csv(LABELS | {f"{IDS[2]}.tif": 1}), f"{IDS[2]} has both labels"),
        ({"train_labels.csv": b"\xff\xfe\x00"}, "is no CSV file"),
        (labels_csv({"x": 1}), "no picture has a label"),
        (labels_csv(dict.fromkeys(IDS, 1)), "one class only"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(pack, labels, why):
    with pytest.raises(DatasetError, match=why):
        open_dataset(pack(PICTURES | labels))


def test_a_torn_picture_is_refused_with_its_name(pack):
    files = PICTURES | {f"train/{IDS[7]}.tif": PICTURES[f"train/{IDS[7]}.tif"][:3000]}
    dataset = open_dataset(pack(files | labels_csv(LABELS)))
    with pytest.raises(DatasetError, match=rf"train/{IDS[7]}\.tif: is no readable image"):
        dataset.read(7)


def test_own_pictures_are_not_called_published(pack):
    assert open_dataset(pack(PICTURES | labels_csv(LABELS))).source.startswith("PatchCamelyon")
    own = {f"train/own-{n}.tif": picture for n, picture in enumerate(PICTURES.values())}
    labels = {f"own-{n}": n % 2 for n in range(len(own))}
    assert open_dataset(pack({"train_labels.csv": labels_csv(labels)["train_labels.csv"]} | own)).source == ""


def test_a_torn_first_picture_costs_itself_alone(pack):
    files = PICTURES | {f"train/{IDS[0]}.tif": PICTURES[f"train/{IDS[0]}.tif"][:3000]}
    dataset = open_dataset(pack(files | labels_csv(LABELS)))
    assert dataset.patch_size == Size(96, 96)
    assert dataset.read(1).shape == (96, 96, 3)
    torn = {f"train/{key}.tif": b"torn" for key in IDS}
    with pytest.raises(DatasetError, match="is no readable image"):
        open_dataset(pack(torn | labels_csv(LABELS)))


STEM = "camelyonpatch_level_2_split"


def write_part(folder, part, count=8, *, labels=None, meta=True, seed=0):
    folder.mkdir(exist_ok=True)
    pixels = np.random.default_rng([seed, *part.encode()]).integers(0, 256, (count, 96, 96, 3), np.uint8)
    labels = np.arange(count) % 2 if labels is None else np.asarray(labels)
    with h5py.File(folder / f"{STEM}_{part}_x.h5", "w") as file:
        file.create_dataset("x", data=pixels, chunks=(3, 96, 96, 3), compression="gzip", compression_opts=1)
    with h5py.File(folder / f"{STEM}_{part}_y.h5", "w") as file:
        file.create_dataset("y", data=labels.astype(np.uint8).reshape(-1, 1, 1, 1))
    if meta:
        rows = [f"{n},1,2,True,False,{part}_slide_{n // 2}" for n in range(count)]
        header = ",coord_y,coord_x,tumor_patch,center_tumor_patch,wsi"
        (folder / f"{STEM}_{part}_meta.csv").write_text("\n".join([header, *rows]))
    return pixels


def test_the_original_form(tmp_path):
    pixels = {part: write_part(tmp_path, part) for part in ("train", "valid", "test")}
    dataset = open_dataset(tmp_path)
    assert (dataset.layout, dataset.patch_size, dataset.mpp, len(dataset)) == ("pcam", Size(96, 96), 0.97, 24)
    assert dataset.group_kind == "slide"
    assert dataset.groups[:4].tolist() == ["train_slide_0"] * 2 + ["train_slide_1"] * 2
    assert dataset.labels.tolist() == [0, 1] * 12
    assert (dataset.read(0) == pixels["train"][0]).all()
    assert (dataset.read(23) == pixels["test"][7]).all()
    assert dataset.findings == ()
    again = pickle.loads(pickle.dumps(dataset.subset([9])))
    assert (again.read(0) == pixels["valid"][1]).all()
    split = split_dataset(dataset, kind="published")
    assert [indices.tolist() for indices in split.parts.values()] == [list(range(n, n + 8)) for n in (0, 8, 16)]


def test_without_the_slides_twins_share_a_group_and_part(tmp_path):
    pixels = write_part(tmp_path, "train", meta=False)
    write_part(tmp_path, "valid", meta=False)
    write_part(tmp_path, "test", meta=False)
    with h5py.File(tmp_path / f"{STEM}_test_x.h5", "a") as file:
        file["x"][3] = pixels[5]
    dataset = open_dataset(tmp_path)
    assert dataset.group_kind == "picture"
    assert dataset.samples[19].group == dataset.samples[5].group
    assert len(set(dataset.groups)) == 23
    assert dataset.findings[0] == "1 patches are copies of another one and stay in its part."
    assert "no split of them is by case" in dataset.findings[1]
    split = split_dataset(dataset, kind="published")
    assert {5, 19} <= set(split.test.tolist())
    assert any("1 samples with a twin in a later published part" in note for note in split.notes)


def test_slides_of_some_parts_only_make_no_groups(tmp_path):
    """Else a picture and its copy, one of a known slide and one not, could train and test."""
    pixels = write_part(tmp_path, "train")
    write_part(tmp_path, "test", meta=False)
    with h5py.File(tmp_path / f"{STEM}_test_x.h5", "a") as file:
        file["x"][3] = pixels[5]
    dataset = open_dataset(tmp_path)
    assert dataset.group_kind == "picture"
    assert dataset.samples[11].group == dataset.samples[5].group
    assert any("--split published" in finding for finding in dataset.findings)


def test_many_patches_are_read_in_any_order_by_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(pcam_hdf5, "ROWS", 3)
    pixels = np.concatenate([write_part(tmp_path, part) for part in ("train", "test")])
    dataset = open_dataset(tmp_path)
    indices = [15, 0, 7, 8, 2, 1, 2]
    assert (load_images(dataset, indices) == pixels[indices]).all()
    assert (load_images(dataset.subset(indices), [3, 0]) == pixels[[8, 15]]).all()


def test_files_that_are_slow_to_read_are_told(tmp_path):
    pixels = write_part(tmp_path, "train", count=40)
    with h5py.File(tmp_path / f"{STEM}_train_x.h5", "w") as file:
        file.create_dataset("x", data=pixels, chunks=(20, 12, 12, 1))
    (finding,) = open_dataset(tmp_path).findings
    assert finding.startswith("The files pack 20 patches together")


def test_one_file_is_opened_with_what_belongs_to_it(tmp_path):
    for part in ("train", "test"):
        write_part(tmp_path, part)
    dataset = open_dataset(tmp_path / f"{STEM}_test_x.h5")
    assert {dataset.published_part(n) for n in range(len(dataset))} == {"test"}


def test_incomplete_or_packed_files_are_refused(tmp_path):
    write_part(tmp_path, "train")
    labels = tmp_path / f"{STEM}_train_y.h5"
    data = labels.read_bytes()
    labels.unlink()
    with pytest.raises(DatasetError, match=r"train_y\.h5: is missing"):
        open_dataset(tmp_path)
    labels.with_name(f"{labels.name}.gz").write_bytes(gzip.compress(data))
    with pytest.raises(DatasetError, match=r"train_y\.h5\.gz: is packed with gzip.*gunzip"):
        open_dataset(tmp_path)
    pictures = tmp_path / f"{STEM}_train_x.h5"
    pictures.rename(f"{pictures}.gz")
    with pytest.raises(DatasetError, match=r"\.h5\.gz: is packed with gzip.*gunzip"):
        open_dataset(tmp_path)
    pictures.write_bytes(b"nonsense")
    labels.write_bytes(data)
    with pytest.raises(DatasetError, match=r"train_x\.h5: is no readable HDF5"):
        open_dataset(tmp_path)
    with pytest.raises(DatasetError, match="in a zip"):
        open_dataset(write_zip(tmp_path / "a.zip", {f"{STEM}_train_x.h5": b""}))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"labels": [0, 1, 0, 1, 0, 1, 0, 2]}, r"train_y\.h5: row 7 has the label 2"),
        ({"labels": [0, 1, 0, 1, 0]}, "holds 5 labels for 8 pictures"),
        ({"labels": [0] * 8}, r"one class only \(normal\)"),
    ],
)
def test_wrong_labels_are_refused(tmp_path, change, why):
    write_part(tmp_path, "train", **change)
    with pytest.raises(DatasetError, match=why):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("meta", "why"), [("wsi\na\n", "names 1 slides for 8 pictures"), ("slide\na\n", "no column wsi")]
)
def test_wrong_slides_are_refused(tmp_path, meta, why):
    write_part(tmp_path, "train")
    (tmp_path / f"{STEM}_train_meta.csv").write_text(meta)
    with pytest.raises(DatasetError, match=why):
        open_dataset(tmp_path)


def test_both_forms_in_one_place_are_refused(tmp_path):
    write_part(tmp_path, "train")
    write_folder(tmp_path, PICTURES | labels_csv(LABELS))
    with pytest.raises(DatasetError, match="both its forms"):
        open_dataset(tmp_path)


@pytest.mark.data
def test_the_real_patches(data_dir):
    dataset = open_dataset(data_dir / "pcam")
    assert len(dataset) == 400
    assert dataset.labels.sum() == 160
    assert len(set(dataset.groups)) == 400
    assert dataset.read(399).shape == (96, 96, 3)
