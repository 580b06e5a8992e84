/** Numbers as people read them. */

/**
 * Three significant digits, no exponent.
 * @param {number} value
 * @returns {string}
 */
export function significant(value) {
  if (value === 0) return "0";
  const digits = Math.max(0, Math.min(6, 2 - Math.floor(Math.log10(Math.abs(value)))));
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

/**
 * @param {number | null | undefined} mm2
 * @returns {string}
 */
export function area(mm2) {
  if (mm2 === null || mm2 === undefined) return "–";
  if (mm2 > 0 && mm2 < 0.001) return "< 0.001 mm²";
  return `${significant(mm2)} mm²`;
}

/**
 * An area of a setting: of one that is small, its number too.
 * @param {number} um2
 * @returns {string}
 */
export function areaOfUm2(um2) {
  return um2 < 1000 ? `${significant(um2)} µm²` : area(um2 * 1e-6);
}

/**
 * @param {number | null | undefined} share 0 to 1
 * @returns {string}
 */
export function percent(share) {
  if (share === null || share === undefined) return "–";
  if (share > 0 && share < 0.001) return "< 0.1 %";
  return `${(share * 100).toFixed(1)} %`;
}

/**
 * @param {number | null | undefined} value
 * @param {number} [digits]
 * @returns {string}
 */
export function probability(value, digits = 3) {
  return value === null || value === undefined || Number.isNaN(value) ? "–" : value.toFixed(digits);
}

/**
 * @param {number} um
 * @returns {string}
 */
export function length(um) {
  return um >= 1000 ? `${significant(um / 1000)} mm` : `${significant(um)} µm`;
}

/**
 * @param {number} count
 * @param {string} noun
 * @returns {string}
 */
export function counted(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}
