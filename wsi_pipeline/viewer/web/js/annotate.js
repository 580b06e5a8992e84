/** Annotating: regions marked right or wrong, and outlines drawn freehand or corner by corner. */

import { h } from "./dom.js";
import { area as areaText } from "./format.js";
import { newId } from "./annotation-store.js";
import { notice } from "./notices.js";
import { contains, pathOf, shapeOf, stroke } from "./outlines.js";
import { area, simpleRing, thin } from "./shapes.js";

/**
 * @typedef {import("./api.js").Feature} Feature
 * @typedef {import("./pane.js").Pane} Pane
 * @typedef {"none" | "freehand" | "corners"} Mode
 * @typedef {{ name: string, label: string, color: [number, number, number] }} ClassChoice
 */

/**
 * Classes that one can give; the names are those that `wsi-pipeline extract` knows.
 * @param {string} positive
 * @returns {ClassChoice[]}
 */
export function classesFor(positive) {
  return [
    { name: positive, label: positive, color: [200, 0, 0] },
    { name: `non-${positive}`, label: `Not ${positive}`, color: [0, 110, 180] },
    { name: "Region*", label: "Region: all in it is annotated", color: [0, 150, 80] },
    { name: "Ignore*", label: "Ignore: leave this out", color: [160, 160, 160] },
  ];
}

/** A press that moves further than this is a drag, CSS pixels. */
const CLICK_PX = 4;

/** Fires `mode` when what the pointer does changed, and `select`. */
export class Annotator extends EventTarget {
  /**
   * @param {Pane} pane
   * @param {import("./annotation-store.js").AnnotationStore} store
   */
  constructor(pane, store) {
    super();
    this.pane = pane;
    this.store = store;
    this.classes = classesFor(pane.slide.class_name);
    /** @type {ClassChoice} */
    this.choice = this.classes[0];
    /** @type {Mode} */
    this.mode = "none";
    /** @type {[number, number][]} level-0 pixels */
    this.points = [];
    /** @type {string | null} */
    this.selected = null;
    this.visible = true;
    /** @type {import("./outlines.js").Shape[]} */
    this.shapes = [];
    this.glass = h("div", { class: "drawing-glass", hidden: true });
    pane.stage.append(this.glass);
    this.listen();
    store.addEventListener("change", () => this.refresh());
    pane.painters.push((context, frame) => this.paint(context, frame));
  }

  refresh() {
    this.shapes = this.store.features.filter(hasArea).map((feature) => shapeOf(feature, this.pane.grid.origin));
    if (!this.store.features.some((feature) => feature.id === this.selected)) this.select(null);
    this.pane.redraw();
  }

  listen() {
    /** @type {{ x: number, y: number, moved: boolean } | null} */
    let press = null;
    const at = (/** @type {PointerEvent} */ event) => {
      const box = this.pane.stage.getBoundingClientRect();
      return { x: event.clientX - box.left, y: event.clientY - box.top };
    };
    this.glass.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
      if (event.button) return;
      press = { ...at(event), moved: false };
      this.glass.setPointerCapture(event.pointerId);
      if (this.mode === "freehand") this.points = [this.pane.toSlide(press.x, press.y)];
    });
    this.glass.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
      const { x, y } = at(event);
      this.hover = this.pane.toSlide(x, y);
      if (press && Math.hypot(x - press.x, y - press.y) > CLICK_PX) press.moved = true;
      if (press?.moved && this.mode === "freehand") this.points.push(this.hover);
      else if (press?.moved) {
        this.pane.panBy((press.x - x) / this.pane.stage.clientWidth, (press.y - y) / this.pane.stage.clientHeight);
        press = { x, y, moved: true };
      }
      this.pane.redraw();
    });
    this.glass.addEventListener("pointerup", (/** @type {PointerEvent} */ event) => {
      const { x, y } = at(event);
      const moved = press?.moved ?? false;
      press = null;
      if (this.mode === "freehand") {
        if (moved) this.finish();
        else this.points = [];
      } else if (!moved) this.addCorner(this.pane.toSlide(x, y));
    });
    this.glass.addEventListener("pointercancel", () => {
      press = null;
      if (this.mode === "freehand") this.points = [];
    });
    this.glass.addEventListener("dblclick", () => this.mode === "corners" && this.finish());
    // The wheel still zooms: it is handed on to the slide below.
    this.glass.addEventListener("wheel", (/** @type {WheelEvent} */ event) => {
      event.preventDefault();
      this.pane.viewer.canvas.dispatchEvent(new WheelEvent("wheel", event));
    }, { passive: false });
    this.pane.viewer.addHandler("canvas-click", (/** @type {any} */ event) => {
      if (!event.quick || this.mode !== "none") return;
      const [x, y] = this.pane.toSlide(event.position.x, event.position.y);
      this.select(this.at(x, y)?.feature.id ?? null);
    });
  }

  /** @param {Mode} mode */
  setMode(mode) {
    this.mode = mode;
    this.points = [];
    this.hover = undefined;
    this.glass.hidden = mode === "none";
    if (mode !== "none") this.select(null);
    this.pane.redraw();
    this.dispatchEvent(new Event("mode"));
  }

  /** @param {[number, number]} point level-0 pixels */
  addCorner(point) {
    const frame = this.pane.frame();
    const [first] = this.points;
    const near = first && Math.hypot(first[0] - point[0], first[1] - point[1]) * frame.scale < 10;
    if (near && this.points.length >= 3) {
      this.finish();
      return;
    }
    const last = this.points.at(-1);
    if (last && Math.hypot(last[0] - point[0], last[1] - point[1]) * frame.scale < 2) return;
    this.points.push(point);
    this.pane.redraw();
    this.dispatchEvent(new Event("mode"));
  }

  /** A corner in the middle of the view, for those who draw by keyboard. */
  addCornerInTheMiddle() {
    const { x, y } = this.pane.where();
    this.addCorner([x, y]);
  }

  removeCorner() {
    this.points.pop();
    this.pane.redraw();
    this.dispatchEvent(new Event("mode"));
  }

  /** Close the outline and keep it. */
  finish() {
    const scale = this.pane.frame().scale;
    const drawn = this.points;
    this.points = [];
    this.pane.redraw();
    const ring = simpleRing(this.mode === "freehand" ? thin(drawn, 0.8 / scale) : drawn);
    if (!ring || Math.abs(area(ring)) * scale * scale < 9) {
      notice("Nothing was drawn", { text: "The outline encloses no area.", hint: "Go round what you mean, or set at least three corners.", key: "drawing", seconds: 5 });
      this.dispatchEvent(new Event("mode"));
      return;
    }
    const [left, top] = this.pane.grid.origin;
    const [mppX, mppY] = this.pane.slide.mpp;
    const placed = ring.map(([x, y]) => [x - left, y - top]);
    const um2 = Math.abs(area(ring)) * mppX * mppY;
    const feature = makeFeature(newId(), `${this.choice.label.split(":")[0]}, drawn`, this.choice, {
      type: "Polygon",
      coordinates: [[...placed, placed[0]]],
    }, { "Area um2": Math.round(um2 * 1000) / 1000 });
    this.store.put(feature);
    this.select(feature.id);
    this.dispatchEvent(new Event("mode"));
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
    const feature = makeFeature(markId(region.id), name, this.classes[right ? 0 : 1], region.geometry, region.properties.measurements);
    this.store.put(feature);
  }

  /** @param {Feature} region @returns {boolean | null} what was said of it */
  verdict(region) {
    const mark = this.store.features.find((feature) => feature.id === markId(region.id));
    return mark ? mark.properties.classification?.name === this.classes[0].name : null;
  }

  /** @param {string} id @param {string} className */
  reclassify(id, className) {
    const feature = this.store.features.find((one) => one.id === id);
    const choice = this.classes.find((one) => one.name === className);
    if (!feature || !choice) return;
    this.store.put({ ...feature, properties: { ...feature.properties, classification: { name: choice.name, color: choice.color } } });
  }

  /** @param {string} id @param {string} name */
  rename(id, name) {
    const feature = this.store.features.find((one) => one.id === id);
    if (feature) this.store.put({ ...feature, properties: { ...feature.properties, name } });
  }

  /** @param {string | null} id */
  select(id) {
    if (id === this.selected) return;
    this.selected = id;
    this.pane.redraw();
    this.dispatchEvent(new Event("select"));
  }

  /** @param {number} x @param {number} y level-0 pixels; the annotation that was drawn last is uppermost */
  at(x, y) {
    return this.visible ? (this.shapes.findLast((shape) => contains(shape, x, y)) ?? null) : null;
  }

  /** @param {CanvasRenderingContext2D} context @param {import("./pane.js").Frame} frame */
  paint(context, frame) {
    if (this.visible) for (const shape of this.shapes) this.paintShape(context, frame, shape);
    if (!this.points.length) return;
    const line = new Path2D();
    const points = this.mode === "corners" && this.hover ? [...this.points, this.hover] : this.points;
    points.forEach(([x, y], n) => (n ? line.lineTo(x, y) : line.moveTo(x, y)));
    stroke(context, frame, line, rgb(this.choice.color), 2.2);
    if (this.mode !== "corners") return;
    for (const [x, y] of this.points) {
      const [px, py] = this.pane.toScreen(x, y);
      context.fillStyle = "white";
      context.strokeStyle = rgb(this.choice.color);
      context.lineWidth = 2;
      context.beginPath();
      context.arc(px, py, 4, 0, 2 * Math.PI);
      context.fill();
      context.stroke();
    }
  }

  /** @param {CanvasRenderingContext2D} context @param {import("./pane.js").Frame} frame @param {import("./outlines.js").Shape} shape */
  paintShape(context, frame, shape) {
    const { left, top, right, bottom } = frame.view;
    const { box, feature } = shape;
    if (box.right < left || box.left > right || box.bottom < top || box.top > bottom) return;
    const path = pathOf([shape], frame.scale);
    const color = rgb(feature.properties.classification?.color ?? [120, 60, 160]);
    if (feature.id === this.selected) {
      context.save();
      const placed = new Path2D();
      placed.addPath(path, new DOMMatrix(frame.matrix));
      context.fillStyle = color;
      context.globalAlpha = 0.18;
      context.fill(placed, "evenodd");
      context.restore();
    }
    // Dashes tell annotations from the model's outlines, whatever colours one sees.
    context.setLineDash([9, 5]);
    stroke(context, frame, path, color, feature.id === this.selected ? 3.4 : 2.4);
    context.setLineDash([]);
  }
}

/**
 * @param {string} id @param {string} name @param {ClassChoice} choice @param {any} geometry @param {Record<string, number>} [measurements]
 * @returns {Feature} as QuPath reads it
 */
function makeFeature(id, name, choice, geometry, measurements = {}) {
  const classification = { name: choice.name, color: choice.color };
  return { type: "Feature", id, geometry, properties: { objectType: "annotation", name, isLocked: false, classification, measurements } };
}

/** The mark of a region has an id of its own, made from the region's: both files can be in QuPath at once. @param {string} id */
function markId(id) {
  const last = [...id.slice(24)].map((digit) => (15 - parseInt(digit, 16)).toString(16)).join("");
  return id.slice(0, 24) + last;
}

/** @param {Feature} feature */
function hasArea(feature) {
  return feature.geometry?.type === "Polygon" || feature.geometry?.type === "MultiPolygon";
}

/** @param {number[]} color */
export function rgb([red, green, blue]) {
  return `rgb(${red} ${green} ${blue})`;
}

/** @param {Feature} feature */
export function describeAnnotation(feature) {
  const um2 = feature.properties.measurements?.["Area um2"];
  return { name: feature.properties.name ?? "annotation", className: feature.properties.classification?.name ?? "", area: um2 === undefined ? "" : areaText(um2 * 1e-6) };
}
