"""A heatmap as one file, made while it is sent."""

from io import BytesIO
from zipfile import ZipFile

import psutil
import pytest

from wsi_pipeline.service.archive import Archive


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "heatmap.zarr"
    (place / "0" / "c").mkdir(parents=True)
    (place / "zarr.json").write_bytes(b"{}")
    (place / "0" / "zarr.json").write_bytes(b"")
    (place / "0" / "c" / "größe").write_bytes(bytes(range(256)) * 10_000)
    (place / "link").symlink_to(tmp_path)
    (tmp_path / "secret").write_bytes(b"secret")
    (place / "0" / "secret").symlink_to(tmp_path / "secret")
    return place


def test_it_is_a_zip_of_the_files_and_as_long_as_it_said(folder):
    archive = Archive(folder)
    size = archive.size
    data = b"".join(archive.pieces())
    assert len(data) == size
    with ZipFile(BytesIO(data)) as found:
        assert found.testzip() is None
        assert found.namelist() == ["zarr.json", "0/zarr.json", "0/c/größe"]
        assert found.read("0/c/größe") == bytes(range(256)) * 10_000


def test_it_is_made_piece_by_piece_and_never_lies_on_a_disk(folder, monkeypatch):
    monkeypatch.setattr("tempfile.TemporaryFile", lambda *_, **__: pytest.fail("it was written to a disk"))
    (folder / "0" / "c" / "large").write_bytes(bytes(10 << 20))
    pieces = list(Archive(folder).pieces())
    assert max(map(len, pieces)) < 2 << 20
    assert len(pieces) > 10


def test_who_stops_reading_leaves_nothing_open(folder):
    def opened() -> list[str]:
        return [file.path for file in psutil.Process().open_files() if file.path.startswith(str(folder))]

    pieces = Archive(folder).pieces()
    next(pieces)
    assert len(opened()) == 1
    pieces.close()
    assert opened() == []


def test_a_file_that_changes_is_not_passed_off_as_whole(folder):
    archive = Archive(folder)
    (folder / "0" / "zarr.json").write_bytes(b"longer")
    assert len(b"".join(archive.pieces())) != archive.size


def test_of_a_very_large_one_the_size_is_not_told(folder, monkeypatch):
    monkeypatch.setattr("wsi_pipeline.service.archive.ZIP64_LIMIT", 1_000)
    assert Archive(folder).size is None
