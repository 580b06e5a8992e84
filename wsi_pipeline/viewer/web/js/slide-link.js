/** The address of the slide page: kept in step with what is on the screen, copied, and changed to compare results. */

import { announce } from "./dom.js";
import { notice } from "./notices.js";
import { replaceLink, slideLink, valuesOf, viewValues } from "./permalink.js";
import { debounce } from "./state.js";

/** How a slide is first shown; an address tells what differs, and every threshold. @type {any} */
export const USUAL = { tint: "probability", map: "viridis", opacity: 0.5, low: 0, high: 1, smooth: true, fade: true, outlines: true, tissue: false, threshold: null, threshold2: null };

const WRITE_AFTER_MS = 250;

export class SlideLink {
  /** @param {import("./slide-opening.js").Opened} opened @param {HTMLElement} panes marked as moving until the address is written */
  constructor(opened, panes) {
    this.opened = opened;
    this.panes = panes;
    /** Write the address once all stands still. */
    this.soon = debounce(() => this.write(), WRITE_AFTER_MS);
  }

  /** The view moves. */
  moved() {
    this.panes.dataset.moving = "yes";
    this.soon();
  }

  /** @returns {Record<string, any>} */
  values() {
    const { views: [first, second], state } = this.opened;
    // Without a second result, its threshold says nothing.
    const usual = second ? USUAL : { ...USUAL, threshold2: state.value.threshold2 };
    return { ...viewValues(first.pane.camera.where()), ...valuesOf(state.value, usual), cmp: second?.slide.id };
  }

  write() {
    if (this.opened.closed || !this.opened.views.length) return;
    delete this.panes.dataset.moving;
    replaceLink(slideLink(this.opened.id, this.values()));
  }

  async copy() {
    this.write();
    try {
      await navigator.clipboard.writeText(location.href);
      notice("The link was copied", { text: "It opens this slide at this place, zoom, threshold and layers.", key: "link", seconds: 4 });
    } catch {
      notice("Copy the link from the address bar", { text: location.href, key: "link" });
    }
  }

  /** Show another result beside this one. @param {string | null} id null for none */
  compareWith(id) {
    location.hash = slideLink(this.opened.id, { ...this.values(), cmp: id, t2: null });
  }

  compareNext() {
    const [first, second] = this.opened.views;
    const ids = [null, ...first.slide.same_slide];
    const at = ids.indexOf(second?.slide.id ?? null);
    if (ids.length > 1) this.compareWith(ids[(at + 1) % ids.length]);
    else announce("There is no other result of this slide.");
  }
}
