"use strict";
// Numbers to places and to words. Pure functions; nothing here touches the page.

/** Maps values of `range` onto pixels; `log` needs a positive range. */
function makeScale(range, pixels, log) {
  const warp = log ? Math.log10 : (v) => v;
  const from = warp(range[0]);
  const width = warp(range[1]) - from || 1;
  return (value) => pixels[0] + ((warp(value) - from) / width) * (pixels[1] - pixels[0]);
}

/** Round values inside `range`, about `count` of them. */
function linearTicks(range, count) {
  const rough = (range[1] - range[0]) / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const ticks = [];
  for (let k = Math.ceil(range[0] / step - 1e-9); k * step <= range[1] + step * 1e-9 && ticks.length < 50; k++) {
    ticks.push(Number((k * step).toPrecision(12)));
  }
  return ticks;
}

/** Powers of ten inside `range`, with 2 and 5 between them where there is room. */
function logTicks(range, count) {
  const low = Math.floor(Math.log10(range[0]));
  const high = Math.ceil(Math.log10(range[1]));
  const stride = Math.max(1, Math.ceil((high - low) / count));
  const between = high - low <= count / 3 ? [1, 2, 5] : [1];
  const ticks = [];
  for (let power = low; power <= high; power += stride) {
    for (const m of between) ticks.push(m * 10 ** power);
  }
  return ticks.filter((t) => t >= range[0] * 0.999 && t <= range[1] * 1.001);
}

/** A number in few characters: 41.2k, 0.003, 4e-4. */
function shortNumber(value, digits = 3) {
  if (value === null || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size === 0) return "0";
  for (const [scale, suffix] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (size >= scale) return trimZeros((value / (suffix === "k" ? 1e3 : scale)).toPrecision(digits)) + suffix;
  }
  if (size < 1e-3) return value.toExponential(digits - 1).replace(/\.?0*e/, "e").replace("e+", "e");
  return trimZeros(size >= 1000 ? value.toFixed(0) : value.toPrecision(digits));
}

/** Labels of one axis, all in the same notation. */
function axisLabels(ticks) {
  const largest = Math.max(...ticks.map(Math.abs));
  if (largest >= 0.01) return ticks.map((t) => shortNumber(t, 4));
  return ticks.map((t) => (t === 0 ? "0" : t.toExponential(3).replace(/\.?0*e/, "e")));
}

function trimZeros(text) {
  if (text.includes("e")) return String(Number(text));
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

/** Steps are counted: 12,400. */
function wholeNumber(value) {
  return Math.round(value).toLocaleString("en-US");
}

/** Index of the entry of ascending `xs` nearest to `x`. */
function nearestIndex(xs, x) {
  let low = 0;
  let high = xs.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] < x) low = middle;
    else high = middle;
  }
  return Math.abs(xs[low] - x) <= Math.abs(xs[high] - x) ? low : high;
}
