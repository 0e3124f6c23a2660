// A converted copy, where this browser cannot play a video's file: why it cannot, the offer, and how far the copy is.

import * as api from "./api.js";
import { button, h } from "./dom.js";
import { duration } from "./format.js";

const POLL_MILLISECONDS = 1000;
const GOING_ON = new Set(["queued", "running"]);

export class Copies {
  /** `show(heading, words, ...parts)` puts something in the place of the picture; `play(url)` plays a copy. */
  constructor({ show, play }) {
    [this.show, this.play, this.known, this.turn] = [show, play, new Map(), 0];
    this.bar = h("progress", { max: "1", "aria-label": "The copy" });
    this.words = h("span", { "aria-live": "off" });
  }

  /** Where the copy of a video is, if one was played before; else undefined. */
  addressOf(videoId) {
    return this.known.get(videoId);
  }

  /** A copy is there no more. */
  forget(videoId) {
    this.known.delete(videoId);
  }

  /** Offer a copy of a moment's video, or play it at once where it is there. `words`: what the player said. */
  async offer({ videoId }, words) {
    const turn = ++this.turn;
    try {
      const state = await api.copy(videoId);
      if (turn !== this.turn) return;
      if (GOING_ON.has(state.state)) await this.#follow(videoId, state, turn);
      else this.#answer(videoId, state, words);
    } catch { /* what the player said stands */ }
  }

  /** Nobody waits any more; a copy that is being made is made all the same. */
  stop() {
    this.turn += 1;
  }

  #answer(videoId, state, words) {
    if (state.state === "done") {
      this.known.set(videoId, new URL(state.copy_url, document.baseURI).href);
      this.play(this.known.get(videoId));
      return;
    }
    if (!state.form) { // the file cannot be read here either
      this.show("This video does not play", state.message || words);
      return;
    }
    const make = button({ words: "Play a converted copy", name: "play", kind: "solid", onclick: () => this.#make(videoId) });
    const before = state.state === "failed" ? ` The last attempt to convert it failed. ${state.message}` : "";
    this.show("This browser cannot play this video", `${reason(state)}${before}`, make);
  }

  async #make(videoId) {
    const turn = ++this.turn;
    this.show("The copy is on its way", "");
    try {
      await this.#follow(videoId, await api.makeCopy(videoId), turn);
    } catch (error) {
      if (turn !== this.turn) return;
      const again = button({ words: "Try again", name: "loop", kind: "solid", onclick: () => this.#make(videoId) });
      this.show("The copy cannot be made now", error.message, again);
    }
  }

  async #follow(videoId, state, turn) {
    if (turn !== this.turn) return;
    if (GOING_ON.has(state.state)) this.show("The copy is on its way", "It plays as soon as it is there.", this.bar, this.words);
    let now = state;
    while (GOING_ON.has(now.state)) {
      this.bar.value = now.progress;
      const left = now.seconds_left ? `, about ${duration(now.seconds_left)} left` : "";
      this.words.textContent = now.state === "queued" ? "waits for its turn" : `${Math.floor(100 * now.progress)} %${left}`;
      await new Promise((done) => setTimeout(done, POLL_MILLISECONDS));
      if (turn !== this.turn) return;
      now = await api.copy(videoId);
    }
    if (turn === this.turn) this.#answer(videoId, now, "");
  }
}

/** Why the browser does not play it, as far as it says. */
function reason({ form, pictures, type }) {
  const holds = `The file (${form}) holds ${pictures} video`;
  if (type === null) return `${holds}, which no browser plays.`;
  if (document.createElement("video").canPlayType(type) === "") return `${holds}, which this browser does not play.`;
  return `${holds}. This browser plays such video, but not in this kind of file, or the file is damaged.`;
}
