/** A picture of what is on the screen: slide, layers, scale bar, what it is, and that it is for research use only. */

import { colors } from "./colormaps.js";
import { probability } from "./format.js";
import { BRIGHTEST_SPREAD } from "./result-painting.js";
import { roundLength } from "./scalebar.js";

const FOOT = 54;

/** Width of the colour bar. */
const LEGEND = 220;

/**
 * @param {{ pane: import("./pane.js").Pane, threshold: number }[]} shots side by side
 * @param {import("./result-view.js").Layers} layers
 * @returns {Promise<Blob>} PNG
 */
export async function takePicture(shots, layers) {
  const ratio = window.devicePixelRatio || 1;
  const sizes = shots.map(({ pane }) => ({ width: pane.stage.clientWidth, height: pane.stage.clientHeight }));
  const width = sizes.reduce((sum, size) => sum + size.width, 0);
  const height = Math.max(...sizes.map((size) => size.height)) + FOOT;
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.scale(ratio, ratio);
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  let left = 0;
  shots.forEach(({ pane, threshold }, n) => {
    pane.draw();
    const size = sizes[n];
    context.save();
    context.beginPath();
    context.rect(left, 0, size.width, size.height);
    context.clip();
    for (const layer of [pane.viewer.drawer.canvas, pane.canvas]) context.drawImage(layer, left, 0, size.width, size.height);
    drawScale(context, left + 16, size.height - 16, pane.slide.mpp[0] / pane.camera.frame().scale);
    context.restore();
    drawFoot(context, left + 16, size.height, pane, threshold, layers, size.width - 32);
    left += size.width;
  });
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the browser made no picture"))), "image/png");
  });
}

/** @param {CanvasRenderingContext2D} context @param {number} x @param {number} y @param {number} umPerPx */
function drawScale(context, x, y, umPerPx) {
  const bar = roundLength(umPerPx);
  context.fillStyle = "rgb(255 255 255 / 0.85)";
  context.fillRect(x - 8, y - 28, bar.px + 16, 36);
  context.fillStyle = "#15151f";
  context.fillRect(x, y - 4, bar.px, 4);
  context.font = "600 13px system-ui, sans-serif";
  context.fillText(bar.text, x, y - 10);
}

/**
 * @param {CanvasRenderingContext2D} context @param {number} x @param {number} y @param {import("./pane.js").Pane} pane
 * @param {number} threshold @param {import("./result-view.js").Layers} layers @param {number} most width
 */
function drawFoot(context, x, y, pane, threshold, layers, most) {
  const { slide } = pane;
  context.fillStyle = "#15151f";
  context.font = "600 14px system-ui, sans-serif";
  context.fillText(`${slide.name} · ${slide.model?.name ?? ""}`, x, y + 22, most - LEGEND - 20);
  context.font = "13px system-ui, sans-serif";
  context.fillText(`For research use only · threshold ${probability(threshold)}`, x, y + 42, most - LEGEND - 20);
  if (layers.tint !== "none") drawLegend(context, x + most - LEGEND, y, slide.class_name, layers);
}

/**
 * @param {CanvasRenderingContext2D} context @param {number} x @param {number} y @param {string} className
 * @param {import("./result-view.js").Layers} layers
 */
function drawLegend(context, x, y, className, { tint, map, low, high }) {
  const spread = tint === "spread";
  const table = colors(spread ? "spread" : map);
  for (let n = 0; n < LEGEND; n += 1) {
    const at = 3 * Math.round((n / (LEGEND - 1)) * 255);
    const share = spread ? n / LEGEND : 1;
    context.fillStyle = `rgb(${table[at]} ${table[at + 1]} ${table[at + 2]} / ${share})`;
    context.fillRect(x + n, y + 12, 1, 12);
  }
  const name = { probability: `p(${className})`, unrefined: `p(${className}), first stage`, spread: "spread", none: "" }[tint];
  context.fillStyle = "#15151f";
  context.font = "12px system-ui, sans-serif";
  [spread ? "0" : low.toFixed(2), name, spread ? `≥ ${BRIGHTEST_SPREAD}` : high.toFixed(2)].forEach((text, n) => {
    context.textAlign = /** @type {CanvasTextAlign[]} */ (["left", "center", "right"])[n];
    context.fillText(text, x + (n * LEGEND) / 2, y + 42);
  });
  context.textAlign = "left";
}

/** @param {Blob} blob @param {string} name */
export function saveBlob(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
