/** Regions that are picked: by a click or by keys, flown to, and said to be right or wrong. */

import { announce } from "./dom.js";
import { shapeOf } from "./outlines.js";

/**
 * @typedef {import("./api.js").Feature} Feature
 * @typedef {import("./result-view.js").ResultView} ResultView
 */

export class Picking {
  /** @param {import("./slide-opening.js").Opened} opened @param {() => void} show called when another region is picked */
  constructor(opened, show) {
    this.opened = opened;
    this.show = show;
  }

  /** The slide was clicked. @param {ResultView} view @param {any} event of OpenSeadragon */
  clicked(view, event) {
    const { annotator } = this.opened;
    if (!event.quick || annotator?.drawing.mode !== "none") return;
    const [x, y] = view.pane.camera.toSlide(event.position.x, event.position.y);
    if (annotator.layer.at(x, y)) return;
    this.pick(view, view.outlines.at(x, y)?.feature.id ?? null);
  }

  /** @param {ResultView} view @param {string | null} id */
  pick(view, id) {
    view.outlines.selected = id;
    view.pane.redraw();
    this.show();
    if (id) document.querySelector(`.regions [data-id="${CSS.escape(id)}"]`)?.scrollIntoView({ block: "nearest" });
  }

  /** Neither a region nor an annotation is picked. */
  unpick() {
    this.opened.annotator?.select(null);
    for (const view of this.opened.views) this.pick(view, null);
  }

  /** @param {Feature} region */
  flyTo(region) {
    this.pick(this.opened.views[0], region.id);
    this.flyToShape(region);
  }

  /** @param {Feature} feature */
  flyToShape(feature) {
    const { pane } = this.opened.views[0];
    pane.camera.fly(shapeOf(feature, pane.grid.origin).box);
  }

  /** @param {number} by */
  async step(by) {
    const [{ outlines }] = this.opened.views;
    const regions = await this.opened.views[0].measured();
    if (!regions?.length || this.opened.closed) return;
    const at = regions.findIndex((feature) => feature.id === outlines.selected);
    const next = at < 0 ? (by > 0 ? 0 : regions.length - 1) : (at + by + regions.length) % regions.length;
    this.flyTo(regions[next]);
    announce(regions[next].properties.name);
  }

  /** @param {boolean} right */
  mark(right) {
    const { views: [{ regions, outlines }], annotator } = this.opened;
    const region = regions?.find((feature) => feature.id === outlines.selected);
    if (!region) return announce("Pick a region first.");
    annotator?.mark(region, right);
    const verdict = annotator?.verdict(region);
    return announce(`${region.properties.name}: ${verdict === null ? "no mark" : verdict ? "right" : "wrong"}`);
  }
}
