/**
 * The way of annotations to the server: a change is first kept as a draft, then sent, and sent again until the server
 * has confirmed it; only then the draft goes. So neither a reload nor a crash nor a server that is gone loses anything.
 */

import { ApiError, getAnnotations, isFinal, putAnnotations } from "./api.js";
import { sayTheSame, withIds } from "./annotation-features.js";

/**
 * @typedef {import("./api.js").Feature} Feature
 * @typedef {"loading" | "saved" | "saving" | "waiting" | "conflict" | "refused"} Status
 */

const SAVE_AFTER_MS = 300;
const RETRY_MS = [1000, 2000, 5000, 10000, 30000];

/** Those who leave wait no longer than this; the draft stays. */
const LEAVE_MS = 2000;

/** What a browser sends for a page that is gone is bounded, characters. */
const MOST_FAREWELL = 60000;

/**
 * Fires `status`; `saved` (the annotations as the server keeps them); `behind` (the server's annotations, where they
 * were changed or could not be loaded before: whoever owns ours is to `offer` both).
 */
export class AnnotationSaver extends EventTarget {
  /** @param {string} id of the slide @param {import("./annotation-drafts.js").Drafts} drafts */
  constructor(id, drafts) {
    super();
    this.id = id;
    this.drafts = drafts;
    /** @type {Feature[]} what the server is to have */
    this.wanted = [];
    /** @type {Set<Feature[]>} what was sent, and may have arrived though no answer came */
    this.unanswered = new Set();
    /** @type {string | null} of what the server had when we saw it last */
    this.etag = null;
    /** @type {Status} */
    this.status = "loading";
    this.why = "";
    this.failures = 0;
    this.sending = false;
    this.closed = false;
    /** @type {{ features: Feature[], etag: string | null } | null} what the server has, where it is another state than ours */
    this.theirs = null;
    /** @type {any} */
    this.timer = null;
    this.online = () => this.dirty && this.save();
    this.leaving = () => this.sayFarewell();
    window.addEventListener("online", this.online);
    window.addEventListener("pagehide", this.leaving);
  }

  get dirty() {
    return this.status !== "saved" && this.status !== "loading";
  }

  /** What the server has. @returns {Promise<{ features: Feature[], etag: string | null }>} */
  async fetch() {
    const { features, etag } = await getAnnotations(this.id);
    return { features: withIds(features), etag };
  }

  /** The first look at what the server has. */
  async load() {
    const { features, etag } = await this.fetch();
    this.wanted = features;
    this.etag = etag;
    this.setStatus("saved");
    return features;
  }

  /** Save these in the place of all before. @param {Feature[]} features */
  offer(features) {
    this.wanted = features;
    this.drafts.keep(features, this.etag);
    if (this.status === "conflict") return;
    this.setStatus("saving");
    this.saveIn(SAVE_AFTER_MS);
  }

  /** @param {number} ms */
  saveIn(ms) {
    clearTimeout(this.timer);
    // Once closed, the next page of the slide takes the draft up; two would save against each other.
    if (!this.closed) this.timer = setTimeout(() => this.save(), ms);
  }

  async save() {
    if (this.sending || this.status === "conflict") return;
    clearTimeout(this.timer);
    this.sending = true;
    this.setStatus("saving");
    try {
      if (this.etag === null && (await this.catchUp())) return;
      await this.send(this.wanted);
    } catch (error) {
      await this.failed(error);
    } finally {
      this.sending = false;
    }
  }

  /** What could not be loaded at first belongs to what is saved. @returns {Promise<boolean>} whether it is all there is */
  async catchUp() {
    const { features, etag } = await this.fetch();
    const all = !this.wanted.length;
    this.etag = etag;
    this.failures = 0;
    this.dispatchEvent(new CustomEvent("behind", { detail: features }));
    if (all) this.arrived(features);
    return all;
  }

  /** @param {Feature[]} sent */
  async send(sent) {
    this.unanswered.add(sent);
    const { etag, features } = await putAnnotations(this.id, sent, this.etag);
    this.etag = etag;
    this.failures = 0;
    this.unanswered.clear();
    if (sent !== this.wanted) {
      this.drafts.keep(this.wanted, etag);
      this.saveIn(SAVE_AFTER_MS);
      return;
    }
    // What is shown is what was saved: the server mends outlines that cross themselves.
    this.arrived(features ?? sent);
  }

  /** The server has all that it is to have. @param {Feature[]} features */
  arrived(features) {
    clearTimeout(this.timer);
    this.wanted = features;
    this.drafts.drop();
    this.setStatus("saved");
    this.dispatchEvent(new CustomEvent("saved", { detail: features }));
  }

  /** @param {unknown} error */
  async failed(error) {
    if (!(error instanceof ApiError && error.status === 412)) return this.fail(error);
    try {
      const theirs = await this.fetch();
      if ([...this.unanswered].some((sent) => sayTheSame(sent, theirs.features))) {
        // Nobody else's change: ours had arrived before, only its answer got lost.
        this.etag = theirs.etag;
        this.drafts.keep(this.wanted, this.etag);
        return this.saveIn(0);
      }
      this.theirs = theirs;
      return this.setStatus("conflict", "The annotations were changed elsewhere in the meantime.");
    } catch (again) {
      return this.fail(again);
    }
  }

  /** @param {unknown} error */
  fail(error) {
    const why = error instanceof ApiError ? `${error.info.why}. ${error.info.hint}` : String(error);
    if (isFinal(error)) {
      // The server will not take this however often it is asked; the next change is tried again.
      this.setStatus("refused", why);
      return;
    }
    const wait = RETRY_MS[Math.min(this.failures, RETRY_MS.length - 1)];
    this.failures += 1;
    this.setStatus("waiting", why);
    this.saveIn(wait);
  }

  /** End a conflict: the server's state has been seen. */
  acceptTheirs() {
    const { features, etag } = this.theirs ?? { features: this.wanted, etag: this.etag };
    this.theirs = null;
    this.etag = etag;
    this.unanswered.clear();
    this.arrived(features);
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
  sayFarewell() {
    if (!this.dirty || this.status === "conflict" || this.status === "refused" || this.sending || this.etag === null) return;
    if (JSON.stringify(this.wanted).length > MOST_FAREWELL) return;
    // A page that the browser brings back has no answer to it.
    this.unanswered.add(this.wanted);
    putAnnotations(this.id, this.wanted, this.etag, true).catch(() => {});
  }

  /** @param {Status} status @param {string} [why] */
  setStatus(status, why = "") {
    this.status = status;
    this.why = why;
    this.dispatchEvent(new Event("status"));
  }

  /** Leave the slide; what is not saved yet has a moment for it, and else stays a draft. */
  async close() {
    if (this.status === "saving") await Promise.race([this.settled(), new Promise((resolve) => { setTimeout(resolve, LEAVE_MS); })]);
    this.closed = true;
    clearTimeout(this.timer);
    window.removeEventListener("online", this.online);
    window.removeEventListener("pagehide", this.leaving);
    this.drafts.close();
  }
}
