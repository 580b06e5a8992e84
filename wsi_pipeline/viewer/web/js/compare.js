/** Two results of one slide side by side, in step: what one pane shows, the other shows too. */

import { h } from "./dom.js";

/** @typedef {import("./pane.js").Pane} Pane */

/**
 * Let each pane follow the one that the user moves.
 * @param {Pane} one
 * @param {Pane} other
 */
export function linkPanes(one, other) {
  let leader = one;
  const follow = (/** @type {Pane} */ from, /** @type {Pane} */ to) => () => {
    if (leader !== from || !to.viewer.isOpen()) return;
    const there = from.camera.where();
    const here = to.camera.where();
    const moved = Math.abs(there.x - here.x) + Math.abs(there.y - here.y) > 1e-6;
    if (moved || there.zoom !== here.zoom || there.rotation !== here.rotation) to.camera.goTo(there, true);
  };
  one.addEventListener("lead", () => { leader = one; });
  other.addEventListener("lead", () => { leader = other; });
  one.addEventListener("view", follow(one, other));
  other.addEventListener("view", follow(other, one));
  for (const [from, to] of [[one, other], [other, one]]) {
    const cross = crosshair(to);
    from.addEventListener("pointer", (/** @type {any} */ event) => cross(event.detail));
  }
  follow(one, other)();
}

/**
 * A cross in the other pane where the pointer is in this one.
 * @param {Pane} pane
 */
function crosshair(pane) {
  const mark = h("div", { class: "crosshair", hidden: true, "aria-hidden": "true" });
  pane.stage.append(mark);
  return (/** @type {{ x: number, y: number } | null} */ place) => {
    mark.hidden = !place;
    if (!place) return;
    const [x, y] = pane.camera.toScreen(place.x, place.y);
    mark.style.transform = `translate(${x}px, ${y}px)`;
  };
}
