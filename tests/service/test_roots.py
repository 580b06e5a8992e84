"""Slides by name: what lies under the roots is found, all else is refused."""

import os
import shutil
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_pipeline.errors import ConfigError, SlideFormatError, SlideNotFoundError, WsiPipelineError
from wsi_pipeline.service.roots import Roots
from wsi_pipeline.viewer.problems import RequestError


def status(roots: Roots, name: str) -> int:
    with pytest.raises(RequestError) as refused:
        roots.find(name)
    return refused.value.status


def test_relative_and_absolute_names(root):
    roots = Roots([root])
    found = roots.find("case 7/röt.tiff")
    assert (found.name, found.address) == ("case 7/röt.tiff", str(root / "case 7" / "röt.tiff"))
    assert roots.find(str(root / "case 7" / "röt.tiff")) == found
    assert roots.find("./case 7//röt.tiff") == found


def test_a_root_that_is_a_link_is_meant(root, tmp_path):
    (tmp_path / "scans").symlink_to(root)
    roots = Roots([tmp_path / "scans"])
    assert roots.find("slide.tiff").address == str(root / "slide.tiff")
    assert roots.find(str(tmp_path / "scans" / "slide.tiff")).address == str(root / "slide.tiff")


@pytest.mark.parametrize(
    "name",
    ["../outside/secret.tiff", "case 7/../../outside/secret.tiff", "..\\outside\\secret.tiff", "/etc/passwd", "/",
     "case 7/../slide.tiff", "..", "/proc/self/root/etc/passwd", "way/../slide.tiff"],
)  # fmt: skip
def test_what_leads_out_is_refused(root, name):
    assert status(Roots([root]), name) == 403


def test_an_absolute_path_through_the_root_and_out_is_refused(root):
    assert status(Roots([root]), f"{root}/../outside/secret.tiff") == 403
    assert status(Roots([root]), str(root.parent / "outside" / "secret.tiff")) == 403
    assert status(Roots([root]), str(root.parent / "slides2" / "a.tiff")) == 403


@pytest.mark.parametrize("name", ["link.tiff", "way/secret.tiff", "way"])
def test_links_are_refused(root, name):
    assert status(Roots([root]), name) == 403


def test_a_link_within_the_root_is_refused_too(root):
    (root / "inner.tiff").symlink_to(root / "slide.tiff")
    assert status(Roots([root]), "inner.tiff") == 403


@pytest.mark.parametrize("name", ["", "a\0b", "a\nb", "x" * 1025, "s3://bucket/a.svs", "file:///etc/passwd", "::case"])
def test_names_that_are_none(root, name):
    assert status(Roots([root]), name) == 422


@pytest.mark.parametrize("name", ["nowhere.tiff", "case 7/nowhere.tiff", "slide.tiff/inner", "~/slide.tiff", "*.tiff"])
def test_what_is_not_there(root, name):
    with pytest.raises(SlideNotFoundError):
        Roots([root]).find(name)


def test_folders_lists_and_pipes_are_no_slides(root):
    (root / "all.txt").write_text("/etc/passwd\n")
    os.mkfifo(root / "pipe.tiff")
    for name in ("case 7", "all.txt", "pipe.tiff", "."):
        with pytest.raises(SlideFormatError):
            Roots([root]).find(name)


def test_one_name_in_two_roots_is_not_guessed(root, tmp_path):
    other = tmp_path / "more"
    other.mkdir()
    (other / "slide.tiff").write_bytes(b"another")
    roots = Roots([root, other])
    assert status(roots, "slide.tiff") == 422
    assert roots.find(str(other / "slide.tiff")).address == str(other / "slide.tiff")
    assert roots.find("case 7/röt.tiff").name == "case 7/röt.tiff"


def test_cases_of_a_zip_file(root):
    with zipfile.ZipFile(root / "two.zip", "w") as archive:
        for case in ("101", "102"):
            archive.writestr(f"{case}/0/{case}_idx5_x1_y1_class0.png", b"png")
    roots = Roots([root])
    found = roots.find("two.zip::102")
    assert (found.name, found.address) == ("two.zip::102", f"{root / 'two.zip'}::102")
    for name in ("two.zip", "two.zip::103", "two.zip::", "two.zip::../..", "slide.tiff::102", "two.zip::1*"):
        with pytest.raises(SlideFormatError):
            roots.find(name)


def test_roots_that_are_none(tmp_path):
    with pytest.raises(ConfigError, match="is no folder"):
        Roots([tmp_path / "nowhere"])
    with pytest.raises(ConfigError, match="no folder was named"):
        Roots([])


@pytest.fixture(scope="module")
def fenced(tmp_path_factory) -> Roots:
    folder = tmp_path_factory.mktemp("fenced")
    (folder / "in" / "a").mkdir(parents=True)
    (folder / "in" / "a" / "s.tiff").write_bytes(b"in")
    (folder / "out.tiff").write_bytes(b"out")
    (folder / "in" / "l").symlink_to(folder)
    return Roots([folder / "in"])


PARTS = st.sampled_from(
    ["..", ".", "a", "s.tiff", "l", "in", "out.tiff", "", "%2e%2e", "…", "\\..\\", "::", "~", "\u2215"]
)


@given(st.one_of(st.text(max_size=40), st.lists(PARTS, max_size=8).map("/".join)), st.booleans())
def test_no_name_reaches_out(fenced, name, absolute):
    (root,) = fenced.folders
    try:
        found = fenced.find(f"{root}/{name}" if absolute else name)
    except WsiPipelineError:
        return
    assert Path(found.address) == root / "a" / "s.tiff"


class TestSlidesOfSeveralFiles:
    """What OpenSlide reads along with a slide lies under the root too."""

    @pytest.fixture
    def outside(self, tmp_path) -> Path:
        folder = tmp_path / "elsewhere"
        folder.mkdir()
        for name in ("Slidedat.ini", "Data0000.dat", "b.dcm", "b.jpg"):
            (folder / name).write_bytes(b"secret")
        return folder

    @pytest.fixture
    def mrxs(self, root) -> Path:
        """``a.mrxs`` and the folder beside it."""
        (root / "a.mrxs").write_bytes(b"jpeg")
        (root / "a").mkdir()
        (root / "a" / "Slidedat.ini").write_text("[DATAFILE]\nFILE_0 = Data0000.dat\nNAME = C:\\slides\\a\n")
        (root / "a" / "Data0000.dat").write_bytes(b"data")
        return root / "a"

    def test_mrxs_within_the_root(self, root, mrxs):
        assert Roots([root]).find("a.mrxs").name == "a.mrxs"
        shutil.rmtree(mrxs)
        assert Roots([root]).find("a.mrxs").name == "a.mrxs"  # the reader says what it lacks

    def test_a_folder_of_mrxs_that_is_a_link(self, root, mrxs, outside):
        shutil.rmtree(mrxs)
        mrxs.symlink_to(outside)
        with pytest.raises(RequestError, match="a, which is read with it, lies outside") as refused:
            Roots([root]).find("a.mrxs")
        assert refused.value.status == 403

    @pytest.mark.parametrize("name", ["Slidedat.ini", "Data0000.dat"])
    def test_a_file_of_mrxs_that_is_a_link(self, root, mrxs, outside, name):
        (mrxs / name).unlink()
        (mrxs / name).symlink_to(outside / name)
        assert status(Roots([root]), "a.mrxs") == 403

    @pytest.mark.parametrize("value", ["../../elsewhere/Data0000.dat", "/../../elsewhere/b.jpg", '"inner/secret.dat"'])
    def test_a_name_in_the_index_of_mrxs(self, root, mrxs, outside, value):
        (mrxs / "inner").mkdir()
        (mrxs / "inner" / "secret.dat").symlink_to(outside / "Data0000.dat")
        (mrxs / "Slidedat.ini").write_text(f"[DATAFILE]\nFILE_0 = {value}\n")
        assert status(Roots([root]), "a.mrxs") == 403

    def test_an_index_of_vms(self, root, outside):
        inner = root / "inner"
        inner.mkdir()
        (inner / "a.vms").write_text("[Virtual Microscope Specimen]\nImageFile=a.jpg\nMapFile=../inner/map.jpg\n")
        for name in ("b.vms", "b.svs"):
            (inner / name).write_text("[Virtual Microscope Specimen]\nImageFile=../../elsewhere/b.jpg\n")
            assert status(Roots([root]), f"inner/{name}") == 403
        assert Roots([root]).find("inner/a.vms").name == "inner/a.vms"
        (inner / "a.jpg").symlink_to(outside / "b.jpg")
        assert status(Roots([root]), "inner/a.vms") == 403

    @pytest.mark.parametrize("name", ["a.dcm", "DICOMFILE", "a.tiff"])
    def test_files_beside_one_of_dicom(self, root, outside, name):
        series = root / "series"
        series.mkdir()
        (series / name).write_bytes(bytes(128) + b"DICM")
        (series / "c.dcm").write_bytes(b"c")
        (series / "within.dcm").symlink_to(series / "c.dcm")
        assert Roots([root]).find(f"series/{name}").name == f"series/{name}"
        (series / "b.dcm").symlink_to(outside / "b.dcm")
        with pytest.raises(RequestError, match=r"b\.dcm, which is read with it"):
            Roots([root]).find(f"series/{name}")

    def test_the_picture_beside_a_tiff(self, root, outside):
        (root / "slide.Full").symlink_to(outside / "b.jpg")
        assert status(Roots([root]), "slide.tiff") == 403

    def test_links_beside_other_slides_do_not_matter(self, root):
        """`root` holds two of them."""
        assert Roots([root]).find("slide.tiff").name == "slide.tiff"
