// Before the first paint, so that a light page does not flash dark.
(() => {
  let theme = null;
  try {
    theme = localStorage.getItem("theme");
  } catch {}
  document.documentElement.dataset.theme = theme === "light" ? "light" : "dark";
})();
