/** How the deep-zoom viewer (OpenSeadragon) is set up for a slide: tiles, mini-map, gestures. */

import { slideUrl } from "./api.js";

/** How far one can zoom in: so many screen pixels for one of the slide. */
const MAX_ZOOM = 12;

const EMPTY_TILE = "data:image/gif;base64,R0lGODlhAQABAIAAAP///wAAACH5BAAAAAAALAAAAAABAAEAAAICRAEAOw==";

/** @param {HTMLElement} element @param {import("./api.js").SlideDetail} slide */
export function viewerOptions(element, slide) {
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  return {
    element,
    // One drawing path everywhere, also on remote desktops without a graphics card.
    drawer: "canvas",
    showNavigationControl: false,
    keyboardNavEnabled: false,
    showNavigator: true,
    navigatorPosition: "BOTTOM_RIGHT",
    ...navigatorSize(slide),
    navigatorAutoFade: false,
    navigatorBackground: "#ffffff",
    navigatorBorderColor: "#8a8f98",
    navigatorDisplayRegionColor: "#0b57d0",
    animationTime: still ? 0 : 0.6,
    visibilityRatio: 0.3,
    minZoomImageRatio: 0.6,
    maxZoomPixelRatio: MAX_ZOOM,
    gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
    gestureSettingsTouch: { pinchRotate: false },
    zoomPerScroll: 1.25,
    tileRetryMax: 2,
    tileRetryDelay: 1000,
    maxImageCacheCount: 400,
    tileSources: tileSource(slide),
  };
}

/** The mini-map has the slide's shape. @param {import("./api.js").SlideDetail} slide */
function navigatorSize({ width, height }) {
  const scale = Math.min(160 / width, 130 / height);
  return { navigatorWidth: `${Math.max(50, Math.round(width * scale))}px`, navigatorHeight: `${Math.max(40, Math.round(height * scale))}px` };
}

/** @param {import("./api.js").SlideDetail} slide */
function tileSource(slide) {
  const url = (/** @type {number} */ level, /** @type {number} */ x, /** @type {number} */ y) =>
    slide.slide_available ? slideUrl(slide.id, `/tiles/${level}/${x}_${y}.jpg`) : EMPTY_TILE;
  return {
    width: slide.width,
    height: slide.height,
    tileSize: slide.tile_size,
    tileOverlap: slide.slide_available ? slide.overlap : 0,
    minLevel: 0,
    maxLevel: slide.max_level,
    getTileUrl: url,
  };
}

/**
 * OpenSeadragon writes a <style> element into the page unless one with its mark is there; the page's content security
 * policy forbids inline styles. An element of a foreign namespace carries the mark and styles nothing.
 */
export function keepOutInlineStyle() {
  const mark = "data-openseadragon-mobile-css";
  if (document.querySelector(`style[${mark}]`)) return;
  const inert = document.createElementNS("urn:wsi-pipeline:inert", "style");
  inert.setAttribute(mark, "true");
  document.head.append(inert);
}
