/** Annotations above the tissue: dashed, so that they are told from the model's outlines whatever colours one sees. */

import { colorOf, hasArea } from "./annotation-features.js";
import { contains, pathOf, shapeOf, stroke } from "./outlines.js";

/** @typedef {import("./outlines.js").Shape} Shape */

const DASHES = [9, 5];

export class AnnotationLayer {
  /** @param {import("./grid.js").CellGrid} grid */
  constructor(grid) {
    this.grid = grid;
    this.visible = true;
    /** @type {Shape[]} */
    this.shapes = [];
  }

  /** @param {import("./api.js").Feature[]} features */
  setFeatures(features) {
    this.shapes = features.filter(hasArea).map((feature) => shapeOf(feature, this.grid.origin));
  }

  /** @param {number} x @param {number} y level-0 pixels; the annotation that was drawn last is uppermost */
  at(x, y) {
    return this.visible ? (this.shapes.findLast((shape) => contains(shape, x, y)) ?? null) : null;
  }

  /** @param {CanvasRenderingContext2D} context @param {import("./pane-camera.js").Frame} frame @param {string | null} selected its id */
  paint(context, frame, selected) {
    if (!this.visible) return;
    const { left, top, right, bottom } = frame.view;
    for (const shape of this.shapes) {
      const { box, feature } = shape;
      if (box.right < left || box.left > right || box.bottom < top || box.top > bottom) continue;
      paintShape(context, frame, shape, feature.id === selected);
    }
  }
}

/** @param {CanvasRenderingContext2D} context @param {import("./pane-camera.js").Frame} frame @param {Shape} shape @param {boolean} selected */
function paintShape(context, frame, shape, selected) {
  const path = pathOf([shape], frame.scale);
  const color = colorOf(shape.feature);
  if (selected) {
    context.save();
    const placed = new Path2D();
    placed.addPath(path, new DOMMatrix(frame.matrix));
    context.fillStyle = color;
    context.globalAlpha = 0.18;
    context.fill(placed, "evenodd");
    context.restore();
  }
  context.setLineDash(DASHES);
  stroke(context, frame, path, color, selected ? 3.4 : 2.4);
  context.setLineDash([]);
}
