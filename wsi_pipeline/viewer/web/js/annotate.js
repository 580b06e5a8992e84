/** Annotating: what is drawn or marked becomes an annotation in the store; one of them is selected, and can be changed. */

import { changed, classesFor, makeFeature, markId, newId, rgb } from "./annotation-features.js";
import { AnnotationLayer } from "./annotation-layer.js";
import { Drawing } from "./drawing.js";
import { area, isTangle } from "./shapes.js";

/** @typedef {import("./api.js").Feature} Feature */

/** Fires `select`. */
export class Annotator extends EventTarget {
  /**
   * @param {import("./pane.js").Pane} pane
   * @param {import("./annotation-store.js").AnnotationStore} store
   */
  constructor(pane, store) {
    super();
    this.pane = pane;
    this.store = store;
    this.classes = classesFor(pane.slide.class_name);
    /** What is drawn next. */
    this.choice = this.classes[0];
    /** @type {string | null} */
    this.selected = null;
    this.layer = new AnnotationLayer(pane.grid);
    this.drawing = new Drawing(pane, () => rgb(this.choice.color));
    this.drawing.addEventListener("drawn", (/** @type {any} */ event) => this.keep(event.detail));
    store.addEventListener("change", () => this.refresh());
    pane.painters.push((context, frame) => {
      this.layer.paint(context, frame, this.selected);
      this.drawing.paint(context, frame);
    });
    pane.viewer.addHandler("canvas-click", (/** @type {any} */ event) => {
      if (!event.quick || this.drawing.mode !== "none") return;
      const [x, y] = pane.camera.toSlide(event.position.x, event.position.y);
      this.select(this.layer.at(x, y)?.feature.id ?? null);
    });
  }

  refresh() {
    this.layer.setFeatures(this.store.features);
    if (!this.find(this.selected)) this.select(null);
    this.pane.redraw();
  }

  /** @param {string | null} id */
  find(id) {
    return this.store.features.find((feature) => feature.id === id);
  }

  /** Draw, or stop drawing. @param {import("./drawing.js").Mode} mode */
  setMode(mode) {
    if (mode !== "none") this.select(null);
    this.drawing.setMode(mode);
  }

  /** On, or off where it is on. @param {"freehand" | "corners"} mode */
  toggleMode(mode) {
    this.setMode(this.drawing.mode === mode ? "none" : mode);
  }

  /** An outline was drawn. @param {[number, number][]} ring level-0 pixels */
  keep(ring) {
    const [left, top] = this.pane.grid.origin;
    const [mppX, mppY] = this.pane.slide.mpp;
    const placed = ring.map(([x, y]) => [x - left, y - top]);
    const um2 = Math.round(Math.abs(area(ring)) * mppX * mppY * 1000) / 1000;
    // What a tangle encircles is only known when the server has mended it.
    const measurements = isTangle(ring) ? {} : { "Area um2": um2 };
    const feature = makeFeature(newId(), `${this.choice.label.split(":")[0]}, drawn`, this.choice, {
      type: "Polygon",
      coordinates: [[...placed, placed[0]]],
    }, measurements);
    this.store.put(feature);
    this.select(feature.id);
  }

  /**
   * Say that a region of the model is right or wrong; saying the same again takes it back.
   * @param {Feature} region
   * @param {boolean} right
   */
  mark(region, right) {
    if (this.verdict(region) === right) {
      this.store.remove(markId(region.id));
      return;
    }
    const name = `${region.properties.name} ${right ? "is right" : "is wrong"}`;
    this.store.put(makeFeature(markId(region.id), name, this.classes[right ? 0 : 1], region.geometry, region.properties.measurements));
  }

  /** @param {Feature} region @returns {boolean | null} what was said of it */
  verdict(region) {
    const mark = this.find(markId(region.id));
    return mark ? mark.properties.classification?.name === this.classes[0].name : null;
  }

  /** @param {string} id @param {string} className */
  reclassify(id, className) {
    const feature = this.find(id);
    const choice = this.classes.find((one) => one.name === className);
    if (feature && choice) this.store.put(changed(feature, { classification: { name: choice.name, color: choice.color } }));
  }

  /** @param {string} id @param {string} name */
  rename(id, name) {
    const feature = this.find(id);
    if (feature) this.store.put(changed(feature, { name }));
  }

  /** @param {string | null} id */
  select(id) {
    if (id === this.selected) return;
    this.selected = id;
    this.pane.redraw();
    this.dispatchEvent(new Event("select"));
  }

  /** @param {boolean} visible */
  setVisible(visible) {
    this.layer.visible = visible;
    this.pane.redraw();
  }
}
