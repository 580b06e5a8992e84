"""The slides that the benchmarks run on: their pixels, levels and resolution."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from patches import name, png, write_folder

from benchmarks.pyramid import reduced
from benchmarks.slides import MPP, TISSUE_PART, parse_size, phantom_slide, repeated_slide
from benchmarks.tissue import ENLARGED, REAL_QUALITY, Enlarged, tissue_slide
from wsi_pipeline.config import Settings
from wsi_pipeline.geometry import Box, FieldOfView, Size
from wsi_pipeline.plan import plan_slide
from wsi_pipeline.slides import Slide, open_slide

SIDE = 100
"""Of the made case, real pixels: 2 x 2 patches, the last one missing."""


def level_of(slide: Slide, number: int) -> NDArray[np.uint8]:
    size = slide.info.levels[number].size
    return slide.read_level(number, Box(0, 0, size.width, size.height))  # type: ignore[attr-defined]


def real_picture() -> NDArray[np.uint8]:
    y, x = np.mgrid[:SIDE, :SIDE]
    waves = np.stack([160 + 60 * np.sin(x / 9), 130 + 60 * np.cos(y / 7), 100 + (x + y) / 2], axis=-1)
    return waves.round().astype(np.uint8)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pixels = real_picture()
    places = [(0, 0), (1, 0), (0, 1)]
    files = {name(col, row, 0): png(pixels[row * 50 : row * 50 + 50, col * 50 : col * 50 + 50]) for col, row in places}
    return write_folder(tmp_path_factory.mktemp("case"), files) / "8863"


@pytest.mark.parametrize(("text", "size"), [("4000", Size(4000, 4000)), ("1024x770", Size(1000, 750))])
def test_sizes_are_whole_cells(text: str, size: Size) -> None:
    assert parse_size(text) == size


def test_repeated_slide_is_a_disc_of_tissue_at_40x(tmp_path: Path) -> None:
    path = repeated_slide(tmp_path, Size(3000, 2000))
    with open_slide(path) as slide:
        assert slide.info.require_mpp().x == pytest.approx(MPP)
        assert [level.size for level in slide.info.levels] == [Size(3000, 2000), Size(750, 500)]
        fine, coarse = level_of(slide, 0), level_of(slide, 1)
        found = plan_slide(slide, FieldOfView(size_px=50, mpp=MPP), Settings())
    assert (fine[:200, :200] == 242).all(), "glass in the corner"
    tissue = (fine.astype(int).max(axis=2) - fine.min(axis=2)) > 20
    assert tissue[900:1100, 1400:1600].mean() > 0.5, "tissue in the middle"
    assert np.abs(reduced(fine, 4).astype(int) - coarse[:500, :750]).mean() < 4, "level 1 is level 0, smaller"
    assert len(found.grid.cells) / (60 * 40) == pytest.approx(TISSUE_PART, abs=0.12)


def test_a_slide_is_made_once(tmp_path: Path) -> None:
    path = repeated_slide(tmp_path, Size(1000, 500))
    before = path.stat().st_mtime_ns
    assert repeated_slide(tmp_path, Size(1000, 500)) == path
    assert path.stat().st_mtime_ns == before
    assert [file.name for file in path.parent.iterdir()] == [path.name], "nothing half-written beside it"


def test_phantom_has_about_the_cells_asked_for(tmp_path: Path) -> None:
    with open_slide(phantom_slide(tmp_path, cells=500)) as slide:
        plan = plan_slide(slide, FieldOfView(size_px=50, mpp=MPP), Settings())
    assert 250 < len(plan.grid.cells) < 1000


def test_tissue_slide_holds_the_real_pixels_at_its_2_5x_level(case: Path, tmp_path: Path) -> None:
    with open_slide(tissue_slide(tmp_path, case)) as slide:
        assert slide.info.require_mpp().x == pytest.approx(MPP)
        assert slide.info.size == Size(SIDE * ENLARGED, SIDE * ENLARGED)
        at_4_um = next(n for n, level in enumerate(slide.info.levels) if level.scale.x == ENLARGED)
        level = level_of(slide, at_4_um).astype(int)
    inside = np.ones((SIDE, SIDE), bool)
    inside[50:, 50:] = False
    assert REAL_QUALITY == 100
    apart = np.abs(level - real_picture())[inside]
    assert apart.mean() < 1
    assert apart.max() <= 4
    assert (level[60:, 60:] > 250).all(), "white where the case has no patch"


def test_the_finer_levels_have_the_real_pixels_for_means(case: Path, tmp_path: Path) -> None:
    with open_slide(tissue_slide(tmp_path, case)) as slide:
        fine, middle = level_of(slide, 0), level_of(slide, 1)
    means = reduced(fine, ENLARGED).astype(int)
    # Away from the edges of the tissue, where the JPEG of level 0 mixes in white.
    assert np.abs(means[2:44, 2:44] - real_picture()[2:44, 2:44]).mean() < 2
    assert np.abs(reduced(fine, 4).astype(int) - middle).mean() < 4
    assert fine[100:300, 100:300].std(axis=(0, 1)).min() > 5, "there is a texture within a real pixel"
    assert (fine[1000:, 1000:] > 250).all()


def test_enlarging_keeps_means_before_any_jpeg() -> None:
    real = real_picture()
    enlarged = Enlarged(real=real, covered=np.ones(real.shape[:2], bool))
    block = enlarged.block(0, 0)
    assert block is not None
    apart = reduced(block, ENLARGED).astype(int) - real[:64, :64]
    assert np.abs(apart).max() <= 2
    assert enlarged.block(0, 1) is not None
    assert Enlarged(real=real, covered=np.zeros(real.shape[:2], bool)).block(0, 0) is None


def test_tissue_slide_of_some_cells_is_the_densest_square(case: Path, tmp_path: Path) -> None:
    with open_slide(tissue_slide(tmp_path, case, cells=64)) as slide:
        size = slide.info.size
        fine = level_of(slide, 0)
    assert size == Size(400, 400)  # 8 x 8 cells of 50 px
    assert (fine < 250).any(axis=2).mean() > 0.95
