from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

import numpy as np
import pytest
from conformance import SlideConformance
from patches import (
    CORNER,
    HEIGHT,
    HOLE,
    WIDTH,
    case_files,
    label_of,
    name,
    picture,
    png,
    small_case,
    write_folder,
    write_zip,
)
from PIL import Image

from wsi_pipeline.errors import (
    DatasetError,
    ResolutionError,
    SlideFormatError,
    SlideNotFoundError,
    SlideReadError,
)
from wsi_pipeline.geometry import Box, FieldOfView, Mpp, Scale, Size
from wsi_pipeline.grid import CellSpec, plan_grid
from wsi_pipeline.slides import mosaic, open_slide
from wsi_pipeline.slides.patch_slide import PatchSlide

FULL = Scale(1, 1)


class TestFolder(SlideConformance):
    @pytest.fixture
    def slide(self, tmp_path: Path) -> Iterator[PatchSlide]:
        with PatchSlide(write_folder(tmp_path / "Fälle 乳腺", case_files()) / "8863") as slide:
            yield slide

    @pytest.fixture
    def level0(self):
        return picture()


class TestCaseInZip(TestFolder):
    @pytest.fixture
    def slide(self, tmp_path: Path) -> Iterator[PatchSlide]:
        path = write_zip(tmp_path / "Fälle 乳腺.zip", case_files() | small_case("88630") | small_case("9000"))
        with PatchSlide(f"{path}::8863") as slide:
            yield slide


class TestSmallCache(TestFolder):
    @pytest.fixture(autouse=True)
    def cache_of_three_patches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mosaic, "CACHE_BYTES", 3 * 7500)


def opened(tmp_path: Path, files) -> PatchSlide:
    return PatchSlide(write_zip(tmp_path / "case.zip", files))


def fingerprint_of(address) -> str:
    with PatchSlide(address) as slide:
        return slide.info.fingerprint


def test_info(tmp_path: Path) -> None:
    with opened(tmp_path, case_files()) as slide:
        info = slide.info
    assert (info.slide_id, info.vendor, info.reader) == ("8863", "kaggle-idc", "kaggle")
    assert (info.mpp, info.mpp_source) == (Mpp(4, 4), "kaggle")
    assert info.size == Size(WIDTH, HEIGHT)
    assert info.bounds == Box(0, 0, WIDTH, HEIGHT)
    assert len(info.levels) == 1
    assert info.warnings == (
        "Patches that are not 50 x 50 px, placed as they are: 19 (31 x 50, 31 x 50, 31 x 50 and 16 more).",
        "Positions closed in by patches that have none (fat, glass or lost files), left white: 1.",
    )


def test_labels_and_coverage_have_one_entry_per_position(tmp_path: Path) -> None:
    with opened(tmp_path, case_files()) as slide:
        expected = np.array([[label_of(col, row) for col in range(11)] for row in range(9)], np.uint8)
        for col, row in (HOLE, CORNER):
            expected[row, col] = 255
        np.testing.assert_array_equal(slide.labels, expected)
        assert slide.labels.dtype == np.uint8
        np.testing.assert_array_equal(slide.coverage.mask, expected != 255)
        assert slide.coverage.scale == Scale(50, 50)


CASE_JSON = b'{"patch_size_px": 25, "mpp": 0.5, "class_names": ["non-IDC", "IDC"]}'


def quarters(case: str = "8863") -> dict[str, bytes]:
    """Two patches of 25 x 25 px beside each other, as `wsi-pipeline extract` writes them."""
    return {
        f"{case}/case.json": CASE_JSON,
        f"{case}/{case}_labels.jpg": b"a picture",
        f"{case}/0/{case}_idx5_x1_y26_class0.png": png(np.full((25, 25, 3), 90, np.uint8)),
        f"{case}/1/{case}_idx5_x26_y26_class1.png": png(np.full((25, 25, 3), 160, np.uint8)),
    }


@pytest.mark.parametrize("form", ["zip", "set in zip", "set", "case"])
def test_patches_of_another_size_say_so_in_a_file_of_their_case(tmp_path: Path, form: str) -> None:
    files = {f"set/{member}": data for member, data in (quarters() | quarters("88630")).items()}
    files["set/dataset.json"] = b"{}"
    if form == "zip":
        address = str(write_zip(tmp_path / "a.zip", quarters()))
    elif form == "set in zip":
        address = f"{write_zip(tmp_path / 'a.zip', files)}::8863"
    else:
        write_folder(tmp_path, files)
        address = f"{tmp_path / 'set'}::8863" if form == "set" else str(tmp_path / "set" / "8863")
    with PatchSlide(address) as slide:
        assert (slide.info.mpp, slide.info.mpp_source) == (Mpp(0.5, 0.5), "file")
        assert slide.info.size == Size(50, 50)
        assert slide.labels.tolist() == [[255, 255], [0, 1]]
        assert slide.coverage.scale == Scale(25, 25)
        assert slide.read(slide.info.bounds, FULL)[30, ::25, 0].tolist() == [90, 160]
        assert slide.info.warnings == ()
    with PatchSlide(address, mpp=0.25) as slide:
        assert (slide.info.mpp, slide.info.mpp_source) == (Mpp(0.25, 0.25), "user")


def test_another_size_is_another_slide_and_nonsense_is_refused(tmp_path: Path) -> None:
    path = write_folder(tmp_path, quarters()) / "8863"
    first = fingerprint_of(path)
    (path / "case.json").write_bytes(CASE_JSON.replace(b"0.5", b"0.25"))
    assert fingerprint_of(path) != first
    for text in (b"", b"[]", b"{}", b'{"patch_size_px": 0, "mpp": 1}', b'{"patch_size_px": 25, "mpp": 0}'):
        (path / "case.json").write_bytes(text)
        with pytest.raises(SlideFormatError, match=r"8863: case\.json does not say what the patches are"):
            PatchSlide(path)


def test_label_pixels_cover_the_patches(tmp_path: Path) -> None:
    with opened(tmp_path, case_files()) as slide:
        pixels = slide.label_pixels(Box(-10, -10, WIDTH + 20, HEIGHT + 20))
        assert (pixels[:10] == 255).all()
        assert (pixels[:, -10:] == 255).all()
        spread = np.kron(slide.labels, np.ones((50, 50), np.uint8))[:HEIGHT, :WIDTH]
        np.testing.assert_array_equal(pixels[10:-10, 10:-10], spread)


def test_cells_of_a_native_grid_are_the_patches(tmp_path: Path) -> None:
    with opened(tmp_path, case_files()) as slide:
        view = FieldOfView(size_px=50, mpp=4.0)
        grid = plan_grid(slide.info, view, slide.coverage, cell=CellSpec(None), min_tissue=1.0)
        assert len(grid.cells) == 97
        np.testing.assert_array_equal(grid.windows(grid.cells), grid.cells[:, ::-1] * 50)
        box = grid.block_box(grid.cells)
        np.testing.assert_array_equal(slide.read(Box(box.x, box.y, WIDTH, HEIGHT), grid.scale), picture())


def test_only_patches_under_the_box_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path, case_files()) as slide:
        read = []
        original = slide._files.read
        monkeypatch.setattr(slide._files, "read", lambda member: read.append(member) or original(member))
        for _ in range(2):
            slide.read(Box(130, 60, 50, 20), FULL)
        assert read == [name(2, 1, 0), name(3, 1, 0)]


def test_the_fingerprint_is_of_the_patches_alone(tmp_path: Path) -> None:
    files = case_files()
    copied = files | {f"IDC_regular_ps50_idx5/{member}": data for member, data in files.items()}
    addresses = [
        write_folder(tmp_path / "a", files),
        write_folder(tmp_path / "b" / "moved", files) / "8863",
        write_zip(tmp_path / "case.zip", files),
        f"{write_zip(tmp_path / 'all.zip', copied | small_case('9000'))}::8863",
    ]
    fingerprints = {fingerprint_of(address) for address in addresses}
    assert len(fingerprints) == 1
    altered = files | {name(1, 1, 0): png(np.zeros((50, 50, 3), np.uint8))}
    relabelled = {member.replace("class0", "class1"): data for member, data in files.items()}
    for other in (altered, relabelled, dict(list(files.items())[:-1])):
        fingerprints.add(fingerprint_of(write_zip(tmp_path / "other.zip", other)))
    assert len(fingerprints) == 4


def test_copies_conflicts_and_foreign_files_are_told(tmp_path: Path) -> None:
    files = small_case() | {name(0, 0, 1): png(np.zeros((50, 50, 3), np.uint8)), "8863/notes.txt": b""}
    with opened(tmp_path, files | {"again/" + name(2, 0, 0): b""}) as slide:
        assert slide.info.warnings == (
            "Further copies of patches, passed over: 1.",
            "Positions with both labels, of which class 1 (IDC) is kept: 1 (x1_y1).",
            "Files that are no patches: 1 (8863/notes.txt).",
        )
        assert slide.labels.tolist() == [[1, 1, 0]]
        assert slide.read(Box(0, 0, 50, 50), FULL).max() == 0


def test_patches_off_the_lattice_and_too_large_are_placed_as_they_are(tmp_path: Path) -> None:
    files = {
        "7/0/7_idx5_x1_y1_class0.png": png(np.full((50, 50, 3), 10, np.uint8)),
        "7/1/7_idx5_x61_y1_class1.png": png(np.full((50, 50, 3), 20, np.uint8)),
        "7/0/7_idx5_x101_y51_class0.png": png(np.full((100, 120, 3), 30, np.uint8)),
    }
    with opened(tmp_path, files) as slide:
        assert slide.info.size == Size(220, 150)
        pixels = slide.read(slide.info.bounds, FULL)[..., 0]
        assert (pixels[:50, :50] == 10).all()
        assert (pixels[:50, 50:60] == 255).all()
        assert (pixels[:50, 60:110] == 20).all()
        assert (pixels[50:, 100:] == 30).all()
        assert slide.labels.tolist() == [[0, 1, 1, 255, 255], [255, 255, 0, 0, 0], [255, 255, 0, 0, 0]]
        assert slide.info.warnings[1].startswith("Patches that do not lie on the lattice of 50 x 50 px: 1 (7/1/")


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "LA"])
def test_other_colour_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    buffer = BytesIO()
    Image.new("L", (50, 50), 255).convert(mode).save(buffer, "PNG")
    with opened(tmp_path, {name(0, 0, 0): buffer.getvalue()}) as slide:
        assert slide.read(Box(0, 0, 50, 50), FULL).shape == (50, 50, 3)


def broken_patches() -> dict[str, bytes]:
    noise = np.random.default_rng(0).integers(0, 255, (50, 50, 3)).astype(np.uint8)
    whole = png(noise)
    flipped = bytearray(whole)
    flipped[1000:1010] = b"\xaa" * 10
    huge = bytearray(whole)
    huge[16:24] = b"\x00\x01\x00\x00" * 2
    wrong_chunk = bytearray(whole)
    wrong_chunk[37:41] = b"!!!!"
    return {
        "empty": b"",
        "garbage": b"\x00" * 300,
        "head only": whole[:24],
        "truncated": whole[:3000],
        "flipped bytes": bytes(flipped),
        "huge": bytes(huge),
        "wrong chunk": bytes(wrong_chunk),
        "jpeg": b"\xff\xd8\xff\xe0" + b"x" * 100,
    }


@pytest.mark.parametrize("kind", sorted(broken_patches()))
@pytest.mark.parametrize("pack", [write_folder, write_zip])
def test_a_broken_patch_costs_only_itself(tmp_path: Path, kind: str, pack) -> None:
    path = pack(
        tmp_path / ("case" if pack is write_folder else "case.zip"),
        case_files() | {name(6, 3, 1): broken_patches()[kind]},
    )
    with PatchSlide(path) as slide:
        expected = picture()
        for _ in range(2):
            with pytest.raises(SlideReadError, match=r"the patch 8863/1/8863_idx5_x301_y151_class1\.png cannot be"):
                slide.read(Box(290, 140, 20, 20), FULL)
            np.testing.assert_array_equal(slide.read(Box(250, 150, 50, 50), FULL), expected[150:200, 250:300])
        thumbnail = slide.thumbnail(1000)
        unreadable = np.zeros((HEIGHT, WIDTH), bool)
        unreadable[150:200, 300:350] = True
        np.testing.assert_array_equal(thumbnail.unreadable, unreadable)
        np.testing.assert_array_equal(thumbnail.pixels, np.where(unreadable[..., None], 255, expected))
        assert slide.thumbnail(53).unreadable.sum() == 36  # 10 px a thumbnail pixel, fractions rounded up
        headless = kind in {"empty", "garbage", "huge", "jpeg"}
        assert any("cannot be read: 1 (" in warning for warning in slide.info.warnings) == headless


def test_bytes_damaged_in_the_zip_are_an_error_of_their_patch(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "case.zip", small_case(), method=ZIP_STORED)
    with ZipFile(path) as archive:
        offset = archive.getinfo(name(1, 0, 1)).header_offset
    with path.open("r+b") as file:
        file.seek(offset + 30 + len(name(1, 0, 1)) + 60)
        file.write(b"\xaa\xbb")
    with PatchSlide(path) as slide:
        with pytest.raises(SlideReadError, match=r"x51_y1_class1.*damaged"):
            slide.read(Box(60, 10, 5, 5), FULL)
        assert slide.read(Box(0, 0, 50, 50), FULL).max() == 90


def test_a_patch_lost_after_opening_is_an_error_of_its_place(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "case", small_case())
    with PatchSlide(folder) as slide:
        (folder / name(1, 0, 1)).unlink()
        with pytest.raises(SlideReadError, match="x51_y1_class1"):
            slide.read(Box(60, 10, 5, 5), FULL)


def test_several_cases_need_a_name(tmp_path: Path) -> None:
    files = {member: data for case in ("8863", "8864", "8865", "8866") for member, data in small_case(case).items()}
    for root in (write_zip(tmp_path / "all.zip", files), write_folder(tmp_path / "all", files)):
        with pytest.raises(SlideFormatError, match=r"holds 4 cases \(8863, 8864, 8865 and 1 more\).*::8863"):
            PatchSlide(root)
        with PatchSlide(f"{root}::8865") as slide:
            assert slide.info.slide_id == "8865"
            assert slide.info.path == f"{root}::8865"
        with pytest.raises(SlideNotFoundError, match=r"holds no case 77\. It holds 8863, 8864, 8865 and 1 more"):
            PatchSlide(f"{root}::77")


def test_a_path_that_holds_the_mark_itself_is_taken_as_it_is(tmp_path: Path) -> None:
    with PatchSlide(write_folder(tmp_path / "a::b", small_case())) as slide:
        assert slide.info.slide_id == "8863"


def test_no_patches_is_an_error_that_says_what_was_expected(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(SlideFormatError, match=r"empty: holds no IDC patches\. Expected <case>/<0 or 1>/<case>_idx5_x"):
        PatchSlide(empty)
    with pytest.raises(SlideFormatError, match=r"it holds other files \(cat.png\)"):
        PatchSlide(write_zip(tmp_path / "cats.zip", {"cat.png": b""}))
    with pytest.raises(SlideNotFoundError, match="does not exist"):
        PatchSlide(tmp_path / "nowhere.zip::8863")
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(DatasetError, match="no readable zip"):
        PatchSlide(tmp_path / "broken.zip")


def test_a_patch_beyond_every_slide_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SlideFormatError, match=r"x999999951_y1_class0\.png would lie 999999950 px from the corner"):
        opened(tmp_path, small_case() | {"8863/0/8863_idx5_x999999951_y1_class0.png": b""})


def test_a_resolution_of_no_microscope_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "case.zip", small_case())
    with pytest.raises(ResolutionError, match="896"):
        PatchSlide(path, 896.0)


def test_open_slide_knows_patches(tmp_path: Path) -> None:
    for address in (write_zip(tmp_path / "case.zip", small_case()), write_folder(tmp_path / "case", small_case())):
        with open_slide(address) as slide:
            assert isinstance(slide, PatchSlide)


@pytest.mark.data
def test_real_cases_are_reassembled(data_dir: Path) -> None:
    """Every patch of the smallest and of the largest case stands at its place."""
    for case, size, count in (("9124", Size(2341, 1700), 465), ("8975", Size(3632, 2684), 2212)):
        path = data_dir / "idc" / "complete" / f"{case}.zip"
        with PatchSlide(path) as slide, ZipFile(path) as archive:
            assert (slide.info.slide_id, slide.info.size, len(slide.patches)) == (case, size, count)
            assert int(slide.coverage.mask.sum()) == count
            pixels = slide.read(slide.info.bounds, FULL)
            for patch in slide.patches:
                expected = np.asarray(Image.open(BytesIO(archive.read(patch.member))))
                height, width = expected.shape[:2]
                found = pixels[patch.y : patch.y + height, patch.x : patch.x + width]
                assert np.array_equal(found, expected), patch.member
                assert slide.labels[patch.y // 50, patch.x // 50] == patch.label
            covered = slide.label_pixels(slide.info.bounds) != 255
            assert (pixels[~covered] == 255).all()
