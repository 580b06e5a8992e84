"""How tests look at a page of the viewer."""

import base64
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray


def stage_centre(page: Any, pane: int = 0) -> tuple[float, float]:
    """Where the middle of a pane is on the screen."""
    box = page.locator(".stage").nth(pane).bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def layer_pixels(page: Any, pane: int = 0) -> NDArray[np.uint8]:
    """What is drawn over the tissue, RGBA [height, width, 4]."""
    raw = page.evaluate(
        """pane => new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(() => {
            const canvas = document.querySelectorAll('canvas.layers')[pane];
            const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
            let text = '';
            for (let n = 0; n < data.length; n += 8192) text += String.fromCharCode(...data.subarray(n, n + 8192));
            resolve([canvas.width, canvas.height, btoa(text)]);
        })))""",
        pane,
    )
    width, height, text = raw
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)


def set_slider(page: Any, name: str, value: float) -> None:
    """Move a slider as a hand does: events while it moves, none at the end."""
    page.locator(f"#{name}").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input', {bubbles: true})); }", value
    )


def settle(page: Any) -> None:
    """Wait until the view stands still and the address tells of it."""
    page.wait_for_timeout(250)
    page.wait_for_selector(".panes:not(.loading):not([data-moving])")
    page.wait_for_function("() => new URLSearchParams(location.hash.split('?')[1] ?? '').has('z')")
    page.wait_for_timeout(300)
    page.wait_for_selector(".panes:not([data-moving])")


def link_values(page: Any) -> dict[str, str]:
    """What the address says of the view, once it has settled."""
    settle(page)
    return dict(page.evaluate("() => [...new URLSearchParams(location.hash.split('?')[1] ?? '')]"))


def saved(server) -> list[dict]:
    """The annotations in the file beside the result."""
    file = server.results / "dark" / "phantom A" / "annotations.geojson"
    return json.loads(file.read_text())["features"] if file.exists() else []


def wait_saved(shown) -> None:
    """Wait until all that was drawn is saved."""
    shown.wait_for_selector(".save-status.saved")
    shown.wait_for_timeout(50)


def draw_square(shown, side: int = 120, at: tuple[int, int] = (0, 0)) -> None:
    """Draw freehand round a place, given from the middle of the view."""
    x, y = stage_centre(shown)
    x, y = x + at[0], y + at[1]
    shown.get_by_role("button", name="Freehand").click()
    shown.mouse.move(x, y)
    shown.mouse.down()
    for dx, dy in ((side, 0), (side, side), (0, side), (0, 3)):
        shown.mouse.move(x + dx, y + dy, steps=4)
    shown.mouse.up()
    shown.keyboard.press("Escape")


def forgive_lost_requests(page) -> None:
    """The browser itself writes of requests that failed, and OpenSeadragon of tiles that were on their way."""
    lost = ("Failed to load resource", "failed to load")
    page.faults[:] = [fault for fault in page.faults if not any(words in fault for words in lost)]


def color_table(page: Any, name: str) -> NDArray[np.int64]:
    """The colours of a map as the page has them, RGB [256, 3]."""
    read = "async name => [...(await import('/static/js/colormaps.js')).colors(name)]"
    return np.array(page.evaluate(read, name)).reshape(256, 3)


def cell_colors(page: Any, heatmap: Any) -> NDArray[np.int64]:
    """What is drawn over the middle of each cell, RGBA [rows, cols, 4]; for a view of the whole slide."""
    values, grid, pixels = link_values(page), heatmap.grid, layer_pixels(page)
    zoom, sides = float(values["z"]), pixels.shape[:2]
    middles = [(edges[:-1] + edges[1:]) / 2 for edges in (grid.row_edges, grid.col_edges)]
    places = zip(middles, (float(values["y"]), float(values["x"])), sides, strict=True)
    rows, cols = [((at - centre) * zoom + side / 2).astype(int).clip(0, side - 1) for at, centre, side in places]
    return pixels[np.ix_(rows, cols)].astype(int)
