"""A slide on the screen: what is shown is what was measured, at every zoom."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from looking import layer_pixels, link_values, set_slider, settle, stage_centre
from PIL import Image

from wsi_pipeline.config import RegionSettings
from wsi_pipeline.regions import number_regions


def test_zooming_fetches_finer_tiles(page, server):
    tiles = []
    page.page.on("request", lambda request: "/tiles/" in request.url and tiles.append(request.url))
    shown = page.slide(server)
    level = max(int(url.split("/tiles/")[1].split("/")[0]) for url in tiles)
    before = float(link_values(shown)["z"])
    shown.mouse.move(*stage_centre(shown))
    for _ in range(10):
        shown.mouse.wheel(0, -240)
        shown.wait_for_timeout(60)
    settle(shown)
    assert float(link_values(shown)["z"]) > 1.5 * before
    assert max(int(url.split("/tiles/")[1].split("/")[0]) for url in tiles) > level


@pytest.mark.parametrize("turn", [0, 90, 30])
def test_the_probability_under_the_pointer_is_that_of_the_map(page, server, heatmap, turn):
    probability, grid = heatmap.probability("IDC"), heatmap.grid
    cells = np.argwhere(np.isfinite(probability))
    for row, col in cells[len(cells) // 5 :: len(cells) // 2]:
        box = grid.cell_box(row, col)
        # Just inside of two opposite corners: an edge that is a pixel off would give a neighbour.
        for x, y in ((box.x + 0.5, box.y + 0.5), (box.right - 0.5, box.bottom - 0.5)):
            shown = page.slide(server, x=x, y=y, z=8, r=turn)
            shown.mouse.move(10, 10)
            shown.mouse.move(*stage_centre(shown))
            assert shown.locator("#read-cell").inner_text() == f"{row}, {col}"
            assert float(shown.locator("#read-probability").inner_text()) == pytest.approx(
                probability[row, col], abs=6e-5
            )


def test_outside_of_the_analysed_cells_no_probability_is_claimed(page, server, heatmap):
    row, col = np.argwhere(np.isnan(heatmap.probability("IDC")))[0]
    box = heatmap.grid.cell_box(row, col)
    shown = page.slide(server, x=box.x + box.width // 2, y=box.y + box.height // 2, z=4)
    shown.mouse.move(*stage_centre(shown))
    assert shown.locator("#read-probability").inner_text() == "not analysed"


@pytest.mark.parametrize("zoom", [0.5, 4, 7.3])
def test_cells_are_drawn_to_the_pixel(page, server, heatmap, zoom):
    probability, grid = heatmap.probability("IDC"), heatmap.grid
    row, col = np.argwhere(np.isfinite(probability))[len(probability) * 5]
    centre_x, centre_y = int(grid.col_edges[col]), int(grid.row_edges[row])
    shown = page.slide(server, x=centre_x, y=centre_y, z=zoom, smooth=0, fade=0, out=0)
    pixels = layer_pixels(shown)
    height, width = pixels.shape[:2]
    x = centre_x + (np.arange(width) + 0.5 - width / 2) / zoom
    y = centre_y + (np.arange(height) + 0.5 - height / 2) / zoom
    cols = np.searchsorted(grid.col_edges, x, side="right") - 1
    rows = np.searchsorted(grid.row_edges, y, side="right") - 1
    on_slide = np.ix_((rows >= 0) & (rows < grid.shape[0]), (cols >= 0) & (cols < grid.shape[1]))
    expected = probability[np.ix_(rows.clip(0, grid.shape[0] - 1), cols.clip(0, grid.shape[1] - 1))]
    seen = pixels[..., 3] > 0
    assert (seen[on_slide] == np.isfinite(expected[on_slide])).mean() > 0.999
    line = pixels[height // 2 + 1]
    changes = np.flatnonzero((line[1:] != line[:-1]).any(axis=1))
    # Where an edge falls on the very middle of a pixel, either side is right.
    near = [np.searchsorted(grid.col_edges, x + by, side="right") for by in (-0.01, 0.01)]
    allowed = np.concatenate([np.flatnonzero(edges[1:] != edges[:-1]) for edges in near])
    assert len(changes) > 1
    assert set(changes) <= set(allowed)


def test_opacity_and_tint_change_what_lies_over_the_tissue(page, server):
    shown = page.slide(server, fade=0, out=0)
    full = layer_pixels(shown)[..., 3].max()
    assert full == pytest.approx(0.5 * 255, abs=2)
    set_slider(shown, "opacity", 0.2)
    assert layer_pixels(shown)[..., 3].max() == pytest.approx(0.2 * 255, abs=2)
    shown.keyboard.press("h")
    assert layer_pixels(shown)[..., 3].max() == 0
    shown.keyboard.press("h")
    assert layer_pixels(shown)[..., 3].max() > 0
    before = layer_pixels(shown)
    shown.select_option("#map", "magma")
    assert (layer_pixels(shown) != before).any()


def expected_edges(heatmap, threshold: float) -> np.ndarray:
    """[rows, cols]: cells of regions, by the project's own function."""
    settings = RegionSettings(min_region_um2=400)
    return number_regions(heatmap.probability("IDC"), heatmap.grid, threshold=threshold, settings=settings) > 0


def test_outlines_follow_the_threshold_while_the_slider_moves(page, server, heatmap):
    shown = page.slide(server, tint="none")
    # The server's outlines never come: what is seen is what the page makes of the cells.
    shown.route("**/regions?*", lambda route: None)
    pictures = []
    for threshold in (0.3, 0.45, 0.6):
        set_slider(shown, "threshold", threshold)
        pixels = layer_pixels(shown)
        pictures.append(pixels)
        inside = expected_edges(heatmap, threshold)
        check_outlines(shown, pixels, heatmap, inside)
        count = int(shown.locator(".numbers .big").nth(2).inner_text())
        settings = RegionSettings(min_region_um2=400)
        numbers = number_regions(heatmap.probability("IDC"), heatmap.grid, threshold=threshold, settings=settings)
        assert count == numbers.max()
        area = float((heatmap.grid.cell_area_um2[inside]).sum()) * 1e-6
        assert shown.locator(".numbers .big").first.inner_text() == f"{float(f'{area:.3g}'):g} mm²"
    assert (pictures[0] != pictures[1]).any()
    assert (pictures[1] != pictures[2]).any()


def test_the_servers_outlines_are_those_that_the_page_made(page, server, heatmap):
    shown = page.slide(server, tint="none")
    with shown.expect_response("**/regions?threshold=0.5"):
        set_slider(shown, "threshold", 0.5)
    shown.wait_for_selector(".regions:not(.stale)", state="attached")
    check_outlines(shown, layer_pixels(shown), heatmap, expected_edges(heatmap, 0.5))


def check_outlines(shown, pixels, heatmap, inside) -> None:
    """Lines run where a cell of a region meets one that is none, and not through cells."""
    values = link_values(shown)
    zoom, x0, y0 = float(values["z"]), float(values["x"]), float(values["y"])
    height, width = pixels.shape[:2]
    grid, alpha = heatmap.grid, pixels[..., 3]

    def at(x: float, y: float) -> int:
        return int(alpha[round((y - y0) * zoom + height / 2), round((x - x0) * zoom + width / 2)])

    rows, cols = np.nonzero(inside[:, 1:] != inside[:, :-1])
    assert len(rows) > 3
    for row, col in zip(rows, cols, strict=True):
        middle = (grid.row_edges[row] + grid.row_edges[row + 1]) / 2
        assert at(grid.col_edges[col + 1], middle) > 150
    calm = inside.copy()
    for shift in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        calm &= np.roll(inside, shift, axis=(0, 1))
    for row, col in np.argwhere(calm):
        box = grid.cell_box(row, col)
        assert at(box.x + box.width / 2, box.y + box.height / 2) == 0


def test_clicking_a_region_flies_there(page, server):
    shown = page.slide(server)
    regions = server.get(f"api/slides/{server.slide_id('dark')}/regions")["features"]
    number = min(2, len(regions) - 1)
    ring = np.array(regions[number]["geometry"]["coordinates"][0])
    middle = (ring.min(axis=0) + ring.max(axis=0)) / 2
    shown.locator(".regions .region").nth(number).click()
    settle(shown)
    values = link_values(shown)
    assert (float(values["x"]), float(values["y"])) == pytest.approx(tuple(middle), abs=2)
    assert shown.locator(".regions li").nth(number).get_attribute("class") == "picked"
    text = shown.locator(".regions .region").nth(number).inner_text()
    assert f"p {regions[number]['properties']['measurements']['Mean p(IDC)']:.2f}" in text


def test_a_link_restores_the_view(page, new_page, server):
    values = {
        "x": 900,
        "y": 700,
        "z": 1.25,
        "r": 45,
        "t": 0.45,
        "o": 0.3,
        "map": "magma",
        "smooth": 0,
        "out": 0,
        "mask": 1,
    }
    shown = page.slide(server, **values)
    address = shown.evaluate("() => location.href")
    second = new_page()
    second.page.goto(address)
    second.page.wait_for_selector(".regions:not(.stale)", state="attached")
    restored = link_values(second.page)
    assert {name: float(restored[name]) for name in ("x", "y", "z", "r", "t", "o")} == pytest.approx(
        {name: float(values[name]) for name in ("x", "y", "z", "r", "t", "o")}, abs=0.6
    )
    assert float(restored["t"]) == 0.45
    assert (restored["map"], restored["smooth"], restored["out"], restored["mask"]) == ("magma", "0", "0", "1")
    assert float(second.page.locator("#threshold-value").input_value()) == 0.45
    assert second.page.locator("#map").input_value() == "magma"
    assert not second.page.locator("#smooth").is_checked()


def test_what_the_slider_and_the_colours_are_set_to_stands_in_the_link_and_is_restored(page, new_page, server):
    shown = page.slide(server)
    set_slider(shown, "threshold", 0.537)
    shown.select_option("#map", "magma")
    values = link_values(shown)
    assert (values["t"], values["map"]) == ("0.537", "magma")
    second = new_page()
    second.page.goto(shown.evaluate("() => location.href"))
    second.page.wait_for_selector(".regions:not(.stale) li")
    assert second.page.locator("#threshold-value").input_value() == "0.537"
    assert second.page.locator("#map").input_value() == "magma"
    regions = server.get(f"api/slides/{server.slide_id('dark')}/regions?threshold=0.537")["features"]
    assert int(second.page.locator(".numbers .big").nth(2).inner_text()) == len(regions)
    assert link_values(second.page) == values


def test_a_link_keeps_its_thresholds_when_the_run_is_made_again_with_another(page, new_page, own_server):
    shown = page.slide(own_server, cmp=own_server.slide_id("red"))
    values = link_values(shown)
    assert (values["t"], values["t2"]) == ("0.4", "0.9")
    for run in ("dark", "red"):
        file = own_server.results / run / "phantom A" / "summary.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"threshold": 0.7123456789}))
    shown.wait_for_timeout(1200)  # for a second, the server does not look again
    address = shown.evaluate("() => location.href")
    second = new_page()
    second.page.goto(address)
    second.page.wait_for_selector(".regions:not(.stale) li")
    assert "The run's is 0.7123" in second.page.locator(".threshold-part").first.inner_text()
    thresholds = [float(second.page.locator(f"#{name}-value").input_value()) for name in ("threshold", "threshold2")]
    assert thresholds == [0.4, 0.9]
    anew = new_page()
    assert link_values(anew.slide(own_server))["t"] == "0.7123456789"


def test_a_link_with_nonsense_in_it_still_opens(page, server):
    shown = page.slide(server, x="here", y="", z=-3, t=7, o="much", map="rainbow", tint="x", cmp="0000000000000000")
    assert shown.locator(".notice.error").count() == 1
    assert float(shown.locator("#threshold-value").input_value()) == 0.4


def test_two_models_move_in_step(page, server):
    other = server.slide_id("red")
    shown = page.slide(server, cmp=other, smooth=0, fade=0, out=0)
    assert shown.locator(".stage").count() == 2
    assert [len(set(map(tuple, layer_pixels(shown, n).reshape(-1, 4)))) > 3 for n in (0, 1)] == [True, True]
    shown.mouse.move(*stage_centre(shown, 1))
    shown.mouse.wheel(0, -600)
    shown.wait_for_timeout(300)
    shown.keyboard.press("ArrowRight")
    shown.keyboard.press("r")
    settle(shown)
    # Both maps have the same cells, so in step they are seen in the same places.
    seen = [layer_pixels(shown, n)[..., 3] > 0 for n in (0, 1)]
    assert seen[0].shape == seen[1].shape
    assert seen[0].any()
    assert not seen[0].all()
    assert (seen[0] == seen[1]).mean() > 0.999
    thresholds = [float(shown.locator(f"#{name}-value").input_value()) for name in ("threshold", "threshold2")]
    assert thresholds == [0.4, 0.9]
    shown.mouse.move(*stage_centre(shown, 0))
    assert shown.locator("#read-probability2").inner_text() != ""


def test_the_layers_of_doubt_and_of_tissue(page, server, made):
    from wsi_pipeline.heatmap import Heatmap

    spread = Heatmap.open(made / "red" / "phantom A" / "heatmap.zarr").spread()
    row, col = np.argwhere(np.isfinite(spread))[200]
    box = Heatmap.open(made / "red" / "phantom A" / "heatmap.zarr").grid.cell_box(row, col)
    shown = page.slide(server, run="red", x=box.x + box.width // 2, y=box.y + box.height // 2, z=3, out=0)
    with shown.expect_response("**/spread"):
        shown.keyboard.press("u")
    shown.wait_for_timeout(300)
    shown.mouse.move(*stage_centre(shown))
    assert f"± {spread[row, col]:.3f}" in shown.locator(".readout").inner_text()
    shown.select_option("#tint", "none")
    assert layer_pixels(shown)[..., 3].max() < 255
    with shown.expect_response("**/tissue"):
        shown.keyboard.press("m")
    shown.keyboard.press("0")
    # The cell under the pointer has an outline of its own.
    shown.mouse.move(1270, 20)
    settle(shown)
    assert layer_pixels(shown)[..., 3].max() == pytest.approx(0.62 * 255, abs=3)


def test_keys_work_and_are_listed(page, server):
    shown = page.slide(server)
    before = float(link_values(shown)["z"])
    shown.keyboard.press("+")
    settle(shown)
    assert float(link_values(shown)["z"]) == pytest.approx(1.5 * before, rel=0.02)
    for key, box in (("o", "outlines"), ("s", "smooth"), ("m", "tissue"), ("l", "fade")):
        checked = shown.locator(f"#{box}").is_checked()
        shown.keyboard.press(key)
        assert shown.locator(f"#{box}").is_checked() != checked
    shown.keyboard.press("]")
    assert float(shown.locator("#threshold-value").input_value()) == pytest.approx(0.41)
    shown.keyboard.press("\\")
    assert float(shown.locator("#threshold-value").input_value()) == pytest.approx(0.4)
    shown.keyboard.press("n")
    shown.wait_for_selector(".regions li.picked")
    shown.keyboard.press("?")
    listed = shown.locator("dialog kbd").all_inner_texts()
    guide = (Path(__file__).parents[2] / "docs" / "viewer.md").read_text(encoding="utf-8").split("## Keys")[1]
    written = {"S": "Shift+S", "R": "Shift+R", "Delete": "Del", "Escape": "Esc"}
    assert [key for key in listed if f"`{written.get(key, key if len(key) > 1 else key.upper())}`" not in guide] == []
    assert {"+", "n", "[", "Shift+Enter", "?"} <= set(listed)
    shown.locator("dialog").get_by_label("Use single keys").uncheck()
    shown.keyboard.press("Escape")
    shown.keyboard.press("]")
    assert float(shown.locator("#threshold-value").input_value()) == pytest.approx(0.4)


def test_a_picture_and_the_outlines_can_be_taken_along(page, server):
    shown = page.slide(server, t=0.55)
    with shown.expect_download() as saved:
        shown.keyboard.press("S")
    picture = Image.open(BytesIO(saved.value.path().read_bytes()))
    box = shown.locator(".stage").bounding_box()
    assert picture.width == round(box["width"])
    assert picture.height > round(box["height"])
    stage = np.asarray(picture.convert("RGB"))[: round(box["height"])]
    assert stage.std() > 10
    with shown.expect_download() as saved:
        shown.get_by_role("link", name="GeoJSON at this threshold").click()
    features = json.loads(saved.value.path().read_text())["features"]
    expected = server.get(f"api/slides/{server.slide_id('dark')}/regions?threshold=0.55")["features"]
    assert features == expected
    assert "0.550" in saved.value.suggested_filename


def test_an_unknown_slide_and_a_lost_server_are_told_with_a_way_out(new_page, own_server):
    page = new_page()
    page.page.goto(f"{own_server.url}#/slide/0123456789abcdef")
    page.page.wait_for_selector(".failure")
    assert "not in these results" in page.page.locator(".failure").inner_text()
    own_server.stop()
    page.page.get_by_role("button", name="Try again").click()
    page.page.wait_for_function("() => document.querySelector('.failure')?.innerText.includes('does not answer')")
    assert "wsi-pipeline view" in page.page.locator(".failure").inner_text()
    # The browser itself writes of the requests that failed; nothing else may be there.
    assert all("Failed to load resource" in fault for fault in page.faults)
    page.faults.clear()
