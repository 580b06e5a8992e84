/** The panel of annotations: tools, class, list, and whether all is saved. */

import { describeAnnotation } from "./annotation-features.js";
import { fill, h, icon, iconButton } from "./dom.js";
import { counted } from "./format.js";
import { openDialog } from "./keyboard.js";
import { keyedList } from "./keyed-list.js";
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
  const tools = toolsPart(annotator, store);
  const status = statusPart(store);
  const list = h("ol", { class: "annotations" });
  const showRows = keyedList(list);
  const visible = h("input", { type: "checkbox", id: "annotations-visible", checked: true, onchange: () => annotator.setVisible(visible.checked) });
  const showList = () => showRows(store.features.map((feature) => row(feature, annotator, store, fly)));
  const show = () => {
    visible.checked = annotator.layer.visible;
    tools.show();
    status.show();
    showList();
  };
  store.addEventListener("change", show);
  store.addEventListener("status", status.show);
  annotator.drawing.addEventListener("mode", tools.show);
  annotator.addEventListener("select", showList);
  const download = h("a", { class: "button", href: slideUrl(store.id, "/annotations?download=1"), download: "" }, icon("download"), "Annotations as GeoJSON");
  const element = h("div", {}, tools.element, status.element, list, h("label", { class: "check" }, visible, "Show annotations"), download);
  return { element, show };
}

/**
 * What draws, and as what.
 * @param {import("./annotate.js").Annotator} annotator
 * @param {import("./annotation-store.js").AnnotationStore} store
 */
function toolsPart(annotator, store) {
  const { classes, drawing } = annotator;
  const freehand = tool("freehand", "freehand", "Freehand", annotator);
  const corners = tool("polygon", "corners", "Corners", annotator);
  const undo = iconButton("undo", "Undo (Ctrl+Z)", () => store.undo());
  const redo = iconButton("redo", "Redo (Ctrl+Shift+Z)", () => store.redo());
  const guide = h("p", { class: "hint", role: "status" });
  const select = h("select", { id: "annotation-class", onchange: () => { annotator.choice = classes[select.selectedIndex]; } }, classes.map(({ name, label }) => h("option", { value: name }, label)));
  const finish = h("button", { type: "button", onclick: () => drawing.finish() }, "Close the outline");
  const show = () => {
    const { mode, points } = drawing;
    freehand.setAttribute("aria-pressed", String(mode === "freehand"));
    corners.setAttribute("aria-pressed", String(mode === "corners"));
    undo.disabled = !store.past.length;
    redo.disabled = !store.undone.length;
    finish.hidden = mode !== "corners" || points.length < 3;
    const text = guidance(mode, points.length);
    if (guide.textContent !== text) guide.textContent = text;
  };
  const element = [
    h("div", { class: "tools", role: "toolbar", "aria-label": "Drawing" }, freehand, corners, undo, redo),
    h("div", { class: "choice" }, h("label", { for: "annotation-class" }, "Draw as"), select),
    guide, finish,
  ];
  return { element, show };
}

/** Whether all is saved; where somebody else has saved too, the question what is kept. @param {import("./annotation-store.js").AnnotationStore} store */
function statusPart(store) {
  const element = h("p", { class: "save-status", role: "status" });
  /** @type {HTMLDialogElement | null} */
  let asking = null;
  const ask = () => {
    if (asking) return;
    asking = askWhatIsKept(store);
    asking.addEventListener("close", () => { asking = null; });
  };
  let before = "";
  const show = () => {
    const { status, why } = store;
    const empty = status === "saved" && !store.features.length;
    fill(element, empty ? "" : SAVED_WORDS[status], why && status === "refused" ? ` ${why}` : "",
      status === "conflict" && h("button", { type: "button", onclick: ask }, "Choose"));
    element.className = `save-status ${status}`;
    if (status === "conflict" && before !== status) ask();
    before = status;
  };
  return { element, show };
}

/** @param {"freehand" | "polygon"} picture @param {"freehand" | "corners"} mode @param {string} label @param {import("./annotate.js").Annotator} annotator */
function tool(picture, mode, label, annotator) {
  return h("button", { type: "button", class: "tool", "aria-pressed": "false", onclick: () => choose(annotator, mode) }, icon(picture), label);
}

/** @param {import("./annotate.js").Annotator} annotator @param {"freehand" | "corners"} mode */
function choose(annotator, mode) {
  annotator.toggleMode(mode);
  // Enter would else press the button again, and set no corner.
  if (annotator.drawing.mode !== "none") annotator.pane.focus();
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
 * @returns {import("./keyed-list.js").Row}
 */
function row(feature, annotator, store, fly) {
  const { id } = feature;
  const description = describeAnnotation(feature);
  const picked = annotator.selected === id;
  const make = () => {
    const { name, area, color } = description;
    const swatch = h("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.background = color;
    const button = h("button", { type: "button", class: "region", "aria-current": picked ? "true" : null, onclick: () => { annotator.select(id); fly(feature); } },
      swatch, h("span", { class: "region-name" }, name), h("span", { class: "region-area" }, area));
    return h("li", { class: picked ? "picked" : "", dataset: { id } }, button,
      iconButton("delete", `Delete ${name}`, () => store.remove(id), { class: "icon-button small" }), picked && editor(id, description, annotator));
  };
  return { id, looks: [description, picked], make };
}

/** Name and class, to be changed. @param {string} id @param {ReturnType<typeof describeAnnotation>} description @param {import("./annotate.js").Annotator} annotator */
function editor(id, { name, className }, annotator) {
  const known = annotator.classes.some((one) => one.name === className);
  const rename = (/** @type {any} */ event) => annotator.rename(id, event.target.value.trim() || name);
  const reclassify = (/** @type {any} */ event) => annotator.reclassify(id, event.target.value);
  return h("div", { class: "editor" },
    h("label", { class: "field" }, h("span", {}, "Name"), h("input", { type: "text", maxlength: 200, value: name, onchange: rename })),
    h("label", { class: "field" }, h("span", {}, "Class"), h("select", { onchange: reclassify },
      !known && h("option", { value: className, selected: true }, className),
      annotator.classes.map((one) => h("option", { value: one.name, selected: one.name === className }, one.label)))));
}

/** Two people, or two tabs, changed the same annotations. @param {import("./annotation-store.js").AnnotationStore} store */
function askWhatIsKept(store) {
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
  return dialog;
}
