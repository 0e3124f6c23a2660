// The page as a whole: what the address says is shown, and what the reader does changes the address.

import * as api from "./api.js";
import { askForToken, showHelp, themeButton } from "./dialogs.js";
import { announce, byId, icon } from "./dom.js";
import { Filters } from "./filters.js";
import { Folder } from "./folder.js";
import { range } from "./format.js";
import { listenToKeys } from "./keyboard.js";
import { Library } from "./library.js";
import { Panel } from "./panel.js";
import { takePictures } from "./picture.js";
import { addressOf, asks, emptyFilters, placeOf, questionKey, sameMoment } from "./place.js";
import { followed, momentOf, Results } from "./results.js";

const HITS = 12;
const MOMENTS_OF_VIDEO = 6;
const SAME_IOU = 0.5;
const SKELETON_MILLISECONDS = 150;
const KEPT_ANSWERS = 30;
const NO_QUESTION = { sentence: "", like: null };
const narrow = matchMedia("(max-width: 60rem)"); // as in player.css: the player covers the page

const storage = {
  get: (name) => { try { return localStorage.getItem(name); } catch { return null; } },
  set: (name, value) => { try { localStorage.setItem(name, value); } catch { /* may be switched off */ } },
};
const keys = {
  on: storage.get("dciml-keys") !== "off",
  set: (on) => { keys.on = on; storage.set("dciml-keys", on ? "on" : "off"); },
};

class App {
  constructor() {
    [this.place, this.answer, this.hits, this.answers, this.titles] = [null, null, HITS, new Map(), new Map()];
    this.results = new Results({
      addressOfMoment: (moment) => this.#addressOf(moment),
      open: (moment) => this.#go({ moment }, true),
      ask: (sentence) => this.#go({ question: { sentence, like: null }, moment: null }),
      retry: () => this.#ask(true),
      more: () => { this.hits = Math.min(100, this.hits + HITS); this.#ask(true); },
      goVideos: () => this.#go({ view: "videos", moment: null }),
      clearFilters: () => this.#go({ filters: emptyFilters(), moment: null }),
    });
    this.panel = new Panel(byId("player"), {
      addressOfMoment: (moment) => this.#addressOf(moment),
      open: (moment) => (sameMoment(moment, this.place.moment) ? this.panel.screen.again() : this.#go({ moment }, true)),
      close: () => this.#close(),
      like: (moment) => this.#beside({ sentence: "", like: moment }, emptyFilters()),
      inside: (moment) => this.#inside(moment),
    });
    this.library = new Library({
      addressOfMoment: (moment) => this.#addressOf(moment),
      open: (moment) => this.#go({ moment }, true),
      goVideos: () => this.place.view !== "videos" && this.#go({ view: "videos", moment: null }),
      changed: (removedId) => this.#changed(removedId),
    });
    new Folder(() => this.#grown()).look();
    this.filters = new Filters(
      (filters) => this.#go({ filters, moment: null }),
      () => this.#go({ question: NO_QUESTION, moment: null }),
    );
    this.#listen();
  }

  /** Show what the address says. `plays`: a click led here, so the moment may start by itself. */
  show(place, plays = false) {
    const before = this.place;
    this.place = place;
    byId("trouble").textContent = "";
    const isSearch = place.view === "search";
    byId("search-view").hidden = !isSearch;
    byId("videos-view").hidden = isSearch;
    document.body.classList.toggle("is-home", isSearch && !asks(place));
    for (const link of document.querySelectorAll("nav a")) {
      if (link.dataset.view === place.view) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    if (isSearch) this.#showSearch(before);
    else if (before?.view !== "videos") this.library.show();
    if (before === null || !sameMoment(before.moment, place.moment)) this.#showMoment(before?.moment ?? null, plays);
    else this.results.mark(place.moment);
    this.#entitle();
  }

  #go(change, plays = false) {
    const next = { ...this.place, ...change };
    if (addressOf(next) !== addressOf(this.place)) history.pushState(null, "", addressOf(next));
    this.show(next, plays);
  }

  #addressOf({ videoId, start, end }) {
    return addressOf({ ...this.place, moment: { videoId, start, end } });
  }

  #entitle() {
    const { question, moment, view } = this.place;
    const asked = question.sentence || (question.like || question.picture ? "Similar moments" : view === "videos" ? "Videos" : "");
    const shown = moment && this.titles.has(moment.videoId) ? this.titles.get(moment.videoId) : "";
    document.title = [shown, asked, "dciml"].filter(Boolean).join(" – ");
  }

  #showSearch(before) {
    const { question, filters } = this.place;
    const isNew = before === null || before.view !== "search" || questionKey(before) !== questionKey(this.place);
    if (!isNew) return;
    byId("sentence").value = question.sentence;
    this.filters.show(filters, (id) => this.titles.get(id) ?? id, question.like, question.picture);
    this.hits = HITS;
    this.#ask();
  }

  /** Answer the question of the present place, from memory where it was answered before. */
  async #ask(again = false) {
    this.asking?.abort();
    const { place, hits } = this;
    const asking = (this.asking = new AbortController());
    const key = `${hits} ${questionKey(place)}`;
    const wait = this.answers.has(key) && !again ? null : setTimeout(() => this.results.showLoading(), SKELETON_MILLISECONDS);
    try {
      const answer = asks(place) ? await this.#answerTo(key, place, hits, asking.signal, again) : await this.#home(again);
      if (asking.signal.aborted) return;
      clearTimeout(wait);
      this.answer = answer;
      const isLimited = questionKey(place) !== questionKey({ ...place, filters: emptyFilters() });
      if (asks(place)) this.results.show(answer, place, isLimited);
      else this.results.showHome(answer.sentences, answer.collection);
      this.filters.name((id) => this.titles.get(id) ?? id, place.question.like, place.question.picture);
      this.results.mark(this.place.moment);
      this.#learn();
    } catch (error) {
      clearTimeout(wait);
      if (error.name !== "AbortError" && !asking.signal.aborted) this.results.showProblem(error);
    }
  }

  async #answerTo(key, place, hits, signal, again) {
    if (!again && this.answers.has(key)) return this.answers.get(key);
    const { sentence, like, picture } = place.question;
    const asked = picture ? api.picture(picture.content, place.filters, hits, signal) : like ? api.similar(like, place.filters, hits, signal) : api.search(sentence, place.filters, hits, signal);
    const answer = await asked;
    Object.assign(answer, { moments: answer.hits.map(momentOf), k: hits });
    this.#name(answer.moments);
    if (this.answers.size >= KEPT_ANSWERS) this.answers.delete(this.answers.keys().next().value);
    this.answers.set(key, answer);
    return answer;
  }

  async #home(again) {
    if (again || !this.start) {
      const [{ sentences }, collection] = await Promise.all([api.examples(), api.videos(0, 50, "")]);
      this.#name(collection.videos.map(momentOf));
      this.filters.offer(collection.videos);
      this.start = { sentences, collection, moments: [], relevance: {} };
    }
    return this.start;
  }

  #name(moments) {
    for (const moment of moments) this.titles.set(moment.videoId, moment.title);
  }

  async #showMoment(before, plays) {
    const wanted = this.place.moment;
    if (wanted === null) {
      this.panel.close();
      this.#cover();
      this.results.mark(null);
      if (before) this.#focusCard(before);
      return;
    }
    try {
      const moment = await this.#find(wanted);
      if (!sameMoment(wanted, this.place.moment)) return;
      this.panel.open(moment, this.#known(moment), plays);
      this.#cover();
      if (narrow.matches) this.panel.heading.focus();
      this.results.mark(moment);
      this.#entitle();
      announce(`${moment.title}${moment.start === null ? "" : `, ${range(moment.start, moment.end)}`}`);
      this.#learn();
    } catch (error) {
      if (!sameMoment(wanted, this.place.moment)) return;
      this.panel.close();
      this.#cover();
      byId("trouble").textContent = `The moment of the address cannot be shown. ${error.message}`;
    }
  }

  /** The moment with all that is known of it: from the answer, or from the server's description of its video. */
  async #find(wanted) {
    const known = [...(this.answer?.moments ?? []), ...this.panel.moments].find((moment) => sameMoment(moment, wanted));
    if (known) return known;
    const video = momentOf(await api.video(wanted.videoId));
    this.#name([video]);
    return { ...video, start: wanted.start, end: wanted.end };
  }

  /** What the present answer knows of a moment's video. */
  #known(moment, more = null) {
    const answer = this.answer;
    const own = (answer?.moments ?? []).filter(({ videoId }) => videoId === moment.videoId);
    const moments = moment.start === null || own.some((other) => sameMoment(other, moment)) ? own : [...own, moment];
    for (const other of more?.moments ?? []) {
      if (moments.length < MOMENTS_OF_VIDEO && !moments.some((kept) => overlap(kept, other) > SAME_IOU)) moments.push(other);
    }
    return { moments, relevance: answer?.relevance[moment.videoId] ?? more?.relevance[moment.videoId] ?? null };
  }

  /** Ask within the open video alone, for its further moments and its relevance over time. */
  async #learn() {
    const { moment, question, filters } = this.place;
    if (!moment || !this.panel.moment || !question.sentence) return;
    const inside = { ...emptyFilters(), inside: moment.videoId };
    const place = { ...this.place, filters: inside };
    try {
      const key = `${MOMENTS_OF_VIDEO} ${questionKey(place)}`;
      const more = filters.inside ? null : await this.#answerTo(key, place, MOMENTS_OF_VIDEO, undefined, false);
      if (sameMoment(moment, this.place.moment) && this.panel.moment) this.panel.know(this.#known(this.panel.moment, more));
    } catch {
      // The player works without; if the server is gone, the next search says so.
    }
  }

  #inside(moment) {
    this.#beside({ ...this.place.question, like: null }, { ...emptyFilters(), inside: moment.videoId });
    byId("sentence").focus();
  }

  /** Ask while the player stays open, where there is room for both. */
  #beside(question, filters) {
    this.#go({ view: "search", question, filters, moment: narrow.matches ? null : this.place.moment });
  }

  #changed(removedId) {
    this.answers.clear();
    [this.start, this.answer] = [null, null];
    if (removedId !== undefined && this.place.moment?.videoId === removedId) this.#close();
  }

  /** Videos came or went by themselves: what is shown without a question is shown anew. */
  #grown() {
    this.#changed();
    if (this.place.view === "videos") this.library.reload();
    else if (!asks(this.place)) this.#ask(true);
  }

  #close() {
    this.#go({ moment: null });
  }

  /** On a narrow screen the player covers the page: what lies under it cannot be reached. */
  #cover() {
    const isOpen = !byId("player").hidden;
    document.body.classList.toggle("has-player", isOpen);
    for (const part of document.querySelectorAll(".bar, #search-view, #videos-view")) part.inert = isOpen && narrow.matches;
  }

  #focusCard(moment) {
    const links = document.querySelectorAll("a.hit");
    const card = [...links].find((link) => link.getAttribute("href") === this.#addressOf(moment));
    if (card?.offsetParent) card.focus({ preventScroll: !narrow.matches });
  }

  #toBox() {
    if (this.place.view !== "search") this.#go({ view: "search", moment: null });
    if (narrow.matches && this.place.moment) this.#close();
    byId("sentence").focus();
    byId("sentence").select();
    return true;
  }

  #submit() {
    const sentence = byId("sentence").value.trim();
    if (!sentence) {
      byId("sentence").focus();
      return;
    }
    const isSame = sentence === this.place.question.sentence && this.place.question.like === null;
    this.#go({ question: { sentence, like: null }, moment: null });
    if (isSame) this.#ask(true);
    if (matchMedia("(pointer: coarse)").matches) byId("sentence").blur();
  }

  #askPicture(picture) {
    this.#go({ view: "search", question: { ...NO_QUESTION, picture }, filters: emptyFilters(), moment: null });
  }

  #listen() {
    takePictures((picture) => this.#askPicture(picture), (error) => { byId("trouble").textContent = error.message; });
    addEventListener("popstate", () => this.show(placeOf(location.search)));
    narrow.addEventListener("change", () => this.#cover());
    byId("search").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    for (const link of document.querySelectorAll("[data-view]")) {
      link.addEventListener("click", (event) => {
        if (!followed(event)) return;
        const isBrand = link.classList.contains("brand");
        const start = isBrand ? { question: NO_QUESTION, filters: emptyFilters() } : {};
        this.#go({ view: link.dataset.view, moment: null, ...start });
      });
    }
    byId("help").replaceChildren(icon("help"));
    byId("help").addEventListener("click", () => showHelp(keys));
    themeButton(byId("theme"), storage);
    listenToKeys({
      links: () => [...document.querySelectorAll("#search-view a.hit, #videos-view a.hit")].filter((link) => link.offsetParent),
      isOpen: () => this.place.moment !== null,
      close: () => this.#close(),
      toggle: () => this.panel.moment !== null && (this.panel.screen.toggle(), true),
      loop: () => this.panel.moment !== null && (this.panel.screen.loopButton.click(), true),
      help: () => (showHelp(keys), true),
      toBox: () => this.#toBox(),
    }, keys);
  }
}

/** Intersection over union of two moments of one video. */
function overlap(one, other) {
  const both = Math.min(one.end, other.end) - Math.max(one.start, other.start);
  return both <= 0 ? 0 : both / (Math.max(one.end, other.end) - Math.min(one.start, other.start));
}

api.onTokenNeeded(askForToken);
new App().show(placeOf(location.search));
