/** Messages over the page: what went wrong, why, and what to do. */

import { byId, h, iconButton } from "./dom.js";
import { ApiError } from "./api.js";

/**
 * @param {string} title
 * @param {{ text?: string, hint?: string, kind?: "error" | "info", key?: string, actions?: { label: string, run: () => void }[], seconds?: number }} [more]
 *   key: a message with the same key is replaced
 */
export function notice(title, { text = "", hint = "", kind = "info", key = title, actions = [], seconds = 0 } = {}) {
  dismiss(key);
  const buttons = actions.map(({ label, run }) =>
    h("button", { type: "button", onclick: () => { box.remove(); run(); } }, label),
  );
  const box = h(
    "div",
    { class: `notice ${kind}`, role: kind === "error" ? "alert" : "status", dataset: { key } },
    h("div", { class: "notice-text" }, h("strong", {}, title), text && h("p", {}, text), hint && h("p", { class: "hint" }, hint)),
    h("div", { class: "notice-actions" }, ...buttons),
    iconButton("wrong", "Dismiss", () => box.remove()),
  );
  byId("notices").append(box);
  if (seconds) setTimeout(() => box.remove(), seconds * 1000);
}

/** @param {string} key */
export function dismiss(key) {
  for (const box of byId("notices").children) if (box.dataset.key === key) box.remove();
}

/**
 * @param {unknown} error
 * @param {string} doing what was tried
 */
export function showError(error, doing) {
  const { why, hint, where } = explain(error);
  notice(doing, { text: where === "server" ? why : `${where}: ${why}`, hint, kind: "error" });
}

/**
 * @param {unknown} error
 * @returns {import("./api.js").ErrorInfo}
 */
export function explain(error) {
  if (error instanceof ApiError) return { ...error.info, why: sentence(error.info.why) };
  const why = error instanceof Error ? error.message : String(error);
  return { where: "page", why, hint: "Reload the page." };
}

/** @param {string} text */
export function sentence(text) {
  const upper = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(upper) ? upper : `${upper}.`;
}
