/** What lies under the pointer: probability, place and cell. Read aloud only when asked for. */

import { announce, fill, h } from "./dom.js";
import { probability } from "./format.js";

/** @typedef {import("./result-view.js").ResultView} ResultView */

/** @returns {{ element: HTMLElement, show: (views: ResultView[], place: { x: number, y: number } | null) => void, say: (views: ResultView[]) => void }} */
export function readout() {
  // aria-live is off: a read-out that follows the pointer would never stop talking.
  const element = h("output", { class: "readout", "aria-live": "off", "aria-label": "Under the pointer" });
  return {
    element,
    show(views, place) {
      if (!place || !views.length) {
        fill(element, h("span", { class: "hint" }, "Point at the tissue to read its probability. Press ? for all keys."));
        return;
      }
      const { x, y } = place;
      const [mppX, mppY] = views[0].slide.mpp;
      const first = views[0].at(x, y);
      fill(
        element,
        views.map((view, n) => valueOf(view, x, y, views.length > 1 ? ["left", "right"][n] : null)),
        h("span", {}, h("b", {}, "cell "), h("span", { id: "read-cell" }, first.cell ? `${first.cell.row}, ${first.cell.col}` : "–"), h("span", { class: "small" }, " row, col")),
        h("span", { id: "read-place" }, `${((x * mppX) / 1000).toFixed(3)}, ${((y * mppY) / 1000).toFixed(3)} mm`),
        h("span", { id: "read-pixel", class: "small" }, `${Math.floor(x)}, ${Math.floor(y)} px`),
      );
    },
    say(views) {
      const { x, y } = views[0].pane.camera.where();
      const texts = views.map((view) => {
        const { cell, probability: value } = view.at(x, y);
        const found = Number.isNaN(value) ? "not analysed" : `probability ${value.toFixed(2)}`;
        return cell ? `${found}, row ${cell.row}, column ${cell.col}` : "outside of the slide";
      });
      announce(`In the middle of the view: ${texts.join("; ")}.`);
      this.show(views, { x, y });
    },
  };
}

/** @param {ResultView} view @param {number} x @param {number} y @param {string | null} label */
function valueOf(view, x, y, label) {
  const { probability: value, spread, unrefined } = view.at(x, y);
  const name = `p(${view.slide.class_name})`;
  const { tint } = view.state.value;
  return h(
    "span",
    {},
    h("b", {}, `${label ?? name} `),
    h("span", { class: "read-value", id: view.key === "threshold" ? "read-probability" : "read-probability2" }, Number.isNaN(value) ? "not analysed" : probability(value, 4)),
    tint === "spread" && !Number.isNaN(spread) && h("span", { class: "small" }, ` ± ${probability(spread, 3)}`),
    tint === "unrefined" && !Number.isNaN(unrefined) && h("span", { class: "small" }, ` (before: ${probability(unrefined, 3)})`),
  );
}
