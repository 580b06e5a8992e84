"""The phantom: the same pixels in any order, truth that fits the pixels, and a file that readers open."""

import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsi_pipeline.errors import OutputError, ResolutionError
from wsi_pipeline.geometry import Box, Scale, Size
from wsi_pipeline.phantom import Phantom, write_phantom
from wsi_pipeline.phantom.noise import Raster, jittered_lattice, salt, spline_noise
from wsi_pipeline.phantom.paint import STAINS, paint_block
from wsi_pipeline.phantom.write import level_sizes

SIZE = Size(2300, 2000)
WHOLE = Box(0, 0, SIZE.width, SIZE.height)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return Phantom(size=SIZE, seed=3)


@pytest.fixture(scope="module")
def pixels(phantom: Phantom) -> NDArray[np.uint8]:
    return phantom.render(WHOLE)


@pytest.fixture(scope="module")
def unmarked() -> NDArray[np.uint8]:
    """The same slide without the pen."""
    return Phantom(size=SIZE, seed=3, pen=False).render(WHOLE)


@pytest.fixture(scope="module")
def slide_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, list[tuple[int, int]]]:
    path = tmp_path_factory.mktemp("phantom") / "drawn slide µ.tiff"
    steps: list[tuple[int, int]] = []
    write_phantom(path, SIZE, seed=3, quality=92, progress=lambda done, total: steps.append((done, total)))
    return path, steps


def raster(x: int, y: int, cols: int, rows: int, step: float = 2.0) -> Raster:
    return Raster(x=x, y=y, cols=cols, rows=rows, step_x=step, step_y=step)


def stains(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Haematoxylin and eosin of each pixel, by least squares on optical density."""
    density = -np.log((rgb.reshape(-1, 3).astype(float) + 1) / 245)
    return density @ np.linalg.pinv(STAINS[:2].astype(float))


# Noise


@settings(max_examples=30, deadline=None)
@given(
    x=st.integers(-50, 50), y=st.integers(-50, 50), cols=st.integers(1, 30), rows=st.integers(1, 30),
    period=st.floats(1.5, 90),
)  # fmt: skip
def test_noise_is_a_function_of_the_place(x: int, y: int, cols: int, rows: int, period: float) -> None:
    whole = spline_noise(raster(-60, -60, 150, 150), period, 5)
    part = spline_noise(raster(x, y, cols, rows), period, 5)
    np.testing.assert_array_equal(part, whole[y + 60 : y + 60 + rows, x + 60 : x + 60 + cols])


def test_noise_has_the_stated_mean_and_spread_and_seeds_differ() -> None:
    area = raster(0, 0, 900, 900)
    first = spline_noise(area, 5.0, salt(0, "a"))
    assert abs(first.mean()) < 0.03
    assert abs(first.std() - 1) < 0.04
    for other in (salt(1, "a"), salt(0, "b"), salt(2**32, "a")):
        assert abs(np.corrcoef(first.ravel(), spline_noise(area, 5.0, other).ravel())[0, 1]) < 0.03


@settings(max_examples=30, deadline=None)
@given(x=st.integers(-40, 40), y=st.integers(-40, 40), spacing=st.floats(5, 40))
def test_a_lattice_has_the_same_points_from_every_raster(x: int, y: int, spacing: float) -> None:
    def inside(area: Raster) -> list[tuple[float, float, int]]:
        points = jittered_lattice(area, spacing, 0.45, 9)
        low, high = (x * 2.0, y * 2.0), ((x + 30) * 2.0, (y + 30) * 2.0)
        kept = (points.x >= low[0]) & (points.x < high[0]) & (points.y >= low[1]) & (points.y < high[1])
        points = points.where(kept)
        return list(zip(points.x.tolist(), points.y.tolist(), points.key.tolist(), strict=True))

    assert inside(raster(x, y, 30, 30)) == inside(raster(-60, -60, 150, 150))


# Pixels


def test_the_same_settings_give_the_same_pixels_and_another_seed_others(
    phantom: Phantom, pixels: NDArray[np.uint8]
) -> None:
    box = Box(900, 700, 400, 300)
    np.testing.assert_array_equal(Phantom(size=SIZE, seed=3).render(box), pixels[box.y : box.bottom, box.x : box.right])
    assert (Phantom(size=SIZE, seed=4).render(box) != phantom.render(box)).mean() > 0.5


@settings(max_examples=25, deadline=None)
@given(box=st.builds(Box, st.integers(-100, 2400), st.integers(-100, 2100), st.integers(0, 900), st.integers(0, 900)))
def test_any_box_is_a_crop_of_the_whole(phantom: Phantom, pixels: NDArray[np.uint8], box: Box) -> None:
    x, y, width, height = box.x, box.y, box.width, box.height
    expected = np.full((height, width, 3), 255, np.uint8)
    shared = box.intersection(WHOLE)
    if shared.width and shared.height:
        part = pixels[shared.y : shared.bottom, shared.x : shared.right]
        expected[shared.y - y : shared.bottom - y, shared.x - x : shared.right - x] = part
    np.testing.assert_array_equal(phantom.render(box), expected)


def test_blocks_meet_without_a_seam(phantom: Phantom, pixels: NDArray[np.uint8]) -> None:
    # A block across the corner of four others: the picture must not depend on where blocks lie.
    across = Box(512, 512, 1024, 1024)
    painted = paint_block(phantom.layout, across, phantom.mpp, phantom.pen).astype(int)
    differs = np.abs(painted - pixels[512:1536, 512:1536]).max(axis=2)
    assert (differs > 3).mean() < 0.002
    assert differs.mean() < 0.05


def test_glass_is_near_white_and_tissue_is_not(phantom: Phantom, unmarked: NDArray[np.uint8]) -> None:
    tissue = phantom.tissue_mask(Scale(1, 1))
    glass = unmarked[~_grown(tissue, 60)]
    assert len(glass) > 50_000
    assert glass.min() > 225
    assert unmarked[tissue].mean() < 215


def test_the_pen_is_on_glass_and_only_where_it_is_wanted(
    phantom: Phantom, pixels: NDArray[np.uint8], unmarked: NDArray[np.uint8]
) -> None:
    inked = (pixels != unmarked).any(axis=2)
    assert 0.005 < inked.mean() < 0.2
    assert (inked & ~phantom.tissue_mask(Scale(1, 1))).sum() > 0.2 * inked.sum()
    assert np.ptp(pixels[inked].mean(axis=0)) > 40


def test_tumour_is_darker_and_bluer_than_the_stroma(phantom: Phantom, pixels: NDArray[np.uint8]) -> None:
    tumour, tissue = phantom.tumour_mask(Scale(1, 1)), phantom.tissue_mask(Scale(1, 1))
    solid = pixels.min(axis=2) < 225
    normal = tissue & solid & ~_grown(tumour, 200)
    assert min(tumour.sum(), normal.sum()) > 100_000
    assert pixels[tumour].mean() < pixels[normal].mean() - 15
    assert np.median(stains(pixels[tumour & solid])[:, 0]) > 2 * np.median(stains(pixels[normal])[:, 0])


def test_another_resolution_shows_the_same_specimen(phantom: Phantom, pixels: NDArray[np.uint8]) -> None:
    coarse = Phantom(size=Size(SIZE.width // 2, SIZE.height // 2), seed=3, mpp=0.5)
    rgb = coarse.render(Box(0, 0, 1136, 992)).reshape(62, 16, 71, 16, 3).mean(axis=(1, 3))
    same = pixels[: 62 * 32, : 71 * 32].reshape(62, 32, 71, 32, 3).mean(axis=(1, 3))
    assert np.corrcoef(rgb.ravel(), same.ravel())[0, 1] > 0.95


# Truth


@pytest.mark.parametrize("scale", [Scale(2, 2), Scale(16, 16), Scale(7.5, 12.25)])
def test_the_truth_is_the_same_at_every_scale(phantom: Phantom, scale: Scale) -> None:
    rows, cols = -(-SIZE.height // scale.y), -(-SIZE.width // scale.x)
    for mask in (phantom.tumour_mask, phantom.tissue_mask):
        fine, coarse = mask(Scale(1, 1)), mask(scale)
        assert coarse.shape == (rows, cols)
        y = ((np.arange(coarse.shape[0]) + 0.5) * scale.y).astype(int)
        x = ((np.arange(coarse.shape[1]) + 0.5) * scale.x).astype(int)
        inside = np.ix_(y[y < SIZE.height], x[x < SIZE.width])
        agree = fine[inside] == coarse[: (y < SIZE.height).sum(), : (x < SIZE.width).sum()]
        assert agree.mean() > 0.995


@pytest.mark.parametrize("size", [Size(2000, 2000), Size(10_000, 8000), Size(40_000, 25_000)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_slide_has_tumour_normal_tissue_and_glass(size: Size, seed: int) -> None:
    phantom = Phantom(size=size, seed=seed)
    scale = Scale(size.width / 200, size.width / 200)
    tissue, tumour = phantom.tissue_mask(scale), phantom.tumour_mask(scale)
    assert not (tumour & ~tissue).any()
    assert 0.3 < tissue.mean() < 0.9
    assert 0.08 < tumour.sum() / tissue.sum() < 0.6
    assert not np.concatenate([tissue[0], tissue[-1], tissue[:, 0], tissue[:, -1]]).any()
    assert phantom.layout.glands.glands


def _grown(mask: NDArray[np.bool_], px: int) -> NDArray[np.bool_]:
    """The mask and what lies within `px` pixels of it, by rows and columns."""
    total = np.pad(mask, px).cumsum(axis=0).cumsum(axis=1)
    total = np.pad(total, ((1, 0), (1, 0)))
    side = 2 * px + 1
    rows = total[side:] - total[:-side]
    near: NDArray[np.bool_] = rows[:, side:] > rows[:, :-side]
    return near


# File


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (Size(900, 700), [(900, 700)]),
        (Size(2300, 2000), [(2300, 2000), (575, 500)]),
        (Size(100_000, 80_000), [(100_000, 80_000), (25_000, 20_000), (6250, 5000), (1562, 1250), (390, 312)]),
        (Size(5000, 3), [(5000, 3), (1250, 1), (312, 1)]),
    ],
)
def test_levels_shrink_by_four_until_they_are_small(size: Size, expected: list[tuple[int, int]]) -> None:
    assert [(level.width, level.height) for level in level_sizes(size)] == expected


def test_openslide_reads_levels_resolution_and_pixels(slide_file, pixels: NDArray[np.uint8]) -> None:
    path, steps = slide_file
    with openslide.OpenSlide(path) as slide:
        assert slide.level_dimensions == ((2300, 2000), (575, 500))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.25)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.25)
        fine = np.asarray(slide.read_region((0, 0), 0, (2300, 2000)).convert("RGB")).astype(int)
        coarse = np.asarray(slide.read_region((0, 0), 1, (575, 500)).convert("RGB")).astype(int)
    assert np.abs(fine - pixels).mean() < 3
    assert np.percentile(np.abs(fine - pixels), 99.9) < 40
    mean = pixels.reshape(500, 4, 575, 4, 3).mean(axis=(1, 3))
    assert np.abs(coarse - mean).mean() < 4
    assert steps == [(n, 6) for n in range(1, 7)]


def test_tifffile_reads_the_same(slide_file, pixels: NDArray[np.uint8]) -> None:
    path, _ = slide_file
    with tifffile.TiffFile(path) as tiff:
        levels = tiff.series[0].levels
        assert [level.shape for level in levels] == [(2000, 2300, 3), (500, 575, 3)]
        page = tiff.pages[0]
        assert page.is_tiled
        assert page.tile == (256, 256)
        assert page.get_resolution("MICROMETER") == pytest.approx((4.0, 4.0))
        assert np.abs(page.asarray().astype(int) - pixels).mean() < 3


def test_files_of_the_same_settings_are_the_same_bytes_and_leave_nothing_beside(tmp_path) -> None:
    for name in "ab":
        write_phantom(tmp_path / f"{name}.tiff", Size(1100, 700), seed=1)
    assert (tmp_path / "a.tiff").read_bytes() == (tmp_path / "b.tiff").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tiff", "b.tiff"]


@pytest.mark.parametrize("size", [Size(1025, 1027), Size(2050, 300), Size(40, 30)])
def test_odd_sizes_are_written_whole(tmp_path, size: Size) -> None:
    write_phantom(tmp_path / "odd.tiff", size)
    with tifffile.TiffFile(tmp_path / "odd.tiff") as tiff:
        levels = tiff.series[0].levels
        assert [level.shape[:2] for level in levels] == [(s.height, s.width) for s in level_sizes(size)]
        for level in levels:
            assert level.asarray().mean() > 100


def test_a_failure_leaves_no_file_and_keeps_the_old_one(tmp_path) -> None:
    path = tmp_path / "slide.tiff"
    path.write_bytes(b"old")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantom(path, Size(600, 600), progress=stop)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("slide.tiff", b"old")]


def test_a_missing_folder_and_a_nonsense_resolution_are_told(tmp_path) -> None:
    with pytest.raises(OutputError, match=r"slide\.tiff: the slide cannot be written"):
        write_phantom(tmp_path / "absent" / "slide.tiff", Size(600, 600))
    with pytest.raises(ResolutionError):
        Phantom(size=SIZE, mpp=100.0)
    with pytest.raises(ValueError, match="positive size"):
        Phantom(size=Size(0, 5))
