/**
 * The annotations of one slide, and their way to the server. A change is first written to this browser's storage,
 * then sent; the draft is removed only when the server has confirmed it. So neither a reload nor a crash nor a server
 * that is gone loses anything.
 */

import { ApiError, getAnnotations, putAnnotations } from "./api.js";

/**
 * @typedef {import("./api.js").Feature} Feature
 * @typedef {"loading" | "saved" | "saving" | "waiting" | "conflict" | "refused"} Status
 * @typedef {{ features: Feature[], base: string | null, at: string }} Draft base: ETag of what it is a change of
 */

const SAVE_AFTER_MS = 300;
const RETRY_MS = [1000, 2000, 5000, 10000, 30000];

/** Fires `change` when the annotations, and `status` when the state of saving changed. */
export class AnnotationStore extends EventTarget {
  /** @param {import("./api.js").SlideDetail} slide */
  constructor(slide) {
    super();
    this.id = slide.id;
    const identity = slide.summary?.identity?.slide ?? slide.name;
    /** Drafts of other pages of the same slide begin with the same words. */
    this.prefix = `wsi-pipeline:annotations:${slide.id}:${identity}:`;
    this.key = this.prefix + newId();
    /** @type {Feature[]} */
    this.features = [];
    /** @type {string | null} */
    this.etag = null;
    /** @type {Feature[][]} */ this.undone = [];
    /** @type {Feature[][]} */ this.past = [];
    /** @type {Status} */
    this.status = "loading";
    this.why = "";
    this.failures = 0;
    this.changes = 0;
    /** @type {Feature[] | null} what the server has, where it is another state than ours */
    this.theirs = null;
    /** @type {any} */
    this.timer = null;
    this.online = () => this.dirty && this.save();
    this.leaving = () => this.flush();
    window.addEventListener("online", this.online);
    window.addEventListener("pagehide", this.leaving);
    this.release = holdLock(this.key);
  }

  get dirty() {
    return this.status !== "saved" && this.status !== "loading";
  }

  /** Fetch the annotations; a draft that an earlier page left behind is taken up. */
  async load() {
    const drafts = await this.orphans();
    try {
      const { features, etag } = await getAnnotations(this.id);
      this.features = features;
      this.etag = etag;
      this.setStatus("saved");
    } catch (error) {
      if (!drafts.length) throw error;
      this.etag = drafts[0].draft.base;
      this.fail(error);
    }
    this.dispatchEvent(new Event("change"));
    if (drafts.length) this.takeUp(drafts);
  }

  /**
   * @param {{ key: string, draft: Draft }[]} drafts oldest first
   */
  takeUp(drafts) {
    const before = JSON.stringify(this.features);
    drafts.forEach(({ draft }, n) => {
      // A draft of the very state that the server has replaces it; of another state, both are kept.
      const follows = n === 0 && draft.base === this.etag;
      this.features = follows ? draft.features : union(this.features, draft.features);
    });
    // The last page's farewell may have reached the server after all.
    if (JSON.stringify(this.features) !== before || this.status !== "saved") {
      this.restored = true;
      this.changed();
    }
    for (const { key } of drafts) removeItem(key);
  }

  /** Drafts of pages that are no longer open. */
  async orphans() {
    const held = await heldLocks();
    const found = [];
    for (const key of storedKeys()) {
      if (!key.startsWith(this.prefix) || key === this.key || held.has(key)) continue;
      const draft = readDraft(key);
      if (draft) found.push({ key, draft });
    }
    return found.sort((a, b) => a.draft.at.localeCompare(b.draft.at));
  }

  /**
   * Replace the annotations; it can be undone.
   * @param {Feature[]} features
   */
  set(features) {
    this.past.push(this.features);
    this.undone = [];
    this.features = features;
    this.changed();
  }

  /** @param {Feature} feature added, or put in the place of the one with its id */
  put(feature) {
    const known = this.features.some((one) => one.id === feature.id);
    this.set(known ? this.features.map((one) => (one.id === feature.id ? feature : one)) : [...this.features, feature]);
  }

  /** @param {string} id */
  remove(id) {
    this.set(this.features.filter((one) => one.id !== id));
  }

  undo() {
    const before = this.past.pop();
    if (!before) return false;
    this.undone.push(this.features);
    this.features = before;
    this.changed();
    return true;
  }

  redo() {
    const after = this.undone.pop();
    if (!after) return false;
    this.past.push(this.features);
    this.features = after;
    this.changed();
    return true;
  }

  changed() {
    this.changes += 1;
    this.keepDraft();
    if (this.status !== "conflict") this.setStatus("saving");
    this.dispatchEvent(new Event("change"));
    clearTimeout(this.timer);
    if (this.status !== "conflict") this.timer = setTimeout(() => this.save(), SAVE_AFTER_MS);
  }

  keepDraft() {
    /** @type {Draft} */
    const draft = { features: this.features, base: this.etag, at: new Date().toISOString() };
    try {
      localStorage.setItem(this.key, JSON.stringify(draft));
      this.draftKept = true;
    } catch {
      this.draftKept = false;
    }
  }

  async save() {
    if (this.sending || this.status === "conflict") return;
    clearTimeout(this.timer);
    this.sending = true;
    const sent = this.changes;
    this.setStatus("saving");
    try {
      const { etag, features } = await putAnnotations(this.id, this.features, this.etag);
      this.etag = etag;
      this.failures = 0;
      if (sent === this.changes) {
        // What is shown is what was saved: the server mends outlines that cross themselves.
        this.features = features ?? this.features;
        removeItem(this.key);
        this.setStatus("saved");
        this.dispatchEvent(new Event("change"));
      } else {
        this.keepDraft();
        this.timer = setTimeout(() => this.save(), SAVE_AFTER_MS);
      }
    } catch (error) {
      await this.failed(error);
    } finally {
      this.sending = false;
    }
  }

  /** @param {unknown} error */
  async failed(error) {
    if (error instanceof ApiError && error.status === 412) {
      try {
        const { features, etag } = await getAnnotations(this.id);
        this.theirs = features;
        this.theirEtag = etag;
        this.setStatus("conflict", "The annotations were changed elsewhere in the meantime.");
        return;
      } catch (again) {
        this.fail(again);
        return;
      }
    }
    this.fail(error);
  }

  /** @param {unknown} error */
  fail(error) {
    const status = error instanceof ApiError ? error.status : 0;
    const why = error instanceof ApiError ? `${error.info.why}. ${error.info.hint}` : String(error);
    if (status >= 400 && status < 500 && status !== 408 && status !== 429) {
      // The server will not take this however often it is asked; the next change is tried again.
      this.setStatus("refused", why);
      return;
    }
    const wait = RETRY_MS[Math.min(this.failures, RETRY_MS.length - 1)];
    this.failures += 1;
    this.setStatus("waiting", why);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.save(), wait);
  }

  /**
   * End a conflict.
   * @param {"both" | "mine" | "theirs"} choice
   */
  resolve(choice) {
    if (!this.theirs) return;
    const theirs = this.theirs;
    this.theirs = null;
    this.etag = this.theirEtag ?? null;
    this.setStatus("saving");
    if (choice === "theirs") {
      this.past.push(this.features);
      this.features = theirs;
      removeItem(this.key);
      this.setStatus("saved");
      this.dispatchEvent(new Event("change"));
      return;
    }
    this.set(choice === "both" ? union(theirs, this.features) : this.features);
  }

  /** Until saving has ended, well or not. */
  settled() {
    return new Promise((resolve) => {
      const ended = () => this.status !== "saving" && resolve(undefined);
      this.addEventListener("status", ended);
      this.save();
      ended();
    });
  }

  /** The page is being left: one last try, which outlives it; the draft stays until a later page has seen it saved. */
  flush() {
    if (!this.dirty || this.status === "conflict" || this.status === "refused" || this.sending) return;
    if (JSON.stringify(this.features).length > 60000) return;
    putAnnotations(this.id, this.features, this.etag, true).catch(() => {});
  }

  /** @param {Status} status @param {string} [why] */
  setStatus(status, why = "") {
    this.status = status;
    this.why = why;
    this.dispatchEvent(new Event("status"));
  }

  /** Leave the slide; what is not saved yet has a moment for it, and else stays a draft. */
  async close() {
    if (this.status === "saving") await Promise.race([this.settled(), new Promise((resolve) => { setTimeout(resolve, 2000); })]);
    clearTimeout(this.timer);
    window.removeEventListener("online", this.online);
    window.removeEventListener("pagehide", this.leaving);
    this.release();
  }
}

/**
 * All of both; where both have an annotation, the second one's.
 * @param {Feature[]} one @param {Feature[]} other @returns {Feature[]}
 */
export function union(one, other) {
  const ids = new Set(other.map((feature) => feature.id));
  return [...one.filter((feature) => !ids.has(feature.id)), ...other];
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

/**
 * As long as the page lives, the browser knows that its draft is not left behind.
 * @param {string} name @returns {() => void} gives it back
 */
function holdLock(name) {
  if (!navigator.locks) return () => {};
  /** @type {() => void} */
  let release = () => {};
  const done = new Promise((resolve) => { release = () => resolve(undefined); });
  navigator.locks.request(name, () => done).catch(() => {});
  return release;
}

/** @returns {Promise<Set<string | undefined>>} */
async function heldLocks() {
  if (!navigator.locks) return new Set();
  const { held = [] } = await navigator.locks.query();
  return new Set(held.map((lock) => lock.name));
}

function storedKeys() {
  try {
    return Object.keys(localStorage);
  } catch {
    return [];
  }
}

/** @param {string} key @returns {Draft | null} */
function readDraft(key) {
  try {
    const draft = JSON.parse(localStorage.getItem(key) ?? "null");
    return Array.isArray(draft?.features) && typeof draft.at === "string" ? draft : null;
  } catch {
    return null;
  }
}

/** @param {string} key */
function removeItem(key) {
  try {
    localStorage.removeItem(key);
  } catch {
    // Without storage there is nothing to remove.
  }
}
