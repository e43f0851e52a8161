"use strict";
// Puts the page to work.

(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  for (const spec of data.charts) {
    const figure = [...document.querySelectorAll("[data-chart]")].find((f) => f.dataset.chart === spec.id);
    if (figure) charts.push(new Chart(figure, spec));
  }
  publishCharts();
  const place = document.getElementById("player");
  if (place && data.replays.length) new Player(place, data.replays);
  document.body.dataset.replays = String(place ? data.replays.length : 0);

  const button = document.getElementById("theme");
  const root = document.documentElement;
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  const label = () => { button.textContent = dark() ? "Light" : "Dark"; };
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; label(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", label);
  label();

  // For a test to read: the width of each picture that is shown, 0 of one that is not.
  const publish = () => { document.body.dataset.pictures = JSON.stringify([...document.images].map((i) => i.naturalWidth)); };
  addEventListener("load", publish);

  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    folded.forEach((d) => { d.open = true; });
  });
  addEventListener("afterprint", () => folded.forEach((d) => { d.open = false; }));
})();
