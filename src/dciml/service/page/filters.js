// The limits of a search: the fields below the box, and a chip for each limit that is set.

import { byId, h, icon } from "./dom.js";
import { range } from "./format.js";
import { pictureChip } from "./picture.js";
import { FILTERS, emptyFilters } from "./place.js";

const NAMES = {
  folder: "folder", tag: "tag", min: "at least", max: "at most", after: "from", before: "before", inside: "only in",
};
const SECONDS = new Set(["min", "max"]);

export class Filters {
  /** `onChange(filters)` hears every change that the reader makes; `onUnlike()` that the moment to be like is dropped. */
  constructor(onChange, onUnlike) {
    [this.onChange, this.onUnlike] = [onChange, onUnlike];
    this.values = emptyFilters();
    this.fields = [...byId("filters").querySelectorAll("input")];
    for (const field of this.fields) field.addEventListener("change", () => this.#read());
    byId("clear-filters").addEventListener("click", () => onChange(emptyFilters()));
  }

  /** Show these values; `titleOf(id)` names videos, `like` is the moment that others shall be like, or null. */
  show(values, titleOf, like, picture) {
    this.values = values;
    for (const field of this.fields) field.value = values[field.name];
    this.name(titleOf, like, picture);
  }

  /** Draw the chips anew, when titles have become known; what the reader is typing into the fields stays. */
  name(titleOf, like, picture) {
    const { values } = this;
    const set = FILTERS.filter((name) => values[name] !== "");
    const shown = set.filter((name) => name !== "inside").length;
    byId("filter-count").textContent = shown ? ` (${shown})` : "";
    const chips = set.map((name) => {
      const value = name === "inside" ? titleOf(values.inside) : values[name];
      const unit = SECONDS.has(name) ? " s" : "";
      return chip([NAMES[name], " ", h("bdi", {}, value), unit], () => this.onChange({ ...this.values, [name]: "" }));
    });
    if (like) {
      const words = [`like ${range(like.start, like.end)} of `, h("bdi", {}, titleOf(like.videoId))];
      chips.unshift(chip(words, this.onUnlike));
    }
    if (picture) chips.unshift(pictureChip(picture, this.onUnlike));
    byId("scope").replaceChildren(...chips);
  }

  /** Offer the tags of some videos. */
  offer(videos) {
    const tags = [...new Set(videos.flatMap((video) => video.tags))].sort();
    byId("tags").replaceChildren(...tags.map((tag) => h("option", { value: tag })));
  }

  #read() {
    if (!this.fields.every((field) => field.reportValidity())) return;
    this.onChange({ ...this.values, ...Object.fromEntries(this.fields.map((field) => [field.name, field.value.trim()])) });
  }
}

/** `words`: texts, and titles apart from them, since these may run the other way. */
function chip(words, onRemove) {
  const label = h("span", {}, ...words);
  const remove = h("button", { type: "button", "aria-label": `Remove: ${label.textContent}`, onclick: onRemove }, icon("close"));
  return h("li", { class: "chip" }, label, remove);
}
