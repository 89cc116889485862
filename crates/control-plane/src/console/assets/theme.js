// Runs before the first paint, so that a chosen theme does not flash.
"use strict";
(() => {
  let theme = null;
  try {
    theme = localStorage.getItem("siltstone-theme");
  } catch {
    // Storage is switched off: the system's choice counts.
  }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
})();
