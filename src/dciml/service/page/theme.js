// Runs before the page is painted, so that a chosen theme does not flash. Without a choice the system's holds.
(() => {
  let choice = null;
  try { choice = localStorage.getItem("dciml-theme"); } catch { /* storage may be switched off */ }
  if (choice === "light" || choice === "dark") document.documentElement.dataset.theme = choice;
})();
