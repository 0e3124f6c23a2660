// Files on their way: they wait in a queue, are sent as many at once as the server takes, and are followed until they
// can be found.

import * as api from "./api.js";
import { announce, button, h, icon } from "./dom.js";
import { bytes, count, duration } from "./format.js";
import { followed } from "./results.js";

const POLL_MILLISECONDS = 1000;
const FIRST_PAUSE_SECONDS = 2; // doubled with each refusal
const LONGEST_PAUSE_SECONDS = 60;
const MOST_LOSSES = 5; // of one file; then it waits for the reader
const SHOWN_OVER = 5; // jobs that are over and were not begun here
const SAY_MILLISECONDS = 8000;

const UNSENT = new Set(["waiting", "sending", "lost"]);
const OVER = new Set(["done", "failed", "cancelled", "there"]);
const AGAIN = new Set(["lost", "failed"]);
const WORDS = {
  waiting: "waiting", sending: "sending", lost: "connection lost", queued: "sent, waits to be read",
  running: "being read", done: "searchable", failed: "failed", refused: "refused", cancelled: "cancelled",
  there: "already there", coming: "on its way already",
};
const COUNTED = [
  ["done", "searchable"], ["there", "already there"], ["running", "being read"], ["queued", "to be read"],
  ["coming", "on their way already"], ["sending", "being sent"], ["waiting", "waiting"], ["lost", "lost on the way"],
  ["failed", "failed"], ["cancelled", "cancelled"],
];

/** The name of a file without what tells its kind: the title of the video, as it was typed. */
export const titleOf = (name) => name.replace(/(?<=.)\.[^.]*$/u, "");

export class Uploads {
  /** `app`: { addressOfMoment, open, added, fault }; `added()` is told when videos can be found, `fault(words)` what is wrong. */
  constructor(app) {
    [this.app, this.items, this.sending, this.rules] = [app, [], 0, null];
    [this.refusals, this.hold, this.timer, this.ticking] = [0, null, null, null];
    [this.dismissed, this.saidAt, this.wasBusy] = [new Set(), 0, false];
    this.list = h("ul", { class: "jobs", "aria-label": "Videos being added", tabindex: "-1" });
    this.words = h("p", { class: "queue-words" });
    this.bar = h("progress", { max: "1", "aria-label": "Files that are done" });
    this.holdWords = h("span", {});
    this.now = button({ words: "Try now", name: "loop", kind: "soft", onclick: () => this.tryNow() });
    this.holdLine = h("p", { class: "queue-hold", hidden: true }, icon("alert"), this.holdWords, this.now);
    this.again = button({ words: "Send the failed ones again", name: "loop", kind: "soft", onclick: () => this.#sendFailed() });
    this.stop = button({ words: "Cancel what waits", kind: "soft", onclick: () => this.#cancelWaiting() });
    this.clear = button({ words: "Clear what is over", kind: "soft", onclick: () => this.#clear() });
    this.head = h(
      "div", { class: "queue", hidden: true }, this.words, this.bar, this.holdLine,
      h("div", { class: "actions" }, this.again, this.stop, this.clear),
    );
    this.element = h("section", { "aria-label": "Uploads" }, this.head, this.list);
    addEventListener("online", () => this.tryNow());
    addEventListener("beforeunload", (event) => {
      if (!this.items.some((item) => UNSENT.has(item.state))) return;
      event.preventDefault();
      event.returnValue = ""; // older browsers ask only so
    });
  }

  /** Put files in the queue. */
  add(files) {
    const fresh = [...files].map((file) => this.#item({ file, name: file.name, state: "waiting" }));
    if (!fresh.length) return;
    announce(`${count(fresh.length, "file")} in the queue`);
    this.#paint();
    this.#pump();
  }

  /** Follow a job that was begun otherwise. */
  follow(job, name) {
    this.#learn(this.#item({ name }), job);
    this.look();
  }

  /** Ask how far the jobs are, and again as long as any goes on. */
  async look() {
    if (this.looking) return; // what comes to be known meanwhile is asked for at the next turn
    this.looking = true;
    clearTimeout(this.timer);
    const asked = this.items.filter((item) => item.jobId);
    try {
      this.#take((await api.jobs()).jobs.filter((job) => job.kind === "video"), asked);
    } catch (error) {
      this.app.fault(error.message);
    } finally {
      this.looking = false;
    }
    if (this.items.some((item) => item.jobId && !OVER.has(item.state))) {
      this.timer = setTimeout(() => this.look(), POLL_MILLISECONDS);
    }
  }

  /** Wait no longer: for the server to have room, or to be there again. */
  tryNow() {
    this.#release();
    this.#pump();
  }

  #item(known) {
    const item = { file: null, state: "queued", progress: 0, message: "", losses: 0, jobId: null, videoId: null, left: null, ...known };
    item.row = this.#row(item);
    this.items.push(item);
    this.list.append(item.row.element);
    this.#paintRow(item);
    return item;
  }

  /** Begin to send as many as may be sent. */
  async #pump() {
    if (this.pumping) return;
    this.pumping = true;
    try {
      while (!this.hold && this.#next()) {
        this.rules = await api.uploads();
        for (const item of this.items) if (item.state === "lost") this.#set(item, { state: "waiting", message: "" });
        this.#refuseEarly();
        const room = Math.min(this.rules.room, this.rules.at_once - this.sending);
        const next = this.#next();
        if (!next || (room < 1 && this.sending)) break; // the end of one that is sent goes on
        if (room < 1) this.#wait("The server is busy", 0);
        else this.#send(next);
      }
    } catch (error) {
      if (error.mayPass) this.#wait(error.status ? "The server is busy" : "The server does not answer", error.retryAfter);
      else this.app.fault(error.message);
    } finally {
      this.pumping = false;
      this.#paint();
    }
  }

  #next() {
    return this.items.find((item) => item.state === "waiting") ?? this.items.find((item) => item.state === "lost");
  }

  /** What the server would refuse is not sent. */
  #refuseEarly() {
    const { allowed, max_bytes: most, max_title_chars: longest, suffixes } = this.rules;
    for (const item of this.items.filter((one) => one.state === "waiting")) {
      const name = item.name.toLowerCase();
      const why = !allowed ? "Videos cannot be added here."
        : !suffixes.some((suffix) => name.endsWith(suffix)) ? `This is not called a video: ${suffixes.join(", ")} are.`
          : item.file.size > most ? `It has ${bytes(item.file.size)}, and this server takes ${bytes(most)} at most.`
            : !item.file.size ? "The file is empty."
              : [...titleOf(item.name)].length > longest ? `Its name is longer than ${longest} characters.` : null;
      if (why) this.#refuse(item, why);
    }
  }

  async #send(item) {
    this.sending += 1;
    this.#set(item, { state: "sending", progress: 0, message: "" });
    const { answer, cancel } = api.upload(item.file, titleOf(item.name), (share) => this.#set(item, { progress: share }));
    item.abort = cancel;
    try {
      const job = await answer;
      this.refusals = 0;
      this.#learn(item, job);
      this.look();
    } catch (error) {
      this.#failed(item, error);
    } finally {
      this.sending -= 1;
      item.abort = null;
      this.#paint();
      this.#pump();
    }
  }

  #failed(item, error) {
    if (error.title === "Cancelled") return;
    if (error.status === 409 && error.more.video_id) {
      const { video_id: videoId, job_id: jobId = null } = error.more;
      this.#set(item, { state: jobId ? "coming" : "there", videoId, jobId, message: error.message });
      if (jobId) this.look();
      this.#say(`${item.name}: ${WORDS.there}`);
    } else if (error.status === 401) { // the next question to the server asks the reader for the token
      this.#set(item, { state: "waiting" });
    } else if (error.status === 503 || error.status === 429) {
      this.#set(item, { state: "waiting" });
      this.#wait("The server is busy", error.retryAfter);
    } else if (error.status === 0) {
      item.losses += 1;
      if (item.losses > MOST_LOSSES) this.#refuse(item, "It could not be sent: the connection breaks, or the file cannot be read any more.", "failed");
      else {
        this.#set(item, { state: "lost", message: "It is sent again from its beginning as soon as the server answers." });
        this.#wait("The connection was lost", 0);
      }
    } else this.#refuse(item, error.message, error.status >= 500 ? "failed" : "refused");
  }

  #refuse(item, message, label = "refused") {
    this.#set(item, { state: "failed", label, message });
    this.#say(`${item.name}: ${WORDS[label]}. ${message}`);
  }

  /** Send nothing for a while, each time longer, and not before the server said. */
  #wait(why, retryAfter) {
    const grown = Math.min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** this.refusals);
    const seconds = Math.max(retryAfter || 0, grown * (0.75 + Math.random() / 2)); // not all windows at the same moment
    this.refusals += 1;
    clearTimeout(this.hold?.timer);
    const timer = setTimeout(() => { this.#release(); this.#pump(); }, 1000 * seconds);
    this.hold = { why, until: Date.now() + 1000 * seconds, timer };
    if (this.refusals === 1) announce(`${why}. The queue goes on by itself.`);
    clearInterval(this.ticking);
    this.ticking = setInterval(() => this.#paintHold(), 1000);
    this.#paint();
  }

  #release() {
    clearTimeout(this.hold?.timer);
    clearInterval(this.ticking);
    this.hold = null;
    this.#paintHold();
  }

  /** Take up what the server says of its jobs; `asked`: the items whose jobs it knew when it was asked. */
  #take(jobs, asked) {
    const byId = new Map(jobs.map((job) => [job.job_id, job]));
    const known = new Set(this.items.map((item) => item.jobId));
    // While files are being sent, an unknown job may be that of one whose answer is still on its way.
    const others = this.sending ? [] : jobs.filter((job) => !known.has(job.job_id) && !this.dismissed.has(job.job_id));
    const over = others.filter((job) => OVER.has(job.state)).slice(0, SHOWN_OVER);
    for (const job of others.reverse()) {
      if (!OVER.has(job.state) || over.includes(job)) this.#learn(this.#item({ name: job.title ?? job.video_id ?? "A video" }), job, true);
    }
    let isGrown = false;
    for (const item of asked) {
      if (OVER.has(item.state) || !this.items.includes(item)) continue;
      const job = byId.get(item.jobId);
      if (job) isGrown = this.#learn(item, job) || isGrown;
      else this.#refuse(item, "The server does not know of it any more: it was started again.", "failed");
    }
    this.#paint();
    if (isGrown) this.app.added();
  }

  /** What a job says, for the file that it came from, or for one with the same content. Returns: whether it is done now. */
  #learn(item, job, isOld = false) {
    const isSame = item.state === "coming";
    const state = isSame ? { done: "there", failed: "failed", cancelled: "failed" }[job.state] ?? "coming" : job.state;
    this.#set(item, {
      state, label: null, jobId: job.job_id, videoId: job.video_id ?? item.videoId, progress: job.progress, left: job.seconds_left,
      message: isSame && state === "failed" ? "The other file with this content was not added." : job.state === "failed" ? job.message : state === "coming" ? item.message : "",
    });
    if (state === "failed" && !isOld) this.#say(`${item.name}: ${WORDS.failed}. ${item.message}`);
    return state === "done" || state === "there";
  }

  #set(item, change) {
    Object.assign(item, change);
    this.#paintRow(item);
  }

  async #cancel(item) {
    if (OVER.has(item.state)) {
      this.#drop(item);
    } else if (item.state === "sending") {
      item.abort?.();
      this.#drop(item);
    } else if (UNSENT.has(item.state) || item.state === "coming") {
      this.#drop(item);
    } else {
      try {
        await api.cancelJob(item.jobId);
      } catch (error) {
        if (error.status !== 409 && error.status !== 404) this.app.fault(error.message);
      }
      this.look();
    }
    this.#paint();
    this.#pump();
  }

  #drop(item) {
    if (item.jobId && OVER.has(item.state)) this.dismissed.add(item.jobId);
    const hadFocus = item.row.element.contains(document.activeElement);
    const next = item.row.element.nextElementSibling ?? item.row.element.previousElementSibling;
    item.row.element.remove();
    this.items = this.items.filter((one) => one !== item);
    if (hadFocus) (next?.querySelector("button.end") ?? this.list).focus();
  }

  #sendAgain(item) {
    item.losses = 0;
    this.#set(item, { state: "waiting", label: null, message: "", jobId: null, progress: 0 });
    this.tryNow();
  }

  #sendFailed() {
    for (const item of this.items.filter((one) => this.#mayBeSent(one))) this.#sendAgain(item);
  }

  #mayBeSent(item) {
    return item.file !== null && AGAIN.has(item.state) && item.label !== "refused";
  }

  #cancelWaiting() {
    for (const item of this.items.filter((one) => one.state === "waiting" || one.state === "lost")) this.#drop(item);
    this.#release();
    this.#paint();
    this.list.focus();
  }

  #clear() {
    for (const item of this.items.filter((one) => OVER.has(one.state))) this.#drop(item);
    this.#paint();
    this.list.focus();
  }

  /** Tell a screen reader; of many files only now and then how it stands. */
  #say(words) {
    if (this.items.length <= 5) announce(words);
    else if (Date.now() > this.saidAt + SAY_MILLISECONDS) {
      this.saidAt = Date.now();
      announce(this.words.textContent);
    }
  }

  #row(item) {
    const row = {
      name: h("span", { class: "name", dir: "auto" }, item.name),
      size: item.file ? h("span", { class: "size" }, bytes(item.file.size)) : null,
      bar: h("progress", { max: "1" }),
      state: h("span", { class: "state" }),
      link: h("a", { hidden: true, onclick: (event) => followed(event) && this.app.open(this.#moment(item)) }),
      again: button({ words: "Send again", name: "loop", kind: "soft", hidden: true, onclick: () => this.#sendAgain(item) }),
      end: button({ label: "Cancel", name: "close", kind: "quiet end", onclick: () => this.#cancel(item) }),
      message: h("span", { class: "message", hidden: true }),
    };
    row.element = h("li", {}, row.name, row.size, row.bar, row.state, row.link, row.again, row.end, row.message);
    return row;
  }

  #moment({ videoId }) {
    return { videoId, start: null, end: null };
  }

  /** Rows stay the same elements, so that the focus stays where it is. */
  #paintRow(item) {
    const { row, state, progress, left, message } = item;
    const isOver = OVER.has(state);
    const moves = state === "sending" || state === "running";
    row.element.className = `job ${state}`;
    row.bar.hidden = !moves;
    row.bar.value = progress;
    row.bar.setAttribute("aria-label", `${item.name}: ${WORDS[state]}`);
    const rest = state === "running" && left ? `, about ${duration(left)} left` : "";
    // All bytes are sent, and the server keeps the file: no number tells that.
    const share = !moves ? "" : state === "sending" && progress >= 1 ? ", nearly there" : ` ${Math.floor(100 * progress)} %`;
    row.state.textContent = `${WORDS[item.label ?? state] ?? state}${share}${rest}`;
    row.message.hidden = !message || state === "done";
    row.message.textContent = message;
    const does = isOver ? "Dismiss" : "Cancel";
    row.end.setAttribute("aria-label", `${does} ${item.name}`);
    row.end.title = row.end.getAttribute("aria-label");
    row.again.hidden = !this.#mayBeSent(item);
    row.again.setAttribute("aria-label", `Send ${item.name} again`);
    row.link.hidden = (state !== "done" && state !== "there") || !item.videoId;
    if (!row.link.hidden) {
      row.link.href = this.app.addressOfMoment(this.#moment(item));
      row.link.textContent = state === "there" ? "Look at the one that is there" : "Look at it";
    }
  }

  #paint() {
    const counts = new Map();
    for (const item of this.items) counts.set(item.state, (counts.get(item.state) ?? 0) + 1);
    const over = this.items.filter((item) => OVER.has(item.state)).length;
    const isBusy = this.items.some((item) => !OVER.has(item.state));
    const parts = COUNTED.filter(([state]) => counts.has(state)).map(([state, words]) => `${counts.get(state)} ${words}`);
    this.words.textContent = this.items.length ? `${count(this.items.length, "file")}: ${parts.join(", ")}` : "";
    this.bar.hidden = !isBusy;
    this.bar.value = this.items.length ? over / this.items.length : 0;
    this.head.hidden = this.items.length < 2 && !this.hold;
    this.again.hidden = this.items.filter((item) => this.#mayBeSent(item)).length < 2;
    this.stop.hidden = !this.items.some((item) => item.state === "waiting" || item.state === "lost");
    this.clear.hidden = over < 2;
    if (this.wasBusy && !isBusy && this.items.length) announce(this.words.textContent);
    this.wasBusy = isBusy;
    this.#paintHold();
  }

  #paintHold() {
    const isHeld = this.hold !== null && this.#next() !== undefined;
    this.holdLine.hidden = !isHeld;
    if (!isHeld) return;
    const seconds = Math.max(0, Math.round((this.hold.until - Date.now()) / 1000));
    this.holdWords.textContent = `${this.hold.why}. The queue goes on in ${duration(seconds)}.`;
  }
}
