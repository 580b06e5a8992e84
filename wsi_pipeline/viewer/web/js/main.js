/** The way in: shows the gallery or a slide, as the address says. */

import { getRun } from "./api.js";
import { byId, fill, h, icon, iconButton } from "./dom.js";
import { showGallery } from "./gallery.js";
import { openDialog } from "./keyboard.js";
import { explain, sentence } from "./notices.js";
import { readPlace } from "./permalink.js";
import { SlidePage } from "./slide.js";

const main = byId("main");
/** @type {() => void | Promise<void>} */
let leave = () => {};
/** @type {SlidePage | null} */
let page = null;
/** What earlier pages still have to save. @type {Promise<unknown>} */
let left = Promise.resolve();
/** Which opening is the last one: a slow one that was overtaken shows nothing. */
let turn = 0;

async function show() {
  turn += 1;
  const mine = turn;
  left = Promise.allSettled([left, leave()]);
  leave = () => {};
  page = null;
  for (const dialog of document.querySelectorAll("dialog[open]")) /** @type {HTMLDialogElement} */ (dialog).close();
  const { page: kind, id, values } = readPlace();
  try {
    // What was drawn on the last slide is saved before this one is opened, also by who comes back at once.
    await left;
    const run = await getRun();
    if (mine !== turn) return;
    if (kind === "slide" && id) await showSlide(run, id, values);
    else showAll(run);
  } catch (error) {
    if (mine === turn) showFailure(error);
  }
}

/** @param {import("./api.js").Run} run */
function showAll(run) {
  document.title = `${run.title} – wsi-pipeline`;
  document.body.className = "in-gallery";
  fill(byId("bar-where"), h("span", { class: "bar-title" }, "wsi-pipeline"), h("span", { class: "bar-sub" }, "Results"));
  leave = showGallery(main, run);
}

/** @param {import("./api.js").Run} run @param {string} id @param {URLSearchParams} values */
async function showSlide(run, id, values) {
  const row = run.slides.find((slide) => slide.id === id);
  const runName = run.runs.find((one) => one.id === row?.run)?.name ?? "";
  document.title = `${row?.name ?? "Slide"} – wsi-pipeline`;
  document.body.className = "in-slide";
  fill(byId("bar-where"),
    h("a", { class: "back", href: "#/" }, icon("back"), "Gallery"),
    h("h1", { class: "bar-title" }, row?.name ?? "Slide"),
    h("span", { class: "bar-sub" }, [runName, row?.model].filter(Boolean).join(" · ")));
  if (row?.status === "failed") {
    failure(`${row.name} failed in the run`, sentence(row.error?.why ?? "No reason is on record"), row.error?.hint ?? "", row.error?.where ?? "", false);
    return;
  }
  if (!("OpenSeadragon" in window)) {
    failure("Slides cannot be shown", "This viewer was built without OpenSeadragon, the library that shows slides.", "Install wsi-pipeline again where npm's registry can be reached, and without WSI_PIPELINE_NO_VIEWER; in a working copy, run `python hatch_build.py`. Then reload this page.", "", false);
    return;
  }
  const opened = new SlidePage(main, run, id, values);
  page = opened;
  leave = () => opened.close();
  await opened.open();
}

/** @param {unknown} error */
function showFailure(error) {
  leave();
  leave = () => {};
  const { where, why, hint } = explain(error);
  failure("This could not be shown", why, hint, where === "server" ? "" : where);
}

/** @param {string} title @param {string} why @param {string} hint @param {string} where @param {boolean} [again] whether it may go well another time */
function failure(title, why, hint, where, again = true) {
  fill(main, h("div", { class: "failure", role: "alert" }, icon("warning"), h("h2", {}, title), h("p", {}, why), hint && h("p", { class: "hint" }, hint), where && h("p", { class: "failed-where" }, where),
    h("p", { class: "row" }, again && h("button", { type: "button", onclick: () => show() }, "Try again"), h("a", { class: "button", href: "#/" }, "To the gallery"))));
}

function help() {
  if (page) page.help();
  else openDialog("Help", h("p", {}, "Each card is a slide of these results. Click one to look at it; there, ? lists all keys."), h("p", {}, "Areas are measured on the raw map at the threshold that the card names. Failed slides say why and what to do."), h("p", { class: "research-note" }, "For research use only, not for diagnosis."));
}

function turnTheme() {
  const dark = document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const next = dark === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem("wsi-pipeline:theme", next);
  } catch {
    // Without storage it holds until the page is reloaded.
  }
  page?.show();
}

fill(byId("bar-tools"), iconButton("theme", "Light or dark", turnTheme), iconButton("help", "Help and keys (?)", help));
window.addEventListener("hashchange", show);
show();
