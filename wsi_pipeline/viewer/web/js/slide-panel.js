/** The panel of the slide page: its sections, and how results are named in them. */

import { annotationsPart } from "./annotations-panel.js";
import { aboutPart, layersPart, section, thresholdPart } from "./controls.js";
import { fill, h } from "./dom.js";
import { regionsPart } from "./regions-list.js";

/** @typedef {import("./slide-opening.js").Opened} Opened */

/**
 * @param {HTMLElement} panel what it fills
 * @param {Opened} opened
 * @param {import("./slide-picking.js").Picking} picking
 * @param {(id: string | null) => void} compare
 * @returns {() => void} shows the state of all sections
 */
export function fillPanel(panel, opened, picking, compare) {
  const { views, state, annotator, store } = opened;
  const [first, second] = views;
  const thresholds = views.map((view) => thresholdPart(view, state, second ? titleOf(opened, view) : null));
  const layers = layersPart(state, views);
  const regions = regionsPart(first, annotator, (feature) => picking.flyTo(feature));
  const notes = annotator && store && annotationsPart(annotator, store, (feature) => picking.flyToShape(feature));
  store?.addEventListener("change", () => regions.show());
  fill(panel, h("div", { class: "panel-sections" },
    section("part-threshold", "Threshold", thresholds.map((part) => part.element)),
    section("part-layers", "Layers", layers.element),
    section("part-regions", "Regions", regions.element),
    notes && section("part-annotations", "Annotations", notes.element),
    section("part-about", "Result", aboutPart(first, othersOf(opened), second?.slide.id ?? null, compare))));
  const parts = [...thresholds, layers, regions, ...(notes ? [notes] : [])];
  return () => parts.forEach((part) => part.show());
}

/** @param {Opened} opened @param {import("./result-view.js").ResultView} view @returns {string} its model and run */
export function titleOf({ run }, { slide }) {
  return `${slide.model?.name ?? "model"} · ${runName(run, slide.run)}`;
}

/** Results of the same slide. @param {Opened} opened */
function othersOf({ run, views: [{ slide }] }) {
  return slide.same_slide.map((id) => {
    const row = run.slides.find((one) => one.id === id);
    return { id, label: row ? `${row.model ?? "model"} · ${runName(run, row.run)}` : id };
  });
}

/** @param {import("./api.js").Run} run @param {string} id */
function runName({ runs }, id) {
  return runs.find((one) => one.id === id)?.name ?? id;
}
