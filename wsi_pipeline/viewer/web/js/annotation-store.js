/** The annotations of one slide: every change to them, undo and redo. Saving is the saver's, drafts are the drafts'. */

import { AnnotationSaver } from "./annotation-saver.js";
import { Drafts } from "./annotation-drafts.js";
import { union, withFeature } from "./annotation-features.js";
import { isFinal } from "./api.js";

/** @typedef {import("./api.js").Feature} Feature */

/** Fires `change` when the annotations, and `status` when the state of saving changed. */
export class AnnotationStore extends EventTarget {
  /** @param {import("./api.js").SlideDetail} slide */
  constructor(slide) {
    super();
    this.id = slide.id;
    /** @type {Feature[]} */
    this.features = [];
    /** @type {Feature[][]} */ this.undone = [];
    /** @type {Feature[][]} */ this.past = [];
    /** Whether a draft of an earlier page was taken up. */
    this.restored = false;
    this.drafts = new Drafts(slide);
    this.saver = new AnnotationSaver(slide.id, this.drafts);
    this.saver.addEventListener("status", () => this.dispatchEvent(new Event("status")));
    this.saver.addEventListener("saved", (/** @type {any} */ event) => this.show(event.detail));
    this.saver.addEventListener("behind", (/** @type {any} */ event) => this.putBelow(event.detail));
  }

  /** How far saving is, and why no further. */
  get status() {
    return this.saver.status;
  }

  get why() {
    return this.saver.why;
  }

  /** What the server has, where somebody else has changed it. @returns {Feature[] | null} */
  get theirs() {
    return this.saver.theirs?.features ?? null;
  }

  /** Fetch the annotations; a draft that an earlier page left behind is taken up. */
  async load() {
    const drafts = await this.drafts.takeOrphans();
    try {
      this.show(await this.saver.load());
    } catch (error) {
      if (drafts.length) this.saver.etag = drafts[0].base;
      if (drafts.length || !isFinal(error)) this.saver.fail(error);
      if (!drafts.length) throw error;
    }
    if (drafts.length) this.takeUp(drafts);
  }

  /** @param {import("./annotation-drafts.js").Draft[]} drafts oldest first */
  takeUp(drafts) {
    const before = JSON.stringify(this.features);
    let features = this.features;
    drafts.forEach((draft, n) => {
      // A draft of the very state that the server has replaces it; of another state, both are kept.
      const follows = n === 0 && draft.base === this.saver.etag;
      features = follows ? draft.features : union(features, draft.features);
    });
    // The last page's farewell may have reached the server after all.
    if (JSON.stringify(features) === before && this.status === "saved") {
      this.drafts.drop();
      return;
    }
    this.restored = true;
    this.become(features);
  }

  /**
   * Replace the annotations; it can be undone.
   * @param {Feature[]} features
   */
  set(features) {
    this.past.push(this.features);
    this.undone = [];
    this.become(features);
  }

  /** @param {Feature} feature added, or put in the place of the one with its id */
  put(feature) {
    this.set(withFeature(this.features, feature));
  }

  /** @param {string} id */
  remove(id) {
    this.set(this.features.filter((one) => one.id !== id));
  }

  undo() {
    const before = this.past.pop();
    if (!before) return false;
    this.undone.push(this.features);
    this.become(before);
    return true;
  }

  redo() {
    const after = this.undone.pop();
    if (!after) return false;
    this.past.push(this.features);
    this.become(after);
    return true;
  }

  /** From now on these, here and at the server. @param {Feature[]} features */
  become(features) {
    this.features = features;
    this.saver.offer(features);
    this.dispatchEvent(new Event("change"));
  }

  /** The server has these. @param {Feature[]} features */
  show(features) {
    this.features = features;
    this.dispatchEvent(new Event("change"));
  }

  /** What the server had all along, and we did not know; undoing what was done here leaves it. @param {Feature[]} known */
  putBelow(known) {
    this.past = this.past.map((features) => union(known, features));
    this.undone = this.undone.map((features) => union(known, features));
    this.become(union(known, this.features));
  }

  /**
   * End a conflict.
   * @param {"both" | "mine" | "theirs"} choice
   */
  resolve(choice) {
    const { theirs, features: mine } = this;
    if (!theirs) return;
    // The server's state is shown first; what is chosen is a change of it, which can be undone.
    this.past.push(mine);
    this.saver.acceptTheirs();
    if (choice === "theirs") return;
    this.undone = [];
    this.become(choice === "both" ? union(theirs, mine) : mine);
  }

  /** Leave the slide. */
  close() {
    return this.saver.close();
  }
}
