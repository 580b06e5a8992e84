/** Where a pane looks: places of the slide on the screen and back, and moving there. */

/** @type {any} */
const OpenSeadragon = /** @type {any} */ (window).OpenSeadragon;

/**
 * @typedef {{ left: number, top: number, right: number, bottom: number }} Box level-0 pixels
 * @typedef {{
 *   matrix: [number, number, number, number, number, number],
 *   scale: number, rotation: number, view: Box, width: number, height: number, dpr: number,
 * }} Frame matrix: level 0 to CSS pixels, as canvas takes it; scale: CSS pixels per level-0 pixel; view: what is visible
 */

export class Camera {
  /**
   * @param {any} viewer of OpenSeadragon
   * @param {HTMLElement} stage what it fills
   * @param {number} span level-0 pixels for a length of 1 in the viewer: the slide's width
   * @param {() => void} lead called where the user moves this pane, and it does not follow another
   */
  constructor(viewer, stage, span, lead) {
    this.viewer = viewer;
    this.stage = stage;
    this.span = span;
    this.lead = lead;
  }

  /** @param {number} x CSS pixels in the pane @param {number} y @returns {[number, number]} level-0 pixels */
  toSlide(x, y) {
    const place = this.viewer.viewport.pointFromPixel(new OpenSeadragon.Point(x, y), true);
    return [place.x * this.span, place.y * this.span];
  }

  /** @param {number} x level-0 pixels @param {number} y @returns {[number, number]} CSS pixels in the pane */
  toScreen(x, y) {
    const at = new OpenSeadragon.Point(x / this.span, y / this.span);
    const pixel = this.viewer.viewport.pixelFromPoint(at, true);
    return [pixel.x, pixel.y];
  }

  /** @returns {Frame} */
  frame() {
    const width = this.stage.clientWidth;
    const height = this.stage.clientHeight;
    const [e, f] = this.toScreen(0, 0);
    const { span } = this;
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

  /** The middle of the view (level-0 pixels), screen pixels per level-0 pixel, and degrees. */
  where() {
    const { viewport } = this.viewer;
    const centre = viewport.getCenter(true);
    return {
      x: centre.x * this.span,
      y: centre.y * this.span,
      zoom: (viewport.getZoom(true) * this.stage.clientWidth) / this.span,
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
    viewport.zoomTo((zoom * this.span) / this.stage.clientWidth, null, atOnce);
    viewport.panTo(new OpenSeadragon.Point(x / this.span, y / this.span), atOnce);
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
    this.viewer.viewport.zoomTo((zoom * this.span) / this.stage.clientWidth);
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
}
