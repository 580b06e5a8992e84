/** The model's card: what it is, how good it is, and what it is not for. */

import { getCard } from "./api.js";
import { h } from "./dom.js";
import { openDialog } from "./keyboard.js";
import { showError } from "./notices.js";

/** @param {import("./api.js").SlideDetail} slide */
export async function showCard(slide) {
  try {
    const card = await getCard(slide.id);
    openDialog(
      `Model: ${card.name ?? slide.model?.name ?? "unknown"}`,
      h("p", { class: "research-note" }, "For research use only, not for diagnosis."),
      card.description && h("p", {}, card.description),
      facts([
        ["Architecture", card.architecture],
        ["Sees", sees(card)],
        ["Classes", card.class_names?.join(", ")],
        ["Threshold of this result", `${slide.threshold} (${slide.threshold_source})`],
        ["Threshold of the card", card.threshold && `${card.threshold.value} (${card.threshold.chosen})`],
        ["Second stage", card.context === undefined ? null : card.context ? "yes, over the neighbourhood" : "none"],
        ["Licence", card.licence],
      ]),
      part("Measured on unseen cases", card.metrics),
      part("Training", card.training),
      h("details", {}, h("summary", {}, "The whole card (JSON)"), h("pre", {}, JSON.stringify(card, null, 2))),
    );
  } catch (error) {
    showError(error, "The model card could not be shown");
  }
}

/** @param {any} card */
function sees(card) {
  if (!card.patch_size_px || !card.mpp) return null;
  return `${card.patch_size_px} × ${card.patch_size_px} px at ${card.mpp} µm/px (${card.patch_size_px * card.mpp} µm a side)`;
}

/** @param {[string, any][]} rows */
function facts(rows) {
  const known = rows.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h("dl", { class: "facts" }, known.map(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value))]));
}

/** @param {string} title @param {any} values */
function part(title, values) {
  if (!values || !Object.keys(values).length) return null;
  return h("section", {}, h("h3", {}, title), tree(values));
}

/** @param {any} value @returns {any} */
function tree(value) {
  if (value === null || typeof value !== "object") return h("span", {}, number(value));
  if (Array.isArray(value)) {
    const plain = value.every((item) => item === null || typeof item !== "object");
    const first = value.slice(0, 12);
    return h("span", {}, plain ? first.map(number).join(", ") + (value.length > 12 ? ` … (${value.length})` : "") : JSON.stringify(first));
  }
  return h("dl", { class: "facts" }, Object.entries(value).map(([name, inner]) => [h("dt", {}, name.replaceAll("_", " ")), h("dd", {}, tree(inner))]));
}

/** @param {any} value */
function number(value) {
  return typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(4))) : String(value);
}
