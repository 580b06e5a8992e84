"""A package that was built without the viewer's JavaScript says so where a slide would be."""

from looking import forgive_lost_requests


def test_a_viewer_without_openseadragon_says_so_and_what_to_do(page, server):
    page.page.route("**/vendor/openseadragon.min.js", lambda route: route.fulfill(status=404))
    shown = page.gallery(server)
    shown.locator("a.card").first.click()
    shown.wait_for_selector(".failure")
    told = shown.locator(".failure").inner_text()
    assert "built without OpenSeadragon" in told
    assert "python hatch_build.py" in told
    assert "npm" in told
    shown.get_by_role("link", name="To the gallery").click()
    shown.wait_for_selector(".cards")
    forgive_lost_requests(page)
    # A browser says of an answer without a type that it is no script.
    page.faults[:] = [fault for fault in page.faults if "openseadragon" not in fault]
