/** How a result looks: its maps, outlines and the cell under the pointer, painted as the state says. */

import { INK, stroke } from "./outlines.js";

/**
 * @typedef {import("./pane-camera.js").Frame} Frame
 * @typedef {import("./result-view.js").ResultView} ResultView
 */

/** The spread of a probability from which all looks the same, as in the pictures that the run writes. */
export const BRIGHTEST_SPREAD = 0.2;

/** One colour shows less than many: it is laid on more strongly. */
const SPREAD_STRENGTH = 1.7;

const VEIL_OPACITY = 0.62;

/** Cells smaller than this on the screen are not picked out, CSS pixels. */
const LEAST_HOVER_PX = 12;

/** @param {CanvasRenderingContext2D} context @param {Frame} frame @param {ResultView} view */
export function paintResult(context, frame, view) {
  const { tint, tissue, outlines } = view.state.value;
  if (tissue) paintTissue(context, frame, view);
  if (tint !== "none") paintTint(context, frame, view);
  if (outlines) view.outlines.draw(context, frame);
  paintHover(context, frame, view);
}

/** What is no tissue lies under a veil. @param {CanvasRenderingContext2D} context @param {Frame} frame @param {ResultView} view */
function paintTissue(context, frame, { maps }) {
  maps.tissue?.setScale({ map: "veil", low: 0, high: 1, threshold: 0, fade: false });
  paintApart(context, () => maps.tissue?.draw(context, frame, { opacity: VEIL_OPACITY, smooth: false }));
}

/** @param {CanvasRenderingContext2D} context @param {Frame} frame @param {ResultView} view */
function paintTint(context, frame, { maps, state, threshold }) {
  const { tint, map, opacity, low, high, fade, smooth } = state.value;
  const layer = maps[tint];
  const spread = tint === "spread";
  layer?.setScale(spread
    ? { map: "spread", low: 0, high: BRIGHTEST_SPREAD, threshold: 0, fade: true, top: BRIGHTEST_SPREAD }
    : { map, low, high, fade, threshold: map === "diverging" ? threshold : 0 });
  paintApart(context, () => layer?.draw(context, frame, { opacity: spread ? Math.min(1, opacity * SPREAD_STRENGTH) : opacity, smooth }));
}

/** The cell under the pointer, once cells are large enough to be pointed at. @param {CanvasRenderingContext2D} context @param {Frame} frame @param {ResultView} view */
function paintHover(context, frame, { cell, pane: { grid } }) {
  if (!cell || grid.step[0] * frame.scale < LEAST_HOVER_PX) return;
  const path = new Path2D();
  path.rect(grid.xs[cell.col], grid.ys[cell.row], grid.xs[cell.col + 1] - grid.xs[cell.col], grid.ys[cell.row + 1] - grid.ys[cell.row]);
  stroke(context, frame, path, INK, 1);
}

/** What a layer sets is undone after it. @param {CanvasRenderingContext2D} context @param {() => void} draw */
function paintApart(context, draw) {
  context.save();
  draw();
  context.restore();
}
