"use strict";
(() => {
  const card = document.getElementById("session-view");
  const source = document.getElementById("session-data");
  if (!card || !source || !window.Plotly) return;
  const live = card.querySelector(".live");
  const view = JSON.parse(source.textContent);
  // Without WebGL plotly would draw a message in place of the points: the still image is better.
  const canvas = document.createElement("canvas");
  if (!(canvas.getContext("webgl2") || canvas.getContext("webgl"))) return;
  card.classList.add("on");
  const narrow = live.clientWidth < 600;
  if (narrow) {
    view.layout.legend = { ...view.layout.legend, orientation: "h", x: 0, y: 0, yanchor: "top" };
  }
  const options = {
    displaylogo: false,
    responsive: true,
    modeBarButtons: [["zoom3d", "pan3d", "orbitRotation", "resetCameraDefault3d"]],
  };
  Plotly.newPlot(live, view.data, view.layout, options).catch(() => {
    Plotly.purge(live);
    card.classList.remove("on");
  });
})();
