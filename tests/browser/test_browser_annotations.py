"""What is drawn is saved beside the result, and not lost on the way there."""

import numpy as np
import pytest
from looking import draw_square, forgive_lost_requests, saved, settle, stage_centre, wait_saved

from wsi_pipeline.extraction.annotations import read_annotations


def test_a_drawn_outline_is_saved_for_qupath_and_extract_and_is_there_after_a_reload(page, own_server):
    shown = page.slide(own_server, x=1200, y=1000, z=0.5)
    shown.select_option("#annotation-class", label="Not IDC")
    draw_square(shown)
    wait_saved(shown)
    (feature,) = saved(own_server)
    assert feature["properties"]["classification"]["name"] == "non-IDC"
    assert feature["properties"]["objectType"] == "annotation"
    file = own_server.results / "dark" / "phantom A" / "annotations.geojson"
    (shape,) = read_annotations(file).shapes["non-IDC"]
    # 120 screen pixels at half a pixel for one of the slide; thinning may cut corners a little.
    assert shape.area == pytest.approx(240 * 240, rel=0.05)
    assert shape.bounds == pytest.approx((1200, 1000, 1440, 1240), abs=4)
    shown.reload()
    shown.wait_for_selector(".annotations li")
    assert shown.locator(".annotations li").count() == 1


def test_corners_by_mouse_and_by_keyboard(page, own_server):
    shown = page.slide(own_server, x=1200, y=1000, z=0.5)
    x, y = stage_centre(shown)
    shown.keyboard.press("a")
    for dx, dy in ((0, 0), (100, 0), (100, 100), (150, 150)):
        shown.mouse.click(x + dx, y + dy)
    shown.keyboard.press("Backspace")
    shown.mouse.click(x, y + 2)
    wait_saved(shown)
    assert len(saved(own_server)) == 1
    shown.keyboard.press("0")
    settle(shown)
    for key in ("Enter", "ArrowRight", "Enter", "ArrowDown", "Enter", "Shift+Enter"):
        shown.keyboard.press(key)
        settle(shown)
    wait_saved(shown)
    assert len(saved(own_server)) == 2


def test_regions_are_marked_right_and_wrong_and_the_mark_is_taken_back(page, own_server):
    shown = page.slide(own_server)
    regions = own_server.get(f"api/slides/{own_server.slide_id('dark')}/regions")["features"]
    first, second = shown.locator(".regions li").nth(0), shown.locator(".regions li").nth(1)
    first.locator("button.right").click()
    second.locator("button.wrong").click()
    wait_saved(shown)
    marks = {feature["properties"]["classification"]["name"]: feature for feature in saved(own_server)}
    assert marks.keys() == {"IDC", "non-IDC"}
    assert marks["IDC"]["geometry"]["type"] == regions[0]["geometry"]["type"]
    assert not {feature["id"] for feature in regions} & {feature["id"] for feature in saved(own_server)}
    shown.reload()
    shown.wait_for_selector(".regions li button.right[aria-pressed=true]")
    shown.locator(".regions li").nth(1).locator("button.wrong").click()
    wait_saved(shown)
    assert [feature["properties"]["classification"]["name"] for feature in saved(own_server)] == ["IDC"]


def test_rename_delete_undo_and_redo(page, own_server):
    shown = page.slide(own_server, x=1200, y=1000, z=0.5)
    draw_square(shown)
    wait_saved(shown)
    shown.locator(".annotations .editor input").fill("seen by two")
    shown.locator(".annotations .editor input").press("Enter")
    shown.locator(".annotations .editor select").select_option(label="Not IDC")
    wait_saved(shown)
    shown.wait_for_timeout(500)
    (feature,) = saved(own_server)
    assert (feature["properties"]["name"], feature["properties"]["classification"]["name"]) == (
        "seen by two",
        "non-IDC",
    )
    shown.get_by_role("button", name="Delete seen by two").click()
    shown.wait_for_function("() => !document.querySelector('.annotations li')")
    shown.keyboard.press("Control+z")
    assert shown.locator(".annotations li").count() == 1
    shown.keyboard.press("Control+Shift+z")
    assert shown.locator(".annotations li").count() == 0
    shown.get_by_role("button", name="Undo").click()
    wait_saved(shown)
    shown.wait_for_timeout(500)
    assert len(saved(own_server)) == 1


def test_an_outline_that_crosses_itself_becomes_one_that_does_not(page, own_server):
    shown = page.slide(own_server, x=1200, y=1000, z=0.5)
    x, y = stage_centre(shown)
    shown.get_by_role("button", name="Freehand").click()
    shown.mouse.move(x, y)
    shown.mouse.down()
    for dx, dy in ((140, 140), (140, 0), (0, 100), (0, 5)):
        shown.mouse.move(x + dx, y + dy, steps=5)
    shown.mouse.up()
    wait_saved(shown)
    file = own_server.results / "dark" / "phantom A" / "annotations.geojson"
    read = read_annotations(file)
    assert read.notes == ()
    assert len(read.shapes["IDC"]) == 1


def test_nothing_is_lost_when_the_server_goes_away_and_the_page_is_closed(page, own_server):
    shown = page.slide(own_server, x=1200, y=1000, z=0.5)
    own_server.stop()
    draw_square(shown)
    shown.wait_for_selector(".save-status.waiting")
    assert "kept in this browser" in shown.locator(".save-status").inner_text()
    assert saved(own_server) == []
    context = shown.context
    shown.close()
    forgive_lost_requests(page)
    own_server.start()
    later = context.new_page()
    later.goto(f"{own_server.url}#/slide/{own_server.slide_id('dark')}")
    later.wait_for_selector(".annotations li")
    later.wait_for_selector(".save-status.saved")
    assert "Unsaved annotations were found" in later.locator("#notices").inner_text()
    assert len(saved(own_server)) == 1
    later.wait_for_timeout(300)
    assert later.evaluate("() => Object.keys(localStorage).filter(key => key.includes('annotations'))") == []


def test_the_server_comes_back_and_the_page_saves_by_itself(page, own_server):
    shown = page.slide(own_server, x=1200, y=1000, z=0.5)
    own_server.stop()
    draw_square(shown)
    shown.wait_for_selector(".save-status.waiting")
    own_server.start()
    wait_saved(shown)
    assert len(saved(own_server)) == 1
    forgive_lost_requests(page)


def test_of_two_pages_that_draw_neither_loses_its_outline(page, own_server):
    first = page.slide(own_server, x=1200, y=1000, z=0.5)
    second = first.context.new_page()
    second.goto(first.evaluate("() => location.href"))
    second.wait_for_selector(".regions li")
    draw_square(second)
    wait_saved(second)
    first.bring_to_front()
    draw_square(first, at=(-200, -150))
    first.get_by_role("button", name="Keep both").click()
    wait_saved(first)
    assert len(saved(own_server)) == 2
    assert first.locator(".annotations li").count() == 2
    # The refusal that started it stands in the console.
    page.faults[:] = [fault for fault in page.faults if "412" not in fault]


CURLS = """([x, y]) => {
    const glass = document.querySelector('.drawing-glass');
    const [turns, steps, radius, curl] = [600, 8, 900, 4];
    for (let n = 1; n < turns * steps; n += 1) {
        const [along, round] = [(2 * Math.PI * n) / (turns * steps), (2 * Math.PI * n) / steps];
        const clientX = x - radius - curl + radius * Math.cos(along) + curl * Math.cos(round);
        const clientY = y + radius * Math.sin(along) + curl * Math.sin(round);
        glass.dispatchEvent(new PointerEvent('pointermove', { clientX, clientY }));
    }
}"""
"""Moves along a circle, with curl after curl, that end where they began."""


def test_an_outline_with_hundreds_of_crossings_is_mended_by_the_server(page, own_server):
    shown = page.slide(own_server, x=2104, y=1000, z=1)
    x, y = stage_centre(shown)
    shown.get_by_role("button", name="Freehand").click()
    shown.mouse.move(x, y)
    shown.mouse.down()
    shown.evaluate(CURLS, [x, y])
    shown.mouse.up()
    shown.wait_for_selector(".annotations li")
    assert shown.locator(".notice").count() == 0
    # What it measures is not known here, so no area is claimed.
    assert shown.locator(".annotations .region-area").inner_text() == ""
    wait_saved(shown)
    (shape,) = read_annotations(own_server.results / "dark" / "phantom A" / "annotations.geojson").shapes["IDC"]
    assert shape.area == pytest.approx(np.pi * 900**2, rel=0.02)
