/** The address of what is on the screen: which page, slide, place, threshold and layers. */

/**
 * @typedef {{ page: "gallery" | "slide", id: string | null, values: URLSearchParams }} Place
 */

/** @returns {Place} from the part of the address after # */
export function readPlace(hash = location.hash) {
  const [path, query = ""] = hash.replace(/^#/, "").split("?");
  const match = /^\/slide\/(.+)$/.exec(path);
  const values = new URLSearchParams(query);
  if (!match) return { page: "gallery", id: null, values };
  try {
    return { page: "slide", id: decodeURIComponent(match[1]), values };
  } catch {
    return { page: "gallery", id: null, values };
  }
}

/** @param {string} id @param {Record<string, string | number | null | undefined>} [values] */
export function slideLink(id, values = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (value !== null && value !== undefined) query.set(name, String(value));
  }
  const text = query.toString();
  return `#/slide/${encodeURIComponent(id)}${text ? `?${text}` : ""}`;
}

/** @param {string} link replaces the address without a new entry in the history */
export function replaceLink(link) {
  if (location.hash !== link) history.replaceState(null, "", link);
}

/**
 * How a value of the state stands in the address: written only where it differs from the usual one. A threshold has no
 * usual one, as the next run may have another: it is always written, and in full, for what is seen hangs on it.
 * @type {ReadonlyArray<{ name: string, key: string, read: (text: string) => any, write: (value: any) => string }>}
 */
const FIELDS = [
  { name: "t", key: "threshold", read: share, write: String },
  { name: "t2", key: "threshold2", read: share, write: String },
  { name: "o", key: "opacity", read: share, write: (value) => value.toFixed(2) },
  { name: "map", key: "map", read: oneOf("viridis", "magma", "cividis", "diverging"), write: String },
  { name: "lo", key: "low", read: share, write: (value) => value.toFixed(2) },
  { name: "hi", key: "high", read: share, write: (value) => value.toFixed(2) },
  { name: "tint", key: "tint", read: oneOf("probability", "unrefined", "spread", "none"), write: String },
  { name: "smooth", key: "smooth", read: flag, write: bit },
  { name: "fade", key: "fade", read: flag, write: bit },
  { name: "out", key: "outlines", read: flag, write: bit },
  { name: "mask", key: "tissue", read: flag, write: bit },
];

/** @param {string} text */
function share(text) {
  const value = Number(text);
  return text.trim() !== "" && value >= 0 && value <= 1 ? value : undefined;
}

/** @param {...string} words */
function oneOf(...words) {
  return (/** @type {string} */ text) => (words.includes(text) ? text : undefined);
}

/** @param {string} text */
function flag(text) {
  return text === "1" ? true : text === "0" ? false : undefined;
}

/** @param {boolean} value */
function bit(value) {
  return value ? "1" : "0";
}

/**
 * What an address says of the state; what is malformed is passed over.
 * @param {URLSearchParams} values
 * @returns {Record<string, any>}
 */
export function stateOf(values) {
  /** @type {Record<string, any>} */
  const state = {};
  for (const { name, key, read } of FIELDS) {
    const value = values.has(name) ? read(/** @type {string} */ (values.get(name))) : undefined;
    if (value !== undefined) state[key] = value;
  }
  return state;
}

/**
 * @param {Record<string, any>} state
 * @param {Record<string, any>} usual
 * @returns {Record<string, string>}
 */
export function valuesOf(state, usual) {
  /** @type {Record<string, string>} */
  const values = {};
  for (const { name, key, write } of FIELDS) {
    if (state[key] === undefined || state[key] === null || state[key] === usual[key]) continue;
    values[name] = write(state[key]);
  }
  return values;
}

/** @param {URLSearchParams} values @returns {{ x: number, y: number, zoom: number, rotation: number } | null} */
export function viewOf(values) {
  const numbers = ["x", "y", "z"].map((name) => Number(values.get(name) ?? NaN));
  const rotation = Number(values.get("r") ?? 0);
  if (![...numbers, rotation].every(Number.isFinite) || numbers[2] <= 0) return null;
  return { x: numbers[0], y: numbers[1], zoom: numbers[2], rotation };
}

/** @param {{ x: number, y: number, zoom: number, rotation: number }} view */
export function viewValues({ x, y, zoom, rotation }) {
  const turned = ((Math.round(rotation) % 360) + 360) % 360;
  return { x: Math.round(x), y: Math.round(y), z: Number(zoom.toPrecision(5)), r: turned || null };
}
