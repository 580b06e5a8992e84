/** One result on the screen: the slide in deep zoom (OpenSeadragon), and one canvas above it that layers draw on. */

import { h } from "./dom.js";
import { CellGrid } from "./grid.js";
import { Camera } from "./pane-camera.js";
import { keepOutInlineStyle, viewerOptions } from "./viewer-options.js";

/** @type {any} */
const OpenSeadragon = /** @type {any} */ (window).OpenSeadragon;

/** @typedef {(context: CanvasRenderingContext2D, frame: import("./pane-camera.js").Frame) => void} Painter */

/** Fires `view` (place or zoom changed), `pointer` ({ x, y } of level 0, or null), `lead` (the user acts here), `tiles`. */
export class Pane extends EventTarget {
  /**
   * @param {HTMLElement} host
   * @param {import("./api.js").SlideDetail} slide
   */
  constructor(host, slide) {
    super();
    keepOutInlineStyle();
    this.slide = slide;
    this.grid = new CellGrid(slide);
    /** @type {Painter[]} lowest first */
    this.painters = [];
    this.host = host;
    this.stage = h("div", { class: "stage" });
    host.append(this.stage);
    this.viewer = OpenSeadragon(viewerOptions(this.stage, slide));
    this.camera = new Camera(this.viewer, this.stage, slide.width, () => this.lead());
    this.canvas = h("canvas", { class: "layers", "aria-hidden": "true" });
    this.viewer.canvas.append(this.canvas);
    this.context = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    this.ready = new Promise((resolve, reject) => {
      this.viewer.addOnceHandler("open", () => resolve(this));
      this.viewer.addOnceHandler("open-failed", (/** @type {any} */ event) => reject(new Error(event.message)));
    });
    this.label(slide.name);
    this.listen();
  }

  /** @param {string} what is shown, for screen readers */
  label(what) {
    const { canvas } = this.viewer;
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-roledescription", "slide");
    canvas.setAttribute("aria-label", `${what}. Arrow keys move, plus and minus zoom, question mark lists all keys.`);
  }

  listen() {
    const { viewer } = this;
    viewer.addHandler("update-viewport", () => {
      this.draw();
      this.dispatchEvent(new Event("view"));
    });
    for (const name of ["canvas-press", "canvas-scroll", "canvas-key"]) viewer.addHandler(name, () => this.lead());
    viewer.addHandler("navigator-click", () => this.lead());
    viewer.addHandler("navigator-drag", () => this.lead());
    let failed = 0;
    viewer.addHandler("tile-load-failed", (/** @type {any} */ event) => {
      failed += 1;
      this.dispatchEvent(new CustomEvent("tiles", { detail: { failed, level: event.tile?.level } }));
    });
    const pointerMoved = (/** @type {PointerEvent} */ event) => this.point(event.clientX, event.clientY);
    const pointerLeft = () => this.dispatchEvent(new CustomEvent("pointer", { detail: null }));
    this.host.addEventListener("pointermove", pointerMoved);
    this.host.addEventListener("pointerleave", pointerLeft);
    this.unlisten = () => {
      this.host.removeEventListener("pointermove", pointerMoved);
      this.host.removeEventListener("pointerleave", pointerLeft);
    };
  }

  /** This pane is the one that the user moves; a pane in step follows it. */
  lead() {
    this.dispatchEvent(new Event("lead"));
  }

  /** @param {number} clientX @param {number} clientY */
  point(clientX, clientY) {
    if (!this.viewer.isOpen()) return;
    const box = this.stage.getBoundingClientRect();
    const [x, y] = this.camera.toSlide(clientX - box.left, clientY - box.top);
    this.dispatchEvent(new CustomEvent("pointer", { detail: { x, y } }));
  }

  /** Keys go to the slide. */
  focus() {
    this.viewer.canvas.focus({ preventScroll: true });
  }

  /** Draw the layers in the next frame. */
  redraw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      this.draw();
    });
  }

  draw() {
    if (!this.viewer.isOpen() || !this.stage.clientWidth) return;
    const frame = this.camera.frame();
    const width = Math.round(frame.width * frame.dpr);
    const height = Math.round(frame.height * frame.dpr);
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    }
    this.paint(this.context, frame);
  }

  /** @param {CanvasRenderingContext2D} context @param {import("./pane-camera.js").Frame} frame */
  paint(context, frame) {
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, context.canvas.width, context.canvas.height);
    for (const painter of this.painters) {
      context.save();
      context.setTransform(frame.dpr, 0, 0, frame.dpr, 0, 0);
      painter(context, frame);
      context.restore();
    }
  }

  destroy() {
    cancelAnimationFrame(this.waiting ?? 0);
    this.unlisten?.();
    this.viewer.destroy();
    this.stage.remove();
  }
}
