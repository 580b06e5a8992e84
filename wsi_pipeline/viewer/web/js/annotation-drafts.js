/**
 * Drafts: annotations that the server has not confirmed yet, in this browser's storage. Each page has a draft of its
 * own, and holds a lock as long as it lives: a draft whose lock nobody holds was left behind.
 */

import { newId } from "./annotation-features.js";

/**
 * @typedef {import("./api.js").Feature} Feature
 * @typedef {{ features: Feature[], base: string | null, at: string }} Draft base: ETag of what it is a change of
 */

export class Drafts {
  /** @param {import("./api.js").SlideDetail} slide */
  constructor(slide) {
    const identity = slide.summary?.identity?.slide ?? slide.name;
    /** Drafts of other pages of the same slide begin with the same words. */
    this.prefix = `wsi-pipeline:annotations:${slide.id}:${identity}:`;
    this.key = this.prefix + newId();
    /** @type {string[]} those whose content is in this page's annotations now */
    this.taken = [];
    this.closed = false;
    this.release = holdLock(this.key);
  }

  /** @param {Feature[]} features @param {string | null} base */
  keep(features, base) {
    // By then another page may have taken the draft up, and gone further.
    if (this.closed) return;
    /** @type {Draft} */
    const draft = { features, base, at: new Date().toISOString() };
    try {
      localStorage.setItem(this.key, JSON.stringify(draft));
    } catch {
      // Without room the page itself has the only copy, and drafts that were taken up stay until all is saved.
      return;
    }
    this.dropTaken();
  }

  /** All is saved. */
  drop() {
    removeItem(this.key);
    this.dropTaken();
  }

  dropTaken() {
    for (const key of this.taken.splice(0)) removeItem(key);
  }

  /** Drafts of pages that are no longer open, oldest first; each goes once its content is kept elsewhere. */
  async takeOrphans() {
    const held = await heldLocks();
    const found = [];
    for (const key of storedKeys()) {
      if (!key.startsWith(this.prefix) || key === this.key || held.has(key)) continue;
      const draft = readDraft(key);
      if (draft) found.push({ key, draft });
    }
    found.sort((a, b) => a.draft.at.localeCompare(b.draft.at));
    this.taken = found.map(({ key }) => key);
    return found.map(({ draft }) => draft);
  }

  /** Another page may take the draft up from now on. */
  close() {
    this.closed = true;
    this.release();
  }
}

/**
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
