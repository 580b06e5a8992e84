/** What an annotation is: its class, its id, its place in a list of annotations. Pure. */

import { area as areaText } from "./format.js";

/**
 * @typedef {import("./api.js").Feature} Feature
 * @typedef {{ name: string, label: string, color: [number, number, number] }} ClassChoice
 */

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Colour of a class that has none. */
const OTHER = [120, 60, 160];

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

/**
 * @param {string} id @param {string} name @param {ClassChoice} choice @param {any} geometry @param {Record<string, number>} [measurements]
 * @returns {Feature} as QuPath reads it
 */
export function makeFeature(id, name, choice, geometry, measurements = {}) {
  const classification = { name: choice.name, color: choice.color };
  return { type: "Feature", id, geometry, properties: { objectType: "annotation", name, isLocked: false, classification, measurements } };
}

/** @param {Feature} feature @param {Record<string, any>} properties to replace @returns {Feature} */
export function changed(feature, properties) {
  return { ...feature, properties: { ...feature.properties, ...properties } };
}

/** The mark of a region has an id of its own, made from the region's: both files can be in QuPath at once. @param {string} id */
export function markId(id) {
  const last = [...id.slice(24)].map((digit) => (15 - parseInt(digit, 16)).toString(16)).join("");
  return id.slice(0, 24) + last;
}

/** @param {Feature} feature */
export function hasArea(feature) {
  return feature.geometry?.type === "Polygon" || feature.geometry?.type === "MultiPolygon";
}

/** @param {Feature} feature @returns {string} of its class, as CSS has it */
export function colorOf(feature) {
  return rgb(feature.properties.classification?.color ?? OTHER);
}

/** @param {number[]} color */
export function rgb([red, green, blue]) {
  return `rgb(${red} ${green} ${blue})`;
}

/** @param {Feature} feature */
export function describeAnnotation(feature) {
  const um2 = feature.properties.measurements?.["Area um2"];
  return {
    name: feature.properties.name ?? "annotation",
    className: feature.properties.classification?.name ?? "",
    color: colorOf(feature),
    area: um2 === undefined ? "" : areaText(um2 * 1e-6),
  };
}

/**
 * @param {Feature[]} features @param {Feature} feature added, or put in the place of the one with its id
 * @returns {Feature[]}
 */
export function withFeature(features, feature) {
  const known = features.some((one) => one.id === feature.id);
  return known ? features.map((one) => (one.id === feature.id ? feature : one)) : [...features, feature];
}

/**
 * All of both; where both have an annotation, the second one's.
 * @param {Feature[]} one @param {Feature[]} other @returns {Feature[]}
 */
export function union(one, other) {
  const ids = new Set(other.map((feature) => feature.id));
  return [...one.filter((feature) => !ids.has(feature.id)), ...other];
}

/**
 * Whether two lists say the same, though the server may have put the outlines of one on its raster.
 * @param {Feature[]} one @param {Feature[]} other
 */
export function sayTheSame(one, other) {
  const said = (/** @type {Feature[]} */ features) => JSON.stringify(features.map(({ id, properties }) => {
    const { name, classification, measurements } = properties;
    return [id, name, classification?.name, Object.entries(measurements ?? {})];
  }));
  return said(one) === said(other);
}

/**
 * Files of other programs may have no ids, or one for all: such annotations could not be told from one another.
 * @param {Feature[]} features @returns {Feature[]}
 */
export function withIds(features) {
  const seen = new Set();
  return features.map((feature) => {
    const own = typeof feature.id === "string" && UUID.test(feature.id) && !seen.has(feature.id);
    seen.add(feature.id);
    return own ? feature : { ...feature, id: newId() };
  });
}

/** A UUID of version 4, also where the page is not served over a secure connection. */
export function newId() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}
