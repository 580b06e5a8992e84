/** One result in its pane: its maps, its outlines, its regions, drawn as the shared state says. */

import { getMap, getRegions, getSlide, getTissue } from "./api.js";
import { HeatmapLayer, veil } from "./heatmap-layer.js";
import { showError } from "./notices.js";
import { INK, OutlineLayer, stroke } from "./outlines.js";
import { Pane } from "./pane.js";
import { debounce } from "./state.js";

/** The spread of a probability from which all looks the same, as in the pictures that the run writes. */
export const BRIGHTEST_SPREAD = 0.2;

/** One colour shows less than many: it is laid on more strongly. */
const SPREAD_STRENGTH = 1.7;

const VEIL_OPACITY = 0.62;

/** Cells smaller than this on the screen are not picked out, CSS pixels. */
const LEAST_HOVER_PX = 12;

/**
 * @typedef {{
 *   tint: "probability" | "unrefined" | "spread" | "none", map: string, opacity: number, low: number, high: number,
 *   smooth: boolean, fade: boolean, outlines: boolean, tissue: boolean, threshold: number, threshold2: number | null,
 * }} Layers
 */

/** Fires `found` when the regions at the threshold changed: at once from the cells, then the server's. */
export class ResultView extends EventTarget {
  /**
   * @param {HTMLElement} host
   * @param {import("./api.js").SlideDetail} slide
   * @param {Float32Array} probability
   * @param {ReturnType<typeof import("./state.js").createState<Layers>>} state
   * @param {"threshold" | "threshold2"} key which threshold of the state is this result's
   */
  constructor(host, slide, probability, state, key) {
    super();
    this.slide = slide;
    this.state = state;
    this.key = key;
    this.pane = new Pane(host, slide);
    /** @type {Record<string, HeatmapLayer>} */
    this.maps = { probability: new HeatmapLayer(this.pane.grid, probability) };
    this.probability = probability;
    /** @type {{ row: number, col: number } | null} under the pointer */
    this.cell = null;
    this.outlines = new OutlineLayer(this.pane.grid, probability, slide.region_settings);
    /** @type {import("./api.js").Feature[] | null} the server's regions at the threshold, largest first */
    this.regions = null;
    this.fetchSoon = debounce(() => this.fetchRegions(), 220);
    this.pane.painters.push((context, frame) => this.paint(context, frame));
    /** @type {number | null} */
    this.finding = null;
    this.outlines.setThreshold(this.threshold);
    this.stop = state.subscribe((_, changed) => this.update(changed));
    this.update(new Set([key, "tint", "tissue"]));
  }

  /** Fetch a result and show it. @param {HTMLElement} host @param {string} id @param {any} state @param {"threshold" | "threshold2"} key */
  static async open(host, id, state, key) {
    const slide = await getSlide(id);
    const probability = await getMap(slide, "probability");
    if (state.value[key] === null || state.value[key] === undefined) state.set({ [key]: slide.threshold });
    return new ResultView(host, slide, probability, state, key);
  }

  get threshold() {
    return /** @type {number} */ (this.state.value[this.key]);
  }

  /** @param {Set<string>} changed */
  update(changed) {
    const { tint, tissue } = this.state.value;
    if (changed.has("tint") && (tint === "spread" || tint === "unrefined")) this.need(tint);
    if (changed.has("tissue") && tissue) this.need("tissue");
    if (changed.has(this.key)) {
      this.regions = null;
      this.fetchSoon();
      // A slider may move several times a frame, and a large map takes its time.
      this.finding ??= requestAnimationFrame(() => this.find());
    }
    this.pane.redraw();
  }

  /** Find the regions from the cells. */
  find() {
    this.finding = null;
    this.outlines.setThreshold(this.threshold);
    this.pane.redraw();
    this.dispatchEvent(new Event("found"));
  }

  /** Fetch a layer the first time it is shown. @param {"spread" | "unrefined" | "tissue"} name */
  async need(name) {
    if (this.maps[name] || !this.slide[`has_${name}`] || this.asked?.has(name)) return;
    this.asked = (this.asked ?? new Set()).add(name);
    try {
      const values = name === "tissue" ? veil(await getTissue(this.slide)) : await getMap(this.slide, name);
      this.maps[name] = new HeatmapLayer(this.pane.grid, values);
      this.pane.redraw();
    } catch (error) {
      this.asked.delete(name);
      showError(error, "A layer could not be loaded");
    }
  }

  /** The server's regions, fetched at once where the threshold has just moved. */
  async measured() {
    if (!this.regions) {
      this.fetchSoon.cancel();
      await this.fetchRegions();
    }
    return this.regions;
  }

  async fetchRegions() {
    this.request?.abort();
    this.request = new AbortController();
    const threshold = this.threshold;
    try {
      const features = await getRegions(this.slide.id, threshold, this.request.signal);
      if (threshold !== this.threshold) return;
      this.regions = features;
      this.outlines.setThreshold(threshold);
      this.outlines.setFeatures(threshold, features);
      this.pane.redraw();
      this.dispatchEvent(new Event("found"));
    } catch (error) {
      if (error instanceof DOMException && error.name === "AbortError") return;
      showError(error, "The regions could not be measured");
    }
  }

  /** @param {CanvasRenderingContext2D} context @param {import("./pane.js").Frame} frame */
  paint(context, frame) {
    const { tint, map, opacity, low, high, fade, smooth, outlines, tissue } = this.state.value;
    if (tissue && this.maps.tissue) {
      this.maps.tissue.setScale({ map: "veil", low: 0, high: 1, threshold: 0, fade: false });
      this.apart(context, () => this.maps.tissue.draw(context, frame, { opacity: VEIL_OPACITY, smooth: false }));
    }
    const layer = this.maps[tint];
    if (layer && tint !== "none") {
      const spread = tint === "spread";
      layer.setScale(spread
        ? { map: "spread", low: 0, high: BRIGHTEST_SPREAD, threshold: 0, fade: true, top: BRIGHTEST_SPREAD }
        : { map, low, high, fade, threshold: map === "diverging" ? this.threshold : 0 });
      this.apart(context, () => layer.draw(context, frame, { opacity: spread ? Math.min(1, opacity * SPREAD_STRENGTH) : opacity, smooth }));
    }
    if (outlines) this.outlines.draw(context, frame);
    this.paintHover(context, frame);
  }

  /** Pick out the cell at a place. @param {{ x: number, y: number } | null} place */
  hover(place) {
    const cell = place && this.pane.grid.cellAt(place.x, place.y);
    if (cell?.row === this.cell?.row && cell?.col === this.cell?.col) return;
    this.cell = cell;
    this.pane.redraw();
  }

  /** The cell under the pointer, once cells are large enough to be pointed at. @param {CanvasRenderingContext2D} context @param {import("./pane.js").Frame} frame */
  paintHover(context, frame) {
    const { grid } = this.pane;
    if (!this.cell || grid.step[0] * frame.scale < LEAST_HOVER_PX) return;
    const { row, col } = this.cell;
    const path = new Path2D();
    path.rect(grid.xs[col], grid.ys[row], grid.xs[col + 1] - grid.xs[col], grid.ys[row + 1] - grid.ys[row]);
    stroke(context, frame, path, INK, 1);
  }

  /** @param {CanvasRenderingContext2D} context @param {() => void} draw */
  apart(context, draw) {
    context.save();
    draw();
    context.restore();
  }

  /**
   * What is known of a place.
   * @param {number} x level-0 pixels @param {number} y
   */
  at(x, y) {
    const cell = this.pane.grid.cellAt(x, y);
    const index = cell ? cell.row * this.pane.grid.cols + cell.col : -1;
    const value = (/** @type {HeatmapLayer | undefined} */ layer) => (layer && index >= 0 ? layer.values[index] : NaN);
    return { cell, probability: value(this.maps.probability), spread: value(this.maps.spread), unrefined: value(this.maps.unrefined) };
  }

  /** Numbers at the threshold; the server's where they are there. */
  numbers() {
    const { found } = this.outlines;
    const analysed = this.slide.summary?.analysed_mm2 ?? null;
    const mm2 = (found?.areaUm2 ?? 0) * 1e-6;
    return { mm2, fraction: analysed ? mm2 / analysed : null, count: found?.count ?? 0 };
  }

  destroy() {
    this.stop();
    cancelAnimationFrame(this.finding ?? 0);
    this.fetchSoon.cancel();
    this.request?.abort();
    this.pane.destroy();
  }
}
