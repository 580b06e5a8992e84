/** The regions at the threshold: click to fly there, say whether they are right. */

import { fill, h, iconButton } from "./dom.js";
import { area, counted, probability } from "./format.js";

const PAGE = 50;

/**
 * @param {import("./result-view.js").ResultView} view
 * @param {import("./annotate.js").Annotator | null} annotator
 * @param {(feature: import("./api.js").Feature) => void} fly
 */
export function regionsPart(view, annotator, fly) {
  let shown = PAGE;
  const list = h("ol", { class: "regions" });
  const note = h("p", { class: "hint" });
  const more = h("button", { type: "button", class: "quiet", onclick: () => { shown += PAGE; show(); } }, "Show more");
  const show = () => {
    const { regions } = view;
    // While the slider moves, the old list stays rather than flicker.
    list.classList.toggle("stale", !regions);
    if (!regions) return;
    fill(list, regions.slice(0, shown).map((feature) => row(feature, view, annotator, fly)));
    const least = view.slide.region_settings.min_region_um2;
    note.textContent = regions.length
      ? `${counted(regions.length, "region")}, largest first${least ? `; those below ${area(least * 1e-6)} are left out` : ""}.`
      : "No region reaches this threshold.";
    more.hidden = regions.length <= shown;
  };
  return { element: h("div", {}, note, list, more), show };
}

/**
 * @param {import("./api.js").Feature} feature @param {import("./result-view.js").ResultView} view
 * @param {import("./annotate.js").Annotator | null} annotator @param {(feature: import("./api.js").Feature) => void} fly
 */
function row(feature, view, annotator, fly) {
  const { name, measurements } = feature.properties;
  const mean = measurements[`Mean p(${view.slide.class_name})`];
  const picked = view.outlines.selected === feature.id;
  const verdict = annotator?.verdict(feature) ?? null;
  const mark = (/** @type {boolean} */ right) =>
    iconButton(right ? "right" : "wrong", `${name} is ${right ? "right" : "wrong"}`, () => annotator?.mark(feature, right), {
      class: `icon-button small ${right ? "right" : "wrong"}`, "aria-pressed": String(verdict === right),
    });
  return h(
    "li",
    { class: picked ? "picked" : "", dataset: { id: feature.id } },
    h("button", { type: "button", class: "region", onclick: () => fly(feature), "aria-current": picked ? "true" : null },
      h("span", { class: "region-name" }, name.replace(`${view.slide.class_name} region`, "Region")),
      h("span", { class: "region-area" }, area(measurements["Area um2"] * 1e-6)),
      h("span", { class: "region-mean" }, `p ${probability(mean, 2)}`)),
    annotator && [mark(true), mark(false)],
  );
}
