/** Opening a slide: its result, the annotations, and the result beside it, fetched in turn and put into their panes. */

import { AnnotationStore } from "./annotation-store.js";
import { Annotator } from "./annotate.js";
import { linkPanes } from "./compare.js";
import { notice, sentence, showError } from "./notices.js";
import { viewOf } from "./permalink.js";
import { ResultView } from "./result-view.js";

/**
 * What is open on the page. Each thing is in it as soon as it is there, so that closing finds it.
 * @typedef {{
 *   run: import("./api.js").Run, id: string, state: ReturnType<typeof import("./state.js").createState<any>>,
 *   views: ResultView[], annotator: Annotator | null, store: AnnotationStore | null, closed: boolean,
 * }} Opened
 */

/**
 * @param {Opened} opened filled with what is fetched
 * @param {import("./slide-layout.js").SlideLayout} layout
 * @param {URLSearchParams} values of the address
 */
export async function openSlide(opened, layout, values) {
  const other = values.get("cmp");
  // Both panes have their final size before the first slide is fitted into its own.
  const [host, secondHost] = layout.addHosts(other ? 2 : 1);
  const first = await ResultView.open(host, opened.id, opened.state, "threshold");
  if (!keep(opened, first)) return;
  await first.pane.ready;
  const place = viewOf(values);
  if (place) first.pane.camera.goTo(place, true);
  tellProblems(first);
  await openAnnotations(opened, first);
  if (other && !opened.closed) await openSecond(opened, layout, other, secondHost);
}

/**
 * @param {Opened} opened @param {ResultView} view
 * @returns {boolean} false where the page was left while it was fetched
 */
function keep(opened, view) {
  if (opened.closed) view.destroy();
  else opened.views = [...opened.views, view];
  return !opened.closed;
}

/** @param {ResultView} view */
function tellProblems({ slide, pane }) {
  if (!slide.slide_available) {
    const hint = "Its map is shown without the tissue.";
    notice("The slide cannot be shown", { text: sentence(slide.slide_problem ?? ""), hint, kind: "error", key: "slide" });
  }
  pane.addEventListener("tiles", (/** @type {any} */ event) => {
    const hint = "The slide's file may be damaged there, or the server has stopped. What is blank was not shown; the map is unaffected.";
    if (event.detail.failed === 1 && slide.slide_available) notice("Parts of the slide could not be shown", { hint, kind: "error", key: "tiles" });
  });
}

/** @param {Opened} opened @param {ResultView} view */
async function openAnnotations(opened, view) {
  const store = new AnnotationStore(view.slide);
  opened.store = store;
  opened.annotator = new Annotator(view.pane, store);
  try {
    await store.load();
    if (store.restored) notice("Unsaved annotations were found", { text: "They were drawn here before and had not reached the server. They are being saved now.", key: "restored", seconds: 8 });
  } catch (error) {
    if (!opened.closed) showError(error, "The annotations could not be loaded");
  }
}

/** @param {Opened} opened @param {import("./slide-layout.js").SlideLayout} layout @param {string} id @param {HTMLElement} host */
async function openSecond(opened, layout, id, host) {
  const [first] = opened.views;
  try {
    if (!first.slide.same_slide.includes(id)) throw new Error("It is not a result of the same slide.");
    const second = await ResultView.open(host, id, opened.state, "threshold2");
    if (!keep(opened, second)) return;
    await second.pane.ready;
    linkPanes(first.pane, second.pane);
  } catch (error) {
    if (opened.closed) return;
    opened.views.splice(1).forEach((view) => view.destroy());
    layout.dropHost(host);
    showError(error, "The second result could not be shown");
  }
}
