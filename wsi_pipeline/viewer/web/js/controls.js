/** The panel beside the slide: threshold, layers, numbers. Each control shows the state and changes it, nothing else. */

import { COLOR_MAPS, colors } from "./colormaps.js";
import { fill, h, icon } from "./dom.js";
import { area, counted, percent } from "./format.js";
import { histogram } from "./histogram.js";
import { regionsDownload, slideUrl } from "./api.js";
import { showCard } from "./card.js";
import { BRIGHTEST_SPREAD } from "./result-painting.js";

/**
 * @typedef {import("./result-view.js").ResultView} ResultView
 * @typedef {ReturnType<typeof import("./state.js").createState<import("./result-view.js").Layers>>} LayerState
 */

/**
 * A part of the panel that folds.
 * @param {string} id @param {string} title @param {...any} content
 */
export function section(id, title, ...content) {
  return h("details", { class: "section", id, open: true }, h("summary", {}, h("h2", {}, title)), h("div", { class: "section-body" }, ...content));
}

/**
 * A slider with its label and a field to type the value in.
 * @param {{ id: string, label: string, min: number, max: number, step: number, shown?: number, get: () => number, set: (value: number) => void, unit?: string, factor?: number }} options
 *   factor: what is shown is the value times this
 */
function slider({ id, label, min, max, step, get, set, factor = 1, unit = "" }) {
  const digits = Math.max(0, Math.round(-Math.log10(step * factor)));
  const range = h("input", { type: "range", id, min, max, step, oninput: () => set(Number(range.value)) });
  const typed = () => {
    const value = Number(field.value) / factor;
    if (field.value.trim() !== "" && Number.isFinite(value)) set(Math.min(max, Math.max(min, value)));
    show();
  };
  const field = h("input", { type: "number", id: `${id}-value`, class: "value", min: min * factor, max: max * factor, step: step * factor, "aria-label": `${label}, value`, onchange: typed });
  const show = () => {
    range.value = String(get());
    const text = (get() * factor).toFixed(digits);
    if (document.activeElement !== field || Number(field.value) !== Number(text)) field.value = text;
  };
  const name = h("label", { for: id }, label);
  const typedIn = h("span", { class: "typed" }, field, unit && h("span", { class: "unit", "aria-hidden": "true" }, unit));
  return { element: h("div", { class: "slider" }, name, range, typedIn), name, range, typedIn, show };
}

/** @param {string} id @param {string} label @param {() => boolean} get @param {(on: boolean) => void} set */
function check(id, label, get, set) {
  const box = h("input", { type: "checkbox", id, onchange: () => set(box.checked) });
  return { element: h("label", { class: "check" }, box, label), show: () => { box.checked = get(); } };
}

/**
 * Threshold of one result: numbers, histogram, slider, download.
 * @param {ResultView} view
 * @param {LayerState} state
 * @param {string | null} title of which model, where there are two
 */
export function thresholdPart(view, state, title) {
  const { slide, key } = view;
  const name = `p(${slide.class_name})`;
  const plot = histogram(view.probability, `Histogram of ${name}`);
  const set = (/** @type {number} */ value) => state.set({ [key]: value });
  const control = slider({ id: key, label: "Threshold", min: 0, max: 1, step: 0.001, get: () => view.threshold, set });
  const own = h("button", { type: "button", class: "quiet", title: "Back to the threshold of the run", onclick: () => set(slide.threshold) }, "Reset");
  const source = h("p", { class: "hint" });
  const big = h("div", { class: "numbers" });
  const download = h("a", { class: "button", download: "" }, icon("download"), "GeoJSON at this threshold");
  const show = () => {
    const { map, low, high } = state.value;
    control.show();
    plot.draw({ map, low, high, threshold: view.threshold });
    const { mm2, fraction, count } = view.numbers();
    fill(big, figure(slide.class_name, area(mm2)), figure("of analysed", percent(fraction)), figure(count === 1 ? "region" : "regions", count.toLocaleString("en")));
    const changed = view.threshold !== slide.threshold;
    own.hidden = !changed;
    fill(source, changed ? `The run's is ${Number(slide.threshold.toFixed(4))} (${slide.threshold_source}).` : `The run's own, ${slide.threshold_source}.`);
    download.href = regionsDownload(slide.id, view.threshold);
  };
  const element = h(
    "div",
    { class: "threshold-part" },
    title && h("h3", { class: "part-title" }, title),
    big,
    h("div", { class: "threshold-head" }, control.name, own, control.typedIn),
    plot.element,
    control.range,
    h("div", { class: "axis", "aria-hidden": "true" }, h("span", {}, "0"), h("span", {}, `${name}; bars: cells, √ scale`), h("span", {}, "1")),
    source,
    download,
  );
  plot.element.addEventListener("click", (event) => {
    const box = plot.element.getBoundingClientRect();
    set(Math.min(1, Math.max(0, Math.round(((event.clientX - box.left) / box.width) * 1000) / 1000)));
  });
  return { element, show };
}

/** @param {string} label @param {string} value */
function figure(label, value) {
  return h("div", {}, h("span", { class: "big" }, value), h("span", { class: "small" }, label));
}

/**
 * What lies over the tissue.
 * @param {LayerState} state
 * @param {ResultView[]} views
 */
export function layersPart(state, views) {
  const [{ slide }] = views;
  const has = (/** @type {"has_spread" | "has_unrefined" | "has_tissue"} */ what) => views.some((view) => view.slide[what]);
  const tints = [
    ["probability", `Probability of ${slide.class_name}`],
    has("has_unrefined") && ["unrefined", "Probability before the second stage"],
    has("has_spread") && ["spread", "Uncertainty (spread)"],
    ["none", "No tint"],
  ].filter(Boolean);
  const get = () => state.value;
  const tint = choice("tint", "Tint", /** @type {any} */ (tints), () => get().tint, (value) => state.set({ tint: /** @type {any} */ (value) }));
  const map = choice("map", "Colours", COLOR_MAPS.map((one) => [one.id, one.name]), () => get().map, (value) => state.set({ map: value }));
  const legend = h("canvas", { class: "legend", width: 256, height: 1, role: "img" });
  const ends = h("div", { class: "axis", "aria-hidden": "true" });
  const opacity = slider({ id: "opacity", label: "Opacity", min: 0, max: 1, step: 0.01, get: () => get().opacity, set: (value) => state.set({ opacity: value }), factor: 100, unit: "%" });
  const low = slider({ id: "low", label: "Lowest", min: 0, max: 1, step: 0.01, get: () => get().low, set: (value) => state.set({ low: value, high: Math.max(get().high, Math.min(1, value + 0.01)) }) });
  const high = slider({ id: "high", label: "Highest", min: 0, max: 1, step: 0.01, get: () => get().high, set: (value) => state.set({ high: value, low: Math.min(get().low, Math.max(0, value - 0.01)) }) });
  const boxes = [
    check("smooth", "Smooth", () => get().smooth, (smooth) => state.set({ smooth })),
    check("fade", "Fade low values", () => get().fade, (fade) => state.set({ fade })),
    check("outlines", "Outlines", () => get().outlines, (outlines) => state.set({ outlines })),
    ...(has("has_tissue") ? [check("tissue", "Tissue mask", () => get().tissue, (tissue) => state.set({ tissue }))] : []),
  ];
  const show = () => {
    for (const control of [tint, map, opacity, low, high, ...boxes]) control.show();
    drawLegend(legend, ends, get(), views[0].threshold);
    const spread = get().tint === "spread";
    const plain = spread || get().tint === "none";
    map.element.classList.toggle("off", plain);
    element.querySelector(".more").hidden = plain;
  };
  const element = h("div", {}, tint.element, map.element, legend, ends, opacity.element,
    h("details", { class: "more", open: get().low > 0 || get().high < 1 }, h("summary", {}, "Probability window"), low.element, high.element),
    h("div", { class: "checks" }, boxes.map((box) => box.element)));
  return { element, show };
}

/** @param {any} canvas @param {Element} ends @param {import("./result-view.js").Layers} layers @param {number} threshold */
function drawLegend(canvas, ends, { tint, map, low, high }, threshold) {
  const spread = tint === "spread";
  const table = colors(spread ? "spread" : map);
  const context = canvas.getContext("2d");
  const image = context.createImageData(256, 1);
  for (let n = 0; n < 256; n += 1) image.data.set([...table.slice(3 * n, 3 * n + 3), spread ? n : 255], 4 * n);
  context.putImageData(image, 0, 0);
  canvas.hidden = tint === "none";
  const texts = spread ? ["0", "standard deviation", `≥ ${BRIGHTEST_SPREAD}`] : [low.toFixed(2), map === "diverging" ? `threshold ${threshold.toFixed(3)}` : "", high.toFixed(2)];
  fill(ends, texts.map((text) => h("span", {}, tint === "none" ? "" : text)));
  canvas.setAttribute("aria-label", `Colours from ${texts[0]} to ${texts[2]}`);
}

/** @param {string} id @param {string} label @param {[string, string][]} options @param {() => string} get @param {(value: string) => void} set */
function choice(id, label, options, get, set) {
  const select = h("select", { id, onchange: () => set(select.value) }, options.map(([value, name]) => h("option", { value }, name)));
  const element = h("div", { class: "choice" }, h("label", { for: id }, label), select);
  return { element, show: () => { select.value = get(); } };
}

/**
 * What the result is, its model and what it can be compared with.
 * @param {ResultView} view
 * @param {{ id: string, label: string }[]} others results of the same slide
 * @param {string | null} compared
 * @param {(id: string | null) => void} compare
 */
export function aboutPart(view, others, compared, compare) {
  const { slide } = view;
  const { summary, mpp, width, height } = slide;
  const select = h("select", { id: "compare", onchange: () => compare(select.value || null) }, h("option", { value: "" }, "Not compared"), others.map(({ id, label }) => h("option", { value: id, selected: id === compared }, label)));
  const warnings = summary?.warnings ?? [];
  return h(
    "div",
    {},
    h("dl", { class: "facts" },
      h("dt", {}, "Tissue"), h("dd", {}, `${area(summary?.tissue_mm2)}, ${area(summary?.analysed_mm2)} analysed`),
      h("dt", {}, "Slide"), h("dd", {}, `${width.toLocaleString("en")} × ${height.toLocaleString("en")} px, ${Number(mpp[0].toPrecision(4))} µm/px`),
      h("dt", {}, "Cells"), h("dd", {}, `${counted(summary?.cells ?? 0, "cell")} of ${Number((summary?.cell_um ?? 0).toPrecision(4))} µm`)),
    h("button", { type: "button", class: "button", id: "model-card", onclick: () => showCard(slide) }, icon("card"), `Model: ${slide.model?.name ?? "unknown"}`),
    others.length ? h("div", { class: "choice" }, h("label", { for: "compare" }, "Beside it"), select) : null,
    slide.show_label ? labelPicture(slide) : null,
    warnings.length ? h("details", { class: "warnings" }, h("summary", {}, icon("warning"), counted(warnings.length, "warning")), h("ul", {}, warnings.map((/** @type {string} */ text) => h("li", {}, text)))) : null,
  );
}

/** The slide's label, which may bear a name: only where the viewer was started so. @param {import("./api.js").SlideDetail} slide */
function labelPicture(slide) {
  const picture = h("img", { src: slideUrl(slide.id, "/label.jpg"), alt: `Label of ${slide.name}` });
  picture.addEventListener("error", () => picture.replaceWith(h("span", { class: "hint" }, "There is no picture of it.")));
  return h("figure", { class: "slide-label" }, h("figcaption", {}, "Label of the slide"), picture);
}
