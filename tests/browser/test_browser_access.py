"""For everyone, and from nowhere else: accessibility by axe-core, the content security policy, small screens."""

import pytest
from looking import settle
from needs import needed

AXE_FAULTS = {"serious", "critical"}


def faults(shown) -> list[str]:
    axe = needed("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(shown).response["violations"]
    return [
        f"{fault['id']}: {node['html'][:160]} {node.get('failureSummary', '')[:200]}"
        for fault in found
        if fault["impact"] in AXE_FAULTS
        for node in fault["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(new_page, server, scheme):
    page = new_page(color_scheme=scheme)
    shown = page.gallery(server)
    assert faults(shown) == []
    shown = page.slide(server, cmp=server.slide_id("red"), mask=1)
    assert faults(shown) == []
    for key in ("?", "Escape", "a"):
        shown.keyboard.press(key)
        shown.wait_for_timeout(300)
        assert faults(shown) == []
    shown.click("#model-card")
    shown.wait_for_selector("dialog")
    assert faults(shown) == []


def test_the_content_security_policy_is_strict_and_is_kept(page, server):
    policies = []
    page.page.on("response", lambda answer: policies.append(answer.headers.get("content-security-policy", "")))
    page.page.add_init_script(
        "addEventListener('securitypolicyviolation', event => console.error('CSP', event.blockedURI))"
    )
    page.gallery(server)
    shown = page.slide(server, cmp=server.slide_id("red"))
    shown.click("#model-card")
    shown.keyboard.press("Escape")
    shown.keyboard.press("S")
    shown.wait_for_timeout(500)
    assert policies
    for policy in policies:
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
    hosts = shown.evaluate(
        "() => [...new Set(performance.getEntriesByType('resource').map(e => new URL(e.name).host))]"
    )
    assert [host for host in hosts if host] == [server.url.split("/")[2]]


@pytest.mark.parametrize("width", [1280, 820])
def test_nothing_sticks_out_of_the_window(new_page, server, width):
    page = new_page()
    page.page.set_viewport_size({"width": width, "height": 800})
    for shown in (page.gallery(server), page.slide(server)):
        assert shown.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
        assert shown.evaluate(
            "() => [...document.querySelectorAll('.panel')].every(p => p.scrollWidth <= p.clientWidth)"
        )
    shown.locator("#threshold").wait_for()


def test_the_pointers_readout_does_not_talk_by_itself_but_can_be_asked(page, server):
    shown = page.slide(server)
    assert shown.locator(".readout").get_attribute("aria-live") == "off"
    shown.keyboard.press("i")
    shown.wait_for_function("() => document.querySelector('#announce').textContent.startsWith('In the middle')")


def test_the_whole_page_can_be_reached_by_tab(page, server):
    shown = page.slide(server)
    shown.locator("body").press("Tab")
    reached = set()
    for _ in range(80):
        reached.add(shown.evaluate("() => document.activeElement.id || document.activeElement.className"))
        shown.keyboard.press("Tab")
    assert {"threshold", "opacity", "map", "outlines", "annotation-class", "model-card", "compare"} <= reached
    assert any("openseadragon-canvas" in name for name in reached)


def test_the_colours_are_those_of_matplotlib(page, server):
    import numpy as np
    from matplotlib import colormaps

    shown = page.gallery(server)
    read = "async name => [...(await import('/static/js/colormaps.js')).colors(name)]"
    for name in ("viridis", "magma", "cividis"):
        expected = colormaps[name](np.arange(256))[:, :3] * 255
        assert np.abs(np.array(shown.evaluate(read, name)).reshape(256, 3) - expected).max() <= 0.51
    table = np.array(shown.evaluate(read, "diverging")).reshape(256, 3).astype(float)
    # A protanope and a deuteranope (Machado 2009) still tell its ends apart, and either from the middle.
    protan = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    deutan = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    for kind in (protan, deutan):
        seen = ((table / 255) ** 2.2 @ np.array(kind).T).clip(0, 1) ** (1 / 2.2) * 255
        low, middle, high = seen[0], seen[127], seen[255]
        assert min(np.linalg.norm(a - b) for a, b in ((low, middle), (middle, high), (low, high))) > 100


def test_the_focus_stays_on_the_row_that_was_picked_with_a_key(page, server):
    shown = page.slide(server)
    shown.locator(".regions .region").nth(1).focus()
    shown.keyboard.press("Enter")
    shown.wait_for_selector(".regions li.picked")
    focused = "() => document.activeElement === document.querySelectorAll('.regions .region')[1]"
    assert shown.evaluate(focused)
    shown.keyboard.press(".")
    assert shown.evaluate(focused)


def test_a_tool_that_was_chosen_with_a_key_can_be_used_with_keys(page, own_server):
    shown = page.slide(own_server)
    shown.get_by_role("button", name="Corners").focus()
    for key in ("Enter", "Enter", "ArrowRight", "Enter", "ArrowDown", "Enter", "Shift+Enter"):
        shown.keyboard.press(key)
        settle(shown)
    shown.wait_for_selector(".save-status.saved")
    assert shown.locator(".annotations li").count() == 1


def test_a_slide_is_told_with_its_model_and_run(page, server):
    shown = page.slide(server, cmp=server.slide_id("red"))
    labels = [
        shown.locator(".openseadragon-canvas[role=application]").nth(n).get_attribute("aria-label") for n in (0, 1)
    ]
    assert [label.split(".")[0] for label in labels] == ["phantom A, nuclei · dark", "phantom A, stain · red"]
