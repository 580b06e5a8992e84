/** Regions of a map at a threshold, found in the page while the slider moves: the same rules as the server's. */

/**
 * @typedef {{ mask: Uint8Array, count: number, areaUm2: number, cells: number }} Found
 */

/**
 * Cells at the threshold that hang together by their sides, without regions that are too small; where there is a lower
 * threshold, they grow down to it. Runs of cells along each row are joined to those of the row above (union-find).
 * @param {Float32Array} values [rows, cols]; NaN is above no threshold
 * @param {import("./grid.js").CellGrid} grid
 * @param {number} threshold compared as float32, as the map is stored
 * @param {import("./api.js").RegionSettings} settings
 * @returns {Found} mask: [rows, cols], 1 for a cell of a region
 */
export function findRegions(values, grid, threshold, { low_threshold: low, min_region_um2: minUm2 }) {
  const runs = runsOf(values, grid, Math.fround(Math.min(low ?? threshold, threshold)));
  const areas = areasOf(runs, grid);
  const seeded = seedsOf(runs, values, Math.fround(threshold));
  const mask = new Uint8Array(values.length);
  let count = 0;
  let pixels = 0;
  let cells = 0;
  const um2 = grid.mpp[0] * grid.mpp[1];
  for (let n = 0; n < runs.count; n += 1) {
    const root = find(runs.parent, n);
    if (!seeded[root] || areas[root] * um2 < minUm2) continue;
    mask.fill(1, runs.start[n], runs.end[n]);
    cells += runs.end[n] - runs.start[n];
    if (root === n) {
      count += 1;
      pixels += areas[root];
    }
  }
  return { mask, count, areaUm2: pixels * um2, cells };
}

/**
 * Runs of cells along rows, and which hang together.
 * @typedef {{ count: number, start: Int32Array, end: Int32Array, parent: Int32Array }} Runs
 *   start, end: indices into the values, end exclusive; parent: of the union-find
 */

/**
 * @param {Float32Array} values @param {import("./grid.js").CellGrid} grid @param {number} threshold
 * @returns {Runs}
 */
function runsOf(values, { rows, cols }, threshold) {
  const runs = { count: 0, start: new Int32Array(4096), end: new Int32Array(4096), parent: new Int32Array(4096) };
  let above = 0;
  let aboveEnd = 0;
  for (let row = 0; row < rows; row += 1) {
    const first = runs.count;
    const last = (row + 1) * cols;
    let at = row * cols;
    while (at < last) {
      while (at < last && !(values[at] >= threshold)) at += 1;
      if (at === last) break;
      const from = at;
      while (at < last && values[at] >= threshold) at += 1;
      const run = add(runs, from, at);
      while (above < aboveEnd && runs.end[above] <= from - cols) above += 1;
      for (let n = above; n < aboveEnd && runs.start[n] < at - cols; n += 1) join(runs.parent, n, run);
    }
    above = first;
    aboveEnd = runs.count;
  }
  return runs;
}

/** @param {Runs} runs @param {number} start @param {number} end */
function add(runs, start, end) {
  const run = runs.count;
  if (run === runs.start.length) {
    for (const name of /** @type {const} */ (["start", "end", "parent"])) {
      const wider = new Int32Array(2 * run);
      wider.set(runs[name]);
      runs[name] = wider;
    }
  }
  runs.start[run] = start;
  runs.end[run] = end;
  runs.parent[run] = run;
  runs.count = run + 1;
  return run;
}

/**
 * @param {Runs} runs @param {import("./grid.js").CellGrid} grid
 * @returns {Float64Array} level-0 pixels of each root's cells
 */
function areasOf(runs, { cols, xs, ys }) {
  const areas = new Float64Array(runs.count);
  for (let n = 0; n < runs.count; n += 1) {
    const row = Math.floor(runs.start[n] / cols);
    const width = xs[runs.end[n] - row * cols] - xs[runs.start[n] - row * cols];
    areas[find(runs.parent, n)] += width * (ys[row + 1] - ys[row]);
  }
  return areas;
}

/**
 * @param {Runs} runs @param {Float32Array} values @param {number} threshold
 * @returns {Uint8Array} whether a root has a cell at the threshold
 */
function seedsOf({ count, start, end, parent }, values, threshold) {
  const seeded = new Uint8Array(count);
  for (let n = 0; n < count; n += 1) {
    const root = find(parent, n);
    for (let at = start[n]; at < end[n] && !seeded[root]; at += 1) if (values[at] >= threshold) seeded[root] = 1;
  }
  return seeded;
}

/** @param {Int32Array} parent @param {number} n */
function find(parent, n) {
  let at = n;
  // Each step leaves a shorter way for the next one (path halving).
  while (parent[at] !== at) {
    parent[at] = parent[parent[at]];
    at = parent[at];
  }
  return at;
}

/** @param {Int32Array} parent @param {number} one @param {number} other */
function join(parent, one, other) {
  const a = find(parent, one);
  const b = find(parent, other);
  if (a < b) parent[b] = a;
  else parent[a] = b;
}

/**
 * The edges of a mask's cells within a range, as a path in level-0 pixels.
 * @param {Uint8Array} mask [rows, cols]
 * @param {import("./grid.js").CellGrid} grid
 * @param {{ firstRow: number, lastRow: number, firstCol: number, lastCol: number }} range
 * @returns {Path2D}
 */
export function maskEdges(mask, { rows, cols, xs, ys }, { firstRow, lastRow, firstCol, lastCol }) {
  const path = new Path2D();
  const at = (/** @type {number} */ row, /** @type {number} */ col) =>
    row >= 0 && col >= 0 && row < rows && col < cols ? mask[row * cols + col] : 0;
  for (let row = firstRow; row <= lastRow; row += 1) {
    for (let col = firstCol; col < lastCol; ) {
      if (at(row - 1, col) === at(row, col)) {
        col += 1;
        continue;
      }
      path.moveTo(xs[col], ys[row]);
      while (col < lastCol && at(row - 1, col) !== at(row, col)) col += 1;
      path.lineTo(xs[col], ys[row]);
    }
  }
  for (let col = firstCol; col <= lastCol; col += 1) {
    for (let row = firstRow; row < lastRow; ) {
      if (at(row, col - 1) === at(row, col)) {
        row += 1;
        continue;
      }
      path.moveTo(xs[col], ys[row]);
      while (row < lastRow && at(row, col - 1) !== at(row, col)) row += 1;
      path.lineTo(xs[col], ys[row]);
    }
  }
  return path;
}
