from pathlib import Path

import pytest
from patches import case_files, name, small_case, write_folder, write_zip

from wsi_pipeline.errors import DatasetError, SlideNotFoundError
from wsi_pipeline.slides import patch_files
from wsi_pipeline.slides.kaggle import index_patches


@pytest.fixture(params=["folder", "zip"])
def pack(request, tmp_path):
    """Writes files as a folder or as a zip, in a place with blanks and umlauts in its name."""
    place = tmp_path / "Brust, Müller 乳腺"
    place.mkdir()

    def write(files, title="patches"):
        if request.param == "zip":
            return write_zip(place / f"{title}.zip", files)
        (place / title).mkdir()
        return write_folder(place / title, files)

    return write


def test_patches_are_sorted_by_case_and_place(pack) -> None:
    index = index_patches(pack(small_case("8864") | small_case("8863", columns=2)))
    assert list(index.cases) == ["8863", "8864"]
    assert [(p.x, p.y, p.label) for p in index.cases["8864"]] == [(0, 0, 0), (50, 0, 1), (100, 0, 0)]
    assert index.cases["8863"][1].member == "8863/1/8863_idx5_x51_y1_class1.png"
    assert index.foreign == ()
    assert index.duplicates == index.conflicts == {}


def test_the_nested_second_copy_is_read_once(pack) -> None:
    files = small_case("8863") | small_case("8864", columns=2)
    index = index_patches(pack(files | {f"IDC_regular_ps50_idx5/{name}": data for name, data in files.items()}))
    assert {case: len(patches) for case, patches in index.cases.items()} == {"8863": 3, "8864": 2}
    assert index.duplicates == {"8863": 3, "8864": 2}
    assert not any(patch.member.startswith("IDC") for patches in index.cases.values() for patch in patches)


def test_of_two_labels_idc_is_kept(pack) -> None:
    files = small_case() | {name(0, 0, 1): b"other", "copy/" + name(0, 0, 0): b"again"}
    index = index_patches(pack(files))
    assert index.conflicts == {"8863": ((0, 0),)}
    assert [p.label for p in index.cases["8863"]] == [1, 1, 0]


def test_files_that_are_no_patches_are_foreign(pack) -> None:
    others = {
        "readme.txt", "8863/0/8863_idx5_x0_y1_class0.png", "8863/0/8863_idx5_x1_y1_class2.png",
        "8863/0/8863_idx5_x1_y1_class0.jpg", "8863/0/8863_idx5_x1_y1_class0 (1).png", "8863/0/_idx5_x1_y1_class0.png",
        f"8863/0/8863_idx5_x{10**12}_y1_class0.png",
    }  # fmt: skip
    index = index_patches(pack(small_case() | dict.fromkeys(others, b"")))
    assert set(index.foreign) == others
    assert len(index.cases["8863"]) == 3


def test_what_systems_leave_behind_is_not_seen(pack) -> None:
    litter = [".DS_Store", "8863/Thumbs.db", "__MACOSX/8863/0/._8863_idx5_x1_y1_class0.png", "8863/0/desktop.ini"]
    index = index_patches(pack(small_case() | dict.fromkeys(litter, b"")))
    assert list(index.cases) == ["8863"]
    assert index.foreign == ()


def test_folder_and_zip_give_the_same(tmp_path: Path) -> None:
    files = case_files()
    folder = index_patches(write_folder(tmp_path / "folder", files))
    zipped = index_patches(write_zip(tmp_path / "case.zip", files, folders=["8863/", "8863/0/"]))
    described = [[(p.x, p.y, p.label, p.member) for p in index.cases["8863"]] for index in (folder, zipped)]
    assert described[0] == described[1]
    assert len(described[0]) == 97


def test_nothing_there_gives_an_empty_index(tmp_path: Path) -> None:
    for root in (tmp_path, write_zip(tmp_path.parent / f"{tmp_path.name}.zip", {})):
        index = index_patches(root)
        assert (index.cases, index.foreign) == ({}, ())


def test_missing_and_broken_roots_are_named(tmp_path: Path) -> None:
    with pytest.raises(SlideNotFoundError, match=r"nowhere: does not exist"):
        index_patches(tmp_path / "nowhere")
    for content in (b"", b"no zip", write_zip(tmp_path / "whole.zip", case_files()).read_bytes()[:-3000]):
        (tmp_path / "broken.zip").write_bytes(content)
        with pytest.raises(DatasetError, match=r"broken\.zip: is no readable zip file"):
            index_patches(tmp_path / "broken.zip")


def test_a_folder_that_may_not_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path, onerror):
        onerror(PermissionError(13, "Permission denied", str(path / "8863")))
        return iter(())

    monkeypatch.setattr(patch_files.os, "walk", forbidden)
    with pytest.raises(DatasetError, match="Permission denied"):
        index_patches(tmp_path)


@pytest.mark.data
def test_all_patches_of_the_complete_cases_are_found(data_dir: Path) -> None:
    indices = [index_patches(path) for path in sorted((data_dir / "idc" / "complete").glob("*.zip"))]
    assert len(indices) == 15
    assert all(
        len(index.cases) == 1 and not (index.foreign or index.duplicates or index.conflicts) for index in indices
    )
    assert sum(len(patches) for index in indices for patches in index.cases.values()) == 13_377
