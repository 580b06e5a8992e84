"""What is round the slide, each part by itself: mini-map, scale bar, histogram, window, colours, full screen, link."""

import math
from io import BytesIO

import numpy as np
import pytest
from looking import cell_colors, color_table, link_values, set_slider, settle
from PIL import Image

PLAIN = {"o": 1, "smooth": 0, "fade": 0, "out": 0}
"""Every cell in its own full colour."""


def test_the_mini_map_shows_where_the_view_is_and_leads_there(page, server):
    shown = page.slide(server, x=600, y=500, z=1)
    settle(shown)
    stage, small = (shown.locator(name).bounding_box() for name in (".stage", ".stage .navigator"))
    assert small["width"] / small["height"] == pytest.approx(2400 / 2000, rel=0.05)
    assert 0 < stage["x"] + stage["width"] - small["x"] - small["width"] < 20
    assert 0 < stage["y"] + stage["height"] - small["y"] - small["height"] < 20
    picture = Image.open(BytesIO(shown.locator(".stage .navigator").screenshot())).convert("RGB")
    assert np.asarray(picture).std() > 5
    region = shown.locator(".stage .navigator .displayregion").bounding_box()
    assert region["width"] / small["width"] == pytest.approx(stage["width"] / 2400, rel=0.15)
    shown.mouse.click(small["x"] + 0.75 * small["width"], small["y"] + 0.75 * small["height"])
    values = link_values(shown)
    assert (float(values["x"]), float(values["y"])) == pytest.approx((1800, 1500), abs=60)


@pytest.mark.parametrize("zoom", [0.3, 1, 4.2])
def test_the_scale_bar_is_as_long_as_it_says(page, server, zoom):
    mpp = server.get(f"api/slides/{server.slide_id('dark')}")["mpp"][0]
    assert mpp == pytest.approx(0.2431, rel=1e-3)
    shown = page.slide(server, x=1200, y=1000, z=zoom)
    assert float(link_values(shown)["z"]) == pytest.approx(zoom, rel=1e-3)
    text = shown.locator(".scale-bar").inner_text().strip()
    value, unit = text.split()
    um = float(value) * {"µm": 1, "mm": 1000}[unit]
    width = shown.locator(".scale-line").bounding_box()["width"]
    assert width == pytest.approx(um * zoom / mpp, rel=0.01)
    assert um / 10 ** math.floor(math.log10(um)) in {1, 2, 5}
    assert 140 / 2.6 < width <= 140
    assert shown.locator(".scale-bar").get_attribute("aria-label") == f"Scale bar: {text}"
    times = float(shown.locator(".zoom").inner_text().removesuffix("×"))
    assert times == pytest.approx(10 * zoom / mpp, rel=0.04)


def test_a_click_on_the_histogram_sets_the_threshold(page, server, heatmap):
    shown = page.slide(server)
    box = shown.locator(".histogram").bounding_box()
    shown.mouse.click(box["x"] + 0.7 * box["width"], box["y"] + 20)
    threshold = float(shown.locator("#threshold-value").input_value())
    assert threshold == pytest.approx(0.7, abs=0.006)
    assert float(link_values(shown)["t"]) == threshold
    probability = heatmap.probability("IDC")
    known = probability[np.isfinite(probability)]
    told = shown.locator(".histogram").get_attribute("aria-label")
    assert told.endswith(f"of {len(known):,} cells reach the threshold.")
    assert float(told.split(": ")[1].split(" %")[0]) == pytest.approx(100 * (known >= threshold).mean(), abs=0.2)


def test_the_window_spreads_the_colours_between_two_probabilities(page, server, heatmap):
    shown = page.slide(server, **PLAIN)
    set_slider(shown, "low", 0.3)
    set_slider(shown, "high", 0.6)
    seen, probability, table = cell_colors(shown, heatmap), heatmap.probability("IDC"), color_table(shown, "viridis")
    known = np.isfinite(probability)
    place = np.clip((probability[known] - 0.3) / 0.3, 0, 1)
    assert min((place == 0).sum(), (place == 1).sum(), ((place > 0) & (place < 1)).sum()) > 5
    assert np.abs(seen[known][:, :3] - table[np.round(255 * place).astype(int)]).max() <= 8
    assert shown.locator("#part-layers .axis").inner_text().split() == ["0.30", "0.60"]
    values = link_values(shown)
    assert (values["lo"], values["hi"]) == ("0.30", "0.60")
    set_slider(shown, "low", 0.8)
    assert float(shown.locator("#high").input_value()) == pytest.approx(0.81)


def test_the_diverging_colours_turn_at_the_threshold(page, server, heatmap):
    shown = page.slide(server, map="diverging", **PLAIN)
    probability, table = heatmap.probability("IDC"), color_table(shown, "diverging")
    known = np.isfinite(probability)
    p = probability[known].astype(float)
    for threshold in (0.3, 0.6):
        set_slider(shown, "threshold", threshold)
        seen = cell_colors(shown, heatmap)[known][:, :3]
        place = np.where(p < threshold, 0.5 * p / threshold, 0.5 + 0.5 * (p - threshold) / (1 - threshold))
        assert np.abs(seen - table[np.round(255 * place).astype(int)]).max() <= 8
        red, _, blue = seen.T
        above, below = p > threshold + 0.1, p < threshold - 0.1
        assert min(above.sum(), below.sum()) > 5
        assert (red[above] > blue[above]).all()
        assert (blue[below] > red[below]).all()


def test_full_screen_and_back(page, server):
    shown = page.slide(server)
    shown.keyboard.press("f")
    shown.wait_for_function("() => document.fullscreenElement !== null")
    assert shown.locator(".stage").is_visible()
    shown.get_by_role("button", name="Full screen").click()
    shown.wait_for_function("() => document.fullscreenElement === null")


@pytest.mark.parametrize("way", ["key", "button"])
def test_the_link_is_copied(new_page, server, way):
    page = new_page(permissions=["clipboard-read", "clipboard-write"])
    shown = page.slide(server, x=900, y=700, z=2, t=0.45)
    if way == "key":
        shown.keyboard.press("k")
    else:
        shown.get_by_role("button", name="Copy the link").click()
    shown.get_by_text("The link was copied").wait_for()
    copied = shown.evaluate("() => navigator.clipboard.readText()")
    assert copied == shown.evaluate("() => location.href")
    assert copied.startswith(f"{server.url}#/slide/{server.slide_id('dark')}?")
    assert "t=0.45" in copied.split("?")[1].split("&")


def test_the_list_of_regions_says_from_which_size_on(page, server):
    shown = page.slide(server)
    assert shown.locator("#part-regions .hint").inner_text().endswith("; those below 400 µm² are left out.")


def sides_without_a_ring(shown) -> list[str]:
    seen = np.asarray(Image.open(BytesIO(shown.locator(".stage").screenshot())).convert("RGB")).astype(int)
    height, width = seen.shape[:2]
    sides = {"top": (1, width // 2), "bottom": (height - 2, width // 2), "left": (height // 2, 1)}
    sides["right"] = (height // 2, width - 2)
    return [name for name, at in sides.items() if np.abs(seen[at] - (0x0B, 0x57, 0xD0)).max() > 12]


def test_a_ring_all_round_the_slide_tells_of_the_focus_and_of_drawing(page, server):
    shown = page.slide(server)
    assert len(sides_without_a_ring(shown)) == 4
    shown.get_by_role("button", name="Freehand").click()
    slide = shown.locator(".openseadragon-canvas[role=application]")
    assert not slide.evaluate("slide => slide.matches(':focus-visible')")
    assert sides_without_a_ring(shown) == []
    shown.keyboard.press("Escape")
    shown.keyboard.press("Tab")
    slide.focus()
    assert slide.evaluate("slide => slide.matches(':focus-visible')")
    assert sides_without_a_ring(shown) == []
