/** The panel of annotations: tools, class, list, and whether all is saved. */

import { describeAnnotation, rgb } from "./annotate.js";
import { fill, h, icon, iconButton } from "./dom.js";
import { counted } from "./format.js";
import { openDialog } from "./keyboard.js";
import { slideUrl } from "./api.js";

const SAVED_WORDS = {
  loading: "Loading …",
  saved: "All changes saved",
  saving: "Saving …",
  waiting: "The server does not answer. Your changes are kept in this browser and sent as soon as it is back.",
  conflict: "Changed elsewhere: choose what is kept.",
  refused: "The server refused the last change. It is kept in this browser.",
};

/**
 * @param {import("./annotate.js").Annotator} annotator
 * @param {import("./annotation-store.js").AnnotationStore} store
 * @param {(feature: import("./api.js").Feature) => void} fly
 */
export function annotationsPart(annotator, store, fly) {
  const status = h("p", { class: "save-status", role: "status" });
  const list = h("ol", { class: "annotations" });
  const freehand = tool("freehand", "freehand", "Freehand", annotator);
  const corners = tool("polygon", "corners", "Corners", annotator);
  const undo = iconButton("undo", "Undo (Ctrl+Z)", () => store.undo());
  const redo = iconButton("redo", "Redo (Ctrl+Shift+Z)", () => store.redo());
  const guide = h("p", { class: "hint", role: "status" });
  const select = h("select", { id: "annotation-class", onchange: () => { annotator.choice = annotator.classes[select.selectedIndex]; } }, annotator.classes.map(({ name, label }) => h("option", { value: name }, label)));
  const finish = h("button", { type: "button", onclick: () => annotator.finish() }, "Close the outline");
  const visible = h("input", { type: "checkbox", id: "annotations-visible", checked: true, onchange: () => { annotator.visible = visible.checked; annotator.pane.redraw(); } });
  const show = () => {
    const { mode, points } = annotator;
    freehand.setAttribute("aria-pressed", String(mode === "freehand"));
    corners.setAttribute("aria-pressed", String(mode === "corners"));
    undo.disabled = !store.past.length;
    redo.disabled = !store.undone.length;
    finish.hidden = mode !== "corners" || points.length < 3;
    visible.checked = annotator.visible;
    guide.textContent = guidance(mode, points.length);
    fill(status, store.status === "saved" && !store.features.length ? "" : SAVED_WORDS[store.status], store.why && store.status === "refused" ? ` ${store.why}` : "");
    status.className = `save-status ${store.status}`;
    fill(list, store.features.map((feature) => row(feature, annotator, store, fly)));
    if (store.status === "conflict") askOnce(store);
  };
  store.addEventListener("change", show);
  store.addEventListener("status", show);
  annotator.addEventListener("mode", show);
  annotator.addEventListener("select", show);
  const download = h("a", { class: "button", href: slideUrl(store.id, "/annotations?download=1"), download: "" }, icon("download"), "Annotations as GeoJSON");
  const element = h("div", {},
    h("div", { class: "tools", role: "toolbar", "aria-label": "Drawing" }, freehand, corners, undo, redo),
    h("div", { class: "choice" }, h("label", { for: "annotation-class" }, "Draw as"), select),
    guide, finish, status, list,
    h("label", { class: "check" }, visible, "Show annotations"),
    download);
  return { element, show };
}

/** @param {"freehand" | "polygon"} picture @param {"freehand" | "corners"} mode @param {string} label @param {import("./annotate.js").Annotator} annotator */
function tool(picture, mode, label, annotator) {
  return h("button", { type: "button", class: "tool", "aria-pressed": "false", onclick: () => annotator.setMode(annotator.mode === mode ? "none" : mode) }, icon(picture), label);
}

/** @param {string} mode @param {number} points */
function guidance(mode, points) {
  if (mode === "freehand") return "Drag round what you mean. Escape ends drawing.";
  if (mode !== "corners") return "";
  if (!points) return "Click corner after corner, or press Enter for one in the middle of the view. Drag and wheel still move.";
  return `${counted(points, "corner")}. Backspace takes the last one back; a double-click, the first corner or Shift+Enter closes.`;
}

/**
 * @param {import("./api.js").Feature} feature @param {import("./annotate.js").Annotator} annotator
 * @param {import("./annotation-store.js").AnnotationStore} store @param {(feature: import("./api.js").Feature) => void} fly
 */
function row(feature, annotator, store, fly) {
  const { name, className, area } = describeAnnotation(feature);
  const picked = annotator.selected === feature.id;
  const known = annotator.classes.some((one) => one.name === className);
  const swatch = h("span", { class: "swatch", "aria-hidden": "true" });
  swatch.style.background = rgb(feature.properties.classification?.color ?? [120, 60, 160]);
  const button = h("button", { type: "button", class: "region", "aria-current": picked ? "true" : null, onclick: () => { annotator.select(feature.id); fly(feature); } },
    swatch, h("span", { class: "region-name" }, name), h("span", { class: "region-area" }, area));
  const editor = picked && h("div", { class: "editor" },
    h("label", { class: "field" }, h("span", {}, "Name"), h("input", { type: "text", maxlength: 200, value: name, onchange: (/** @type {any} */ event) => annotator.rename(feature.id, event.target.value.trim() || name) })),
    h("label", { class: "field" }, h("span", {}, "Class"), h("select", { onchange: (/** @type {any} */ event) => annotator.reclassify(feature.id, event.target.value) },
      !known && h("option", { value: className, selected: true }, className),
      annotator.classes.map((one) => h("option", { value: one.name, selected: one.name === className }, one.label)))));
  return h("li", { class: picked ? "picked" : "", dataset: { id: feature.id } }, button, iconButton("delete", `Delete ${name}`, () => store.remove(feature.id), { class: "icon-button small" }), editor);
}

/** Two people, or two tabs, changed the same annotations. @param {any} store */
function askOnce(store) {
  if (store.asking) return;
  store.asking = true;
  const theirs = store.theirs?.length ?? 0;
  const choose = (/** @type {"both" | "mine" | "theirs"} */ what) => () => { store.resolve(what); dialog.close(); };
  const dialog = openDialog(
    "Annotations were changed elsewhere",
    h("p", {}, `Another tab, or another person, has saved ${counted(theirs, "annotation")} on this slide since you loaded it; you have ${counted(store.features.length, "annotation")}. Nothing is lost yet.`),
    h("div", { class: "row" },
      h("button", { type: "button", class: "primary", onclick: choose("both") }, "Keep both"),
      h("button", { type: "button", onclick: choose("mine") }, "Keep mine only"),
      h("button", { type: "button", onclick: choose("theirs") }, "Keep the others only")),
    h("p", { class: "hint" }, "“Keep both” takes every annotation of either; where both changed the same one, yours."),
  );
  dialog.addEventListener("close", () => { store.asking = false; });
}
