/** Outlines of regions above the tissue: at once from the cells while the threshold moves, then the server's own. */

import { findRegions, maskEdges } from "./regions.js";

/**
 * @typedef {import("./api.js").Feature} Feature
 * @typedef {import("./pane-camera.js").Box} Box
 * @typedef {{ feature: Feature, box: Box, rings: Float64Array[] }} Shape rings: x, y, x, y … in level-0 pixels
 */

export class OutlineLayer {
  /**
   * @param {import("./grid.js").CellGrid} grid
   * @param {Float32Array} values
   * @param {import("./api.js").RegionSettings} settings those of the run
   */
  constructor(grid, values, settings) {
    this.grid = grid;
    this.values = values;
    this.settings = settings;
    this.threshold = NaN;
    /** @type {import("./regions.js").Found | null} */
    this.found = null;
    /** @type {Shape[] | null} */
    this.shapes = null;
    /** @type {{ key: string, path: Path2D } | null} */
    this.edges = null;
    /** @type {{ level: number, path: Path2D } | null} */
    this.cache = null;
    /** @type {string | null} id of the region that is picked out */
    this.selected = null;
  }

  /**
   * Find the regions in the page; exact outlines may follow by `setFeatures`.
   * @param {number} threshold
   */
  setThreshold(threshold) {
    if (threshold === this.threshold) return;
    this.threshold = threshold;
    this.found = findRegions(this.values, this.grid, threshold, this.settings);
    this.shapes = null;
    this.selected = null;
  }

  /**
   * What the server found.
   * @param {number} threshold at which; features of another one come too late and are passed over
   * @param {Feature[]} features
   */
  setFeatures(threshold, features) {
    if (threshold !== this.threshold) return;
    this.shapes = features.map((feature) => shapeOf(feature, this.grid.origin));
    this.cache = null;
  }

  /** @param {CanvasRenderingContext2D} context @param {import("./pane-camera.js").Frame} frame */
  draw(context, frame) {
    const path = this.shapes ? this.shapePath(frame) : this.cellPath(frame);
    if (path) stroke(context, frame, path, INK);
    const chosen = this.shapes?.find((shape) => shape.feature.id === this.selected);
    if (chosen) stroke(context, frame, pathOf([chosen], frame.scale), PICKED, 2.6);
  }

  /** @param {import("./pane-camera.js").Frame} frame */
  cellPath(frame) {
    if (!this.found) return null;
    const range = this.grid.range(frame.view);
    const key = `${this.threshold} ${Object.values(range)}`;
    if (this.edges?.key !== key) this.edges = { key, path: maskEdges(this.found.mask, this.grid, range) };
    return this.edges.path;
  }

  /**
   * What is finer than half a pixel costs time and shows nothing: the path is made anew for each doubling of the zoom.
   * @param {import("./pane-camera.js").Frame} frame
   */
  shapePath(frame) {
    const level = Math.floor(Math.log2(frame.scale));
    if (!this.cache || this.cache.level !== level) {
      this.cache = { level, path: pathOf(/** @type {Shape[]} */ (this.shapes), 2 ** (level + 1)) };
    }
    return this.cache.path;
  }

  /** @param {number} x @param {number} y level-0 pixels @returns {Shape | null} the smallest region there */
  at(x, y) {
    const inside = (this.shapes ?? []).filter((shape) => contains(shape, x, y));
    return inside.at(-1) ?? null;
  }
}

export const INK = "#15151f";
const PICKED = "#0b57d0";

/**
 * A line that shows on every ground and to every eye: dark with a white edge.
 * @param {CanvasRenderingContext2D} context @param {import("./pane-camera.js").Frame} frame @param {Path2D} path
 * @param {string} color @param {number} [width]
 */
export function stroke(context, frame, path, color, width = 1.7) {
  context.save();
  const placed = new Path2D();
  placed.addPath(path, new DOMMatrix(frame.matrix));
  context.lineJoin = "round";
  context.strokeStyle = "rgb(255 255 255 / 0.9)";
  context.lineWidth = width + 2;
  context.stroke(placed);
  context.strokeStyle = color;
  context.lineWidth = width;
  context.stroke(placed);
  context.restore();
}

/**
 * @param {Feature} feature a polygon or several, in pixels of QuPath's image: the slide cut to its bounds
 * @param {[number, number]} origin of that image in level 0
 * @returns {Shape}
 */
export function shapeOf(feature, [left, top]) {
  const { type, coordinates } = feature.geometry;
  const polygons = type === "MultiPolygon" ? coordinates : [coordinates];
  const rings = polygons.flat().map((/** @type {number[][]} */ ring) => {
    const flat = new Float64Array(ring.length * 2);
    ring.forEach(([x, y], n) => flat.set([x + left, y + top], 2 * n));
    return flat;
  });
  return { feature, rings, box: boxOf(rings) };
}

/** @param {Float64Array[]} rings @returns {Box} */
function boxOf(rings) {
  const box = { left: Infinity, top: Infinity, right: -Infinity, bottom: -Infinity };
  for (const ring of rings) {
    for (let n = 0; n < ring.length; n += 2) {
      box.left = Math.min(box.left, ring[n]);
      box.right = Math.max(box.right, ring[n]);
      box.top = Math.min(box.top, ring[n + 1]);
      box.bottom = Math.max(box.bottom, ring[n + 1]);
    }
  }
  return box;
}

/**
 * @param {Shape[]} shapes @param {number} scale screen pixels per level-0 pixel
 * @returns {Path2D} in level-0 pixels, without vertices that no one sees
 */
export function pathOf(shapes, scale) {
  const path = new Path2D();
  const least = 0.5 / scale;
  for (const { rings } of shapes) {
    for (const ring of rings) {
      let [x, y] = ring;
      path.moveTo(x, y);
      for (let n = 2; n < ring.length; n += 2) {
        if (Math.abs(ring[n] - x) < least && Math.abs(ring[n + 1] - y) < least) continue;
        [x, y] = [ring[n], ring[n + 1]];
        path.lineTo(x, y);
      }
      path.closePath();
    }
  }
  return path;
}

/** @param {Shape} shape @param {number} x @param {number} y @returns {boolean} by the even-odd rule */
export function contains({ box, rings }, x, y) {
  if (x < box.left || x > box.right || y < box.top || y > box.bottom) return false;
  let inside = false;
  for (const ring of rings) {
    for (let n = 0, m = ring.length - 2; n < ring.length; m = n, n += 2) {
      const crosses = ring[n + 1] > y !== ring[m + 1] > y;
      if (crosses && x < ((ring[m] - ring[n]) * (y - ring[n + 1])) / (ring[m + 1] - ring[n + 1]) + ring[n]) inside = !inside;
    }
  }
  return inside;
}
