"use strict";
// Replays how a text was written: blocks are masked, what a step has just committed is highlighted.

const NEWLINES = "↵⏎\n";

class Player {
  constructor(place, replays) {
    this.place = place;
    this.replays = replays;
    this.timer = null;
    place.replaceChildren();
    if (replays.length > 1) this.makeChoice();
    this.boards = html("div", "boards", null, place);
    this.makeControls();
    this.choose(0);
  }

  makeChoice() {
    const row = html("div", "choice", null, this.place);
    row.setAttribute("role", "group");
    row.setAttribute("aria-label", "Example");
    this.choices = this.replays.map((replay, i) => {
      const button = html("button", "switch", replay.name, row);
      button.type = "button";
      button.addEventListener("click", () => this.choose(i));
      return button;
    });
  }

  makeControls() {
    const row = html("div", "controls", null, this.place);
    const button = (text, label, act) => {
      const made = html("button", "round", text, row);
      made.type = "button";
      made.setAttribute("aria-label", label);
      made.addEventListener("click", act);
      return made;
    };
    button("«", "To the start", () => this.show(0));
    button("‹", "One step back", () => this.show(this.step - 1));
    this.playButton = button("Play", "Play", () => this.toggle());
    this.playButton.classList.add("wide");
    button("›", "One step on", () => this.show(this.step + 1));
    button("»", "To the end", () => this.show(this.replay.steps.length));
    this.slider = html("input", null, null, row);
    this.slider.type = "range";
    this.slider.min = "0";
    this.slider.setAttribute("aria-label", "Step");
    this.slider.addEventListener("input", () => this.show(Number(this.slider.value)));
    this.status = html("p", "status", "", this.place);
    this.status.setAttribute("aria-live", "polite");
  }

  choose(index) {
    this.stop();
    this.replay = this.replays[index];
    this.frames = framesOf(this.replay);
    this.slider.max = String(this.replay.steps.length);
    (this.choices || []).forEach((b, i) => b.setAttribute("aria-pressed", String(i === index)));
    this.boards.replaceChildren();
    const final = this.frames[this.frames.length - 1].map(([char]) => char);
    this.cells = makeBoard(this.boards, "The model writes", final, (p) => this.replay.start[p][1] === 1);
    const truth = Array.from(this.replay.truth || "");
    if (truth.length) makeBoard(this.boards, "Original", truth, (p) => p < final.length && this.replay.start[p][1] === 1, true);
    this.truth = truth;
    this.show(0);
  }

  toggle() {
    if (this.timer !== null) { this.stop(); return; }
    if (this.step >= this.replay.steps.length) this.show(0);
    const pause = Math.max(90, Math.min(900, 9000 / this.replay.steps.length));
    this.timer = setInterval(() => {
      this.show(this.step + 1, true);
      if (this.step >= this.replay.steps.length) this.stop();
    }, pause);
    this.named("Pause");
  }

  stop() {
    if (this.timer !== null) clearInterval(this.timer);
    this.timer = null;
    this.named("Play");
  }

  named(text) {
    this.playButton.textContent = text;
    this.playButton.setAttribute("aria-label", text);
  }

  show(step, playing) {
    if (!playing) this.stop();
    this.step = Math.min(this.replay.steps.length, Math.max(0, step));
    const now = this.frames[this.step];
    const before = this.step > 0 ? this.frames[this.step - 1] : now;
    let fresh = 0;
    let masked = 0;
    now.forEach(([char, hidden], p) => {
      const given = this.replay.start[p][1] === 0;
      const changed = !hidden && (before[p][1] === 1 || before[p][0] !== char);
      fresh += changed ? 1 : 0;
      masked += hidden;
      paintCell(this.cells[p], char, hidden ? "hidden" : changed ? "fresh" : given ? "given" : "written");
    });
    this.slider.value = String(this.step);
    this.status.textContent = this.described(fresh, masked);
  }

  described(fresh, masked) {
    const total = this.replay.steps.length;
    if (this.step === 0) return `Start: ${masked} masked`;
    const call = this.replay.steps[this.step - 1].call;
    const parts = [`Call ${call} (${this.step} of ${total})`, `${fresh} committed`, `${masked} masked`];
    if (this.step === total && this.truth.length) parts.push(this.agreement());
    return parts.join(" · ");
  }

  agreement() {
    const filled = this.replay.start.map((cell, p) => [cell[1], p]).filter(([hidden]) => hidden).map(([, p]) => p);
    const final = this.frames[this.frames.length - 1];
    const same = filled.filter((p) => final[p][0] === this.truth[p]).length;
    return `${same} of ${filled.length} as in the original`;
  }
}

/** The canvas after each step, the start first. */
function framesOf(replay) {
  const frames = [replay.start];
  for (const step of replay.steps) {
    const next = frames[frames.length - 1].slice();
    for (const [position, char, masked] of step.changes) next[position] = [char, masked];
    frames.push(next);
  }
  return frames;
}

/** A titled text of one cell a token. Lines break where the finished text has them, so that nothing jumps. */
function makeBoard(parent, title, chars, wasMasked, still) {
  const board = html("div", "board", null, parent);
  html("h4", null, title, board);
  const text = html("p", "tokens", null, board);
  return chars.map((char, p) => {
    const cell = html("span", "cell", null, text);
    if (still) paintCell(cell, char, wasMasked(p) ? "was" : "given");
    if (NEWLINES.includes(char)) html("br", null, null, text);
    return cell;
  });
}

function paintCell(cell, char, kind) {
  cell.className = `cell ${kind}`;
  const newline = NEWLINES.includes(char);
  if (newline) cell.classList.add("sign");
  cell.textContent = kind === "hidden" ? "\u00a0" : newline ? "↵" : char;
}
