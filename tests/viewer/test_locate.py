"""Slides that were moved, replaced or renamed: found by name, made sure of by fingerprint."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import patches
import pytest
from tiffs import picture, write_pyramid

from wsi_pipeline.errors import SlideNotFoundError
from wsi_pipeline.slides import open_slide
from wsi_pipeline.viewer import locate as module


@pytest.fixture(autouse=True)
def always_fresh(monkeypatch):
    for name in ("_KEEP_S", "_LISTING_S"):
        monkeypatch.setattr(module, name, 0.0)
    monkeypatch.setattr("wsi_pipeline.viewer.results._FRESH_S", 0.0)


def edit_summary(results: Path, path: str, reader: str = "openslide", **identity) -> None:
    file = results / "plain" / "röt 1" / "summary.json"
    summary = json.loads(file.read_text(encoding="utf-8"))
    summary |= {"path": path, "reader": reader}
    summary["identity"] |= identity
    file.write_text(json.dumps(summary), encoding="utf-8")


@pytest.fixture
def gone(results, tmp_path) -> str:
    """Where the slide was."""
    path = str(tmp_path / "gone" / "röt 1.tiff")
    edit_summary(results, path)
    return path


def test_without_the_slide_the_result_still_opens(open_viewer, results, find, gone):
    viewer = open_viewer(results)
    base = f"/api/slides/{find(viewer)}"
    facts = viewer.get(base).json()
    assert facts["slide_available"] is False
    assert gone in facts["slide_problem"]
    assert "--slides" in facts["slide_problem"]
    assert viewer.get(f"{base}/tiles/0/0_0.jpg").status_code == 404
    assert viewer.get(f"{base}/probability").status_code == 200
    assert viewer.get(f"{base}/regions").json()["features"]
    assert viewer.get(f"{base}/thumbnail.jpg").content == viewer.get(f"{base}/overlay.png").content


def test_it_is_found_by_name_in_another_folder(open_viewer, results, find, slide, gone, tmp_path):
    archive = tmp_path / "archive" / "2024" / "box 7"
    archive.mkdir(parents=True)
    viewer = open_viewer(results, slide_folders=(tmp_path / "archive",))
    base = f"/api/slides/{find(viewer)}"
    assert viewer.get(base).json()["slide_available"] is False
    wrong = write_pyramid(tmp_path / "archive" / "röt 1.tiff", base=picture())
    assert "is not the slide that was run" in viewer.get(base).json()["slide_problem"]
    shutil.copy(slide, archive / "röt 1.tiff")
    assert viewer.get(base).json()["slide_available"] is True
    assert viewer.get(f"{base}/tiles/10/0_0.jpg").status_code == 200
    (archive / "röt 1.tiff").unlink()
    wrong.unlink()
    assert viewer.get(base).json()["slide_available"] is False


def test_another_file_under_its_name_is_never_shown(open_viewer, results, find, slide, tmp_path):
    copy = tmp_path / "slides" / "röt 1.tiff"
    copy.parent.mkdir()
    shutil.copy(slide, copy)
    edit_summary(results, str(copy))
    viewer = open_viewer(results)
    base = f"/api/slides/{find(viewer)}"
    assert viewer.get(f"{base}/tiles/10/0_0.jpg").status_code == 200
    copy.unlink()
    write_pyramid(copy, base=picture(1000, 800))
    answer = viewer.get(f"{base}/tiles/10/1_1.jpg")
    assert answer.status_code == 422
    assert "not the slide that was run" in answer.json()["error"]["why"]


@pytest.mark.parametrize("name", ["/etc/passwd", "/etc", "/", "..", "", "relative.tiff", "/dev/zero", "/proc/self/mem"])
def test_a_summary_that_names_any_other_file_shows_none(open_viewer, results, find, name):
    edit_summary(results, name)
    viewer = open_viewer(results)
    base = f"/api/slides/{find(viewer)}"
    assert viewer.get(base).json()["slide_available"] is False
    assert viewer.get(f"{base}/tiles/10/0_0.jpg").status_code in {404, 422}


@pytest.mark.parametrize("packed", [False, True])
def test_cases_of_patches_are_slides_too(open_viewer, results, find, tmp_path, packed):
    where = tmp_path / "moved"
    where.mkdir()
    if packed:
        patches.write_zip(where / "idc.zip", patches.case_files())
        old, new = tmp_path / "was" / "idc.zip", where / "idc.zip"
        old, new = f"{old}::8863", f"{new}::8863"
    else:
        patches.write_folder(where, patches.case_files())
        old, new = str(tmp_path / "was" / "8863"), str(where / "8863")
    with open_slide(new) as case:
        edit_summary(results, old, reader="kaggle", slide=case.info.fingerprint)
    viewer = open_viewer(results, slide_folders=(where,))
    base = f"/api/slides/{find(viewer)}"
    assert viewer.get(base).json()["slide_available"] is True
    assert viewer.get(f"{base}/tiles/10/0_0.jpg").status_code == 200


@pytest.mark.data
def test_the_label_of_a_real_slide(open_viewer, results, find, data_dir):
    path = data_dir / "wsi" / "CMU-1-Small-Region.svs"
    with open_slide(path) as opened:
        edit_summary(results, str(path), slide=opened.info.fingerprint)
    hidden, shown = open_viewer(results), open_viewer(results, show_label=True)
    url = f"/api/slides/{find(shown)}/label.jpg"
    assert hidden.get(url).status_code == 403
    answer = shown.get(url)
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["cache-control"] == "no-store"
    from io import BytesIO

    from PIL import Image

    with Image.open(BytesIO(answer.content)) as label:
        assert label.size == (387, 463)
        assert np.asarray(label).std() > 5


class TestOtherMachines:
    """Results from elsewhere name what they like: opening them tells nobody that they are looked at."""

    ADDRESS = "https://attacker.invalid/röt 1.tiff"

    @pytest.fixture
    def asked(self, monkeypatch) -> list[str]:
        """Addresses that slides are opened at."""
        addresses: list[str] = []

        def note(address: str, **options):
            addresses.append(address)
            if address.startswith("https:"):
                raise SlideNotFoundError(address, "cannot be reached", "")
            return open_slide(address, **options)

        monkeypatch.setattr("wsi_pipeline.viewer.pool.open_slide", note)
        return addresses

    def test_they_are_not_asked(self, open_viewer, results, find, asked):
        edit_summary(results, self.ADDRESS)
        shutil.rmtree(results / "tta")
        viewer = open_viewer(results)
        viewer.app.state.viewer.warm_up()
        base = f"/api/slides/{find(viewer)}"
        facts = viewer.get(base).json()
        for part in ("thumbnail.jpg", "tiles/0/0_0.jpg", "probability", "regions", "card"):
            viewer.get(f"{base}/{part}")
        assert asked == []
        assert facts["slide_available"] is False
        assert self.ADDRESS in facts["slide_problem"]
        assert "--remote-slides" in facts["slide_problem"]
        assert viewer.get(f"{base}/tiles/0/0_0.jpg").status_code == 404

    def test_unless_the_user_says_so(self, open_viewer, results, find, asked):
        edit_summary(results, self.ADDRESS)
        viewer = open_viewer(results, remote_slides=True)
        assert "cannot be reached" in viewer.get(f"/api/slides/{find(viewer)}").json()["slide_problem"]
        assert asked == [self.ADDRESS]

    def test_a_copy_here_is_found_by_its_name(self, open_viewer, results, find, slide, asked):
        edit_summary(results, self.ADDRESS)
        viewer = open_viewer(results, slide_folders=(slide.parent,))
        assert viewer.get(f"/api/slides/{find(viewer)}").json()["slide_available"] is True
        assert asked == [str(slide)]

    def test_the_folder_of_a_bundle_neither(self, open_viewer, results, find, monkeypatch):
        monkeypatch.setattr("wsi_pipeline.viewer.cards.is_elsewhere", partial(module.is_elsewhere, windows=True))
        looked: list[Path] = []
        read = "wsi_pipeline.viewer.cards._read"
        monkeypatch.setattr(read, lambda folder, _: (looked.append(folder), (None, False))[1])
        file = results / "plain" / "run.json"
        record = json.loads(file.read_text(encoding="utf-8"))
        for path, expected in ((r"\\attacker\share", []), ("/bundles/mine", [Path("/bundles/mine")])):
            record["bundle"]["path"] = path
            file.write_text(json.dumps(record), encoding="utf-8")
            viewer = open_viewer(results)
            assert viewer.get(f"/api/slides/{find(viewer)}/card").status_code == 200
            assert looked == expected

    @pytest.mark.parametrize("address", [r"\\machine\share\a.svs", "//machine/share/a.svs", "s3://bucket/a.svs"])
    def test_on_windows_shares_are_other_machines_too(self, address):
        assert module.is_elsewhere(address, windows=True)

    @pytest.mark.parametrize("address", [r"C:\slides\a.svs", "slides/a.svs", "", r"C:\a.zip::8863"])
    def test_these_are_here(self, address):
        assert not module.is_elsewhere(address, windows=True)
        assert not module.is_elsewhere(address, windows=False)


def test_a_path_that_can_be_none(open_viewer, results, find):
    edit_summary(results, "/slides/a\0b.svs")
    viewer = open_viewer(results)
    assert viewer.get(f"/api/slides/{find(viewer)}").json()["slide_available"] is False
