"""napari's layers in register: by their coordinates, and by the pixels of a screenshot."""

import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import shapely
from finished_results import make_finished, make_slide, write_run
from needs import needed, unavailable
from PIL import Image

from wsi_pipeline.errors import SlideNotFoundError
from wsi_pipeline.geometry import Box, Scale
from wsi_pipeline.napari_layers import add_result, result_layers
from wsi_pipeline.slides import open_slide


@pytest.fixture(scope="module")
def placed(tmp_path_factory):
    """A result on a part of its slide: one bright cell of a large slide's map, at row 3 and column 7."""
    folder = tmp_path_factory.mktemp("placed")
    values = np.zeros((10, 14), np.float32)
    values[3, 7] = 1
    made = make_finished(
        folder / "run" / "slide", make_slide(folder / "slide.tiff"), probability=values, extent=Box(203, 101, 700, 500)
    )
    write_run(folder / "run")
    return made


@pytest.fixture
def viewer():
    with warnings.catch_warnings():
        # What napari warns of while it is imported is not ours to mend.
        warnings.simplefilter("ignore")
        from napari.components import ViewerModel
    return ViewerModel()


def test_every_layer_has_its_place(placed, viewer):
    slide, tissue, probability, spread, regions = add_result(viewer, placed.folder)
    assert [layer.visible for layer in viewer.layers] == [True, False, True, False, True]
    for row, col in [(0, 0), (3, 7), (9, 13)]:
        box = placed.grid.cell_box(row, col)
        # Pixel k of the slide has its centre at k; that of pixels 0 .. 49 is 24.5.
        middle = box.y + box.height / 2 - 0.5, box.x + box.width / 2 - 0.5
        expected = slide.data_to_world(middle)
        for layer in (tissue, probability, spread):
            np.testing.assert_allclose(layer.data_to_world((row, col)), expected)
    (outline,) = regions.data
    box = placed.grid.cell_box(3, 7)
    corners = np.array([regions.data_to_world(point) for point in outline])
    np.testing.assert_allclose(corners.min(0), slide.data_to_world((box.y - 0.5, box.x - 0.5)))
    np.testing.assert_allclose(corners.max(0), slide.data_to_world((box.bottom - 0.5, box.right - 0.5)))
    assert {str(unit) for unit in slide.units} == {"micrometer"}


def test_layers_hold_the_result(placed, viewer):
    _, tissue, probability, spread, regions = add_result(viewer, placed.folder, threshold=0.9)
    np.testing.assert_array_equal(probability.data, placed.probability)
    np.testing.assert_array_equal(spread.data, placed.spread)
    assert tissue.data.all()
    assert regions.name == "slide: IDC regions at 0.9"
    assert list(regions.features["region"]) == [1]
    assert list(regions.features["mean_probability"]) == [1]
    assert probability.contrast_limits == [0, 1]
    assert probability.colormap.colors[0, 3] == 0  # nothing over what is certainly no IDC


def test_the_slide_is_read_lazily_and_by_its_levels(placed, viewer):
    levels = add_result(viewer, placed.folder)[0].data
    with open_slide(placed.slide) as slide:
        assert [level.shape for level in levels] == [
            (level.size.height, level.size.width, 3) for level in slide.info.levels
        ]
        part = np.asarray(levels[1][30:90, 100:230])
        np.testing.assert_array_equal(part, slide.read(Box(100, 30, 130, 60), Scale(2, 2)))


def test_holes_are_outlines_too(tmp_path, placed, viewer):
    values = np.ones((10, 14), np.float32)
    values[4, 4] = values[6, 9] = 0
    made = make_finished(tmp_path / "run" / "x", placed.slide, probability=values, extent=placed.grid.extent)
    write_run(tmp_path / "run")
    regions = add_result(viewer, made.folder, slide=False)[-1]
    assert list(regions.features["hole"]) == [False, True, True]
    assert sorted(shapely.Polygon(path).area for path in regions.data) == [2500, 2500, 350000]


def test_no_region_and_no_slide(tmp_path, viewer):
    made = make_finished(
        tmp_path / "x", tmp_path / "gone.tiff", probability=np.zeros((4, 4), np.float32), extent=Box(0, 0, 200, 200),
        fingerprint="f" * 64,
    )  # fmt: skip
    with pytest.raises(SlideNotFoundError):
        result_layers(made.folder)
    layers = add_result(viewer, made.folder, slide=False)
    assert [layer.name for layer in layers] == [
        "x: tissue",
        "x: p(IDC)",
        "x: spread of p(IDC)",
        "x: IDC regions at 0.5",
    ]
    assert len(layers[-1].data) == 0


SHOTS = """
import sys, warnings
warnings.simplefilter("ignore")
import napari, numpy as np
from wsi_pipeline.napari_layers import add_result

folder, out = sys.argv[1:]
viewer = napari.Viewer()
layers = add_result(viewer, folder)
viewer.reset_view()
layers[4].edge_color = "white"  # to be seen on the dark canvas
for overlay in (viewer.scale_bar, viewer.text_overlay):
    overlay.visible = False
for name, shown in (("all", (0, 2, 4)), ("map", (2,)), ("regions", (4,)), ("slide", (0,))):
    for number, layer in enumerate(layers):
        layer.visible = number in shown
    np.save(f"{out}/{name}.npy", viewer.screenshot(canvas_only=True, flash=False)[..., :3])
viewer.close()
"""


def with_screen(command: list[str]) -> None:
    """Run a program that opens a window, on a screen that nobody sees."""
    xvfb = shutil.which("xvfb-run")
    if xvfb is None:
        unavailable("no screen without xvfb-run (Debian: apt-get install xvfb xauth)")
    needed("PyQt6")
    ran = subprocess.run(
        [xvfb, "-a", "-s", "-screen 0 1400x1000x24", *command], capture_output=True, text=True, timeout=200, check=False
    )
    if "no Qt platform plugin" in ran.stderr:
        unavailable("Qt finds no screen here (Debian: apt-get install libxcb-icccm4 libxcb-keysyms1 libxcb-cursor0)")
    assert ran.returncode == 0, ran.stderr


@pytest.mark.slow
def test_the_example_writes_a_picture_of_a_result(tmp_path, placed):
    example = Path(__file__).parents[2] / "examples" / "napari_view.py"
    shot = tmp_path / "picture.png"
    with_screen([sys.executable, str(example), str(placed.folder), "--threshold", "0.9", "--screenshot", str(shot)])
    with Image.open(shot) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert min(pixels.shape[:2]) > 200
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 200  # the slide, not an empty canvas


@pytest.mark.slow
def test_a_screenshot_shows_map_and_outline_over_what_they_are_about(tmp_path, placed):
    """The slide is black where one cell is: the map lights up there, and nowhere else."""
    made = marked_slide(tmp_path, placed)
    with_screen([sys.executable, "-c", SHOTS, str(made.folder), str(tmp_path)])
    shots = {name: np.load(tmp_path / f"{name}.npy").astype(int) for name in ("all", "map", "regions", "slide")}
    slide = box_of((shots["slide"].sum(-1) < 60) & inside(shots["slide"]))
    assert min(slide[2] - slide[0], slide[3] - slide[1]) > 15  # the square is well seen
    lit = box_of(shots["map"].sum(-1) > 120)
    np.testing.assert_allclose(lit, slide, atol=1.5)
    outline = box_of(shots["regions"].sum(-1) > 380)
    width_px = 5 * (slide[3] - slide[1]) / 50  # the line is 5 of the slide's pixels wide, half of it outside
    np.testing.assert_allclose(outline, slide + np.array([-1, -1, 1, 1]) * width_px / 2, atol=2)
    # Yellow, the colour of p = 1, with the slide seen through it.
    middle = shots["all"][slide[0] + 6 : slide[2] - 6, slide[1] + 6 : slide[3] - 6].reshape(-1, 3).mean(0)
    assert middle[0] > 2 * middle[2]
    assert middle[0] < 200


def marked_slide(folder: Path, placed):
    """The same result on a white slide that is black under its bright cell."""
    from tiffs import write_pyramid

    picture = np.full((805, 1010, 3), 255, np.uint8)
    box = placed.grid.cell_box(3, 7)
    picture[box.y : box.bottom, box.x : box.right] = 0
    slide = write_pyramid(folder / "marked.tiff", base=picture, compression="deflate", compressionargs=None)
    made = make_finished(folder / "run" / "marked", slide, probability=placed.probability, extent=placed.grid.extent)
    write_run(folder / "run")
    return made


def inside(shot: np.ndarray) -> np.ndarray:
    """Where the slide is: between its first and last bright rows and columns."""
    top, left, bottom, right = box_of(shot.sum(-1) > 700)
    mask = np.zeros(shot.shape[:2], bool)
    mask[top:bottom, left:right] = True
    return mask


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, cols = np.nonzero(mask)
    return int(rows.min()), int(cols.min()), int(rows.max()) + 1, int(cols.max()) + 1
