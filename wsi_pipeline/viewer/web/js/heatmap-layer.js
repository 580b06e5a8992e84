/** A map of cells as a tint above the tissue: smooth, or cell by cell, exact to the pixel at every zoom and rotation. */

import { lookup } from "./colormaps.js";
import { indexAt } from "./grid.js";

/**
 * @typedef {{ map: string, low: number, high: number, threshold: number, fade: boolean, top?: number }} Scale
 * @typedef {import("./pane-camera.js").Frame} Frame
 */

/** Below so many device pixels a cell is drawn from the ready picture, reduced; above, cell by cell. */
const LEAST_CELL_PX = 2;

export class HeatmapLayer {
  /**
   * @param {import("./grid.js").CellGrid} grid
   * @param {Float32Array} values [rows, cols], NaN for none
   */
  constructor(grid, values) {
    this.grid = grid;
    this.values = values;
    /** One colour a cell, RGBA as one number, [rows * cols]. */
    this.colors = new Uint32Array(values.length);
    this.picture = document.createElement("canvas");
    this.picture.width = grid.cols;
    this.picture.height = grid.rows;
    this.sampled = document.createElement("canvas");
    /** @type {ImageData | null} */
    this.image = null;
    this.key = "";
  }

  /** @param {Scale} scale */
  setScale(scale) {
    const key = JSON.stringify(scale);
    if (key === this.key) return;
    this.key = key;
    const table = new Uint32Array(lookup(scale).buffer);
    const { values, colors } = this;
    const factor = 1023 / (scale.top ?? 1);
    for (let n = 0; n < values.length; n += 1) {
      const value = values[n];
      colors[n] = value === value ? table[Math.max(0, Math.min(1023, Math.round(value * factor)))] : 0;
    }
    const image = new ImageData(new Uint8ClampedArray(colors.buffer), this.grid.cols, this.grid.rows);
    /** @type {any} */ (this.picture.getContext("2d")).putImageData(image, 0, 0);
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {Frame} frame
   * @param {{ opacity: number, smooth: boolean }} how
   */
  draw(context, frame, { opacity, smooth }) {
    context.globalAlpha = opacity;
    const cellPx = this.grid.step[0] * frame.scale * frame.dpr;
    if (smooth || cellPx < LEAST_CELL_PX) this.drawPicture(context, frame);
    else this.drawCells(context, frame);
  }

  /** @param {CanvasRenderingContext2D} context @param {Frame} frame */
  drawPicture(context, frame) {
    const { grid } = this;
    const { firstCol, lastCol, firstRow, lastRow } = grid.range(frame.view);
    if (lastCol <= firstCol || lastRow <= firstRow) return;
    context.transform(...frame.matrix);
    // The last cells may reach over the slide's edge: their picture is whole, what is shown of it is not.
    context.beginPath();
    context.rect(grid.xs[0], grid.ys[0], grid.xs[grid.cols] - grid.xs[0], grid.ys[grid.rows] - grid.ys[0]);
    context.clip();
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "medium";
    const [x, y] = [grid.origin[0] + firstCol * grid.step[0], grid.origin[1] + firstRow * grid.step[1]];
    const [cols, rows] = [lastCol - firstCol, lastRow - firstRow];
    context.drawImage(this.picture, firstCol, firstRow, cols, rows, x, y, cols * grid.step[0], rows * grid.step[1]);
  }

  /**
   * Every device pixel gets the colour of the cell that its middle lies in.
   * @param {CanvasRenderingContext2D} context
   * @param {Frame} frame
   */
  drawCells(context, frame) {
    const width = Math.round(frame.width * frame.dpr);
    const height = Math.round(frame.height * frame.dpr);
    if (!this.image || this.image.width !== width || this.image.height !== height) {
      this.image = new ImageData(width, height);
      this.sampled.width = width;
      this.sampled.height = height;
    }
    const pixels = new Uint32Array(this.image.data.buffer);
    const [a, b, c, d, e, f] = frame.matrix.map((value) => value * frame.dpr);
    if (Math.abs(b) < 1e-9 * Math.abs(a) && a > 0) this.sampleStraight(pixels, width, height, [a, d, e, f]);
    else this.sampleTurned(pixels, width, height, [a, b, c, d, e, f]);
    /** @type {any} */ (this.sampled.getContext("2d")).putImageData(this.image, 0, 0);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.drawImage(this.sampled, 0, 0);
  }

  /** @param {Uint32Array} pixels @param {number} width @param {number} height @param {number[]} matrix */
  sampleStraight(pixels, width, height, [a, d, e, f]) {
    const { grid, colors } = this;
    const cols = new Int32Array(width);
    for (let x = 0; x < width; x += 1) cols[x] = indexAt(grid.xs, grid.origin[0], grid.step[0], (x + 0.5 - e) / a);
    for (let y = 0; y < height; y += 1) {
      const row = indexAt(grid.ys, grid.origin[1], grid.step[1], (y + 0.5 - f) / d);
      const from = y * width;
      if (row < 0) pixels.fill(0, from, from + width);
      else for (let x = 0; x < width; x += 1) pixels[from + x] = cols[x] < 0 ? 0 : colors[row * grid.cols + cols[x]];
    }
  }

  /** @param {Uint32Array} pixels @param {number} width @param {number} height @param {number[]} matrix */
  sampleTurned(pixels, width, height, [a, b, c, d, e, f]) {
    const { grid, colors } = this;
    const det = a * d - b * c;
    const [ix, iy, jx, jy] = [d / det, -b / det, -c / det, a / det];
    for (let y = 0; y < height; y += 1) {
      let x0 = ix * (0.5 - e) + jx * (y + 0.5 - f);
      let y0 = iy * (0.5 - e) + jy * (y + 0.5 - f);
      for (let x = 0; x < width; x += 1) {
        const col = indexAt(grid.xs, grid.origin[0], grid.step[0], x0);
        const row = col < 0 ? -1 : indexAt(grid.ys, grid.origin[1], grid.step[1], y0);
        pixels[y * width + x] = row < 0 ? 0 : colors[row * grid.cols + col];
        x0 += ix;
        y0 += iy;
      }
    }
  }
}

/**
 * The tissue mask as a veil over what is no tissue.
 * @param {Uint8Array} tissue [rows, cols]
 * @returns {Float32Array} 1 where there is none, NaN where there is
 */
export function veil(tissue) {
  return Float32Array.from(tissue, (inside) => (inside ? NaN : 1));
}
