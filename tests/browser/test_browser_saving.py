"""Between the hand and the file: answers that get lost, pages that are left, and names that are being typed."""

import json
import time

from looking import draw_square, forgive_lost_requests, link_values, saved, settle, stage_centre, wait_saved

AT = {"x": 1200, "y": 1000, "z": 0.5}


def is_change(request) -> bool:
    return request.method == "PUT" and "/annotations" in request.url


def test_a_change_whose_confirmation_got_lost_is_not_taken_for_somebody_elses(page, own_server):
    shown = page.slide(own_server, **AT)
    asked = []

    def lose_the_first(route) -> None:
        if not is_change(route.request):
            return route.continue_()
        asked.append(route.request)
        if len(asked) > 1:
            return route.continue_()
        route.fetch()
        return route.abort()

    shown.route("**/annotations", lose_the_first)
    draw_square(shown)
    shown.wait_for_selector(".save-status.waiting")
    assert len(saved(own_server)) == 1
    draw_square(shown, at=(-200, -150))
    wait_saved(shown)
    assert len(saved(own_server)) == 2
    assert shown.locator("dialog").count() == 0
    forgive_lost_requests(page)


def test_annotations_that_could_not_be_loaded_come_when_the_server_answers_again(page, own_server):
    shown = page.slide(own_server, **AT)
    draw_square(shown)
    wait_saved(shown)
    down = [True]
    shown.route("**/annotations", lambda route: route.abort() if down[0] else route.continue_())
    shown.reload()
    shown.wait_for_selector(".regions:not(.stale) li")
    draw_square(shown, at=(-200, -150))
    shown.wait_for_selector(".annotations li")
    down[0] = False
    shown.wait_for_function("() => document.querySelectorAll('.annotations li').length === 2")
    wait_saved(shown)
    assert len(saved(own_server)) == 2
    shown.get_by_role("button", name="Undo").click()
    wait_saved(shown)
    shown.wait_for_timeout(500)
    assert len(saved(own_server)) == 1
    forgive_lost_requests(page)


def test_a_name_is_typed_undisturbed_while_saving_is_tried_again(page, own_server):
    shown = page.slide(own_server, **AT)
    tries = []
    shown.route("**/annotations", lambda route: (tries.append(route), route.abort()))
    draw_square(shown)
    shown.wait_for_selector(".save-status.waiting")
    shown.locator(".annotations .editor input").select_text()
    before = len(tries)
    shown.keyboard.type("seen by two", delay=40)
    while len(tries) < before + 2:
        shown.wait_for_timeout(100)
    shown.keyboard.type(" people", delay=40)
    assert shown.locator(".annotations .editor input").input_value() == "seen by two people"
    forgive_lost_requests(page)


def test_a_name_is_kept_when_the_next_click_goes_to_another_annotation(page, own_server):
    shown = page.slide(own_server, **AT)
    draw_square(shown)
    draw_square(shown, at=(-200, -150))
    wait_saved(shown)
    shown.locator(".annotations .editor input").select_text()
    shown.keyboard.type("the second")
    shown.locator(".annotations li").first.locator("button.region").click()
    assert shown.locator(".annotations li.picked").count() == 1
    assert "picked" in shown.locator(".annotations li").first.get_attribute("class")
    names = [text.split("\n")[0] for text in shown.locator(".annotations .region-name").all_inner_texts()]
    assert names == ["IDC, drawn", "the second"]
    shown.locator(".annotations .editor input").select_text()
    shown.keyboard.type("the first")
    x, y = stage_centre(shown)
    shown.mouse.click(x - 140, y - 90)
    wait_saved(shown)
    shown.wait_for_timeout(500)
    assert [feature["properties"]["name"] for feature in saved(own_server)] == ["the first", "the second"]
    assert shown.locator(".annotations li").count() == 2


def test_who_leaves_and_comes_back_at_once_finds_what_was_drawn(page, own_server):
    shown = page.slide(own_server, **AT)

    held = []
    shown.route("**/annotations", lambda route: held.append(route) if is_change(route.request) else route.continue_())
    draw_square(shown)
    shown.evaluate(
        "() => { const back = location.hash; location.hash = '#/'; setTimeout(() => { location.hash = back; }, 30); }"
    )
    # Time enough to open the slide without what is still on its way.
    shown.wait_for_timeout(1200)
    held[0].continue_()
    shown.wait_for_selector(".annotations li")
    settle(shown)
    wait_saved(shown)
    assert len(saved(own_server)) == 1


def test_a_slide_that_was_left_sends_nothing_more(page, own_server):
    shown = page.slide(own_server, **AT)
    asked = []
    shown.route("**/annotations", lambda route: asked.append(route) if is_change(route.request) else route.continue_())
    draw_square(shown)
    while not asked:
        shown.wait_for_timeout(50)
    shown.keyboard.press("g")
    shown.wait_for_selector(".card")
    asked[0].abort()
    shown.wait_for_timeout(2500)
    assert len(asked) == 1
    shown.unroute("**/annotations")
    shown.go_back()
    shown.wait_for_selector(".annotations li")
    wait_saved(shown)
    assert len(saved(own_server)) == 1
    forgive_lost_requests(page)


def test_a_draft_is_not_dropped_where_the_browser_has_no_room_for_another(page, own_server):
    shown = page.slide(own_server, **AT)
    own_server.stop()
    draw_square(shown)
    shown.wait_for_selector(".save-status.waiting")
    context = shown.context
    shown.close()
    own_server.start()
    address = f"{own_server.url}#/slide/{own_server.slide_id('dark')}"
    full = context.new_page()
    full.add_init_script("Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); }")
    full.route("**/annotations", lambda route: route.abort() if is_change(route.request) else route.continue_())
    full.goto(address)
    full.wait_for_selector(".annotations li")
    full.wait_for_selector(".save-status.waiting")
    assert len(full.evaluate("() => Object.keys(localStorage).filter(key => key.includes('annotations'))")) == 1
    full.close()
    later = context.new_page()
    later.goto(address)
    later.wait_for_selector(".annotations li")
    wait_saved(later)
    assert len(saved(own_server)) == 1
    later.wait_for_timeout(300)
    assert later.evaluate("() => Object.keys(localStorage).filter(key => key.includes('annotations'))") == []
    forgive_lost_requests(page)


def test_annotations_of_other_programs_without_ids_stay_apart(page, own_server):
    shown = page.slide(own_server, **AT)
    draw_square(shown)
    wait_saved(shown)
    (feature,) = saved(own_server)
    both = [{**feature, "id": "PathAnnotationObject"}, {name: feature[name] for name in feature if name != "id"}]
    file = own_server.results / "dark" / "phantom A" / "annotations.geojson"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": [*both, both[0]]}))
    shown.reload()
    shown.wait_for_selector(".annotations li")
    shown.locator(".annotations li").nth(1).locator("button.region").click()
    assert shown.locator(".annotations li.picked").count() == 1
    shown.locator(".annotations .editor input").fill("the middle one")
    shown.locator(".annotations .editor input").press("Enter")
    wait_saved(shown)
    shown.wait_for_timeout(500)
    names = [feature["properties"]["name"] for feature in saved(own_server)]
    assert names == ["IDC, drawn", "the middle one", "IDC, drawn"]


def test_a_question_that_was_put_off_can_be_answered_later(page, own_server):
    first = page.slide(own_server, **AT)
    second = first.context.new_page()
    second.goto(first.evaluate("() => location.href"))
    second.wait_for_selector(".regions li")
    draw_square(second)
    wait_saved(second)
    second.close()
    draw_square(first, at=(-200, -150))
    first.wait_for_selector("dialog")
    first.keyboard.press("Escape")
    first.wait_for_selector("dialog", state="detached")
    first.get_by_role("button", name="Choose").click()
    first.get_by_role("button", name="Keep both").click()
    wait_saved(first)
    assert len(saved(own_server)) == 2
    page.faults[:] = [fault for fault in page.faults if "412" not in fault]


def test_a_second_result_that_comes_after_the_page_was_left_troubles_nobody(page, server):
    shown = page.page
    late = []
    other = server.slide_id("red")

    def hold(route) -> None:
        late.append(route)

    shown.route(f"**/{other}/probability", hold)
    shown.goto(f"{server.url}#/slide/{server.slide_id('dark')}?cmp={other}")
    until = time.monotonic() + 10
    while not late and time.monotonic() < until:
        shown.wait_for_timeout(50)
    shown.evaluate("() => { location.hash = '#/'; }")
    shown.wait_for_selector(".card")
    asked = []
    shown.on("request", lambda request: asked.append(request.url))
    late[0].continue_()
    shown.wait_for_timeout(1000)
    assert [url for url in asked if other in url] == []
    assert shown.locator(".notice").count() == 0


def test_escape_ends_a_stroke_and_does_not_move_the_slide(page, server):
    shown = page.slide(server, **AT)
    before = link_values(shown)
    x, y = stage_centre(shown)
    shown.keyboard.press("d")
    shown.mouse.move(x, y)
    shown.mouse.down()
    shown.mouse.move(x + 60, y, steps=4)
    shown.keyboard.press("Escape")
    shown.mouse.move(x + 160, y + 60, steps=4)
    shown.mouse.up()
    settle(shown)
    assert link_values(shown)["x"] == before["x"]
    assert shown.locator(".annotations li").count() == 0


def test_a_double_click_on_the_first_corner_closes_the_outline_and_begins_no_other(page, own_server):
    shown = page.slide(own_server, **AT)
    x, y = stage_centre(shown)
    shown.keyboard.press("a")
    for dx, dy in ((0, 0), (100, 0), (100, 100)):
        shown.mouse.click(x + dx, y + dy)
        shown.wait_for_timeout(50)
    shown.mouse.dblclick(x, y + 2)
    wait_saved(shown)
    assert len(saved(own_server)) == 1
    assert shown.locator(".notice").count() == 0
