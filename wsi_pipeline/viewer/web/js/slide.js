/** The slide page: opens a result, or two in step, connects its parts with one another, and closes them. */

import { listenKeys, listenUndo, showHelp } from "./keyboard.js";
import { h } from "./dom.js";
import { stateOf } from "./permalink.js";
import { SlideActions } from "./slide-actions.js";
import { slideKeys } from "./slide-keys.js";
import { SlideLayout, stageTools } from "./slide-layout.js";
import { SlideLink, USUAL } from "./slide-link.js";
import { openSlide } from "./slide-opening.js";
import { fillPanel, titleOf } from "./slide-panel.js";
import { Picking } from "./slide-picking.js";
import { createState } from "./state.js";

export class SlidePage {
  /**
   * @param {HTMLElement} main
   * @param {import("./api.js").Run} run
   * @param {string} id
   * @param {URLSearchParams} values of the address
   */
  constructor(main, run, id, values) {
    this.values = values;
    /** @type {import("./slide-opening.js").Opened} */
    this.opened = { run, id, state: createState({ ...USUAL, ...stateOf(values) }), views: [], annotator: null, store: null, closed: false };
    this.layout = new SlideLayout(main, stageTools(() => this.opened.views[0]?.pane, {
      fullScreen: () => this.actions.fullScreen(),
      savePicture: () => this.actions.savePicture(),
      copyLink: () => this.link.copy(),
      togglePanel: () => this.actions.togglePanel(),
    }));
    this.actions = new SlideActions(this.opened, this.layout);
    this.link = new SlideLink(this.opened, this.layout.panes);
    this.picking = new Picking(this.opened, () => this.show());
    /** Shows the state in the panel; until that is there, nothing. */
    this.show = () => {};
    /** @type {(() => void)[]} each ends what listens beyond the page's own elements */
    this.stops = [];
  }

  /** Fetch and show. */
  async open() {
    this.layout.setLoading(true);
    await openSlide(this.opened, this.layout, this.values);
    if (this.opened.closed) return;
    this.layout.setLoading(false);
    this.connect();
  }

  /** Fill the panel, and listen to everything. */
  connect() {
    const { opened, layout } = this;
    this.show = fillPanel(layout.panel, opened, this.picking, (id) => this.link.compareWith(id));
    opened.views.forEach((view) => this.connectView(view));
    const resized = new ResizeObserver(() => opened.views.forEach((view) => view.pane.redraw()));
    resized.observe(layout.panes);
    this.stops = [
      opened.state.subscribe(() => { this.show(); this.link.soon(); }),
      listenKeys(() => slideKeys(this)),
      listenUndo((again) => this.actions.undo(again)),
      () => resized.disconnect(),
    ];
    this.pointed(null);
    this.moved();
    this.show();
  }

  /** @param {import("./result-view.js").ResultView} view */
  connectView(view) {
    const { pane } = view;
    const title = titleOf(this.opened, view);
    if (this.opened.views.length > 1) pane.host.prepend(h("p", { class: "pane-title" }, title));
    pane.label(`${view.slide.name}, ${title}`);
    pane.addEventListener("view", () => this.moved());
    pane.addEventListener("pointer", (/** @type {any} */ event) => this.pointed(event.detail));
    view.addEventListener("found", () => this.show());
    pane.viewer.addHandler("canvas-click", (/** @type {any} */ event) => this.picking.clicked(view, event));
  }

  moved() {
    this.layout.showScale(this.opened.views[0]);
    this.link.moved();
  }

  /** @param {{ x: number, y: number } | null} place */
  pointed(place) {
    this.layout.readout.show(this.opened.views, place);
    for (const view of this.opened.views) view.hover(place);
  }

  help() {
    showHelp(slideKeys(this));
  }

  async close() {
    this.opened.closed = true;
    this.link.soon.cancel();
    for (const stop of this.stops) stop();
    for (const view of this.opened.views) view.destroy();
    await this.opened.store?.close();
  }
}
