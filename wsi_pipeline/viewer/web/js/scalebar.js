/** The scale bar: a round length that fits. */

import { length } from "./format.js";
import { h } from "./dom.js";

/**
 * The longest round length (1, 2 or 5 times a power of ten, µm) that is at most `most` pixels wide.
 * @param {number} umPerPx µm per screen pixel
 * @param {number} [most]
 * @returns {{ um: number, px: number, text: string }}
 */
export function roundLength(umPerPx, most = 140) {
  const limit = umPerPx * most;
  const power = 10 ** Math.floor(Math.log10(limit));
  const um = [5, 2, 1].map((step) => step * power).find((value) => value <= limit) ?? power;
  return { um, px: um / umPerPx, text: length(um) };
}

/** @returns {{ element: HTMLElement, update: (umPerPx: number) => void }} */
export function scaleBar() {
  const text = h("span", {});
  const line = h("div", { class: "scale-line" });
  const element = h("div", { class: "scale-bar", role: "img" }, line, text);
  return {
    element,
    update(umPerPx) {
      const bar = roundLength(umPerPx);
      line.style.width = `${bar.px}px`;
      text.textContent = bar.text;
      element.setAttribute("aria-label", `Scale bar: ${bar.text}`);
    },
  };
}
