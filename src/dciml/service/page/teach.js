// Sentences for moments ("This is …"), and learning from them: `Told` in the player's panel, `Teach` beside the videos.

import * as api from "./api.js";
import { confirmed } from "./dialogs.js";
import { announce, button, h, icon } from "./dom.js";
import { count, range } from "./format.js";
import { followed } from "./results.js";

const GUESS_SECONDS = 5; // how long a moment is at first, where the whole video is open
const PAGE_TOLD = 50;
const POLL_MILLISECONDS = 700;
const OVER = new Set(["done", "failed", "cancelled"]);

const rounded = (seconds) => String(Math.round(seconds * 10) / 10);

/** Whether this server keeps sentences; asked once. */
let asked = null;
const mayTell = async () => {
  try {
    asked ??= api.teaching();
    return (await asked).can_tell;
  } catch {
    asked = null; // another time, perhaps
    return false;
  }
};

/** A field for a time with a button that takes the player's. */
function timeField(label, words, now) {
  const field = h("input", { type: "number", min: "0", step: "0.1", required: true, inputmode: "decimal", "aria-label": `${label}, seconds` });
  const here = button({ words, kind: "soft", onclick: () => { field.value = rounded(now()); } });
  return { field, element: h("div", { class: "time" }, h("span", { "aria-hidden": "true" }, label), field, here) };
}

/** In the panel: a form for the open moment, and what was told of its video. */
export class Told {
  /** `app`: { addressOfMoment, open }; `now()` is where the player is, in seconds. */
  constructor(app, now) {
    [this.app, this.now, this.moment] = [app, now, null];
    this.sentence = h("input", {
      type: "text", required: true, maxlength: "500", dir: "auto", spellcheck: "true", autocomplete: "off",
      placeholder: "a dog runs into the sea", "aria-label": "This is …",
    });
    this.from = timeField("From", "Here", now);
    this.to = timeField("to", "Here", now);
    this.fault = h("p", { class: "fault-line", role: "alert" });
    this.form = h(
      "form", { class: "tell" }, this.sentence,
      h("div", { class: "times-line" }, this.from.element, this.to.element, h("button", { type: "submit", class: "primary" }, "Keep")),
      this.fault,
    );
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#keep();
    });
    this.details = h("details", {}, h("summary", {}, "This is …"), this.form);
    this.details.addEventListener("toggle", () => this.details.open && this.#fill());
    this.list = h("ul", { class: "told", "aria-label": "Told of this video" });
    this.element = h("section", { class: "telling", "aria-label": "What this is", hidden: true }, this.details, this.list);
  }

  async show(moment) {
    const isOther = this.moment?.videoId !== moment.videoId;
    this.moment = moment;
    this.fault.textContent = "";
    if (isOther) this.list.replaceChildren();
    this.#fill();
    this.element.hidden = !(await mayTell());
    if (!this.element.hidden && isOther) await this.#load();
  }

  /** The times of the open moment; of a whole video some seconds from where the player is. */
  #fill() {
    if (!this.moment) return;
    const { start, end, duration } = this.moment;
    const from = start ?? Math.min(this.now(), Math.max(0, duration - GUESS_SECONDS));
    this.from.field.value = rounded(from);
    this.to.field.value = rounded(end ?? Math.min(duration, from + GUESS_SECONDS));
  }

  async #keep() {
    const { videoId } = this.moment;
    this.fault.textContent = "";
    try {
      await api.tell(videoId, Number(this.from.field.value), Number(this.to.field.value), this.sentence.value);
      this.sentence.value = "";
      this.details.open = false;
      this.details.firstChild.focus();
      announce("Kept");
      await this.#load();
    } catch (error) {
      this.fault.textContent = error.message;
    }
  }

  async #load() {
    const { videoId } = this.moment;
    try {
      const { told } = await api.told(videoId, 0, PAGE_TOLD);
      if (this.moment?.videoId !== videoId) return;
      this.list.replaceChildren(...told.map((one) => toldRow(one, this.app, () => this.#takeBack(one))));
    } catch (error) {
      this.fault.textContent = error.message;
    }
  }

  async #takeBack(one) {
    this.fault.textContent = "";
    try {
      await api.takeBack(one.told_id);
      announce("Taken back");
    } catch (error) {
      if (error.status !== 404) this.fault.textContent = error.message;
    }
    await this.#load();
  }
}

/** A sentence with the moment that it leads to, and a button that takes it back. */
function toldRow(one, app, takeBack, title = null) {
  const moment = { videoId: one.video_id, start: one.start_seconds, end: one.end_seconds };
  const link = h(
    "a", { href: app.addressOfMoment(moment), onclick: (event) => followed(event) && app.open(moment) },
    h("strong", { dir: "auto" }, one.sentence),
    h("span", {}, title === null ? "" : h("span", { dir: "auto" }, `${title}, `), range(moment.start, moment.end)),
  );
  return h("li", {}, link, button({ label: `Take back “${one.sentence}”`, name: "close", onclick: takeBack }));
}

/** Beside the videos: how much there is to learn from, the button, and what came of it. */
export class Teach {
  /** `app`: { addressOfMoment, open, changed }; `changed()` is told when another model answers. */
  constructor(app) {
    [this.app, this.state, this.shown] = [app, null, 0];
    this.words = h("p", {});
    this.bar = h("progress", { max: "1", "aria-label": "Teaching", hidden: true });
    this.result = h("p", { class: "result", role: "status" });
    this.fault = h("p", { class: "fault-line", role: "alert" });
    this.teachButton = button({ words: "Teach", kind: "primary", onclick: () => this.#start(() => api.teach()) });
    this.undoButton = button({ words: "Back to untrained", kind: "soft", onclick: () => this.#undo() });
    this.list = h("ul", { class: "told", "aria-label": "All that was told" });
    this.more = button({ words: "More", kind: "soft", onclick: () => this.#list(this.list.children.length + PAGE_TOLD) });
    this.all = h("details", {}, h("summary", {}, "All that was told"), this.list, this.more);
    this.all.addEventListener("toggle", () => this.all.open && this.#list(PAGE_TOLD));
    this.element = h(
      "section", { class: "teach", "aria-labelledby": "teach-heading", hidden: true },
      h("h2", { id: "teach-heading" }, icon("like"), "Teach"), this.words, this.bar, this.result, this.fault,
      h("div", { class: "actions" }, this.teachButton, this.undoButton), this.all,
    );
  }

  async show() {
    clearTimeout(this.timer);
    try {
      this.#paint(await api.teaching());
      if (this.all.open) await this.#list(PAGE_TOLD);
    } catch (error) {
      this.fault.textContent = error.message;
    }
  }

  #paint(state) {
    const before = this.state;
    this.state = state;
    const { job, videos, sentences, needed_videos: needed } = state;
    const runs = job !== null && !OVER.has(job.state);
    this.element.hidden = !state.can_tell;
    const missing = needed - videos;
    this.words.textContent = missing > 0
      ? `Open a video, write what a moment shows (This is …), and the search learns from it. It takes sentences for ${needed} ` +
        `videos; there are ${count(sentences, "sentence")} for ${count(videos, "video")}, so tell of ${count(missing, "more video")}.`
      : `There are ${count(sentences, "sentence")} for ${count(videos, "video")}. What is learned from them is kept only ` +
        "if it finds better what it was not taught.";
    this.bar.hidden = !runs;
    this.bar.value = job?.progress ?? 0;
    this.teachButton.disabled = runs || missing > 0;
    this.undoButton.hidden = !state.taught;
    this.undoButton.disabled = runs;
    this.#tell(state, runs);
    if (runs) this.timer = setTimeout(() => this.show(), POLL_MILLISECONDS);
    const ran = before?.job && !OVER.has(before.job.state) && job && OVER.has(job.state);
    if (ran || (before !== null && before.taught !== state.taught)) this.app.changed();
  }

  #tell({ job, taught, report }, runs) {
    const words = [];
    if (job) words.push(`${job.message[0].toUpperCase()}${job.message.slice(1)}${runs ? " …" : ""}`);
    else if (taught && report) {
      words.push(
        `A taught model answers. On ${count(report.held_out_sentences, "sentence")} that it was not taught it is better by ` +
        `${report.gain.toFixed(1)} points than the untrained one.`,
      );
    } else if (taught) words.push("A taught model answers.");
    const said = words.join(" ");
    if (this.result.textContent !== said) this.result.textContent = said;
    this.result.classList.toggle("bad", job?.state === "failed");
  }

  async #start(ask) {
    this.fault.textContent = "";
    this.teachButton.disabled = true;
    try {
      await ask();
    } catch (error) {
      this.fault.textContent = error.message;
    }
    await this.show();
  }

  async #undo() {
    const words = "The untrained model answers again, and the taught one is removed. What was told is kept.";
    if (await confirmed("Back to the untrained model?", words, "Go back")) await this.#start(() => api.undoTeaching());
  }

  async #list(wanted) {
    try {
      const rows = [];
      let total = 1;
      while (rows.length < Math.min(wanted, total)) {
        const page = await api.told(null, rows.length, PAGE_TOLD);
        if (!page.told.length) { total = page.total; break; }
        rows.push(...page.told);
        total = page.total;
      }
      this.list.replaceChildren(...rows.map((one) => toldRow(one, this.app, () => this.#takeBack(one), one.title)));
      this.more.hidden = rows.length >= total;
    } catch (error) {
      this.fault.textContent = error.message;
    }
  }

  async #takeBack(one) {
    try {
      await api.takeBack(one.told_id);
    } catch (error) {
      if (error.status !== 404) this.fault.textContent = error.message;
    }
    await this.show();
  }
}
