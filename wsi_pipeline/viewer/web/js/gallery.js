/** The gallery: every slide of the results as a card, to sort, filter and search. */

import { slideUrl } from "./api.js";
import { fill, h, icon } from "./dom.js";
import { area, counted, percent, probability } from "./format.js";
import { sentence } from "./notices.js";
import { slideLink } from "./permalink.js";
import { debounce } from "./state.js";

/**
 * @typedef {import("./api.js").Run} Run
 * @typedef {import("./api.js").SlideRow} SlideRow
 */

/** @type {ReadonlyArray<{ id: string, name: string, key: (row: SlideRow) => number | string, down: boolean }>} */
const ORDERS = [
  { id: "name", name: "Name", key: (row) => row.name, down: false },
  { id: "idc", name: "Area of regions, largest first", key: (row) => row.idc_mm2 ?? -1, down: true },
  { id: "fraction", name: "Share of the analysed area, largest first", key: (row) => row.idc_fraction ?? -1, down: true },
  { id: "regions", name: "Regions, most first", key: (row) => row.regions ?? -1, down: true },
  { id: "mean", name: "Mean probability, highest first", key: (row) => row.mean_probability ?? -1, down: true },
  { id: "tissue", name: "Tissue, largest first", key: (row) => row.tissue_mm2 ?? -1, down: true },
];

const FILTERS = [
  { id: "all", name: "All slides" },
  { id: "idc", name: "With regions" },
  { id: "none", name: "Without regions" },
  { id: "warned", name: "With warnings" },
  { id: "failed", name: "Failed" },
];

const PICTURES = [
  { id: "slide", name: "Slide" },
  { id: "map", name: "Slide with map" },
];

/** What was last chosen, kept while the page lives so that coming back from a slide changes nothing. */
const chosen = { order: "name", filter: "all", run: "all", picture: "slide", search: "", scroll: 0 };

/**
 * @param {HTMLElement} main
 * @param {Run} run
 * @returns {() => void} to be called when the page is left
 */
export function showGallery(main, run) {
  const list = h("ul", { class: "cards" });
  const count = h("p", { class: "gallery-count", role: "status" });
  const update = () => {
    const rows = select(run);
    const many = run.runs.length > 1;
    fill(list, rows.map((row) => h("li", {}, row.status === "failed" ? failedCard(row, run, many) : card(row, run, many))));
    count.textContent = rows.length === run.slides.length ? tally(run.slides) : `${rows.length} of ${counted(run.slides.length, "slide")}`;
    empty.hidden = rows.length > 0;
  };
  const empty = h("p", { class: "empty", hidden: true }, run.slides.length ? "No slide fits. Change the search or the filter." : "These results hold no slides yet. Run `wsi-pipeline run SLIDES --out` into this folder and reload.");
  const page = h("div", { class: "gallery" }, h("div", { class: "gallery-head" }, h("h1", {}, run.title), count), toolbar(run, update), list, empty);
  fill(main, page);
  update();
  main.scrollTop = chosen.scroll;
  return () => {
    chosen.scroll = main.scrollTop;
  };
}

/** @param {Run} run @param {() => void} update */
function toolbar(run, update) {
  const search = debounce((value) => { chosen.search = value; update(); }, 120);
  const runs = [{ id: "all", name: "All runs" }, ...run.runs];
  return h(
    "div",
    { class: "gallery-tools", role: "search" },
    h("label", { class: "field grow" }, h("span", {}, "Search"), h("input", { type: "search", id: "gallery-search", value: chosen.search, placeholder: "Name, model or run", oninput: (/** @type {any} */ event) => search(event.target.value) })),
    picker("Sort by", ORDERS, "order", update),
    picker("Show", FILTERS, "filter", update),
    run.runs.length > 1 && picker("Run", runs, "run", update),
    picker("Pictures", PICTURES, "picture", update),
  );
}

/** @param {string} label @param {ReadonlyArray<{ id: string, name: string }>} options @param {"order" | "filter" | "run" | "picture"} key @param {() => void} update */
function picker(label, options, key, update) {
  const onchange = (/** @type {any} */ event) => { chosen[key] = event.target.value; update(); };
  return h("label", { class: "field" }, h("span", {}, label), h("select", { onchange }, options.map(({ id, name }) => h("option", { value: id, selected: chosen[key] === id }, name))));
}

/** @param {Run} run @returns {SlideRow[]} those that fit, in the order chosen */
function select(run) {
  const words = chosen.search.toLowerCase().split(/\s+/).filter(Boolean);
  const order = ORDERS.find((one) => one.id === chosen.order) ?? ORDERS[0];
  const said = (/** @type {SlideRow} */ row) => `${row.name} ${row.model ?? ""} ${runName(row, run)}`.toLowerCase();
  const kept = run.slides.filter((row) => fits(row) && words.every((word) => said(row).includes(word)));
  const byName = (/** @type {SlideRow} */ a, /** @type {SlideRow} */ b) => a.name.localeCompare(b.name, "en", { numeric: true });
  return kept.sort((a, b) => {
    const [x, y] = [order.key(a), order.key(b)];
    if (typeof x === "number" && typeof y === "number" && x !== y) return order.down ? y - x : x - y;
    return byName(a, b);
  });
}

/** @param {SlideRow} row */
function fits(row) {
  if (chosen.run !== "all" && row.run !== chosen.run) return false;
  switch (chosen.filter) {
    case "idc": return (row.regions ?? 0) > 0;
    case "none": return row.status === "done" && row.regions === 0;
    case "warned": return row.warnings.length > 0;
    case "failed": return row.status === "failed";
    default: return true;
  }
}

/** @param {SlideRow[]} rows */
function tally(rows) {
  const failed = rows.filter((row) => row.status === "failed").length;
  return counted(rows.length, "slide") + (failed ? `, ${failed} failed` : "");
}

/** @param {SlideRow} row @param {Run} run */
function runName(row, run) {
  return run.runs.find((one) => one.id === row.run)?.name ?? row.run;
}

/** @param {SlideRow} row @param {Run} run @param {boolean} many */
function card(row, run, many) {
  const picture = h("img", { src: slideUrl(row.id, chosen.picture === "map" ? "/overlay.png" : "/thumbnail.jpg"), alt: "", loading: "lazy", decoding: "async" });
  picture.addEventListener("error", () => picture.replaceWith(h("span", { class: "no-picture" }, "The slide is not there; its map is.")));
  return h(
    "a",
    { class: "card", href: slideLink(row.id) },
    h("div", { class: "card-picture" }, picture),
    h(
      "div",
      { class: "card-text" },
      h("h2", {}, row.name),
      h("p", { class: "card-sub" }, [many && runName(row, run), row.model].filter(Boolean).join(" · ")),
      h(
        "dl",
        { class: "card-numbers" },
        number(row.class_name, area(row.idc_mm2)),
        number("of analysed", percent(row.idc_fraction)),
        number("regions", (row.regions ?? 0).toLocaleString("en")),
        number("tissue", area(row.tissue_mm2)),
        number("mean p", probability(row.mean_probability, 2)),
        number("threshold", probability(row.threshold, 2)),
      ),
      row.warnings.length ? h("p", { class: "card-warning", title: row.warnings.join("\n") }, icon("warning"), counted(row.warnings.length, "warning")) : null,
    ),
  );
}

/** @param {string} name @param {string} value */
function number(name, value) {
  return h("div", {}, h("dt", {}, name), h("dd", {}, value));
}

/** @param {SlideRow} row @param {Run} run @param {boolean} many */
function failedCard(row, run, many) {
  const { where = "", why = "no reason is on record", hint = "" } = row.error ?? {};
  return h(
    "article",
    { class: "card failed", tabindex: "0", "aria-label": `${row.name}, failed` },
    h("div", { class: "card-picture" }, h("span", { class: "failed-mark" }, icon("warning"), "Failed")),
    h(
      "div",
      { class: "card-text" },
      h("h2", {}, row.name),
      many && h("p", { class: "card-sub" }, runName(row, run)),
      h("p", { class: "failed-why" }, sentence(why)),
      hint && h("p", { class: "hint" }, hint),
      where && h("p", { class: "failed-where", title: where }, where.split(/[\\/]/).at(-1)),
    ),
  );
}
