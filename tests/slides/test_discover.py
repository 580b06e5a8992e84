from pathlib import Path
from uuid import uuid4
from zipfile import ZipFile

import fsspec
import pytest
from tiffs import write_pyramid

from wsi_pipeline.errors import DatasetError, SlideNotFoundError
from wsi_pipeline.slides import discover, find_slides

PATCH = "{case}/{label}/{case}_idx5_x{x}_y{y}_class{label}.png"


def touch(folder: Path, *names: str, content: bytes = b"x") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def patches(*cases: str, prefix: str = "") -> list[str]:
    return [prefix + PATCH.format(case=case, label=label, x=1 + 50 * label, y=1) for case in cases for label in (0, 1)]


def make_zip(path: Path, names: list[str]) -> Path:
    with ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return path


def named(folder: Path, *names: str) -> list[str]:
    return sorted(str(folder / name) for name in names)


def test_a_folder_is_searched_to_its_depths(tmp_path: Path) -> None:
    touch(tmp_path, "b.svs", "a.TIFF", "deep/er/c c.ndpi", "é.mrxs")
    touch(
        tmp_path,
        "notes.txt",
        "label.png",
        ".hidden.svs",
        ".cache/d.svs",
        "out/heatmap.zarr/0/e.tif",
        "out/heatmap.zarr.partial/0/f.tif",
        "77.labels.ome.tif",
        "no_suffix",
        "x.bin",
    )
    write_pyramid(tmp_path / "unnamed")
    expected = named(tmp_path, "b.svs", "a.TIFF", "deep/er/c c.ndpi", "é.mrxs", "unnamed")
    assert find_slides([str(tmp_path)]) == expected


def test_named_files_are_kept_whatever_they_are(tmp_path: Path) -> None:
    touch(tmp_path, "photo.png", ".hidden", "a.svs")
    inputs = [str(tmp_path / name) for name in ("photo.png", ".hidden", "a.svs", "missing.svs")]
    assert find_slides(inputs) == sorted(inputs)


def test_each_slide_is_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.svs", "b.svs")
    monkeypatch.chdir(tmp_path)
    found = find_slides(["a.svs", "./a.svs", str(tmp_path / "a.svs"), "*.svs", "."])
    assert found == ["a.svs", "b.svs"]


def test_globs(tmp_path: Path) -> None:
    touch(tmp_path, "a.svs", "b.tif", "sub/c.svs", "odd[1].svs")
    assert find_slides([str(tmp_path / "**" / "*.svs")]) == named(tmp_path, "a.svs", "sub/c.svs", "odd[1].svs")
    assert find_slides([str(tmp_path / "odd[1].svs")]) == named(tmp_path, "odd[1].svs")
    with pytest.raises(SlideNotFoundError, match=r"\*\.ndpi: no file matches"):
        find_slides([str(tmp_path / "*.ndpi")])


def test_a_list(tmp_path: Path) -> None:
    touch(tmp_path, "a b.svs", "sub/c.svs", "sub/d.svs")
    (tmp_path / "list.txt").write_text("# mine\n\n  a b.svs  \nsub\ns3://bucket/x.svs\n", encoding="utf-8")
    expected = sorted([*named(tmp_path, "a b.svs", "sub/c.svs", "sub/d.svs"), "s3://bucket/x.svs"])
    assert find_slides([str(tmp_path / "list.txt")]) == expected
    (tmp_path / "empty.txt").write_text("# nothing\n")
    for name in ("empty.txt", "none.txt"):
        with pytest.raises(SlideNotFoundError, match=name):
            find_slides([str(tmp_path / name)])


def test_mrxs_companions_are_part_of_their_slide(tmp_path: Path) -> None:
    touch(tmp_path, "s.mrxs", "s/Slidedat.ini", "s/Data0000.dat", "s/odd.tif", "t/u.tif")
    assert find_slides([str(tmp_path)]) == named(tmp_path, "s.mrxs", "t/u.tif")


def test_a_dicom_series_is_one_slide(tmp_path: Path) -> None:
    def dicom(uid: bytes) -> bytes:
        return b"\0" * 128 + b"DICM" + b"\x20\0\x0e\0UI" + len(uid).to_bytes(2, "little") + uid

    for name, uid in {"a1": b"1.2.3", "a2": b"1.2.3", "b": b"1.2.4", "sub/a": b"1.2.3"}.items():
        touch(tmp_path, f"{name}.dcm", content=dicom(uid))
    touch(tmp_path, "strange.dcm")
    assert find_slides([str(tmp_path)]) == named(tmp_path, "a1.dcm", "b.dcm", "sub/a.dcm", "strange.dcm")


def test_patch_folders_give_their_cases(tmp_path: Path) -> None:
    touch(tmp_path, *patches("8863", "9036"), *patches("8863", "9036", prefix="IDC_regular_ps50_idx5/"), "x.svs")
    assert find_slides([str(tmp_path)]) == named(tmp_path, "8863", "9036", "x.svs")
    assert find_slides([str(tmp_path / "8863")]) == named(tmp_path, "8863")


def test_a_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, *patches("8863", "9036"), "x.svs")
    listed = []
    index = discover.index_patches
    monkeypatch.setattr(discover, "index_patches", lambda root: listed.append(root) or index(root))
    find_slides([str(tmp_path)])
    assert listed == [tmp_path]


def test_zips_of_patches_give_their_cases(tmp_path: Path) -> None:
    one = make_zip(tmp_path / "one.zip", [*patches("8863", "9036"), *patches("8863", prefix="IDC_regular_ps50_idx5/")])
    assert find_slides([str(one)]) == [f"{one}::8863", f"{one}::9036"]
    make_zip(tmp_path / "other.zip", ["readme.md"])
    touch(tmp_path, "broken.zip", "a.svs")
    expected = sorted([*named(tmp_path, "a.svs", "broken.zip"), f"{one}::8863", f"{one}::9036"])
    assert find_slides([str(tmp_path)]) == expected
    # Named outright, a zip of something else is kept, so that opening it says what is wrong.
    assert find_slides([str(tmp_path / "other.zip")]) == named(tmp_path, "other.zip")


def test_cases_mixed_in_one_folder_cannot_be_told_apart(tmp_path: Path) -> None:
    touch(tmp_path, *(name.rpartition("/")[2] for name in patches("8863", "9036")))
    with pytest.raises(DatasetError, match="8863 and 9036"):
        find_slides([str(tmp_path)])


def test_nothing_found(tmp_path: Path) -> None:
    touch(tmp_path, "a/readme.md", "a/b.png", "a/c.PNG")
    with pytest.raises(SlideNotFoundError, match=r"2 PNG files are not named like patches .*_idx5_x<X>_y<Y>"):
        find_slides([str(tmp_path)])
    (tmp_path / "empty").mkdir()
    with pytest.raises(SlideNotFoundError, match="empty: holds no slides"):
        find_slides([str(tmp_path / "empty")])
    with pytest.raises(SlideNotFoundError):
        find_slides([])


def test_addresses(tmp_path: Path) -> None:
    root = f"memory://{uuid4().hex}"
    for name in ("a.svs", "deep/b.tif", "readme.md"):
        with fsspec.open(f"{root}/{name}", "wb") as file:
            file.write(b"x")
    assert find_slides([f"{root}/x.svs", "https://example.org/y.svs?version=2"]) == [
        "https://example.org/y.svs?version=2",
        f"{root}/x.svs",
    ]
    found = find_slides([f"{root}/"])
    assert [name.rpartition("/")[2] for name in found] == ["a.svs", "b.tif"]
    assert all(name.startswith("memory://") for name in found)
    assert [name.rpartition("/")[2] for name in find_slides([f"{root}/*.svs"])] == ["a.svs"]
    with pytest.raises(SlideNotFoundError, match="holds no slides"):
        find_slides([f"{root}/nothing/"])
