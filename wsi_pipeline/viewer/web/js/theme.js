/* Sets the theme before the first paint; a plain script, because modules run later. */
(function () {
  try {
    var chosen = localStorage.getItem("wsi-pipeline:theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch {
    /* Without storage, the system's theme it is. */
  }
})();
