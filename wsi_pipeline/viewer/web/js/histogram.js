/** How many cells have which probability, with the threshold; drawn on a canvas, in the colours of the tint. */

import { h } from "./dom.js";
import { colors, position, COLOR_MAPS } from "./colormaps.js";
import { percent } from "./format.js";

const BINS = 50;

/** Finer ones, to say which part of the cells reaches a threshold. */
const FINE = 5000;

/** @param {Float32Array} values NaN for none @param {number} count of bins between 0 and 1 */
export function countBins(values, count) {
  const bins = new Uint32Array(count);
  let total = 0;
  for (let n = 0; n < values.length; n += 1) {
    const value = values[n];
    if (!(value === value)) continue;
    bins[Math.min(count - 1, Math.max(0, Math.floor(value * count)))] += 1;
    total += 1;
  }
  return { bins, total };
}

/**
 * @param {Float32Array} values
 * @param {string} label
 * @returns {{ element: HTMLElement, draw: (scale: { map: string, low: number, high: number, threshold: number }) => void }}
 */
export function histogram(values, label) {
  const { bins: fine, total } = countBins(values, FINE);
  const bins = Array.from({ length: BINS }, (_, n) => sum(fine, (n * FINE) / BINS, ((n + 1) * FINE) / BINS));
  const canvas = h("canvas", { class: "histogram", role: "img" });
  // Most cells are near 0: square roots keep the few others visible, and are said to be so.
  const highest = Math.sqrt(Math.max(1, ...bins));

  const draw = (/** @type {{ map: string, low: number, high: number, threshold: number }} */ scale) => {
    const style = getComputedStyle(canvas);
    const ratio = window.devicePixelRatio || 1;
    const width = canvas.clientWidth || 280;
    const height = canvas.clientHeight || 64;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    context.scale(ratio, ratio);
    const table = colors(scale.map);
    const diverging = COLOR_MAPS.some((one) => one.id === scale.map && one.diverging);
    const wide = width / BINS;
    bins.forEach((count, n) => {
      if (!count) return;
      const at = 3 * Math.round(255 * position((n + 0.5) / BINS, { ...scale, diverging }));
      const tall = Math.max(1.5, (Math.sqrt(count) / highest) * (height - 4));
      context.fillStyle = `rgb(${table[at]} ${table[at + 1]} ${table[at + 2]})`;
      context.fillRect(n * wide + 0.5, height - tall, Math.max(1, wide - 1), tall);
      context.strokeStyle = style.getPropertyValue("--line-strong");
      context.lineWidth = 0.5;
      context.strokeRect(n * wide + 0.5, height - tall, Math.max(1, wide - 1), tall);
    });
    const x = Math.min(width - 1, Math.max(1, scale.threshold * width));
    context.fillStyle = style.getPropertyValue("--ink");
    context.fillRect(x - 1, 0, 2, height);
    const above = total ? sum(fine, Math.round(scale.threshold * FINE), FINE) / total : 0;
    canvas.setAttribute("aria-label", `${label}: ${percent(above)} of ${total.toLocaleString("en")} cells reach the threshold.`);
  };
  return { element: canvas, draw };
}

/** @param {Uint32Array} bins @param {number} from @param {number} to */
function sum(bins, from, to) {
  return bins.subarray(from, to).reduce((all, count) => all + count, 0);
}
