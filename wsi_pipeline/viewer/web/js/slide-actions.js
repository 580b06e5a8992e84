/** What buttons and keys of the slide page do beyond moving, picking and the address. */

import { announce } from "./dom.js";
import { showError } from "./notices.js";
import { saveBlob, takePicture } from "./screenshot.js";

export class SlideActions {
  /** @param {import("./slide-opening.js").Opened} opened @param {import("./slide-layout.js").SlideLayout} layout */
  constructor(opened, layout) {
    this.opened = opened;
    this.layout = layout;
  }

  deletePicked() {
    const { annotator, store } = this.opened;
    if (annotator?.selected) store?.remove(annotator.selected);
  }

  /** @param {boolean} again redo instead */
  undo(again) {
    const { store } = this.opened;
    if (again) announce(store?.redo() ? "Redone" : "Nothing to redo");
    else announce(store?.undo() ? "Undone" : "Nothing to undo");
  }

  ownThreshold() {
    const { views, state } = this.opened;
    for (const view of views) state.set({ [view.key]: view.slide.threshold });
  }

  uncertainty() {
    const { views, state } = this.opened;
    if (!views.some((view) => view.slide.has_spread)) return announce("This result has no uncertainty layer.");
    state.set({ tint: state.value.tint === "spread" ? "probability" : "spread" });
    return announce(`Tint: ${state.value.tint}`);
  }

  async savePicture() {
    const { views, state } = this.opened;
    try {
      const shots = views.map((view) => ({ pane: view.pane, threshold: view.threshold }));
      const { x, y } = views[0].pane.camera.where();
      saveBlob(await takePicture(shots, state.value), `${views[0].slide.name}-${Math.round(x)}-${Math.round(y)}.png`);
    } catch (error) {
      showError(error, "The picture could not be made");
    }
  }

  fullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else document.documentElement.requestFullscreen().catch((error) => showError(error, "Full screen is not possible here"));
  }

  togglePanel() {
    announce(this.layout.togglePanel() ? "Panel open" : "Panel closed");
  }

  sayMiddle() {
    this.layout.readout.say(this.opened.views);
  }
}
