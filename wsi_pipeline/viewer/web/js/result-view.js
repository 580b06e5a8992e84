/** One result in its pane: its maps, its outlines and its regions, fetched as the shared state asks for them. */

import { getMap, getRegions, getSlide, getTissue } from "./api.js";
import { HeatmapLayer, veil } from "./heatmap-layer.js";
import { showError } from "./notices.js";
import { OutlineLayer } from "./outlines.js";
import { Pane } from "./pane.js";
import { paintResult } from "./result-painting.js";
import { debounce } from "./state.js";

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
    this.pane.painters.push((context, frame) => paintResult(context, frame, this));
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

  /** Pick out the cell at a place. @param {{ x: number, y: number } | null} place */
  hover(place) {
    const cell = place && this.pane.grid.cellAt(place.x, place.y);
    if (cell?.row === this.cell?.row && cell?.col === this.cell?.col) return;
    this.cell = cell;
    this.pane.redraw();
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
