/** The regions at the threshold: click to fly there, say whether they are right. */

import { h, iconButton } from "./dom.js";
import { area, areaOfUm2, counted, probability } from "./format.js";
import { keyedList } from "./keyed-list.js";

const PAGE = 50;

/**
 * @param {import("./result-view.js").ResultView} view
 * @param {import("./annotate.js").Annotator | null} annotator
 * @param {(feature: import("./api.js").Feature) => void} fly
 */
export function regionsPart(view, annotator, fly) {
  let shown = PAGE;
  const list = h("ol", { class: "regions" });
  const showRows = keyedList(list);
  const note = h("p", { class: "hint" });
  const more = h("button", { type: "button", class: "quiet", onclick: () => { shown += PAGE; show(); } }, "Show more");
  const show = () => {
    const { regions } = view;
    // While the slider moves, the old list stays rather than flicker.
    list.classList.toggle("stale", !regions);
    if (!regions) return;
    showRows(regions.slice(0, shown).map((feature) => row(feature, view, annotator, fly)));
    const least = view.slide.region_settings.min_region_um2;
    note.textContent = regions.length
      ? `${counted(regions.length, "region")}, largest first${least ? `; those below ${areaOfUm2(least)} are left out` : ""}.`
      : "No region reaches this threshold.";
    more.hidden = regions.length <= shown;
  };
  return { element: h("div", {}, note, list, more), show };
}

/**
 * @param {import("./api.js").Feature} feature @param {import("./result-view.js").ResultView} view
 * @param {import("./annotate.js").Annotator | null} annotator @param {(feature: import("./api.js").Feature) => void} fly
 * @returns {import("./keyed-list.js").Row}
 */
function row(feature, view, annotator, fly) {
  const { id } = feature;
  const { name, measurements } = feature.properties;
  const picked = view.outlines.selected === id;
  const verdict = annotator?.verdict(feature) ?? null;
  const um2 = measurements["Area um2"];
  const mean = measurements[`Mean p(${view.slide.class_name})`];
  const mark = (/** @type {boolean} */ right) =>
    iconButton(right ? "right" : "wrong", `${name} is ${right ? "right" : "wrong"}`, () => annotator?.mark(feature, right), {
      class: `icon-button small ${right ? "right" : "wrong"}`, "aria-pressed": String(verdict === right),
    });
  const make = () => h(
    "li",
    { class: picked ? "picked" : "", dataset: { id } },
    h("button", { type: "button", class: "region", onclick: () => fly(feature), "aria-current": picked ? "true" : null },
      h("span", { class: "region-name" }, name.replace(`${view.slide.class_name} region`, "Region")),
      h("span", { class: "region-area" }, area(um2 * 1e-6)),
      h("span", { class: "region-mean" }, `p ${probability(mean, 2)}`)),
    annotator && [mark(true), mark(false)],
  );
  return { id, looks: [name, um2, mean, picked, verdict], make };
}
