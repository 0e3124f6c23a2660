// The player: jumps to a moment, plays it, stops or loops at its end. `Screen` is the picture with its controls.

import { whyNoMedia } from "./api.js";
import { Copies } from "./copies.js";
import { button, h, icon } from "./dom.js";
import { clock } from "./format.js";

const ERRORS = {
  1: "Loading was stopped.",
  2: "The connection broke while the video was loading.",
  3: "The file is damaged, or holds something that this browser cannot decode.",
  4: "This browser cannot play the file, or it cannot be fetched.",
};
const END_SLACK_SECONDS = 0.04; // about a picture: the clock of a player moves in such steps
const LENGTH_WAIT_MS = 500; // for a player to learn that a video is longer than its file states

export class Screen {
  /** `onTime(seconds)` hears where the player is; `onLength(seconds)` how long the file says it is. */
  constructor({ onTime, onLength }) {
    [this.onTime, this.onLength] = [onTime, onLength];
    [this.moment, this.guarded, this.loops, this.jumps] = [null, false, false, 0];
    this.video = h("video", { playsinline: true, preload: "auto", tabindex: "-1" });
    this.start = button({ label: "Play", name: "play", kind: "start", onclick: () => this.toggle() });
    this.end = h(
      "div", { class: "at-end", hidden: true },
      h("span", {}, "End of moment"),
      button({ words: "Again", name: "loop", kind: "solid", onclick: () => this.again() }),
      button({ words: "Play on", name: "play", kind: "solid", onclick: () => this.toggle() }),
    );
    this.fault = h("div", { class: "fault", role: "alert", hidden: true });
    this.stage = h("div", { class: "stage" }, this.video, this.start, this.end, this.fault);
    this.copies = new Copies({
      show: (heading, words, ...parts) => this.#fault(heading, words, ...parts),
      play: () => this.show(this.moment, true),
    });
    this.note = h("p", { class: "copy-note", hidden: true }, "A converted copy plays: this browser cannot play the file itself.");
    this.controls = this.#controls();
    this.element = h("div", { class: "screen" }, this.stage, this.note);
    this.#listen();
  }

  /** Show a moment { mediaUrl, thumbnailUrl, start, end, duration }; times null: the whole video. */
  show(moment, plays) {
    this.moment = moment;
    this.copies.stop();
    this.#fault(null);
    this.note.hidden = true;
    this.end.hidden = true;
    if (moment.mediaUrl === null) {
      this.#unload();
      this.#poster(moment.thumbnailUrl);
      this.#fault("There is no file of this video here", "The index knows its moments, but not where the file lies.");
      this.onTime(moment.start ?? 0);
      return;
    }
    const copy = this.copies.addressOf(moment.videoId);
    this.note.hidden = copy === undefined;
    const address = new URL(copy ?? moment.mediaUrl, location.href).href;
    if (this.video.src !== address || this.video.error) {
      this.#poster(moment.thumbnailUrl);
      this.video.src = address;
    }
    this.#jump(moment.start ?? 0, plays, moment.start !== null);
  }

  /** Go to a time. Outside the moment, its end no longer stops the player. */
  seek(seconds) {
    const { start, end } = this.moment;
    const inside = start !== null && seconds >= start && seconds < end - END_SLACK_SECONDS;
    this.#jump(seconds, !this.video.paused, this.guarded && inside);
  }

  again() {
    this.#jump(this.moment.start ?? 0, true, this.moment.start !== null);
  }

  toggle() {
    if (!this.fault.hidden || !this.moment) return;
    if (!this.video.paused) this.video.pause();
    else if (this.video.ended) this.again();
    else this.#play();
  }

  close() {
    this.#unload();
    this.copies.stop();
    [this.moment, this.guarded] = [null, false];
  }

  #unload() {
    this.jumps += 1;
    this.video.pause();
    this.video.removeAttribute("src");
    this.video.load();
  }

  #poster(url) {
    if (url) this.video.poster = url;
    else this.video.removeAttribute("poster");
  }

  async #jump(seconds, plays, guarded) {
    const jump = ++this.jumps;
    const isLast = () => jump === this.jumps;
    this.end.hidden = true;
    this.guarded = false; // until the player is there
    this.onTime(seconds);
    if (this.video.readyState < 1) await heard(this.video, "loadedmetadata");
    if (!isLast()) return;
    await this.#seek(seconds, isLast);
    if (!isLast()) return;
    this.guarded = guarded;
    if (plays) this.#play();
  }

  /** Seek; where the file states too short a length, again whenever the player has read further. */
  async #seek(seconds, isLast) {
    const { video } = this;
    for (let length = -1; isLast() && length < Math.min(seconds, video.duration);) {
      length = video.duration;
      const arrived = heard(video, "seeked");
      video.currentTime = Math.min(seconds, Math.max(0, length - 0.01));
      await arrived;
      if (length < seconds && video.duration <= length) {
        await Promise.race([heard(video, "durationchange"), new Promise((done) => setTimeout(done, LENGTH_WAIT_MS))]);
      }
    }
  }

  async #play() {
    this.end.hidden = true;
    if (!this.fault.hidden) return;
    try {
      await this.video.play();
    } catch {
      this.#paint(); // the browser wants a click first, or the file failed, of which its own event tells
    }
  }

  /** Follow the playing picture by picture. */
  #watch() {
    this.#look();
    if (this.moment && !this.video.paused) requestAnimationFrame(() => this.#watch());
  }

  #look() {
    const { video, moment } = this;
    if (!moment) return;
    this.onTime(video.currentTime);
    if (this.guarded && !video.seeking && video.currentTime >= moment.end - END_SLACK_SECONDS) this.#atEnd();
  }

  #atEnd() {
    if (this.loops) {
      this.again();
      return;
    }
    this.guarded = false;
    this.video.pause();
    this.end.hidden = false;
    this.#paint();
  }

  #paint() {
    const plays = !this.video.paused && !this.video.ended;
    this.start.hidden = plays || !this.end.hidden || !this.fault.hidden;
    this.playButton.replaceChildren(icon(plays ? "pause" : "play"));
    this.playButton.setAttribute("aria-label", plays ? "Pause" : "Play");
    this.playButton.title = plays ? "Pause" : "Play";
    this.muteButton.replaceChildren(icon(this.video.muted ? "muted" : "sound"));
    this.muteButton.setAttribute("aria-pressed", String(this.video.muted));
    for (const control of [this.playButton, this.loopButton]) control.disabled = !this.fault.hidden;
  }

  /** Show the clock; called by whoever knows the length. */
  tell(seconds, duration) {
    this.clock.textContent = `${clock(seconds)} / ${clock(duration)}`;
  }

  #controls() {
    this.playButton = button({ label: "Play", name: "play", onclick: () => this.toggle() });
    this.loopButton = button({
      label: "Loop", words: "Loop", name: "loop", kind: "quiet toggle", "aria-pressed": "false", onclick: () => this.#loop(),
    });
    this.muteButton = button({
      label: "Mute", name: "sound", kind: "quiet", "aria-pressed": "false",
      onclick: () => { this.video.muted = !this.video.muted; },
    });
    this.clock = h("span", { class: "clock" });
    const speed = h(
      "select", { "aria-label": "Speed", onchange: () => { this.video.playbackRate = Number(speed.value); } },
      ...["0.5", "1", "1.5", "2"].map((rate) => h("option", { value: rate, selected: rate === "1" }, `${rate}×`)),
    );
    const full = button({ label: "Full screen", name: "full", onclick: () => this.#fill() });
    return h("div", { class: "controls" }, this.playButton, this.clock, this.loopButton, speed, this.muteButton, full);
  }

  #fill() {
    if (this.stage.requestFullscreen) this.stage.requestFullscreen();
    else this.video.webkitEnterFullscreen?.(); // iPhones fill the screen with the video alone
  }

  #loop() {
    this.loops = !this.loops;
    this.loopButton.setAttribute("aria-pressed", String(this.loops));
    const { start, end } = this.moment;
    if (!this.loops || start === null) return;
    const inside = this.video.currentTime >= start && this.video.currentTime < end - END_SLACK_SECONDS;
    if (inside) this.guarded = true;
    else this.again();
  }

  #listen() {
    const { video } = this;
    video.addEventListener("click", () => this.toggle());
    video.addEventListener("loadedmetadata", () => Number.isFinite(video.duration) && this.onLength(video.duration));
    for (const name of ["play", "pause", "ended", "volumechange", "emptied"]) video.addEventListener(name, () => this.#paint());
    video.addEventListener("play", () => this.#watch());
    video.addEventListener("timeupdate", () => this.#look()); // in a hidden tab no picture is drawn, but sound goes on
    video.addEventListener("playing", () => { this.end.hidden = true; this.#paint(); });
    video.addEventListener("ended", () => this.guarded && this.#atEnd());
    video.addEventListener("error", () => this.#failed());
    video.addEventListener("loadedmetadata", () => !video.videoWidth && this.#failed()); // sound alone would play
    for (const name of ["waiting", "seeking"]) video.addEventListener(name, () => this.stage.classList.add("is-waiting"));
    for (const name of ["seeked", "playing", "canplay", "error"]) {
      video.addEventListener(name, () => this.stage.classList.remove("is-waiting"));
    }
    document.addEventListener("fullscreenchange", () => { video.controls = document.fullscreenElement === this.stage; });
  }

  async #failed() {
    const { moment } = this;
    if (!moment || moment.mediaUrl === null) return;
    const code = this.video.error?.code;
    const words = ERRORS[code] ?? ERRORS[4];
    this.video.pause();
    this.#fault("This video does not play", words);
    const isCopy = this.copies.addressOf(moment.videoId) !== undefined;
    const reason = await whyNoMedia(this.video.currentSrc || moment.mediaUrl);
    if (moment !== this.moment || this.fault.hidden) return;
    if (reason && isCopy) { // it was removed to make room, and may be made again
      this.copies.forget(moment.videoId);
      this.show(moment, false);
    } else if (reason) this.#fault("This video does not play", reason);
    else if (!isCopy) this.copies.offer(moment, words);
  }

  #fault(heading, words = "", ...parts) {
    this.fault.hidden = heading === null;
    this.fault.replaceChildren(...(heading === null ? [] : [icon("alert"), h("strong", {}, heading), h("span", {}, words), ...parts]));
    this.#paint();
  }
}

const heard = (target, name) => new Promise((resolve) => target.addEventListener(name, resolve, { once: true }));
