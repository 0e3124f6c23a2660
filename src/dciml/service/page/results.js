// The list of answers, and what stands in its place: examples, skeletons, "nothing found", errors.

import { byId, button, h, keyFrame, notice } from "./dom.js";
import { why } from "./evidence.js";
import { clock, count, range, spoken, sureness, took } from "./format.js";
import { group, grouped } from "./groups.js";
import { questionKey } from "./place.js";

const SHOWN_VIDEOS = 6;

/** What the page keeps of a hit or of a video of the server: a moment; times null for a whole video. */
export function momentOf(row) {
  return {
    videoId: row.video_id,
    title: row.title,
    start: row.start_seconds ?? null,
    end: row.end_seconds ?? null,
    duration: row.duration_seconds,
    mediaUrl: ownAddress(row.media_url),
    thumbnailUrl: ownAddress(row.thumbnail_url),
    rank: row.rank ?? null,
    score: row.score ?? null,
    confidence: row.confidence ?? null,
    momentConfidence: row.moment_confidence ?? null,
    farBelow: row.far_below ?? false,
    evidence: row.evidence ?? [],
    line: row.line ?? null,
  };
}

/** Media come from this server only; anything else is taken as missing. */
function ownAddress(text) {
  if (typeof text !== "string") return null;
  const address = new URL(text, document.baseURI);
  return address.origin === location.origin ? address.href : null;
}

/** A share as a small bar and as words. */
export function sureTag(hit) {
  const { share, words, label } = sureness(hit);
  const bar = h("span", { class: "bar-small", "aria-hidden": "true" }, h("span"));
  if (share !== null) bar.firstChild.style.width = `${100 * share}%`;
  return h(
    "span", { class: "sure" },
    share === null ? null : bar,
    h("span", { class: "unseen" }, `${label}.`),
    h("span", { "aria-hidden": "true" }, share === null ? `score ${words}` : words),
  );
}

/** A card that links to the moment. `onOpen` is called instead of following the link. */
export function card(moment, address, onOpen) {
  const frame = keyFrame(moment.thumbnailUrl);
  const isSpan = moment.start !== null;
  const times = isSpan ? range(moment.start, moment.end) : clock(moment.duration);
  frame.append(h("span", { class: "times", "aria-hidden": "true" }, times));
  if (isSpan) frame.append(strip(moment));
  return h(
    "a",
    { class: "hit", href: address, onclick: (event) => followed(event) && onOpen(moment), "data-video": moment.videoId },
    frame,
    h("span", { class: "title", dir: "auto" }, moment.title, whenSpoken(moment)),
    moment.score === null ? null : sureTag(moment),
    why(moment),
  );
}

/** A line that links to a further moment of a video; its best one is the card above. */
function further(moment, best, address, onOpen) {
  return h(
    "a",
    { class: "hit", href: address, onclick: (event) => followed(event) && onOpen(moment), "data-video": moment.videoId },
    h("span", { class: "title unseen" }, moment.title, whenSpoken(moment)),
    h("span", { class: "times", "aria-hidden": "true" }, range(moment.start, moment.end)),
    sureTag(moment),
    why({ ...moment, line: moment.line === best.line ? null : moment.line }),
  );
}

/** When a moment is, or how long a whole video, for a screen reader. */
function whenSpoken({ start, end, duration }) {
  return h("span", { class: "unseen" }, start === null ? `, ${spoken(duration)}.` : `, ${spoken(start)} to ${spoken(end)}.`);
}

/** What the search could not take from the sentence. */
function notesOf(answer) {
  return answer.notes?.length ? [h("ul", { class: "hints" }, ...answer.notes.map((note) => h("li", { dir: "auto" }, note)))] : [];
}

/** How many moments are not shown, and a way to see them. */
function leftOut(number, onShow) {
  const words = `${count(number, "moment")} ${number === 1 ? "is" : "are"} left out, far below the best.`;
  return [h("p", { class: "left-out" }, words), button({ words: "Show all", kind: "wide", onclick: onShow })];
}

/** Where in its video a moment lies. */
function strip({ start, end, duration }) {
  const part = h("span");
  part.style.left = `${(100 * start) / duration}%`;
  part.style.width = `${Math.max(2, (100 * (end - start)) / duration)}%`;
  return h("span", { class: "strip", "aria-hidden": "true" }, part);
}

/** Whether a click is a plain one, which the page answers itself; others open tabs and windows. */
export function followed(event) {
  if (event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return false;
  event.preventDefault();
  return true;
}

export class Results {
  /** `app`: { addressOfMoment, open, ask, retry, more, goVideos, clearFilters }. */
  constructor(app) {
    [this.app, this.list, this.status, this.allShown] = [app, byId("results"), byId("status"), null];
  }

  /** The first page: sentences to try, and a look at the collection. */
  showHome(sentences, collection) {
    this.#say("");
    if (collection.total === 0) {
      const add = button({ words: "Add videos", name: "plus", kind: "primary", onclick: () => this.app.goVideos() });
      this.list.replaceChildren(notice("", "film", "No videos yet", "Add some, and then describe what happens in them.", add));
      return;
    }
    const tries = sentences.map((sentence) =>
      h("li", {}, h("button", { type: "button", class: "try", dir: "auto", onclick: () => this.app.ask(sentence) }, sentence)));
    const videos = collection.videos.slice(0, SHOWN_VIDEOS).map(momentOf);
    this.list.replaceChildren(
      ...(tries.length ? [h("h2", {}, "For example"), h("ul", { class: "tries" }, ...tries)] : []),
      h("h2", {}, `In this collection: ${count(collection.total, "video")}`),
      this.#cards(videos, "small"),
    );
  }

  showLoading() {
    this.#say("Searching …");
    const blank = () => h("li", { class: "skeleton" }, h("span", { class: "frame" }), h("span"), h("span"));
    this.list.replaceChildren(h("ol", { class: "cards", "aria-hidden": "true" }, ...Array.from({ length: 8 }, blank)));
  }

  showProblem(problem) {
    const again = problem.mayPass === false ? []
      : [button({ words: "Try again", name: "loop", kind: "primary", onclick: () => this.app.retry() })];
    const [heading, words] = [problem.title ?? "Something went wrong", problem.detail ?? problem.message];
    this.list.replaceChildren(notice("bad", "alert", heading, words, ...again));
    this.#say(`${heading}. ${words}`, true);
  }

  /** `answer`: as the server gives it, with `moments`; `place` is what was asked. */
  show(answer, place, isLimited) {
    if (!answer.found || !answer.moments.length) {
      this.#showNothing(answer, isLimited);
      return;
    }
    const showsAll = this.allShown === questionKey(place);
    const shown = showsAll ? answer.moments : answer.moments.filter((moment) => !moment.farBelow);
    const videos = new Set(shown.map((moment) => moment.videoId)).size;
    const kind = place.question.like || place.question.picture ? "similar moment" : "moment";
    this.#say(`${count(shown.length, kind)} in ${count(videos, "video")}, found in ${took(answer.took_seconds)}`);
    const showAll = () => {
      this.allShown = questionKey(place);
      this.show(answer, place, isLimited);
      this.list.focus();
    };
    const more = answer.moments.length >= answer.k && answer.k < 100
      ? [button({ words: "More moments", kind: "wide", onclick: () => this.app.more() })] : [];
    const hidden = answer.moments.length - shown.length;
    this.list.replaceChildren(...notesOf(answer), this.#groups(shown), ...(hidden ? leftOut(hidden, showAll) : more));
  }

  #groups(moments) {
    const open = (chosen) => this.app.open(chosen);
    const linkOf = (moment, best) => {
      const address = this.app.addressOfMoment(moment);
      return moment === best ? card(moment, address, open) : further(moment, best, address, open);
    };
    return h("ol", { class: "cards groups" }, ...grouped(moments).map((own) => group(own, linkOf)));
  }

  #showNothing(answer, isLimited) {
    this.#say("Nothing found", true);
    const words = isLimited
      ? "No moment within these filters seems to show that. Clear the filters, or say it in other words."
      : "No moment in these videos seems to show that. Say it in other words: who or what is seen, and what happens.";
    const block = notice("", "search", "Nothing found", words,
      ...(isLimited ? [button({ words: "Clear filters", kind: "primary", onclick: () => this.app.clearFilters() })] : []));
    const summary = h("summary", {}, "Show the nearest moments anyway");
    const nearest = h("details", { class: "nearest" }, summary, this.#groups(answer.moments));
    this.list.replaceChildren(block, ...notesOf(answer), ...(answer.moments.length ? [nearest] : []));
  }

  #cards(moments, size = "") {
    const items = moments.map((moment) =>
      h("li", {}, card(moment, this.app.addressOfMoment(moment), (chosen) => this.app.open(chosen))));
    return h(moments[0]?.rank ? "ol" : "ul", { class: `cards ${size}` }, ...items);
  }

  /** Mark the card of the open moment. */
  mark(moment) {
    for (const link of this.links()) {
      const isOpen = moment !== null && link.getAttribute("href") === this.app.addressOfMoment(moment);
      if (isOpen) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }

  links() {
    return [...this.list.querySelectorAll("a.hit")].filter((link) => link.offsetParent !== null);
  }

  #say(words, isHidden = false) {
    this.status.textContent = words;
    this.status.classList.toggle("unseen", isHidden);
  }
}
