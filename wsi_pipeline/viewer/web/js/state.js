/** Values that several parts of the page share; whoever is concerned is told what changed. */

/**
 * @template {Record<string, any>} T
 * @param {T} initial
 */
export function createState(initial) {
  let value = { ...initial };
  /** @type {Set<(value: T, changed: Set<string>) => void>} */
  const listeners = new Set();
  return {
    /** @returns {T} */
    get value() {
      return value;
    },
    /** @param {Partial<T>} patch */
    set(patch) {
      const changed = new Set(Object.keys(patch).filter((key) => !Object.is(value[key], patch[key])));
      if (!changed.size) return;
      value = { ...value, ...patch };
      for (const listener of [...listeners]) listener(value, changed);
    },
    /** @param {(value: T, changed: Set<string>) => void} listener */
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/**
 * Let a function run once, `ms` after the last call.
 * @param {(...args: any[]) => void} run
 * @param {number} ms
 */
export function debounce(run, ms) {
  /** @type {any} */
  let timer = null;
  const later = (/** @type {any[]} */ ...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => run(...args), ms);
  };
  later.cancel = () => clearTimeout(timer);
  return later;
}
