// The timeline under the player: relevance over the whole video, the found spans, and where the player is.
// The upper part is one slider (mouse, touch, keyboard); the spans are buttons below it.

import { h, svg } from "./dom.js";
import { clock, range, spoken } from "./format.js";

const LANE_PIXELS = 28;
const SPAN_PIXELS = 26; // the least width of a span: WCAG 2.5.8 wants 24 for a target
const STEPS_SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200];
const TICK_PIXELS = 80;
const LABEL_PIXELS = 38; // of "00:00"; with hours half as much again

export class Timeline {
  /** `onSeek(seconds)`, `onSpan(span)`: told when the reader asks for a time, or for a span. */
  constructor({ onSeek, onSpan }) {
    [this.onSeek, this.onSpan] = [onSeek, onSpan];
    [this.duration, this.seconds, this.spans] = [0, 0, []];
    this.graph = svg("svg", { class: "relevance", preserveAspectRatio: "none", "aria-hidden": "true" });
    this.chosen = h("div", { class: "chosen" });
    this.playhead = h("div", { class: "playhead" });
    this.hover = h("div", { class: "hover", "aria-hidden": "true", hidden: true });
    this.slider = h(
      "div",
      { class: "track", role: "slider", tabindex: "0", "aria-label": "Position in the video", "aria-valuemin": "0" },
      this.graph, this.chosen, this.playhead, this.hover,
    );
    this.lanes = h("ul", { class: "lanes", "aria-label": "Moments found in this video" });
    this.axis = h("div", { class: "axis", "aria-hidden": "true" });
    this.element = h("div", { class: "timeline" }, this.slider, this.lanes, this.axis);
    this.#listen();
    new ResizeObserver(() => this.#layOut()).observe(this.element);
  }

  /** `relevance`: one number from 0 to 1 a clip, or null; `spans`: { start, end, label, current }, best first. */
  show({ duration, relevance, spans }) {
    [this.duration, this.spans] = [duration, spans];
    this.slider.setAttribute("aria-valuemax", duration.toFixed(1));
    this.#draw(relevance ?? []);
    const current = spans.find((span) => span.current);
    this.chosen.hidden = !current;
    if (current) {
      this.chosen.style.left = this.#place(current.start);
      this.chosen.style.width = this.#place(current.end - current.start);
    }
    this.lanes.replaceChildren(...spans.map((span) => this.#button(span)));
    this.#layOut();
    this.at(this.seconds);
  }

  /** Move the playhead. */
  at(seconds) {
    this.seconds = seconds;
    this.playhead.style.left = this.#place(seconds);
    this.slider.setAttribute("aria-valuenow", seconds.toFixed(1));
    this.slider.setAttribute("aria-valuetext", `${spoken(seconds)} of ${spoken(this.duration)}`);
  }

  #place(seconds) {
    const share = this.duration > 0 ? seconds / this.duration : 0;
    return `${100 * Math.min(1, Math.max(0, share))}%`;
  }

  #draw(relevance) {
    this.graph.setAttribute("viewBox", `0 0 ${Math.max(1, relevance.length)} 1`);
    const gap = relevance.length > 160 ? 0 : 0.14;
    this.graph.replaceChildren(
      ...relevance.map((value, clip) => {
        const height = Math.max(0.03, Math.min(1, value));
        return svg("rect", {
          x: clip + gap / 2, y: 1 - height, width: 1 - gap, height, "fill-opacity": (0.3 + 0.7 * height).toFixed(2),
        });
      }),
    );
  }

  #button(span) {
    const control = h(
      "button",
      {
        type: "button", class: "span", title: range(span.start, span.end),
        "aria-label": `Moment ${span.label}, ${range(span.start, span.end)}`,
        "aria-current": span.current ? "true" : null,
        onclick: () => this.onSpan(span),
      },
      span.label,
    );
    return h("li", {}, control);
  }

  /** Put overlapping spans into lanes below each other, and ticks at round times. */
  #layOut() {
    const width = this.element.clientWidth;
    if (!width || !this.duration) return;
    const ends = [];
    this.spans.forEach((span, index) => {
      const long = Math.max(SPAN_PIXELS, ((span.end - span.start) / this.duration) * width);
      const left = Math.max(0, Math.min((span.start / this.duration) * width, width - long));
      let lane = ends.findIndex((end) => end <= left);
      if (lane < 0) lane = ends.length;
      ends[lane] = left + long + 2;
      const style = this.lanes.children[index].firstElementChild.style;
      [style.left, style.width, style.top] = [`${left}px`, `${long}px`, `${lane * LANE_PIXELS}px`];
    });
    this.lanes.style.height = `${ends.length * LANE_PIXELS}px`;
    const step = STEPS_SECONDS.find((seconds) => (seconds / this.duration) * width >= TICK_PIXELS) ?? this.duration;
    const ticks = [];
    const label = this.duration < 3600 ? LABEL_PIXELS : 1.5 * LABEL_PIXELS;
    const room = (1.6 * label * this.duration) / width; // the last label stands left of the end, the others on their tick
    for (let seconds = 0; seconds <= this.duration - room; seconds += step) ticks.push(this.#tick(seconds, ""));
    ticks.push(this.#tick(this.duration, "last"));
    this.axis.replaceChildren(...ticks);
  }

  #tick(seconds, kind) {
    const tick = h("span", { class: kind || (seconds === 0 ? "first" : null) }, clock(seconds));
    tick.style.left = this.#place(seconds);
    return tick;
  }

  #secondsAt(event) {
    const box = this.slider.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) * this.duration;
  }

  #listen() {
    let dragging = false;
    this.slider.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      dragging = true;
      this.slider.setPointerCapture(event.pointerId);
      this.onSeek(this.#secondsAt(event));
    });
    this.slider.addEventListener("pointermove", (event) => {
      const seconds = this.#secondsAt(event);
      this.hover.hidden = false;
      this.hover.textContent = clock(seconds);
      this.hover.style.left = this.#place(seconds);
      if (dragging) this.onSeek(seconds);
    });
    for (const name of ["pointerup", "pointercancel"]) this.slider.addEventListener(name, () => { dragging = false; });
    this.slider.addEventListener("pointerleave", () => { this.hover.hidden = true; });
    this.slider.addEventListener("keydown", (event) => {
      const seconds = this.#secondsOfKey(event);
      if (seconds === null || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      event.stopPropagation();
      this.onSeek(Math.min(this.duration, Math.max(0, seconds)));
    });
  }

  #secondsOfKey({ key, shiftKey }) {
    const [small, large] = [shiftKey ? 5 : 1, this.duration / 10];
    const seconds = {
      ArrowLeft: this.seconds - small, ArrowDown: this.seconds - small,
      ArrowRight: this.seconds + small, ArrowUp: this.seconds + small,
      PageDown: this.seconds - large, PageUp: this.seconds + large, Home: 0, End: this.duration,
    };
    return seconds[key] ?? null;
  }
}
