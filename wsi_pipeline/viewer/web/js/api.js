/** The server's interface: every call to it, and its errors. */

/**
 * @typedef {{ rows: number, cols: number, origin: [number, number], step: [number, number], end?: [number, number] }} GridInfo
 * @typedef {{
 *   id: string, run: string, name: string, status: "done" | "failed", error: ErrorInfo | null,
 *   idc_mm2: number | null, idc_fraction: number | null, tissue_mm2: number | null, analysed_mm2: number | null,
 *   regions: number | null, largest_region_mm2: number | null, mean_probability: number | null,
 *   threshold: number | null, model: string | null, class_name: string, warnings: string[],
 * }} SlideRow
 * @typedef {{ title: string, research_use: string, runs: { id: string, name: string }[], slides: SlideRow[] }} Run
 * @typedef {{ where: string, why: string, hint: string }} ErrorInfo
 * @typedef {{
 *   id: string, name: string, run: string, width: number, height: number, mpp: [number, number], tile_size: number,
 *   overlap: number, max_level: number, grid: GridInfo, class_name: string, threshold: number,
 *   threshold_source: string, has_spread: boolean, has_tissue: boolean, model: Record<string, any>,
 *   summary: Record<string, any>, same_slide: string[], slide_available: boolean, slide_problem: string | null,
 *   has_unrefined: boolean, show_label: boolean, region_settings: RegionSettings,
 * }} SlideDetail
 * @typedef {{ low_threshold: number | null, min_region_um2: number, smooth_um: number }} RegionSettings
 * @typedef {{ type: "Feature", id: string, geometry: { type: string, coordinates: any }, properties: any }} Feature
 */

/** What went wrong at the server, or on the way to it. */
export class ApiError extends Error {
  /**
   * @param {ErrorInfo} info
   * @param {number} status of HTTP; 0 where the server did not answer
   */
  constructor(info, status) {
    super(`${info.where}: ${info.why}`);
    this.name = "ApiError";
    this.info = info;
    this.status = status;
  }
}

/** Whether asking again would get the same answer. @param {unknown} error */
export function isFinal(error) {
  if (!(error instanceof ApiError)) return error instanceof SyntaxError;
  return error.status >= 400 && error.status < 500 && error.status !== 408 && error.status !== 429;
}

/**
 * @param {string} path relative to the page
 * @param {RequestInit} [options]
 * @returns {Promise<Response>}
 */
async function request(path, options = {}) {
  /** @type {Response} */
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(
      { where: "server", why: "it does not answer", hint: "Check that `wsi-pipeline view` is still running." },
      0,
    );
  }
  if (!response.ok) throw new ApiError(await describe(response), response.status);
  return response;
}

/**
 * @param {Response} response
 * @returns {Promise<ErrorInfo>}
 */
async function describe(response) {
  try {
    const { error } = await response.json();
    if (error && error.why) return { where: error.where ?? "server", why: error.why, hint: error.hint ?? "" };
  } catch {
    // Not JSON: fall through to what HTTP says.
  }
  return { where: "server", why: `it answered ${response.status} ${response.statusText}`.trim(), hint: "" };
}

/** @param {string} id @param {string} rest */
export function slideUrl(id, rest = "") {
  return `api/slides/${encodeURIComponent(id)}${rest}`;
}

/** @returns {Promise<Run>} */
export async function getRun() {
  return (await request("api/run")).json();
}

/** @param {string} id @returns {Promise<SlideDetail>} */
export async function getSlide(id) {
  return (await request(slideUrl(id))).json();
}

/** @param {string} id @returns {Promise<any>} */
export async function getCard(id) {
  return (await request(slideUrl(id, "/card"))).json();
}

/**
 * A map of the slide, [rows, cols] row by row.
 * @param {SlideDetail} slide
 * @param {"probability" | "spread" | "unrefined"} name
 * @returns {Promise<Float32Array>} NaN where not analysed
 */
export async function getMap(slide, name) {
  const bytes = await (await request(slideUrl(slide.id, `/${name}`))).arrayBuffer();
  return new Float32Array(checked(bytes, slide, 4, name));
}

/** @param {SlideDetail} slide @returns {Promise<Uint8Array>} 1 where a cell is tissue */
export async function getTissue(slide) {
  return new Uint8Array(checked(await (await request(slideUrl(slide.id, "/tissue"))).arrayBuffer(), slide, 1, "tissue"));
}

/**
 * @param {ArrayBuffer} bytes @param {SlideDetail} slide @param {number} size of a value @param {string} name
 */
function checked(bytes, slide, size, name) {
  const expected = slide.grid.rows * slide.grid.cols * size;
  if (bytes.byteLength === expected) return bytes;
  const why = `the ${name} map has ${bytes.byteLength} bytes instead of ${expected}`;
  throw new ApiError({ where: slide.name, why, hint: "Reload the page; if it stays, run the slide again." }, 200);
}

/**
 * @param {string} id
 * @param {number} threshold
 * @param {AbortSignal} [signal]
 * @returns {Promise<Feature[]>}
 */
export async function getRegions(id, threshold, signal) {
  const response = await request(slideUrl(id, `/regions?threshold=${threshold}`), { signal });
  return (await response.json()).features;
}

/** @param {string} id @param {number} threshold */
export function regionsDownload(id, threshold) {
  return slideUrl(id, `/regions?threshold=${threshold}&download=1`);
}

/**
 * @param {string} id
 * @returns {Promise<{ features: Feature[], etag: string | null }>}
 */
export async function getAnnotations(id) {
  const response = await request(slideUrl(id, "/annotations"), { cache: "no-store" });
  return { features: (await response.json()).features, etag: response.headers.get("ETag") };
}

/**
 * @param {string} id
 * @param {Feature[]} features
 * @param {string | null} etag of what they are a change of
 * @param {boolean} [keepalive] whether the page is being left
 * @returns {Promise<{ etag: string | null, features: Feature[] | null }>} what was saved
 */
export async function putAnnotations(id, features, etag, keepalive = false) {
  const response = await request(slideUrl(id, "/annotations"), {
    method: "PUT",
    keepalive,
    headers: { "Content-Type": "application/json", ...(etag ? { "If-Match": etag } : {}) },
    body: JSON.stringify({ type: "FeatureCollection", features }),
  });
  const saved = await response.json().catch(() => null);
  return { etag: response.headers.get("ETag"), features: Array.isArray(saved?.features) ? saved.features : null };
}
