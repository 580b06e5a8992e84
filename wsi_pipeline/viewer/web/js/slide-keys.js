/** The keys of the slide page. */

import { COLOR_MAPS } from "./colormaps.js";
import { announce } from "./dom.js";
import { showHelp } from "./keyboard.js";

const PAN = 0.15;

/**
 * @param {import("./slide.js").SlidePage} page
 * @returns {import("./keyboard.js").Key[]}
 */
export function slideKeys({ opened, actions, link, picking }) {
  const { state, views, annotator } = opened;
  const drawing = annotator?.drawing;
  const pane = () => views[0].pane;
  const step = (/** @type {"opacity" | "threshold" | "threshold2"} */ key, /** @type {number} */ by) => () => {
    const value = Math.min(1, Math.max(0, Math.round(((state.value[key] ?? 0) + by) * 1000) / 1000));
    state.set({ [key]: value });
    announce(`${key === "opacity" ? "Opacity" : "Threshold"} ${key === "opacity" ? `${Math.round(value * 100)} %` : value.toFixed(3)}`);
  };
  const toggle = (/** @type {"smooth" | "fade" | "outlines" | "tissue"} */ key, /** @type {string} */ name) => () => {
    state.set({ [key]: !state.value[key] });
    announce(`${name} ${state.value[key] ? "on" : "off"}`);
  };
  const tint = (/** @type {any} */ wanted) => () => {
    state.set({ tint: state.value.tint === wanted ? (wanted === "none" ? "probability" : "none") : wanted });
    announce(`Tint: ${state.value.tint}`);
  };
  const nextMap = () => {
    const at = COLOR_MAPS.findIndex((one) => one.id === state.value.map);
    const next = COLOR_MAPS[(at + 1) % COLOR_MAPS.length];
    state.set({ map: next.id });
    announce(next.name);
  };
  const corners = () => drawing?.mode === "corners";
  const two = () => views.length > 1;
  /** @type {import("./keyboard.js").Key[]} */
  const keys = [
    { keys: ["ArrowLeft"], shown: "←", does: "Move left", group: "Move", run: () => pane().camera.panBy(-PAN, 0) },
    { keys: ["ArrowRight"], shown: "→", does: "Move right", group: "Move", run: () => pane().camera.panBy(PAN, 0) },
    { keys: ["ArrowUp"], shown: "↑", does: "Move up", group: "Move", run: () => pane().camera.panBy(0, -PAN) },
    { keys: ["ArrowDown"], shown: "↓", does: "Move down", group: "Move", run: () => pane().camera.panBy(0, PAN) },
    { keys: ["+", "="], shown: "+", does: "Zoom in", group: "Move", run: () => pane().camera.zoomBy(1.5) },
    { keys: ["-", "_"], shown: "-", does: "Zoom out", group: "Move", run: () => pane().camera.zoomBy(1 / 1.5) },
    { keys: ["0", "Home"], shown: "0", does: "Whole slide", group: "Move", run: () => pane().camera.home() },
    { keys: ["1"], does: "Full resolution: one pixel for one", group: "Move", run: () => pane().camera.zoomTo(1) },
    { keys: ["r"], does: "Turn right by 15°", group: "Move", run: () => pane().camera.turnBy(15) },
    { keys: ["R"], does: "Turn left by 15°", group: "Move", run: () => pane().camera.turnBy(-15) },
    { keys: ["f"], does: "Full screen", group: "Move", run: () => actions.fullScreen() },
    { keys: ["n"], does: "Next region", group: "Regions", run: () => picking.step(1) },
    { keys: ["p"], does: "Previous region", group: "Regions", run: () => picking.step(-1) },
    { keys: ["y"], does: "The region picked is right (again: take back)", group: "Regions", run: () => picking.mark(true) },
    { keys: ["x"], does: "The region picked is wrong (again: take back)", group: "Regions", run: () => picking.mark(false) },
    { keys: ["["], does: "Lower threshold by 0.01", group: "Threshold", run: step("threshold", -0.01) },
    { keys: ["]"], does: "Higher threshold by 0.01", group: "Threshold", run: step("threshold", 0.01) },
    { keys: ["{"], does: "Lower threshold of the second result", group: "Threshold", run: step("threshold2", -0.01), when: two },
    { keys: ["}"], does: "Higher threshold of the second result", group: "Threshold", run: step("threshold2", 0.01), when: two },
    { keys: ["\\"], does: "The run's own threshold", group: "Threshold", run: () => actions.ownThreshold() },
    { keys: [","], does: "Less opaque", group: "Layers", run: step("opacity", -0.05) },
    { keys: ["."], does: "More opaque", group: "Layers", run: step("opacity", 0.05) },
    { keys: ["h"], does: "Tint off, and on again", group: "Layers", run: () => tint("none")() },
    { keys: ["u"], does: "Uncertainty instead of probability", group: "Layers", run: () => actions.uncertainty() },
    { keys: ["o"], does: "Outlines of regions", group: "Layers", run: toggle("outlines", "Outlines") },
    { keys: ["m"], does: "Tissue mask", group: "Layers", run: toggle("tissue", "Tissue mask") },
    { keys: ["s"], does: "Smooth, or cell by cell", group: "Layers", run: toggle("smooth", "Smoothing") },
    { keys: ["l"], does: "Low values let the tissue through", group: "Layers", run: toggle("fade", "Fading of low values") },
    { keys: ["c"], does: "Next colours", group: "Layers", run: nextMap },
    { keys: ["d"], does: "Draw freehand", group: "Annotate", run: () => annotator?.toggleMode("freehand") },
    { keys: ["a"], does: "Draw corner by corner", group: "Annotate", run: () => annotator?.toggleMode("corners") },
    { keys: ["Enter"], does: "While drawing: a corner in the middle of the view", group: "Annotate", run: (event) => (event.shiftKey ? drawing?.finish() : drawing?.addCornerInTheMiddle()), when: corners },
    { keys: [], shown: "Shift+Enter", does: "While drawing: close the outline", group: "Annotate", run: () => {} },
    { keys: ["Backspace"], does: "While drawing: take the last corner back", group: "Annotate", run: () => drawing?.removeCorner(), when: corners },
    { keys: ["Delete"], does: "Delete the annotation picked", group: "Annotate", run: () => actions.deletePicked() },
    { keys: [], shown: "Ctrl+Z", does: "Undo (Ctrl+Shift+Z: redo)", group: "Annotate", run: () => {} },
    { keys: ["Escape"], does: "Stop drawing; pick nothing", group: "Annotate", run: () => (drawing && drawing.mode !== "none" ? annotator?.setMode("none") : picking.unpick()) },
    { keys: ["i"], does: "Read out what is in the middle of the view", group: "Page", run: () => actions.sayMiddle() },
    { keys: ["b"], does: "Panel on and off", group: "Page", run: () => actions.togglePanel() },
    { keys: ["v"], does: "Beside the next model, or alone", group: "Page", run: () => link.compareNext() },
    { keys: ["k"], does: "Copy the link to this view", group: "Page", run: () => link.copy() },
    { keys: ["S"], does: "Save a picture", group: "Page", run: () => actions.savePicture() },
    { keys: ["g"], does: "Back to the gallery", group: "Page", run: () => { location.hash = "#/"; } },
    { keys: ["?"], does: "This help", group: "Page", run: () => showHelp(keys) },
  ];
  return keys;
}
