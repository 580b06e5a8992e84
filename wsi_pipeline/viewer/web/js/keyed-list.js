/** Lists whose rows stay in the page as long as they look the same: what has the focus, or is being typed, stays too. */

/** @typedef {{ id: string, looks: unknown, make: () => HTMLElement }} Row looks: all that `make` shows, as JSON has it */

const TAKES_FOCUS = "a[href], button, input, select";

/**
 * @param {HTMLElement} list
 * @returns {(rows: Row[]) => void} shows these rows
 */
export function keyedList(list) {
  /** @type {Map<string, { looks: string, element: HTMLElement }>} */
  let shown = new Map();
  return (rows) => {
    const next = new Map();
    for (const { id, looks, make } of rows) {
      const text = JSON.stringify(looks);
      const old = shown.get(id);
      next.set(id, old?.looks === text ? old : { looks: text, element: make() });
    }
    const refocus = focusIn(shown, next);
    shown = next;
    const elements = [...next.values()].map((row) => row.element);
    for (const child of [...list.children]) if (!elements.includes(/** @type {HTMLElement} */ (child))) child.remove();
    elements.forEach((element, n) => {
      if (list.children[n] !== element) list.insertBefore(element, list.children[n] ?? null);
    });
    refocus();
  };
}

/**
 * Where the row with the focus is made anew, its counterpart gets it.
 * @param {Map<string, { element: HTMLElement }>} before @param {Map<string, { element: HTMLElement }>} after
 * @returns {() => void} to be called when the new rows are in the page
 */
function focusIn(before, after) {
  const focused = document.activeElement;
  for (const [id, { element }] of before) {
    if (!focused || !element.contains(focused)) continue;
    const made = after.get(id)?.element;
    if (!made || made === element) return () => {};
    const at = [...element.querySelectorAll(TAKES_FOCUS)].indexOf(focused);
    return () => /** @type {HTMLElement | undefined} */ (made.querySelectorAll(TAKES_FOCUS)[at])?.focus({ preventScroll: true });
  }
  return () => {};
}
