/** The slide page: one result or two in step, the panel beside them, and what connects the two. */

import { AnnotationStore } from "./annotation-store.js";
import { annotationsPart } from "./annotations-panel.js";
import { Annotator } from "./annotate.js";
import { linkPanes } from "./compare.js";
import { aboutPart, layersPart, section, thresholdPart } from "./controls.js";
import { announce, fill, h, iconButton } from "./dom.js";
import { listenKeys, showHelp } from "./keyboard.js";
import { notice, sentence, showError } from "./notices.js";
import { shapeOf } from "./outlines.js";
import { replaceLink, slideLink, stateOf, valuesOf, viewOf, viewValues } from "./permalink.js";
import { readout } from "./readout.js";
import { regionsPart } from "./regions-list.js";
import { ResultView } from "./result-view.js";
import { scaleBar } from "./scalebar.js";
import { saveBlob, takePicture } from "./screenshot.js";
import { slideKeys } from "./slide-keys.js";
import { createState, debounce } from "./state.js";

/** How a slide is first shown. @type {any} */
const USUAL = { tint: "probability", map: "viridis", opacity: 0.5, low: 0, high: 1, smooth: true, fade: true, outlines: true, tissue: false, threshold: null, threshold2: null };

export class SlidePage {
  /**
   * @param {HTMLElement} main
   * @param {import("./api.js").Run} run
   * @param {string} id
   * @param {URLSearchParams} values of the address
   */
  constructor(main, run, id, values) {
    this.run = run;
    this.id = id;
    this.values = values;
    this.state = createState({ ...USUAL, ...stateOf(values) });
    /** @type {ResultView[]} */
    this.views = [];
    /** @type {Annotator | null} */ this.annotator = null;
    /** @type {AnnotationStore | null} */ this.store = null;
    /** @type {(() => void)[]} */
    this.shows = [];
    this.panes = h("div", { class: "panes" });
    this.panel = h("aside", { class: "panel", "aria-label": "Controls" });
    this.readout = readout();
    this.scale = scaleBar();
    this.zoom = h("span", { class: "zoom", title: "Magnification, as a scanner's: 40× is 0.25 µm a pixel" });
    this.stage = h("div", { class: "stage-area" }, this.panes, this.tools(), h("div", { class: "status" }, this.scale.element, this.zoom, this.readout.element, h("span", { class: "status-use" }, "For research use only")));
    this.page = h("div", { class: "slide-page" }, this.stage, this.panel);
    fill(main, this.page);
    this.link = debounce(() => this.writeLink(), 250);
    this.closed = false;
    this.undoKeys = (/** @type {KeyboardEvent} */ event) => this.onUndoKey(event);
  }

  /** Fetch and show. */
  async open() {
    this.panes.classList.add("loading");
    const host = this.addHost();
    const other = this.values.get("cmp");
    // Both panes have their final size before the first slide is fitted into its own.
    const secondHost = other ? this.addHost() : null;
    this.panes.classList.toggle("two", other !== null);
    const first = await ResultView.open(host, this.id, this.state, "threshold");
    if (this.closed) return first.destroy();
    this.views = [first];
    await first.pane.ready;
    const place = viewOf(this.values);
    if (place) first.pane.goTo(place, true);
    this.tellProblems(first);
    await this.openAnnotations(first);
    if (other && secondHost) await this.openSecond(other, secondHost);
    if (this.closed) return undefined;
    this.panes.classList.remove("loading");
    this.connect();
    return undefined;
  }

  addHost() {
    const host = h("div", { class: "pane" });
    this.panes.append(host);
    return host;
  }

  /** @param {ResultView} view */
  tellProblems(view) {
    const { slide, pane } = view;
    if (!slide.slide_available) {
      const hint = "Its map is shown without the tissue.";
      notice("The slide cannot be shown", { text: sentence(slide.slide_problem ?? ""), hint, kind: "error", key: "slide" });
    }
    pane.addEventListener("tiles", (/** @type {any} */ event) => {
      const hint = "The slide's file may be damaged there, or the server has stopped. What is blank was not shown; the map is unaffected.";
      if (event.detail.failed === 1 && slide.slide_available) notice("Parts of the slide could not be shown", { hint, kind: "error", key: "tiles" });
    });
  }

  /** @param {ResultView} view */
  async openAnnotations(view) {
    this.store = new AnnotationStore(view.slide);
    this.annotator = new Annotator(view.pane, this.store);
    try {
      await this.store.load();
      if (this.store.restored) notice("Unsaved annotations were found", { text: "They were drawn here before and had not reached the server. They are being saved now.", key: "restored", seconds: 8 });
    } catch (error) {
      showError(error, "The annotations could not be loaded");
    }
  }

  /** @param {string} id @param {HTMLElement} host */
  async openSecond(id, host) {
    try {
      if (!this.views[0].slide.same_slide.includes(id)) throw new Error("It is not a result of the same slide.");
      const second = await ResultView.open(host, id, this.state, "threshold2");
      await second.pane.ready;
      this.views = [this.views[0], second];
      linkPanes(this.views[0].pane, second.pane);
    } catch (error) {
      host.remove();
      this.panes.classList.remove("two");
      showError(error, "The second result could not be shown");
    }
  }

  /** Listen to everything, and build the panel. */
  connect() {
    const { views } = this;
    this.buildPanel();
    for (const view of views) {
      if (views.length > 1) view.pane.host.prepend(h("p", { class: "pane-title" }, this.title(view.slide)));
      view.pane.addEventListener("view", () => this.moved());
      view.pane.addEventListener("pointer", (/** @type {any} */ event) => this.pointed(event.detail));
      view.addEventListener("found", () => this.show());
      view.pane.viewer.addHandler("canvas-click", (/** @type {any} */ event) => this.clicked(view, event));
    }
    this.stopState = this.state.subscribe(() => { this.show(); this.link(); });
    this.stopKeys = listenKeys(() => slideKeys(this));
    document.addEventListener("keydown", this.undoKeys);
    this.resized = new ResizeObserver(() => views.forEach((view) => view.pane.redraw()));
    this.resized.observe(this.panes);
    this.pointed(null);
    this.moved();
    this.show();
  }

  buildPanel() {
    const [first, second] = this.views;
    const both = second ? this.views : [first];
    const thresholds = both.map((view) => thresholdPart(view, this.state, second ? this.title(view.slide) : null));
    const layers = layersPart(this.state, both);
    const regions = regionsPart(first, this.annotator, (feature) => this.flyTo(feature));
    const notes = this.annotator && this.store && annotationsPart(this.annotator, this.store, (feature) => this.flyToShape(feature));
    this.store?.addEventListener("change", () => regions.show());
    this.annotator?.addEventListener("mode", () => this.stage.classList.toggle("drawing", this.annotator?.mode !== "none"));
    fill(this.panel, h("div", { class: "panel-sections" },
      section("part-threshold", "Threshold", thresholds.map((part) => part.element)),
      section("part-layers", "Layers", layers.element),
      section("part-regions", "Regions", regions.element),
      notes && section("part-annotations", "Annotations", notes.element),
      section("part-about", "Result", aboutPart(first, this.others(), second?.slide.id ?? null, (id) => this.compareWith(id)))));
    this.shows = [...thresholds, layers, regions, notes].filter(Boolean).map((/** @type {any} */ part) => part.show);
  }

  /** @param {import("./api.js").SlideDetail} slide */
  title(slide) {
    return `${slide.model?.name ?? "model"} · ${this.runName(slide.run)}`;
  }

  /** @param {string} id of a run */
  runName(id) {
    return this.run.runs.find((run) => run.id === id)?.name ?? id;
  }

  others() {
    return this.views[0].slide.same_slide.map((id) => {
      const row = this.run.slides.find((slide) => slide.id === id);
      return { id, label: row ? `${row.model ?? "model"} · ${this.runName(row.run)}` : id };
    });
  }

  show() {
    for (const show of this.shows) show();
  }

  moved() {
    const { pane, slide } = this.views[0];
    this.scale.update(slide.mpp[0] / pane.frame().scale);
    this.zoom.textContent = magnification(slide.mpp[0] / pane.frame().scale);
    this.panes.dataset.moving = "yes";
    this.link();
  }

  /** @param {{ x: number, y: number } | null} place */
  pointed(place) {
    this.readout.show(this.views, place);
    for (const view of this.views) view.hover(place);
  }

  /** @param {ResultView} view @param {any} event */
  clicked(view, event) {
    if (!event.quick || this.annotator?.mode !== "none") return;
    const [x, y] = view.pane.toSlide(event.position.x, event.position.y);
    if (this.annotator.at(x, y)) return;
    this.pick(view, view.outlines.at(x, y)?.feature.id ?? null);
  }

  /** @param {ResultView} view @param {string | null} id */
  pick(view, id) {
    view.outlines.selected = id;
    view.pane.redraw();
    this.show();
    if (id) document.querySelector(`.regions [data-id="${CSS.escape(id)}"]`)?.scrollIntoView({ block: "nearest" });
  }

  unpick() {
    this.annotator?.select(null);
    for (const view of this.views) this.pick(view, null);
  }

  /** @param {import("./api.js").Feature} feature */
  flyTo(feature) {
    this.pick(this.views[0], feature.id);
    this.flyToShape(feature);
  }

  /** @param {import("./api.js").Feature} feature */
  flyToShape(feature) {
    const { pane } = this.views[0];
    pane.fly(shapeOf(feature, pane.grid.origin).box);
  }

  /** @param {number} by */
  async stepRegion(by) {
    const regions = await this.views[0].measured();
    const { outlines } = this.views[0];
    if (!regions?.length || this.closed) return;
    const at = regions.findIndex((feature) => feature.id === outlines.selected);
    const next = at < 0 ? (by > 0 ? 0 : regions.length - 1) : (at + by + regions.length) % regions.length;
    this.flyTo(regions[next]);
    announce(regions[next].properties.name);
  }

  /** @param {boolean} right */
  markPicked(right) {
    const { regions, outlines } = this.views[0];
    const region = regions?.find((feature) => feature.id === outlines.selected);
    if (!region) return announce("Pick a region first.");
    this.annotator?.mark(region, right);
    const verdict = this.annotator?.verdict(region);
    return announce(`${region.properties.name}: ${verdict === null ? "no mark" : verdict ? "right" : "wrong"}`);
  }

  /** @param {"freehand" | "corners"} mode */
  draw(mode) {
    this.annotator?.setMode(this.annotator.mode === mode ? "none" : mode);
  }

  deletePicked() {
    if (this.annotator?.selected) this.store?.remove(this.annotator.selected);
  }

  /** @param {KeyboardEvent} event */
  onUndoKey(event) {
    const field = /** @type {HTMLElement} */ (event.target).matches("input[type=text], input[type=number], input[type=search]");
    if (!(event.ctrlKey || event.metaKey) || field || document.querySelector("dialog[open]")) return;
    const key = event.key.toLowerCase();
    const redo = key === "y" || (key === "z" && event.shiftKey);
    if (key !== "z" && key !== "y") return;
    event.preventDefault();
    const done = redo ? this.store?.redo() : this.store?.undo();
    announce(done ? (redo ? "Redone" : "Undone") : "Nothing to undo");
  }

  ownThreshold() {
    for (const view of this.views) this.state.set({ [view.key]: view.slide.threshold });
  }

  uncertainty() {
    if (!this.views.some((view) => view.slide.has_spread)) return announce("This result has no uncertainty layer.");
    this.state.set({ tint: this.state.value.tint === "spread" ? "probability" : "spread" });
    return announce(`Tint: ${this.state.value.tint}`);
  }

  /** @param {string | null} id */
  compareWith(id) {
    const values = { ...this.linkValues(), cmp: id, t2: null };
    location.hash = slideLink(this.id, values);
  }

  nextCompared() {
    const ids = [null, ...this.views[0].slide.same_slide];
    const at = ids.indexOf(this.views[1]?.slide.id ?? null);
    if (ids.length > 1) this.compareWith(ids[(at + 1) % ids.length]);
    else announce("There is no other result of this slide.");
  }

  /** @returns {Record<string, any>} */
  linkValues() {
    const [first, second] = this.views;
    const usual = { ...USUAL, threshold: first.slide.threshold, threshold2: second?.slide.threshold ?? this.state.value.threshold2 };
    return { ...viewValues(first.pane.where()), ...valuesOf(this.state.value, usual), cmp: second?.slide.id };
  }

  writeLink() {
    if (this.closed || !this.views.length) return;
    delete this.panes.dataset.moving;
    replaceLink(slideLink(this.id, this.linkValues()));
  }

  async copyLink() {
    this.writeLink();
    try {
      await navigator.clipboard.writeText(location.href);
      notice("The link was copied", { text: "It opens this slide at this place, zoom, threshold and layers.", key: "link", seconds: 4 });
    } catch {
      notice("Copy the link from the address bar", { text: location.href, key: "link" });
    }
  }

  async savePicture() {
    try {
      const shots = this.views.map((view) => ({ pane: view.pane, threshold: view.threshold }));
      const { x, y } = this.views[0].pane.where();
      saveBlob(await takePicture(shots, this.state.value), `${this.views[0].slide.name}-${Math.round(x)}-${Math.round(y)}.png`);
    } catch (error) {
      showError(error, "The picture could not be made");
    }
  }

  fullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else document.documentElement.requestFullscreen().catch((error) => showError(error, "Full screen is not possible here"));
  }

  togglePanel() {
    const closed = this.page.classList.toggle("no-panel");
    announce(closed ? "Panel closed" : "Panel open");
  }

  sayMiddle() {
    this.readout.say(this.views);
  }

  tools() {
    const pane = () => this.views[0]?.pane;
    return h("div", { class: "stage-tools", role: "toolbar", "aria-label": "View", "aria-orientation": "vertical" },
      iconButton("plus", "Zoom in (+)", () => pane()?.zoomBy(1.5)),
      iconButton("minus", "Zoom out (-)", () => pane()?.zoomBy(1 / 1.5)),
      iconButton("home", "Whole slide (0)", () => pane()?.home()),
      iconButton("turn", "Turn by 15° (R)", () => pane()?.turnBy(15)),
      iconButton("full", "Full screen (F)", () => this.fullScreen()),
      iconButton("camera", "Save a picture (Shift+S)", () => this.savePicture()),
      iconButton("link", "Copy the link to this view (K)", () => this.copyLink()),
      iconButton("panel", "Panel on and off (B)", () => this.togglePanel()));
  }

  help() {
    showHelp(slideKeys(this));
  }

  async close() {
    this.closed = true;
    this.link.cancel();
    this.stopState?.();
    this.stopKeys?.();
    this.resized?.disconnect();
    document.removeEventListener("keydown", this.undoKeys);
    for (const view of this.views) view.destroy();
    await this.store?.close();
  }
}

/** @param {number} umPerPx µm per screen pixel */
function magnification(umPerPx) {
  const times = 10 / umPerPx;
  return `${times >= 10 ? Math.round(times) : Number(times.toPrecision(2))}×`;
}
