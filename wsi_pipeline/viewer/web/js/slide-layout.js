/** The elements of the slide page: panes with the tools and the status line over them, and the panel beside. */

import { fill, h, iconButton } from "./dom.js";
import { readout } from "./readout.js";
import { scaleBar } from "./scalebar.js";

/** @typedef {import("./result-view.js").ResultView} ResultView */

/** A pixel of this many µm is magnified once. */
const ONCE_UM = 10;

export class SlideLayout {
  /** @param {HTMLElement} main what it fills @param {Node} tools */
  constructor(main, tools) {
    this.panes = h("div", { class: "panes" });
    this.panel = h("aside", { class: "panel", "aria-label": "Controls" });
    this.readout = readout();
    this.scale = scaleBar();
    this.zoom = h("span", { class: "zoom", title: "Magnification, as a scanner's: 40× is 0.25 µm a pixel" });
    const status = h("div", { class: "status" }, this.scale.element, this.zoom, this.readout.element, h("span", { class: "status-use" }, "For research use only"));
    this.stage = h("div", { class: "stage-area" }, this.panes, tools, status);
    this.page = h("div", { class: "slide-page" }, this.stage, this.panel);
    fill(main, this.page);
  }

  /** Room for results side by side, all of their final size. @param {number} count @returns {HTMLElement[]} hosts of panes */
  addHosts(count) {
    const hosts = Array.from({ length: count }, () => h("div", { class: "pane" }));
    this.panes.append(...hosts);
    this.panes.classList.toggle("two", count > 1);
    return hosts;
  }

  /** @param {HTMLElement} host of the second pane */
  dropHost(host) {
    host.remove();
    this.panes.classList.remove("two");
  }

  /** @param {boolean} loading */
  setLoading(loading) {
    this.panes.classList.toggle("loading", loading);
  }

  /** @param {ResultView} view how far it is zoomed in */
  showScale({ pane, slide }) {
    const umPerPx = slide.mpp[0] / pane.camera.frame().scale;
    this.scale.update(umPerPx);
    this.zoom.textContent = magnification(umPerPx);
  }

  /** @returns {boolean} whether the panel is there now */
  togglePanel() {
    return !this.page.classList.toggle("no-panel");
  }
}

/**
 * The buttons over the slide.
 * @param {() => import("./pane.js").Pane | undefined} pane
 * @param {{ fullScreen: () => void, savePicture: () => void, copyLink: () => void, togglePanel: () => void }} does
 */
export function stageTools(pane, does) {
  return h("div", { class: "stage-tools", role: "toolbar", "aria-label": "View", "aria-orientation": "vertical" },
    iconButton("plus", "Zoom in (+)", () => pane()?.camera.zoomBy(1.5)),
    iconButton("minus", "Zoom out (-)", () => pane()?.camera.zoomBy(1 / 1.5)),
    iconButton("home", "Whole slide (0)", () => pane()?.camera.home()),
    iconButton("turn", "Turn by 15° (R)", () => pane()?.camera.turnBy(15)),
    iconButton("full", "Full screen (F)", does.fullScreen),
    iconButton("camera", "Save a picture (Shift+S)", does.savePicture),
    iconButton("link", "Copy the link to this view (K)", does.copyLink),
    iconButton("panel", "Panel on and off (B)", does.togglePanel));
}

/** @param {number} umPerPx µm per screen pixel */
function magnification(umPerPx) {
  const times = ONCE_UM / umPerPx;
  return `${times >= 10 ? Math.round(times) : Number(times.toPrecision(2))}×`;
}
