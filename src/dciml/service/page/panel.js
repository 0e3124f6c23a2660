// The panel of the open moment: player, timeline, other moments of the video, and what to do next.

import { button, h, icon, keyFrame } from "./dom.js";
import { why } from "./evidence.js";
import { range } from "./format.js";
import { sameMoment } from "./place.js";
import { Screen } from "./player.js";
import { followed, sureTag } from "./results.js";
import { saveButton } from "./save.js";
import { Told } from "./teach.js";
import { Timeline } from "./timeline.js";

export class Panel {
  /** `app`: { addressOfMoment, open, close, like, inside }. */
  constructor(element, app) {
    [this.element, this.app] = [element, app];
    this.timeline = new Timeline({
      onSeek: (seconds) => this.screen.seek(seconds),
      onSpan: (span) => this.app.open(span.moment),
    });
    this.screen = new Screen({
      onTime: (seconds) => { this.timeline.at(seconds); this.screen.tell(seconds, this.duration); },
      onLength: (seconds) => this.#correct(seconds),
    });
    this.heading = h("h2", { id: "player-title", dir: "auto", tabindex: "-1" });
    this.facts = h("p", { class: "facts" });
    this.actions = h("div", { class: "actions" });
    this.others = h("div", { class: "others" });
    this.told = new Told(this.app, () => this.screen.video.currentTime);
    element.append(
      h(
        "header", {}, h("div", {}, this.heading, this.facts),
        button({ label: "Close the player (Esc)", name: "close", onclick: () => this.app.close() }),
      ),
      this.screen.element, this.timeline.element, this.screen.controls, this.actions, this.told.element, this.others,
    );
    [this.moment, this.duration, this.relevance, this.moments] = [null, 0, null, []];
  }

  /** Open a moment; `moments` and `relevance` are what is known of its video so far. */
  open(moment, { relevance, moments }, plays) {
    [this.moment, this.duration] = [moment, moment.duration];
    this.element.hidden = false;
    [this.heading.textContent, this.heading.title] = [moment.title, moment.title];
    this.#act();
    this.know({ relevance, moments });
    this.screen.show(moment, plays);
    this.told.show(moment);
  }

  /** Learn more of the open video: relevance over time, and its other moments. */
  know({ relevance, moments }) {
    [this.relevance, this.moments] = [relevance, moments];
    // A moment that an address named gets its score when the answer has come.
    const known = moments.find((one) => sameMoment(one, this.moment)) ?? this.moment;
    const [{ start, end, score }, because] = [known, why(known)];
    this.facts.replaceChildren(
      ...(start === null ? [] : [h("strong", {}, range(start, end))]),
      ...(score === null ? [] : [sureTag(known)]),
      ...(because === null ? [] : [because]),
    );
    this.#draw();
    this.#list();
  }

  close() {
    this.element.hidden = true;
    this.screen.close();
    this.moment = null;
  }

  /** The file's own length counts: the catalogue may round. */
  #correct(seconds) {
    if (this.moment && Math.abs(seconds - this.duration) > 0.05) {
      this.duration = seconds;
      this.#draw();
    }
  }

  #draw() {
    const spans = this.moments.map((moment, index) => ({
      start: moment.start, end: moment.end, label: String(index + 1), current: sameMoment(moment, this.moment), moment,
    }));
    this.timeline.show({ duration: this.duration, relevance: this.relevance, spans });
    this.timeline.element.classList.toggle("is-bare", !this.relevance?.length);
  }

  #act() {
    const { moment } = this;
    const isSpan = moment.start !== null;
    const save = saveButton(moment, true);
    const copy = button({ words: "Copy link", name: "link", kind: "soft", onclick: () => this.#copy(copy) });
    this.actions.replaceChildren(
      ...(isSpan ? [button({ words: "More like this", name: "like", kind: "soft", onclick: () => this.app.like(moment) })] : []),
      button({ words: "Search in this video", name: "inside", kind: "soft", onclick: () => this.app.inside(moment) }),
      copy,
      ...(save === null ? [] : [save]),
    );
  }

  async #copy(control) {
    const words = control.lastChild;
    try {
      await navigator.clipboard.writeText(new URL(this.app.addressOfMoment(this.moment), document.baseURI).href);
      words.textContent = "Copied";
    } catch {
      words.textContent = "Copy it from the address bar";
    }
    setTimeout(() => { words.textContent = "Copy link"; }, 2500);
  }

  #list() {
    const rows = this.moments.map((moment, index) => {
      const isOpen = sameMoment(moment, this.moment);
      const link = h(
        "a",
        {
          href: this.app.addressOfMoment(moment), "aria-current": isOpen ? "true" : null,
          onclick: (event) => followed(event) && this.app.open(moment),
        },
        keyFrame(moment.thumbnailUrl),
        h("span", { class: "number", "aria-hidden": "true" }, String(index + 1)),
        h("span", {}, range(moment.start, moment.end)),
        isOpen ? icon("play") : null,
      );
      return h("li", {}, link);
    });
    this.others.hidden = rows.length < 2;
    this.others.replaceChildren(h("h3", {}, "Moments in this video"), h("ol", {}, ...rows));
  }
}
