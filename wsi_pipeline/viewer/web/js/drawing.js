/** Drawing an outline with the pointer or with keys, freehand or corner by corner; it knows of no annotations. */

import { h } from "./dom.js";
import { notice } from "./notices.js";
import { stroke } from "./outlines.js";
import { area, simpleRing, thin } from "./shapes.js";

/**
 * @typedef {"none" | "freehand" | "corners"} Mode
 * @typedef {[number, number]} Point level-0 pixels
 */

/** A press that moves further than this is a drag, CSS pixels. */
const CLICK_PX = 4;

/** A click so near to the first corner closes the outline, and one so near to the last corner is not another one. */
const CLOSES_PX = 10;
const SAME_PX = 2;

/** Freehand lines are thinned to this, CSS pixels; outlines of a smaller area are slips, CSS pixels squared. */
const THIN_PX = 0.8;
const LEAST_PX2 = 9;

/** Fires `mode` when what the pointer does changed, or the corners; `drawn` with a ring ({@link Point}[], open, as `simpleRing` gives it). */
export class Drawing extends EventTarget {
  /** @param {import("./pane.js").Pane} pane @param {() => string} color of the line, as CSS has it */
  constructor(pane, color) {
    super();
    this.pane = pane;
    this.color = color;
    /** @type {Mode} */
    this.mode = "none";
    /** @type {Point[]} */
    this.points = [];
    /** @type {Point | undefined} */
    this.hover = undefined;
    /** @type {{ x: number, y: number, moved: boolean } | null} the pointer is down, CSS pixels in the pane */
    this.press = null;
    this.glass = h("div", { class: "drawing-glass", hidden: true });
    pane.stage.append(this.glass);
    this.listen();
  }

  listen() {
    const { glass } = this;
    const at = (/** @type {PointerEvent} */ event) => {
      const box = this.pane.stage.getBoundingClientRect();
      return { x: event.clientX - box.left, y: event.clientY - box.top };
    };
    glass.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
      if (event.button) return;
      glass.setPointerCapture(event.pointerId);
      this.pressed(at(event));
    });
    glass.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => this.moved(at(event)));
    glass.addEventListener("pointerup", (/** @type {PointerEvent} */ event) => this.released(at(event)));
    glass.addEventListener("pointercancel", () => {
      this.press = null;
      if (this.mode === "freehand") this.points = [];
    });
    glass.addEventListener("dblclick", () => this.mode === "corners" && this.doubleClicked());
    // The wheel still zooms: it is handed on to the slide below.
    glass.addEventListener("wheel", (/** @type {WheelEvent} */ event) => {
      event.preventDefault();
      this.pane.viewer.canvas.dispatchEvent(new WheelEvent("wheel", event));
    }, { passive: false });
  }

  /** @param {{ x: number, y: number }} place CSS pixels in the pane */
  pressed({ x, y }) {
    this.press = { x, y, moved: false };
    if (this.mode === "freehand") this.points = [this.pane.camera.toSlide(x, y)];
  }

  /** @param {{ x: number, y: number }} place */
  moved({ x, y }) {
    const { press, pane } = this;
    this.hover = pane.camera.toSlide(x, y);
    if (press && Math.hypot(x - press.x, y - press.y) > CLICK_PX) press.moved = true;
    if (press?.moved && this.mode === "freehand") this.points.push(this.hover);
    else if (press?.moved) {
      pane.camera.panBy((press.x - x) / pane.stage.clientWidth, (press.y - y) / pane.stage.clientHeight);
      this.press = { x, y, moved: true };
    }
    pane.redraw();
  }

  /** @param {{ x: number, y: number }} place */
  released({ x, y }) {
    const { press } = this;
    this.press = null;
    if (!press) return;
    if (this.mode === "freehand") {
      if (press.moved) this.finish();
      else this.points = [];
    } else if (!press.moved) this.addCorner(this.pane.camera.toSlide(x, y));
  }

  doubleClicked() {
    // A single corner is this double-click's own: its first click has closed the outline, or there was none yet.
    if (this.points.length === 1) this.removeCorner();
    else if (this.points.length) this.finish();
  }

  /** @param {Mode} mode */
  setMode(mode) {
    this.mode = mode;
    this.points = [];
    this.hover = undefined;
    this.press = null;
    this.glass.hidden = mode === "none";
    this.changed();
  }

  /** @param {Point} point */
  addCorner(point) {
    const { scale } = this.pane.camera.frame();
    const away = (/** @type {Point | undefined} */ other) => (other ? Math.hypot(other[0] - point[0], other[1] - point[1]) * scale : Infinity);
    if (this.points.length >= 3 && away(this.points[0]) < CLOSES_PX) {
      this.finish();
      return;
    }
    if (away(this.points.at(-1)) < SAME_PX) return;
    this.points.push(point);
    this.changed();
  }

  /** A corner in the middle of the view, for those who draw by keyboard. */
  addCornerInTheMiddle() {
    const { x, y } = this.pane.camera.where();
    this.addCorner([x, y]);
  }

  removeCorner() {
    this.points.pop();
    this.changed();
  }

  /** Close the outline and hand it over. */
  finish() {
    const { scale } = this.pane.camera.frame();
    const ring = simpleRing(this.mode === "freehand" ? thin(this.points, THIN_PX / scale) : this.points);
    this.points = [];
    if (ring && Math.abs(area(ring)) * scale * scale >= LEAST_PX2) {
      this.dispatchEvent(new CustomEvent("drawn", { detail: ring }));
    } else {
      notice("Nothing was drawn", { text: "The outline encloses no area.", hint: "Go round what you mean, or set at least three corners.", key: "drawing", seconds: 5 });
    }
    this.changed();
  }

  changed() {
    this.pane.redraw();
    this.dispatchEvent(new Event("mode"));
  }

  /** The line so far, and its corners. @param {CanvasRenderingContext2D} context @param {import("./pane-camera.js").Frame} frame */
  paint(context, frame) {
    if (!this.points.length) return;
    const line = new Path2D();
    const points = this.mode === "corners" && this.hover ? [...this.points, this.hover] : this.points;
    points.forEach(([x, y], n) => (n ? line.lineTo(x, y) : line.moveTo(x, y)));
    stroke(context, frame, line, this.color(), 2.2);
    if (this.mode !== "corners") return;
    for (const [x, y] of this.points) {
      const [px, py] = this.pane.camera.toScreen(x, y);
      context.fillStyle = "white";
      context.strokeStyle = this.color();
      context.lineWidth = 2;
      context.beginPath();
      context.arc(px, py, 4, 0, 2 * Math.PI);
      context.fill();
      context.stroke();
    }
  }
}
