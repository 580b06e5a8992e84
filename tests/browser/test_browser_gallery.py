"""The gallery: every slide with its numbers, the failed one as failed."""

import json

import pytest


def names(page) -> list[str]:
    return page.locator(".card h2").all_inner_texts()


def test_every_slide_has_its_picture_and_the_numbers_of_its_summary(page, server, made):
    shown = page.gallery(server)
    assert sorted(names(shown)) == ["broken", "phantom A", "phantom A"]
    summary = json.loads((made / "dark" / "phantom A" / "summary.json").read_text())
    card = shown.locator("a.card", has_text="dark").first
    numbers = dict(zip(card.locator("dt").all_inner_texts(), card.locator("dd").all_inner_texts(), strict=True))
    assert float(numbers["IDC"].removesuffix(" mm²")) == pytest.approx(summary["idc_mm2"], rel=0.01)
    assert float(numbers["of analysed"].removesuffix(" %")) == pytest.approx(100 * summary["idc_fraction"], abs=0.06)
    assert int(numbers["regions"]) == summary["regions"] > 1
    picture = card.locator("img")
    shown.wait_for_function("() => [...document.querySelectorAll('.card img')].every(image => image.naturalWidth > 0)")
    assert picture.get_attribute("src").endswith("/thumbnail.jpg")


def test_a_failed_slide_is_shown_as_failed_with_the_reason_and_the_way_out(page, server):
    shown = page.gallery(server)
    error = next(slide["error"] for slide in server.get("api/run")["slides"] if slide["status"] == "failed")
    card = shown.locator(".card.failed")
    assert card.count() == 1
    text = card.inner_text()
    assert "Failed" in text
    assert error["why"][1:] in text
    assert error["hint"] in text
    assert card.locator("a").count() == 0
    shown.goto(f"{server.url}#/slide/{server.slide_id('dark', 'broken')}")
    shown.wait_for_selector(".failure")
    assert error["why"][1:] in shown.locator(".failure").inner_text()
    assert error["hint"] in shown.locator(".failure").inner_text()


@pytest.mark.parametrize(
    ("text", "found"),
    [("phantom red", ["red · stain"]), ("STAIN", ["red · stain"]), ("dark", ["dark", "dark · nuclei"])],
)
def test_search_by_the_name_of_the_slide_the_model_and_the_run(page, server, text, found):
    shown = page.gallery(server)
    assert shown.locator(".card").count() == 3
    shown.fill("#gallery-search", text)
    shown.wait_for_function("count => document.querySelectorAll('.card').length === count", arg=len(found))
    assert sorted(shown.locator(".card-sub").all_inner_texts()) == found


def test_search_takes_no_id_for_a_name(page, server):
    shown = page.gallery(server)
    shown.fill("#gallery-search", server.get("api/run")["runs"][0]["id"])
    shown.wait_for_selector(".empty:visible")
    assert shown.locator(".card").count() == 0


@pytest.mark.parametrize(
    ("order", "key"), [("Regions, most first", "regions"), ("Mean probability, highest first", "mean_probability")]
)
def test_cards_are_sorted_by_what_was_chosen(page, server, order, key):
    listing = server.get("api/run")
    runs = {run["id"]: run["name"] for run in listing["runs"]}
    done = [slide for slide in listing["slides"] if slide["status"] == "done"]
    expected = [runs[slide["run"]] for slide in sorted(done, key=lambda slide: slide[key], reverse=True)]
    shown = page.gallery(server)
    for name in ("Name", order):
        shown.get_by_label("Sort by").select_option(label=name)
    seen = [text.split(" · ")[0] for text in shown.locator("a.card .card-sub").all_inner_texts()]
    assert seen == expected
    assert names(shown)[-1] == "broken"


def test_filter_and_order(page, server):
    shown = page.gallery(server)
    shown.fill("#gallery-search", "nothing of the kind")
    shown.wait_for_selector(".empty:visible")
    shown.fill("#gallery-search", "")
    shown.wait_for_function("() => document.querySelectorAll('.card').length === 3")
    shown.get_by_label("Show").select_option(label="Failed")
    assert names(shown) == ["broken"]
    shown.get_by_label("Show").select_option(label="All slides")
    shown.get_by_label("Sort by").select_option(label="Area of regions, largest first")
    areas = [text.removesuffix(" mm²") for text in shown.locator("a.card dd:first-of-type").all_inner_texts()]
    listed = sorted((s["idc_mm2"] for s in server.get("api/run")["slides"] if s["idc_mm2"] is not None), reverse=True)
    assert [float(area) for area in areas[::6]] == pytest.approx(listed, rel=0.01)
    assert names(shown)[-1] == "broken"


def test_a_card_leads_to_its_slide_and_back(page, server):
    shown = page.gallery(server)
    shown.locator("a.card", has_text="dark").first.click()
    shown.wait_for_selector(".stage canvas.layers")
    assert "For research use only" in shown.locator("header").inner_text()
    shown.get_by_role("link", name="Gallery").click()
    shown.wait_for_selector(".cards")


def test_research_use_is_said_everywhere(page, server):
    from playwright.sync_api import expect

    shown = page.gallery(server)
    expect(shown.get_by_text("For research use only", exact=True).first).to_be_visible()
    page.slide(server)
    expect(shown.get_by_text("For research use only", exact=True).first).to_be_visible()
    shown.click("#model-card")
    expect(shown.locator("dialog").get_by_text("For research use only, not for diagnosis.")).to_be_visible()
