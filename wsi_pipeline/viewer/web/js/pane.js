/** One result on the screen: the slide in deep zoom (OpenSeadragon), and one canvas above it that layers draw on. */

import { slideUrl } from "./api.js";
import { h } from "./dom.js";
import { CellGrid } from "./grid.js";

/** @type {any} */
const OpenSeadragon = /** @type {any} */ (window).OpenSeadragon;

/**
 * @typedef {{ left: number, top: number, right: number, bottom: number }} Box level-0 pixels
 * @typedef {{
 *   matrix: [number, number, number, number, number, number],
 *   scale: number, rotation: number, view: Box, width: number, height: number, dpr: number,
 * }} Frame matrix: level 0 to CSS pixels, as canvas takes it; scale: CSS pixels per level-0 pixel; view: what is visible
 * @typedef {(context: CanvasRenderingContext2D, frame: Frame) => void} Painter
 */

/** How far one can zoom in: so many screen pixels for one of the slide. */
const MAX_ZOOM = 12;

const EMPTY_TILE = "data:image/gif;base64,R0lGODlhAQABAIAAAP///wAAACH5BAAAAAAALAAAAAABAAEAAAICRAEAOw==";

/** Fires `view` (place or zoom changed), `pointer` ({ x, y } of level 0, or null), `lead` (the user acts here), `tiles`. */
export class Pane extends EventTarget {
  /**
   * @param {HTMLElement} host
   * @param {import("./api.js").SlideDetail} slide
   */
  constructor(host, slide) {
    super();
    keepOutInlineStyle();
    this.slide = slide;
    this.grid = new CellGrid(slide);
    /** @type {Painter[]} lowest first */
    this.painters = [];
    this.host = host;
    this.stage = h("div", { class: "stage" });
    host.append(this.stage);
    this.viewer = OpenSeadragon(viewerOptions(this.stage, slide));
    this.canvas = h("canvas", { class: "layers", "aria-hidden": "true" });
    this.viewer.canvas.append(this.canvas);
    this.context = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    this.ready = new Promise((resolve, reject) => {
      this.viewer.addOnceHandler("open", () => resolve(this));
      this.viewer.addOnceHandler("open-failed", (/** @type {any} */ event) => reject(new Error(event.message)));
    });
    this.label();
    this.listen();
  }

  label() {
    const { canvas } = this.viewer;
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-roledescription", "slide");
    canvas.setAttribute("aria-label", `${this.slide.name}, ${this.slide.run}. Arrow keys move, plus and minus zoom, question mark lists all keys.`);
  }

  listen() {
    const { viewer } = this;
    viewer.addHandler("update-viewport", () => {
      this.draw();
      this.dispatchEvent(new Event("view"));
    });
    for (const name of ["canvas-press", "canvas-scroll", "canvas-key"]) viewer.addHandler(name, () => this.lead());
    viewer.addHandler("navigator-click", () => this.lead());
    viewer.addHandler("navigator-drag", () => this.lead());
    let failed = 0;
    viewer.addHandler("tile-load-failed", (/** @type {any} */ event) => {
      failed += 1;
      this.dispatchEvent(new CustomEvent("tiles", { detail: { failed, level: event.tile?.level } }));
    });
    const pointerMoved = (/** @type {PointerEvent} */ event) => this.point(event.clientX, event.clientY);
    const pointerLeft = () => this.dispatchEvent(new CustomEvent("pointer", { detail: null }));
    this.host.addEventListener("pointermove", pointerMoved);
    this.host.addEventListener("pointerleave", pointerLeft);
    this.unlisten = () => {
      this.host.removeEventListener("pointermove", pointerMoved);
      this.host.removeEventListener("pointerleave", pointerLeft);
    };
  }

  /** This pane is the one that the user moves; a pane in step follows it. */
  lead() {
    this.dispatchEvent(new Event("lead"));
  }

  /** @param {number} clientX @param {number} clientY */
  point(clientX, clientY) {
    if (!this.viewer.isOpen()) return;
    const box = this.stage.getBoundingClientRect();
    const [x, y] = this.toSlide(clientX - box.left, clientY - box.top);
    this.dispatchEvent(new CustomEvent("pointer", { detail: { x, y } }));
  }

  /** @param {number} x CSS pixels in the pane @param {number} y @returns {[number, number]} level-0 pixels */
  toSlide(x, y) {
    const place = this.viewer.viewport.pointFromPixel(new OpenSeadragon.Point(x, y), true);
    return [place.x * this.slide.width, place.y * this.slide.width];
  }

  /** @param {number} x level-0 pixels @param {number} y @returns {[number, number]} CSS pixels in the pane */
  toScreen(x, y) {
    const at = new OpenSeadragon.Point(x / this.slide.width, y / this.slide.width);
    const pixel = this.viewer.viewport.pixelFromPoint(at, true);
    return [pixel.x, pixel.y];
  }

  /** @returns {Frame} */
  frame() {
    const width = this.stage.clientWidth;
    const height = this.stage.clientHeight;
    const [e, f] = this.toScreen(0, 0);
    const span = this.slide.width;
    const [rightX, rightY] = this.toScreen(span, 0);
    const [downX, downY] = this.toScreen(0, span);
    const corners = [[0, 0], [width, 0], [0, height], [width, height]].map(([x, y]) => this.toSlide(x, y));
    const xs = corners.map((corner) => corner[0]);
    const ys = corners.map((corner) => corner[1]);
    return {
      matrix: [(rightX - e) / span, (rightY - f) / span, (downX - e) / span, (downY - f) / span, e, f],
      scale: Math.hypot(rightX - e, rightY - f) / span,
      rotation: this.viewer.viewport.getRotation(true),
      view: { left: Math.min(...xs), right: Math.max(...xs), top: Math.min(...ys), bottom: Math.max(...ys) },
      width,
      height,
      dpr: window.devicePixelRatio || 1,
    };
  }

  /** Draw the layers in the next frame. */
  redraw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      this.draw();
    });
  }

  draw() {
    if (!this.viewer.isOpen() || !this.stage.clientWidth) return;
    const frame = this.frame();
    const width = Math.round(frame.width * frame.dpr);
    const height = Math.round(frame.height * frame.dpr);
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    }
    this.paint(this.context, frame);
  }

  /** @param {CanvasRenderingContext2D} context @param {Frame} frame */
  paint(context, frame) {
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, context.canvas.width, context.canvas.height);
    for (const painter of this.painters) {
      context.save();
      context.setTransform(frame.dpr, 0, 0, frame.dpr, 0, 0);
      painter(context, frame);
      context.restore();
    }
  }

  /** The middle of the view (level-0 pixels), screen pixels per level-0 pixel, and degrees. */
  where() {
    const { viewport } = this.viewer;
    const centre = viewport.getCenter(true);
    return {
      x: centre.x * this.slide.width,
      y: centre.y * this.slide.width,
      zoom: (viewport.getZoom(true) * this.stage.clientWidth) / this.slide.width,
      rotation: viewport.getRotation(true),
    };
  }

  /**
   * @param {{ x: number, y: number, zoom: number, rotation?: number }} place as `where` gives it
   * @param {boolean} [atOnce]
   */
  goTo({ x, y, zoom, rotation }, atOnce = false) {
    const { viewport } = this.viewer;
    if (rotation !== undefined) viewport.setRotation(rotation, atOnce);
    viewport.zoomTo((zoom * this.slide.width) / this.stage.clientWidth, null, atOnce);
    viewport.panTo(new OpenSeadragon.Point(x / this.slide.width, y / this.slide.width), atOnce);
  }

  /**
   * Show a box with some room around it, without zooming in further than `mostZoom`.
   * @param {Box} box
   * @param {number} [mostZoom] screen pixels per level-0 pixel
   */
  fly(box, mostZoom = 1) {
    const room = 0.35;
    const width = Math.max(1, box.right - box.left) * (1 + 2 * room);
    const height = Math.max(1, box.bottom - box.top) * (1 + 2 * room);
    const zoom = Math.min(mostZoom, this.stage.clientWidth / width, this.stage.clientHeight / height);
    this.lead();
    this.goTo({ x: (box.left + box.right) / 2, y: (box.top + box.bottom) / 2, zoom });
  }

  home() {
    this.lead();
    this.viewer.viewport.goHome();
  }

  /** @param {number} factor */
  zoomBy(factor) {
    this.lead();
    this.viewer.viewport.zoomBy(factor);
    this.viewer.viewport.applyConstraints();
  }

  /** @param {number} zoom screen pixels per level-0 pixel */
  zoomTo(zoom) {
    this.lead();
    this.viewer.viewport.zoomTo((zoom * this.slide.width) / this.stage.clientWidth);
  }

  /** @param {number} right part of the view's width @param {number} down part of its height */
  panBy(right, down) {
    this.lead();
    const { viewport } = this.viewer;
    const by = new OpenSeadragon.Point(right * this.stage.clientWidth, down * this.stage.clientHeight);
    viewport.panBy(viewport.deltaPointsFromPixels(by));
    viewport.applyConstraints();
  }

  /** @param {number} degrees */
  turnBy(degrees) {
    this.lead();
    const { viewport } = this.viewer;
    viewport.setRotation(Math.round((viewport.getRotation() + degrees) / 15) * 15);
  }

  destroy() {
    cancelAnimationFrame(this.waiting ?? 0);
    this.unlisten?.();
    this.viewer.destroy();
    this.stage.remove();
  }
}

/** @param {HTMLElement} element @param {import("./api.js").SlideDetail} slide */
function viewerOptions(element, slide) {
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
function keepOutInlineStyle() {
  const mark = "data-openseadragon-mobile-css";
  if (document.querySelector(`style[${mark}]`)) return;
  const inert = document.createElementNS("urn:wsi-pipeline:inert", "style");
  inert.setAttribute(mark, "true");
  document.head.append(inert);
}
