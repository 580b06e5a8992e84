/** Drawn outlines: thinned, and without loops, so that every program takes them for one polygon; tangles are left as they are. Pure. */

/** @typedef {[number, number]} Point */

/**
 * Drop points that lie within `tolerance` of the line (Douglas and Peucker 1973).
 * @param {Point[]} points open
 * @param {number} tolerance
 * @returns {Point[]}
 */
export function thin(points, tolerance) {
  if (points.length < 3) return points;
  const kept = new Uint8Array(points.length);
  kept[0] = kept[points.length - 1] = 1;
  const spans = [[0, points.length - 1]];
  while (spans.length) {
    const [first, last] = /** @type {number[]} */ (spans.pop());
    let [worst, most] = [-1, tolerance];
    for (let n = first + 1; n < last; n += 1) {
      const off = distance(points[n], points[first], points[last]);
      if (off > most) [worst, most] = [n, off];
    }
    if (worst < 0) continue;
    kept[worst] = 1;
    spans.push([first, worst], [worst, last]);
  }
  return points.filter((_, n) => kept[n]);
}

/** @param {Point} point @param {Point} from @param {Point} to */
function distance([x, y], [x0, y0], [x1, y1]) {
  const [dx, dy] = [x1 - x0, y1 - y0];
  const squared = dx * dx + dy * dy;
  const along = squared ? Math.min(1, Math.max(0, ((x - x0) * dx + (y - y0) * dy) / squared)) : 0;
  return Math.hypot(x - x0 - along * dx, y - y0 - along * dy);
}

/** So many loops of an outline are cut off here; the server mends one that has more. */
const MAX_CUTS = 500;

/**
 * The largest loop of a closed outline that may cross itself; null where it encloses nothing.
 * @param {Point[]} points without the closing one
 * @returns {Point[] | null} a ring on hundredths of a pixel: a simple one, or, of a tangle, all of it
 */
export function simpleRing(points) {
  const whole = withoutRepeats(points.map(([x, y]) => /** @type {Point} */ ([round(x), round(y)])));
  let ring = whole;
  for (let cuts = 0; cuts < MAX_CUTS; cuts += 1) {
    const crossing = findCrossing(ring);
    if (!crossing) return ring.length >= 3 && Math.abs(area(ring)) > 0 ? ring : null;
    const { first, second, at } = crossing;
    const inner = withoutRepeats([at, ...ring.slice(first + 1, second + 1)]);
    const outer = withoutRepeats([at, ...ring.slice(second + 1), ...ring.slice(0, first + 1)]);
    ring = Math.abs(area(inner)) > Math.abs(area(outer)) ? inner : outer;
  }
  return whole;
}

/** Whether a ring crosses itself. @param {Point[]} ring */
export function isTangle(ring) {
  return findCrossing(ring) !== null;
}

/** @param {number} value */
function round(value) {
  return Math.round(value * 100) / 100;
}

/** @param {Point[]} ring */
function withoutRepeats(ring) {
  return ring.filter(([x, y], n) => {
    const [px, py] = ring[(n + ring.length - 1) % ring.length];
    return ring.length === 1 || x !== px || y !== py;
  });
}

/** @param {Point[]} ring @returns {number} signed */
export function area(ring) {
  let twice = 0;
  for (let n = 0, m = ring.length - 1; n < ring.length; m = n, n += 1) twice += ring[m][0] * ring[n][1] - ring[n][0] * ring[m][1];
  return twice / 2;
}

/**
 * Two sides that are not neighbours and meet.
 * @param {Point[]} ring
 * @returns {{ first: number, second: number, at: Point } | null}
 */
function findCrossing(ring) {
  const count = ring.length;
  for (let first = 0; first < count; first += 1) {
    const [a, b] = [ring[first], ring[(first + 1) % count]];
    for (let second = first + 2; second < count; second += 1) {
      if (first === 0 && second === count - 1) continue;
      const at = meeting(a, b, ring[second], ring[(second + 1) % count]);
      if (at) return { first, second, at };
    }
  }
  return null;
}

/** @param {Point} a @param {Point} b @param {Point} c @param {Point} d @returns {Point | null} */
function meeting(a, b, c, d) {
  const [rx, ry, sx, sy] = [b[0] - a[0], b[1] - a[1], d[0] - c[0], d[1] - c[1]];
  const cross = rx * sy - ry * sx;
  if (cross === 0) return null;
  const t = ((c[0] - a[0]) * sy - (c[1] - a[1]) * sx) / cross;
  const u = ((c[0] - a[0]) * ry - (c[1] - a[1]) * rx) / cross;
  return t >= 0 && t <= 1 && u >= 0 && u <= 1 ? [round(a[0] + t * rx), round(a[1] + t * ry)] : null;
}
