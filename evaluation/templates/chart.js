"use strict";
// One chart: axes, lines with bands, points with bars, marks, a read-out under the pointer or the arrow keys.

function svg(tag, attributes, parent) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  if (parent) parent.append(node);
  return node;
}

function html(tag, className, text, parent) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined && text !== null) node.textContent = text;
  if (parent) parent.append(node);
  return node;
}

class Chart {
  constructor(figure, spec) {
    this.figure = figure;
    this.spec = spec;
    this.log = spec.x.scale === "log";
    this.at = null;
    this.plot = figure.querySelector(".plot");
    this.drawn = 0;
    this.makeLegend();
    this.makeSwitch();
    this.width = 0;
    new ResizeObserver(() => { if (Math.abs(this.plot.clientWidth - this.width) > 1) this.draw(); }).observe(this.plot);
    this.plot.addEventListener("pointermove", (event) => this.point(event));
    this.plot.addEventListener("pointerdown", (event) => this.point(event));
    this.plot.addEventListener("pointerleave", () => this.read(null));
    this.plot.addEventListener("blur", () => this.read(null));
    this.plot.addEventListener("keydown", (event) => this.key(event));
    this.draw();
  }

  makeLegend() {
    const legend = this.figure.querySelector(".legend");
    this.readouts = this.spec.series.map((series) => {
      if (series.kind === "faint") return null;
      const item = html("span", `key ${series.kind}`, null, legend);
      html("i", `swatch t${series.tone}`, null, item);
      html("span", "name", series.label, item);
      return html("b", "read", "", item);
    });
    this.place = html("span", "key place", "", legend);
  }

  makeSwitch() {
    const button = this.figure.querySelector(".switch");
    if (!button) return;
    button.hidden = false;
    button.addEventListener("click", () => {
      this.log = !this.log;
      button.setAttribute("aria-pressed", String(this.log));
      this.draw();
    });
  }

  ranges() {
    const all = this.spec.series.flatMap((s) => s.x.filter((x) => x !== null && (!this.log || x > 0)));
    let x = this.spec.x.range || [Math.min(...all), Math.max(...all)];
    if (x[0] === x[1]) x = [x[0] - 0.5, x[1] + 0.5];
    if (this.log && !this.spec.x.scale) x = [Math.max(x[0], 1), Math.max(x[1], 2)];
    let y = this.spec.y.range;
    if (!y) {
      const values = this.spec.series.flatMap((s) => [...s.y, ...(s.low || []), ...(s.high || [])]);
      const finite = values.filter((v) => v !== null);
      y = [Math.min(...finite), Math.max(...finite)];
    }
    const pad = (y[1] - y[0]) * 0.06 || Math.abs(y[1]) * 0.1 || 1;
    y = [y[0] - pad, y[1] + pad];
    if (this.spec.y.zero && y[1] > 0) y[0] = 0;
    return { x, y };
  }

  draw() {
    this.width = this.plot.clientWidth || 600;
    const height = this.spec.height;
    const { x, y } = this.ranges();
    const ticks = linearTicks(y, Math.max(3, height / 60));
    const labels = axisLabels(ticks);
    const left = 14 + 7 * Math.max(...labels.map((l) => l.length), 2);
    this.box = { left, right: this.width - 14, top: 12, bottom: height - 34 };
    this.x = makeScale(x, [this.box.left, this.box.right], this.log);
    this.y = makeScale(y, [this.box.bottom, this.box.top], false);
    this.xRange = x;
    this.root = svg("svg", { viewBox: `0 0 ${this.width} ${height}`, "aria-hidden": "true" });
    this.axes(x, ticks, labels);
    const id = `clip-${this.spec.id.replace(/[^\w-]/g, "_")}`;
    const clip = svg("clipPath", { id }, svg("defs", {}, this.root));
    const { top, bottom, right } = this.box;
    svg("rect", { x: left - 4, y: top - 6, width: right - left + 8, height: bottom - top + 10 }, clip);
    this.marks();
    const body = svg("g", { "clip-path": `url(#${id})` }, this.root);
    this.drawn = this.spec.series.reduce((sum, series) => sum + this.drawSeries(series, body), 0);
    this.cursor = svg("g", { class: "cursor", visibility: "hidden" }, this.root);
    this.plot.replaceChildren(this.root);
    publishCharts();
  }

  axes(x, ticks, labels) {
    const { left, right, bottom } = this.box;
    ticks.forEach((tick, i) => {
      const at = this.y(tick);
      svg("line", { class: "grid", x1: left, x2: right, y1: at, y2: at }, this.root);
      svg("text", { class: "tick", x: left - 8, y: at, dy: "0.34em", "text-anchor": "end" }, this.root).textContent = labels[i];
    });
    const room = Math.max(2, (right - left) / 90);
    const steps = this.spec.x.ticks || (this.log ? logTicks(x, room) : linearTicks(x, room));
    svg("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }, this.root);
    let last = -Infinity;
    steps.forEach((tick) => {
      const at = this.x(tick);
      svg("line", { class: "axis", x1: at, x2: at, y1: bottom, y2: bottom + 4 }, this.root);
      if (at - last < 40) return;
      last = at;
      const anchor = at > right - 14 ? "end" : at < left + 8 ? "start" : "middle";
      svg("text", { class: "tick", x: at, y: bottom + 17, "text-anchor": anchor }, this.root).textContent = shortNumber(tick, this.spec.x.ticks ? 2 : 4);
    });
    const name = svg("text", { class: "tick name", x: right, y: bottom + 31, "text-anchor": "end" }, this.root);
    name.textContent = this.spec.x.label;
  }

  marks() {
    let last = -Infinity;
    for (const mark of this.spec.marks) {
      if (mark.x < this.xRange[0] || mark.x > this.xRange[1]) continue;
      const at = this.x(mark.x);
      svg("line", { class: "mark", x1: at, x2: at, y1: this.box.top, y2: this.box.bottom }, this.root);
      if (at - last < 56) continue;
      const late = at > this.box.right - 60;
      const text = svg("text", { class: "tick", x: at + (late ? -5 : 5), y: this.box.top + 8, "text-anchor": late ? "end" : "start" }, this.root);
      text.textContent = mark.label;
      last = at;
    }
  }

  /** Points of a series in pixels; [] breaks the line. */
  points(series, values) {
    return series.x.map((x, i) => {
      if (x === null || values[i] === null || (this.log && x <= 0)) return null;
      return [this.x(x), this.y(values[i])];
    });
  }

  drawSeries(series, parent) {
    const group = svg("g", { class: `series ${series.kind} t${series.tone}` }, parent);
    const points = this.points(series, series.y);
    const drawn = points.filter((p) => p && p.every(Number.isFinite)).length;
    const low = series.low && this.points(series, series.low);
    const high = series.high && this.points(series, series.high);
    if (series.kind === "points") this.bars(group, low, high);
    else {
      if (low) svg("path", { class: "band", d: bandPath(low, high) }, group);
      svg("path", { class: "stroke", d: linePath(points) }, group);
    }
    points.forEach((p, i) => {
      const alone = !points[i - 1] && !points[i + 1];
      if (!p || !(alone || series.dots || series.kind === "points")) return;
      svg("circle", { cx: p[0].toFixed(1), cy: p[1].toFixed(1), r: 3.5 }, group);
    });
    return drawn;
  }

  bars(group, low, high) {
    if (!low) return;
    low.forEach((p, i) => {
      if (p && high[i]) svg("line", { class: "stroke", x1: p[0], x2: p[0], y1: p[1], y2: high[i][1] }, group);
    });
  }

  point(event) {
    const bounds = this.root.getBoundingClientRect();
    const place = ((event.clientX - bounds.left) / bounds.width) * this.width;
    const share = Math.min(1, Math.max(0, (place - this.box.left) / (this.box.right - this.box.left)));
    const [from, to] = this.xRange;
    this.read(this.log ? from * (to / from) ** share : from + share * (to - from));
  }

  key(event) {
    const main = this.main();
    const keys = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    if (!(event.key in keys)) return;
    event.preventDefault();
    this.figure.querySelector(".legend").setAttribute("aria-live", "polite");
    const stride = Math.max(1, Math.round(main.x.length / 60));
    const here = this.at === null ? 0 : nearestIndex(main.x, this.at);
    const next = here + keys[event.key] * stride;
    this.read(main.x[Math.min(main.x.length - 1, Math.max(0, next))]);
  }

  main() {
    return this.spec.series.find((s) => s.kind === "line") || this.spec.series[0];
  }

  /** Show the values at `x` in the legend; null clears them. */
  read(x) {
    this.at = x;
    this.cursor.replaceChildren();
    this.cursor.setAttribute("visibility", x === null ? "hidden" : "visible");
    const near = x === null ? null : this.main().x[nearestIndex(this.main().x, x)];
    this.place.textContent = near === null ? "" : `${this.spec.x.short || "at"} ${shortX(near, this.spec)}`;
    if (near !== null) {
      svg("line", { x1: this.x(near), x2: this.x(near), y1: this.box.top, y2: this.box.bottom }, this.cursor);
    }
    this.spec.series.forEach((series, i) => { if (this.readouts[i]) this.readOne(series, this.readouts[i], near); });
  }

  readOne(series, readout, x) {
    const index = x === null ? -1 : nearestIndex(series.x, x);
    if (index < 0 || series.y[index] === null) { readout.textContent = ""; return; }
    const value = series.y[index];
    const spread = series.high && series.high[index] !== null ? ` ± ${shortNumber(series.high[index] - value, 2)}` : "";
    const away = series.kind === "points" && series.x[index] !== x ? ` (${shortX(series.x[index], this.spec)})` : "";
    readout.textContent = `${shortNumber(value, 4)}${spread}${away}`;
    svg("circle", { class: `t${series.tone}`, cx: this.x(series.x[index]), cy: this.y(value), r: 4 }, this.cursor);
  }
}

function shortX(value, spec) {
  return spec.x.range ? shortNumber(value, 2) : wholeNumber(value);
}

function linePath(points) {
  let pen = "M";
  return points.map((p) => {
    if (!p) { pen = "M"; return ""; }
    const part = `${pen}${p[0].toFixed(1)} ${p[1].toFixed(1)}`;
    pen = "L";
    return part;
  }).join("");
}

/** Between low and high; a gap in either is one in the band. */
function bandPath(low, high) {
  const pieces = [[]];
  low.forEach((p, i) => {
    if (p && high[i]) pieces[pieces.length - 1].push([p, high[i]]);
    else pieces.push([]);
  });
  return pieces.filter((piece) => piece.length).map((piece) => {
    const forth = piece.map(([, b]) => b);
    const back = piece.map(([a]) => a).reverse();
    return `${linePath([...forth, ...back])}Z`;
  }).join("");
}

const charts = [];

/** Points drawn in each chart, for a test to read. */
function publishCharts() {
  document.body.dataset.charts = JSON.stringify(Object.fromEntries(charts.map((c) => [c.spec.id, c.drawn])));
}
