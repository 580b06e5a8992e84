/** Keys of the slide page, in one table: what they do and what the help says of them. */

import { h, iconButton } from "./dom.js";

/**
 * @typedef {{ keys: string[], shown?: string, does: string, group: string, run: (event: KeyboardEvent) => void, when?: () => boolean }} Key
 */

const STORED = "wsi-pipeline:keys";

/** Single keys can be switched off, for those who speak to their computer (WCAG 2.1.4). */
export function keysEnabled() {
  try {
    return localStorage.getItem(STORED) !== "off";
  } catch {
    return true;
  }
}

/** @param {boolean} on */
function enableKeys(on) {
  try {
    localStorage.setItem(STORED, on ? "on" : "off");
  } catch {
    // Without storage the choice holds for nothing longer than a click; keys stay on.
  }
}

/**
 * Listen until the returned function is called.
 * @param {() => Key[]} table
 * @returns {() => void}
 */
export function listenKeys(table) {
  const pressed = (/** @type {KeyboardEvent} */ event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (document.querySelector("dialog[open]") || takesKeys(event)) return;
    const key = table().find((one) => one.keys.includes(event.key) && (one.when?.() ?? true));
    if (!key || (!keysEnabled() && event.key !== "?" && event.key !== "Escape")) return;
    event.preventDefault();
    key.run(event);
  };
  document.addEventListener("keydown", pressed);
  return () => document.removeEventListener("keydown", pressed);
}

/**
 * Ctrl+Z and its kin; in a field they belong to what is typed there.
 * @param {(again: boolean) => void} undo again: redo instead
 * @returns {() => void} ends listening
 */
export function listenUndo(undo) {
  const pressed = (/** @type {KeyboardEvent} */ event) => {
    const field = /** @type {HTMLElement} */ (event.target).matches("input[type=text], input[type=number], input[type=search]");
    if (!(event.ctrlKey || event.metaKey) || field || document.querySelector("dialog[open]")) return;
    const key = event.key.toLowerCase();
    if (key !== "z" && key !== "y") return;
    event.preventDefault();
    undo(key === "y" || event.shiftKey);
  };
  document.addEventListener("keydown", pressed);
  return () => document.removeEventListener("keydown", pressed);
}

/** Whether the key belongs to the control that has the focus. @param {KeyboardEvent} event */
function takesKeys(event) {
  const target = /** @type {HTMLElement} */ (event.target);
  const tag = target.tagName;
  if (tag === "SELECT" || tag === "TEXTAREA" || target.isContentEditable) return true;
  if (tag === "INPUT") {
    const type = target.getAttribute("type");
    if (type === "checkbox") return event.key === " ";
    if (type === "range" || type === "radio") return event.key.startsWith("Arrow") || ["Home", "End", "PageUp", "PageDown", " "].includes(event.key);
    return true;
  }
  return (tag === "BUTTON" || tag === "A" || tag === "SUMMARY") && ["Enter", " "].includes(event.key);
}

/** @param {Key[]} table */
export function showHelp(table) {
  const groups = [...new Set(table.map((key) => key.group))];
  const rows = (/** @type {string} */ group) =>
    table
      .filter((key) => key.group === group)
      .map((key) => h("tr", {}, h("td", {}, shownKeys(key)), h("td", {}, key.does)));
  const sections = groups.map((group) =>
    h("section", {}, h("h3", {}, group), h("table", { class: "keys" }, h("tbody", {}, rows(group)))),
  );
  const dialog = openDialog(
    "Keys",
    h("div", { class: "help-columns" }, sections),
    h("label", { class: "check" }, h("input", { type: "checkbox", checked: keysEnabled(), onchange: (/** @type {any} */ event) => enableKeys(event.target.checked) }), "Use single keys (with them off, ? and Escape still work)"),
    h("p", { class: "hint" }, "Mouse: drag to move, wheel or pinch to zoom, double-click to zoom in. Nothing here is a diagnosis: for research use only."),
  );
  dialog.classList.add("wide");
}

/** @param {Key} key */
function shownKeys(key) {
  const names = key.shown ? key.shown.split(" ") : key.keys;
  return names.map((name) => h("kbd", {}, name));
}

/**
 * A dialog that is gone when it is closed; Escape closes it, and the focus goes back to where it was.
 * @param {string} title
 * @param {...any} content
 * @returns {HTMLDialogElement}
 */
export function openDialog(title, ...content) {
  const dialog = h(
    "dialog",
    { "aria-label": title },
    h("header", { class: "dialog-head" }, h("h2", {}, title), iconButton("wrong", "Close", () => dialog.close(), { autofocus: true })),
    h("div", { class: "dialog-body", tabindex: "0", role: "group", "aria-label": title }, ...content),
  );
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (/** @type {MouseEvent} */ event) => event.target === dialog && dialog.close());
  // In full screen, only what lies inside of the full element is seen.
  (document.fullscreenElement ?? document.body).append(dialog);
  dialog.showModal();
  return dialog;
}
