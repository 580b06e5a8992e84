"""Pictures: right size, in register with the slide, and complete whatever the slide is called or holds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from grids import make_grid
from PIL import Image

from wsi_pipeline.config import RegionSettings
from wsi_pipeline.errors import OutputError
from wsi_pipeline.geometry import Mpp, Scale, Thumbnail
from wsi_pipeline.grid import Grid
from wsi_pipeline.regions import find_regions
from wsi_pipeline.render import draw_overlay, draw_tissue, draw_uncertainty
from wsi_pipeline.sheet import MARGIN, Sheet, length_text, round_length
from wsi_pipeline.tissue import TissueMask

PINK = (220, 170, 200)


def thumbnail(width: int, height: int, scale: float = 20.0) -> Thumbnail:
    return Thumbnail(
        pixels=np.full((height, width, 3), PINK, np.uint8),
        scale=Scale(scale, scale),
        unreadable=np.zeros((height, width), bool),
    )


def overlay(
    path: Path,
    thumb: Thumbnail,
    probability: np.ndarray,
    grid: Grid,
    *,
    title: str = "slide",
    outlines: bool = True,
) -> np.ndarray:
    probability = probability.astype(np.float32)
    regions = find_regions(
        probability, grid, threshold=0.4, settings=RegionSettings(min_region_um2=0 if outlines else 1e9), namespace="x"
    )
    draw_overlay(
        path, thumb, probability, grid, regions,
        title=title, model="idc-resnet18", threshold=0.4, threshold_source="bundle",
    )  # fmt: skip
    return read(path)


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image.convert("RGB")).astype(int)


def slide_of(page: np.ndarray, height: int) -> np.ndarray:
    """The page from the slide's top left corner on; the heading is one title line and one line of details."""
    top = MARGIN + 28 + 19 + 14
    return page[top : top + height, MARGIN:]


def tinted(colour: np.ndarray) -> bool:
    return bool(np.abs(colour - PINK).max() > 40)


@pytest.mark.parametrize(("cells", "cell_px"), [(10, 100), (400, 2.5)])
@pytest.mark.parametrize("origin", [(0, 0), (2000, 1000)])
def test_the_tint_is_in_register_with_the_slide(tmp_path, cells, cell_px, origin):
    """An L at the top left, on cells larger and smaller than a pixel, on slides with and without bounds."""
    thumb = thumbnail(1000, 1000, scale=10.0)
    span = round((10_000 - max(origin)) / 10_000 * cells)
    grid = make_grid(span, span, mpp=(0.25, 0.25), cell_um=cell_px * 10 * 0.25, origin=origin)
    probability = np.full(grid.shape, np.nan)
    third = span // 4
    probability[: 2 * third, :third] = 0.95
    probability[third : 2 * third, third : 3 * third] = 0.95
    page = slide_of(overlay(tmp_path / "a.png", thumb, probability, grid, outlines=False), 1000)
    width = third * cell_px
    hot = {(0, 0), (1, 0), (1, 1), (1, 2)}
    for row, col in [*hot, (0, 1), (2, 0), (2, 2), (1, 3)]:
        # Near all four corners of the square, so that a shift of three pixels shows.
        for dy in (2, width - 3):
            for dx in (2, width - 3):
                y, x = int(origin[1] / 10 + row * width + dy), int(origin[0] / 10 + col * width + dx)
                assert tinted(page[y, x]) is ((row, col) in hot), (row, col, dy, dx)


def test_low_probability_leaves_the_tissue_visible(tmp_path):
    grid = make_grid(1, 4)
    page = slide_of(overlay(tmp_path / "a.png", thumbnail(800, 200, 0.25), np.array([[0, 0.1, 0.5, 1]]), grid), 200)
    difference = [np.abs(page[100, 100 + 200 * n] - PINK).max() for n in range(4)]
    assert difference == sorted(difference)
    assert difference[0] == 0
    assert difference[1] < 15
    assert difference[3] > 60


def test_doubt_is_tinted_up_to_its_brightest_and_certainty_is_not(tmp_path):
    spread = np.array([[0, 0.05, 0.1, 0.2, 0.5, np.nan]], np.float32)
    draw_uncertainty(
        tmp_path / "u.png", thumbnail(900, 150, 0.25), spread, make_grid(1, 6, cell_um=9.375), [],
        title="a", model="m", spread_over="8 symmetries",
    )  # fmt: skip
    page = slide_of(read(tmp_path / "u.png"), 150)
    difference = [np.abs(page[75, 75 + 150 * n] - PINK).max() for n in range(6)]
    assert difference[0] == difference[5] == 0
    assert difference[1] < difference[2] < difference[3]
    assert difference[3] > 50
    assert (page[75, 75 + 450] == page[75, 75 + 600]).all()


def test_small_hot_spots_are_averaged_not_skipped(tmp_path):
    """Three cells a pixel, of which every other one is hot: no pixel is left without a tint."""
    grid = make_grid(2400, 2400)
    probability = np.zeros(grid.shape)
    probability[:1200:2, :1200:2] = 1
    draw_overlay(
        tmp_path / "a.png", thumbnail(800, 800, 150.0), probability.astype(np.float32), grid, [],
        title="a", model="m", threshold=0.4, threshold_source="user",
    )  # fmt: skip
    page = slide_of(read(tmp_path / "a.png"), 800)
    upper, lower = page[20:380, 20:380].reshape(-1, 3), page[450:750, 450:750].reshape(-1, 3)
    assert np.abs(lower - PINK).max() == 0
    assert np.abs(upper - PINK).max(axis=1).min() > 3


def test_outlines_follow_the_cells(tmp_path):
    grid = make_grid(8, 8)
    probability = np.zeros((8, 8))
    probability[2:4, 1:6] = 0.9
    page = slide_of(overlay(tmp_path / "a.png", thumbnail(800, 800, 0.5), probability, grid), 800)
    for y, x in [(200, 350), (400, 350), (300, 100), (300, 600)]:
        assert page[y - 1 : y + 2, x - 1 : x + 2].sum(axis=2).min() < 250
    assert page[300, 350].sum() > 250


@pytest.mark.parametrize("size", [(1400, 40), (40, 1400), (3, 2), (5000, 20), (900, 700)])
def test_any_shape_gives_a_page_of_sensible_size(tmp_path, size):
    page = overlay(tmp_path / "a.png", thumbnail(*size), np.full((3, 4), 0.3), make_grid(3, 4))
    height, width = page.shape[:2]
    assert 300 < width < 2100
    assert 300 < height < 2100
    # Nothing is cut off at the page's edges.
    assert all((edge == 255).all() for edge in (page[0], page[-1], page[:, 0], page[:, -1]))


@pytest.mark.parametrize(
    "title",
    ["Fall 12 – Färbung $x^2$ & µ", "乳腺癌 スライド ข้อมูล.svs", "🔬 emoji", "x" * 500, "a\nb\tc\x00d", ""],
)
def test_any_name_is_drawn_without_a_warning(tmp_path, title, recwarn, caplog):
    overlay(tmp_path / "a.png", thumbnail(300, 200), np.full((3, 4), 0.3), make_grid(3, 4), title=title)
    assert not recwarn.list
    assert not caplog.records


def test_long_names_stay_on_the_page(tmp_path):
    page = overlay(tmp_path / "a.png", thumbnail(300, 200), np.full((3, 4), 0.3), make_grid(3, 4), title="W" * 400)
    assert (page[:, -MARGIN + 2 :] == 255).all()


def test_no_tissue_is_said(tmp_path):
    grid, thumb = make_grid(3, 4), thumbnail(800, 600)
    nothing = overlay(tmp_path / "a.png", thumb, np.full((3, 4), np.nan), grid)
    low = overlay(tmp_path / "b.png", thumb, np.zeros((3, 4)), grid)
    middle = np.s_[280:320, 350:450]
    assert (slide_of(low, 600)[middle] == PINK).all()
    assert (slide_of(nothing, 600)[middle] != PINK).any()


def test_the_same_input_gives_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        overlay(tmp_path / name, thumbnail(300, 200), np.full((3, 4), 0.8), make_grid(3, 4))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_tissue_is_bright_and_the_rest_dimmed(tmp_path):
    mask = np.zeros((30, 40), bool)
    mask[5:15, 10:30] = True
    thumb = thumbnail(800, 600, 10.0)
    draw_tissue(tmp_path / "t.png", thumb, TissueMask(mask=mask, scale=Scale(200, 200)), Mpp(0.25, 0.25), title="slide")
    page = slide_of(read(tmp_path / "t.png"), 600)
    inside = (page[:, :800] == PINK).all(axis=2)
    y, x = np.nonzero(inside)
    # The outline takes two pixels on the inside of the mask.
    assert (y.min(), y.max() + 1, x.min(), x.max() + 1) == (102, 298, 202, 598)
    assert (page[100, 250:550] == (0, 114, 178)).all()
    assert page[50, 50].sum() < sum(PINK)


def test_unreadable_parts_are_hatched_and_pixels_need_not_be_square(tmp_path):
    thumb = thumbnail(800, 400, 10.0)
    thumb.unreadable[100:200, 100:300] = True
    draw_tissue(
        tmp_path / "t.png", thumb, TissueMask(mask=np.ones((1, 1), bool), scale=Scale(8000, 4000)), Mpp(0.25, 0.5),
        title="slide",
    )  # fmt: skip
    page = slide_of(read(tmp_path / "t.png"), 800)
    # Twice as tall as the thumbnail, because its pixels are.
    assert {tuple(c) for c in page[210:390, 110:290].reshape(-1, 3)} == {(90, 90, 90), (200, 200, 200)}
    assert (page[700, 110:290] == PINK).all()


def test_no_tissue_at_all(tmp_path):
    thumb = replace(thumbnail(300, 200), pixels=np.full((200, 300, 3), 250, np.uint8))
    mask = TissueMask(mask=np.zeros((200, 300), bool), scale=thumb.scale)
    draw_tissue(tmp_path / "t.png", thumb, mask, Mpp(0.25, 0.25), title="glass")
    assert read(tmp_path / "t.png").shape[1] > 300


def test_scale_bar_lengths_are_round():
    assert [round_length(um) for um in (1, 1.9, 4.99, 5, 999, 1000, 12_345)] == [1, 1, 2, 5, 500, 1000, 10_000]
    assert [length_text(um) for um in (50, 100, 500, 2000, 10_000)] == ["50 µm", "0.1 mm", "0.5 mm", "2 mm", "10 mm"]


def test_the_scale_bar_is_as_long_as_it_says(tmp_path):
    sheet = Sheet(np.full((400, 800, 3), 255, np.uint8), title="", details=[])
    sheet.footer(um_per_px=10.0)  # 1 mm is 100 px
    sheet.save(tmp_path / "s.png")
    page = read(tmp_path / "s.png").max(axis=2)
    bar = [line for line in page[sheet.picture_bottom + 4 :, : MARGIN + 200] if (line < 100).sum() > 50]
    assert {int((line < 100).sum()) for line in bar} <= set(range(100, 104))
    assert bar


def test_a_folder_that_is_not_there_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        overlay(tmp_path / "missing" / "a.png", thumbnail(30, 20), np.full((3, 4), 0.8), make_grid(3, 4))
