/** Colour maps: 256 colours for the values 0 to 1, and how opaque each is over the tissue. */

import { TABLES } from "./colormaps-data.js";

/** @typedef {{ id: string, name: string, diverging: boolean }} ColorMap */

/** @type {ReadonlyArray<ColorMap>} */
export const COLOR_MAPS = [
  { id: "viridis", name: "Viridis", diverging: false },
  { id: "magma", name: "Magma", diverging: false },
  { id: "cividis", name: "Cividis", diverging: false },
  { id: "diverging", name: "Blue – orange at threshold", diverging: true },
];

/** One colour, as in the pictures that the run writes, so that doubt is never taken for tumour. */
const SPREAD_COLOR = [0, 183, 196];

const VEIL_COLOR = [170, 170, 170];

/** Dark blue, light grey and dark orange: apart for every kind of colour vision, and in lightness from the middle. */
const DIVERGING = [
  [0.42, -0.02, -0.15],
  [0.96, 0.0, 0.005],
  [0.52, 0.1, 0.105],
];

/**
 * The colours of a map, `Uint8ClampedArray` [256 * 3].
 * @param {string} id one of `COLOR_MAPS`, `spread` (of the probability) or `veil` (over what is no tissue)
 * @returns {Uint8ClampedArray}
 */
export function colors(id) {
  if (id === "spread") return fill(() => SPREAD_COLOR);
  if (id === "veil") return fill(() => VEIL_COLOR);
  if (id === "diverging") return fill((n) => diverging(n / 255));
  const table = TABLES[id] ?? TABLES.viridis;
  return fill((n) => [0, 2, 4].map((at) => parseInt(table.slice(6 * n + at, 6 * n + at + 2), 16)));
}

/** @param {(n: number) => number[]} color */
function fill(color) {
  const all = new Uint8ClampedArray(256 * 3);
  for (let n = 0; n < 256; n += 1) all.set(color(n), 3 * n);
  return all;
}

/**
 * Straight lines in OKLab (Ottosson 2020) from dark blue over light grey to dark orange.
 * @param {number} share 0 to 1
 */
function diverging(share) {
  const [from, to] = share < 0.5 ? [DIVERGING[0], DIVERGING[1]] : [DIVERGING[1], DIVERGING[2]];
  const along = share < 0.5 ? share * 2 : share * 2 - 1;
  return oklabToRgb(from.map((value, axis) => value + (to[axis] - value) * along));
}

/** @param {number[]} lab */
function oklabToRgb([lightness, a, b]) {
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const linear = [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
  return linear.map((value) => {
    const light = Math.min(1, Math.max(0, value));
    return 255 * (light <= 0.0031308 ? 12.92 * light : 1.055 * light ** (1 / 2.4) - 0.055);
  });
}

/**
 * Where a value lies on the colour map: 0 to 1 within the window; on a diverging map, the threshold is the middle.
 * @param {number} value
 * @param {{ low: number, high: number, threshold: number, diverging: boolean }} scale
 * @returns {number}
 */
export function position(value, { low, high, threshold, diverging: twoSided }) {
  if (!twoSided) return clamp((value - low) / Math.max(1e-6, high - low));
  const middle = Math.min(high, Math.max(low, threshold));
  if (value < middle) return 0.5 * clamp((value - low) / Math.max(1e-6, middle - low));
  return 0.5 + 0.5 * clamp((value - middle) / Math.max(1e-6, high - middle));
}

/**
 * How opaque a place of the colour map is, as a part of the opacity chosen.
 * @param {number} share 0 to 1, from `position`
 * @param {{ fade: boolean, diverging: boolean, even?: boolean }} how `fade`: what is low, or near the threshold, lets
 *   tissue through; `even`: nearly in proportion
 * @returns {number}
 */
export function opacityAt(share, { fade, diverging: twoSided, even = false }) {
  if (!fade) return 1;
  if (even) return share ** 0.8;
  const weight = twoSided ? Math.abs(share - 0.5) * 2 : share;
  return Math.sin((weight * Math.PI) / 2) ** 1.5;
}

/** @param {number} value */
function clamp(value) {
  return Math.min(1, Math.max(0, value));
}

/**
 * Red, green, blue and opacity (each 0 to 255) for 1,024 values from 0 to 1.
 * @param {{ map: string, low: number, high: number, threshold: number, fade: boolean, top?: number }} scale
 *   `top`: the value of the last entry, 1 where it is left out
 * @returns {Uint8ClampedArray} [1024 * 4]
 */
export function lookup({ map, low, high, threshold, fade, top = 1 }) {
  const table = colors(map);
  const twoSided = COLOR_MAPS.some((one) => one.id === map && one.diverging);
  const all = new Uint8ClampedArray(1024 * 4);
  for (let n = 0; n < 1024; n += 1) {
    const share = position((n / 1023) * top, { low, high, threshold, diverging: twoSided });
    const color = 3 * Math.round(share * 255);
    all[4 * n] = table[color];
    all[4 * n + 1] = table[color + 1];
    all[4 * n + 2] = table[color + 2];
    all[4 * n + 3] = 255 * opacityAt(share, { fade, diverging: twoSided, even: map === "spread" });
  }
  return all;
}
