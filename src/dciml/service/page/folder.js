// How far the reading of the watched folders is: a line with a bar above everything, gone when nothing is to be said.

import * as api from "./api.js";
import { announce, byId, h } from "./dom.js";
import { count, duration } from "./format.js";

const WORKING_MILLISECONDS = 1000;
const IDLE_MILLISECONDS = 5000;

export class Folder {
  /** `changed()` is told when videos came or went. */
  constructor(changed) {
    [this.changed, this.root, this.before, this.shown] = [changed, byId("folder"), null, ""];
    this.words = h("span", {});
    this.bar = h("progress", { max: "1", "aria-label": "Videos read" });
    this.notes = h("ul", { class: "notes" });
    [this.failures, this.texts] = [1, 2].map(() => h("details", {}, h("summary", {}), h("ul", {})));
  }

  async look() {
    let now;
    try {
      now = await api.folder();
    } catch {
      setTimeout(() => this.look(), IDLE_MILLISECONDS);
      return;
    }
    if (!now.folders.length) return;
    if (this.before === null) this.root.append(h("div", { class: "line" }, this.words, this.bar), this.notes, this.failures, this.texts);
    this.#paint(now);
    if (this.before !== null && (this.before.done !== now.done || this.before.working !== now.working)) {
      this.changed();
      if (!now.working) announce(`${count(now.done, "video")} can be searched`);
    }
    this.before = now;
    setTimeout(() => this.look(), now.working ? WORKING_MILLISECONDS : IDLE_MILLISECONDS);
  }

  #paint(now) {
    const left = now.seconds_left === null ? "" : `, about ${duration(now.seconds_left)} left`;
    this.words.textContent = now.trouble
      ?? (now.working && now.videos ? `Reading ${now.folders.join(", ")}: ${now.done} of ${count(now.videos, "video")}${left}` : "");
    this.bar.hidden = !now.working || !now.videos;
    this.bar.value = now.videos ? now.done / now.videos : 0;
    const key = JSON.stringify([now.notes, now.failures, now.text_failures]);
    if (key !== this.shown) {
      this.shown = key;
      this.notes.replaceChildren(...now.notes.map((note) => h("li", {}, note)));
      fill(this.failures, now.failures, `${count(now.failures.length, "video")} could not be read`);
      const texts = now.text_failures;
      const them = texts.length === 1 ? "it is searched" : "they are searched";
      fill(this.texts, texts, `The text beside ${count(texts.length, "video")} could not be read; ${them} without it`);
    }
    this.notes.hidden = !now.notes.length;
    this.root.hidden = !this.words.textContent && this.notes.hidden && this.failures.hidden && this.texts.hidden;
  }
}

/** Says what could not be read, and opens to why; hidden where nothing is to be said. */
function fill(details, failures, words) {
  details.hidden = !failures.length;
  details.firstChild.textContent = words;
  details.lastChild.replaceChildren(
    ...failures.map(({ video_id: id, reason }) => h("li", {}, h("strong", { dir: "auto" }, id), ` ${reason}`)),
  );
}
