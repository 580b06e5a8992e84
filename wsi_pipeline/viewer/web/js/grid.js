/** The cells of the map on the slide: where each starts and ends, and which one a place lies in. */

/** Cell (row, col) covers the level-0 pixels from `xs[col]` to `xs[col + 1]` and from `ys[row]` to `ys[row + 1]`. */
export class CellGrid {
  /** @param {import("./api.js").SlideDetail} slide */
  constructor({ grid, width, height, mpp }) {
    this.rows = grid.rows;
    this.cols = grid.cols;
    this.origin = grid.origin;
    this.step = grid.step;
    this.mpp = mpp;
    const end = grid.end ?? [width, height];
    this.xs = edges(grid.origin[0], grid.step[0], grid.cols, end[0]);
    this.ys = edges(grid.origin[1], grid.step[1], grid.rows, end[1]);
  }

  /**
   * The cell at a place of level 0, null outside.
   * @param {number} x
   * @param {number} y
   * @returns {{ row: number, col: number } | null}
   */
  cellAt(x, y) {
    const col = indexAt(this.xs, this.origin[0], this.step[0], x);
    const row = indexAt(this.ys, this.origin[1], this.step[1], y);
    return col < 0 || row < 0 ? null : { row, col };
  }

  /**
   * Cells that a box of level 0 touches, half-open.
   * @param {import("./pane-camera.js").Box} box
   */
  range({ left, top, right, bottom }) {
    const bound = (/** @type {number} */ value, /** @type {number} */ most) => Math.min(most, Math.max(0, value));
    return {
      firstCol: bound(Math.floor((left - this.origin[0]) / this.step[0]) - 1, this.cols),
      lastCol: bound(Math.ceil((right - this.origin[0]) / this.step[0]) + 1, this.cols),
      firstRow: bound(Math.floor((top - this.origin[1]) / this.step[1]) - 1, this.rows),
      lastRow: bound(Math.ceil((bottom - this.origin[1]) / this.step[1]) + 1, this.rows),
    };
  }

  /** @param {number} row @param {number} col @returns {number} µm² of the part that lies on the slide */
  cellArea(row, col) {
    const pixels = (this.xs[col + 1] - this.xs[col]) * (this.ys[row + 1] - this.ys[row]);
    return pixels * this.mpp[0] * this.mpp[1];
  }
}

/**
 * Starts are rounded one by one, never added up; the last cell ends at the slide's edge.
 * @param {number} origin @param {number} step @param {number} count @param {number} end
 */
function edges(origin, step, count, end) {
  const all = new Float64Array(count + 1);
  for (let n = 0; n < count; n += 1) all[n] = Math.floor(origin + n * step + 0.5);
  all[count] = Math.min(end, Math.floor(origin + count * step + 0.5));
  return all;
}

/**
 * @param {Float64Array} starts @param {number} origin @param {number} step @param {number} at
 * @returns {number} -1 outside
 */
export function indexAt(starts, origin, step, at) {
  const last = starts.length - 1;
  if (!(at >= starts[0] && at < starts[last])) return -1;
  let n = Math.min(last - 1, Math.max(0, Math.floor((at - origin) / step)));
  // Rounding moves an edge by half a pixel at most.
  while (n > 0 && at < starts[n]) n -= 1;
  while (n < last - 1 && at >= starts[n + 1]) n += 1;
  return n;
}
