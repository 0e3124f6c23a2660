// The videos of the collection: looking through them, adding files with progress, removing.

import * as api from "./api.js";
import { confirmed } from "./dialogs.js";
import { announce, button, byId, h, icon, notice } from "./dom.js";
import { bytes, count } from "./format.js";
import { card, followed, momentOf } from "./results.js";
import { Teach } from "./teach.js";

const PAGE_VIDEOS = 48;
const POLL_MILLISECONDS = 1000;
const SENT_AT_ONCE = 2; // files; the rest wait for their turn
const SHOWN_OVER = 5; // jobs that are over; they may be many
const OVER = new Set(["done", "failed", "cancelled"]);
const STATES = { queued: "waiting", running: "working", done: "added", failed: "failed", cancelled: "cancelled" };

export class Library {
  /** `app`: { addressOfMoment, open, goVideos, changed }; `changed(removedId)` is told when videos came or went. */
  constructor(app) {
    [this.app, this.words, this.videos, this.total, this.jobs, this.sending] = [app, "", [], 0, new Map(), new Map()];
    this.dismissed = new Set();
    [this.sentNow, this.line] = [0, []];
    this.root = byId("videos-view");
    this.find = h("input", { type: "search", id: "find-video", placeholder: "Part of its name, or a tag", oninput: () => this.#typed() });
    this.files = h("input", {
      type: "file", id: "files", accept: "video/*", multiple: true, class: "unseen", onchange: () => this.#chosen(),
    });
    this.path = h("input", { type: "text", id: "path", required: true, placeholder: "folder/video.mp4" });
    this.fault = h("p", { class: "fault-line", role: "alert" });
    this.jobList = h("ul", { class: "jobs", "aria-label": "Videos being added" });
    this.status = h("p", { class: "status", role: "status" });
    this.grid = h("div", { class: "grid" });
    this.teach = new Teach(app);
    this.root.append(
      h("h1", { id: "videos-heading" }, "Videos"),
      this.#dropArea(), this.#pathForm(), this.fault, this.jobList, this.teach.element,
      h("div", { class: "finder" }, h("label", { for: "find-video" }, "Find a video"), this.find),
      this.status, this.grid,
    );
    this.#takeDrops();
  }

  async show() {
    await Promise.all([this.reload(), this.#pollJobs(), this.teach.show()]);
  }

  /** Read the list from its beginning. */
  async reload() {
    try {
      const page = await api.videos(0, PAGE_VIDEOS, this.words);
      [this.videos, this.total] = [page.videos, page.total];
      this.#paint();
    } catch (error) {
      const again = button({ words: "Try again", name: "loop", kind: "primary", onclick: () => this.show() });
      const [heading, words] = [error.title ?? "Something went wrong", error.detail ?? error.message];
      this.grid.replaceChildren(notice("bad", "alert", heading, words, again));
    }
  }

  add(files) {
    for (const file of files) this.#send(file);
  }

  #dropArea() {
    const choose = h(
      "label", { class: "drop", for: "files" }, icon("upload"), h("strong", {}, "Add videos"),
      h("span", {}, "Choose files, or drop them anywhere on this page"),
    );
    return h("div", { class: "adder" }, this.files, choose);
  }

  #pathForm() {
    const form = h(
      "form", { class: "path" }, h("label", { for: "path" }, "Path on the server"), this.path,
      h("button", { type: "submit", class: "soft" }, "Add"),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#addPath();
    });
    return h("details", {}, h("summary", {}, "Add a file that is on the server already"), form);
  }

  async #addPath() {
    this.fault.textContent = "";
    try {
      const job = await api.addPath(this.path.value);
      this.jobs.set(job.job_id, { ...job, name: this.path.value });
      this.path.value = "";
      await this.#pollJobs();
    } catch (error) {
      this.fault.textContent = error.message;
    }
  }

  #takeDrops() {
    const veil = byId("drop-veil");
    const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
    addEventListener("dragover", (event) => {
      if (!carriesFiles(event)) return;
      event.preventDefault();
      veil.hidden = false;
    });
    addEventListener("dragleave", (event) => { if (event.relatedTarget === null) veil.hidden = true; });
    addEventListener("drop", (event) => {
      if (!carriesFiles(event)) return;
      event.preventDefault();
      veil.hidden = true;
      this.app.goVideos();
      this.add(event.dataTransfer.files);
    });
  }

  #chosen() {
    this.add(this.files.files);
    this.files.value = "";
  }

  async #send(file) {
    const sent = { name: `${file.name}, ${bytes(file.size)}`, state: "sending", progress: 0, message: "" };
    this.sending.set(sent, () => {
      this.sending.delete(sent);
      this.#paintJobs();
    });
    this.#paintJobs();
    await this.#turn();
    try {
      if (!this.sending.has(sent)) return; // cancelled while it waited
      const { answer, cancel } = api.upload(file, (share) => {
        sent.progress = share;
        this.#paintJobs();
      });
      this.sending.set(sent, cancel);
      const job = await answer;
      this.jobs.set(job.job_id, { ...job, name: file.name });
      this.sending.delete(sent);
    } catch (error) {
      this.#refused(sent, error);
    } finally {
      this.#endTurn();
    }
    await this.#pollJobs();
  }

  /** Wait until fewer than so many files are on their way; the server takes no more of one client. */
  #turn() {
    if (this.sentNow >= SENT_AT_ONCE) return new Promise((begin) => this.line.push(begin));
    this.sentNow += 1;
    return Promise.resolve();
  }

  #endTurn() {
    const begin = this.line.shift();
    if (begin) begin();
    else this.sentNow -= 1;
  }

  /** An upload that the reader cancelled goes; one that failed stays with its reason until it is dismissed. */
  #refused(sent, error) {
    this.sending.delete(sent);
    announce(`${sent.name}: ${error.message}`);
    if (error.title === "Cancelled") return;
    Object.assign(sent, { state: "failed", message: error.message });
    this.sending.set(sent, () => {
      this.sending.delete(sent);
      this.#paintJobs();
    });
  }

  async #pollJobs() {
    clearTimeout(this.timer);
    try {
      const jobs = (await api.jobs()).jobs.filter((job) => job.kind === "video");
      const ran = (job) => this.jobs.has(job.job_id) && !OVER.has(this.jobs.get(job.job_id).state);
      const finished = jobs.filter((job) => OVER.has(job.state) && ran(job));
      this.jobs = new Map(jobs.map((job) => [job.job_id, { name: this.jobs.get(job.job_id)?.name, ...job }]));
      this.#paintJobs();
      for (const job of finished) announce(`${nameOf(job)}: ${STATES[job.state]}. ${job.message}`);
      if (finished.some((job) => job.state === "done")) {
        this.app.changed();
        await this.reload();
      }
    } catch (error) {
      this.fault.textContent = error.message;
    }
    if ([...this.jobs.values()].some((job) => !OVER.has(job.state))) {
      this.timer = setTimeout(() => this.#pollJobs(), POLL_MILLISECONDS);
    }
  }

  #paintJobs() {
    const sending = [...this.sending].map(([sent, end]) => {
      const does = sent.state === "failed" ? "Dismiss" : "Cancel";
      return jobRow(sent, button({ label: `${does} ${sent.name}`, name: "close", onclick: end }));
    });
    const jobs = [...this.jobs.values()];
    const over = jobs.filter((job) => OVER.has(job.state) && !this.dismissed.has(job.job_id)).slice(0, SHOWN_OVER);
    const shown = jobs.filter((job) => !OVER.has(job.state) || over.includes(job));
    this.jobList.replaceChildren(...sending, ...shown.map((job) => jobRow(job, this.#look(job), this.#dismissal(job))));
  }

  #dismissal(job) {
    if (!OVER.has(job.state)) return null;
    const onclick = () => {
      this.dismissed.add(job.job_id);
      this.#paintJobs();
    };
    return button({ label: `Dismiss ${nameOf(job)}`, name: "close", onclick });
  }

  /** A link to the video that a job has added. */
  #look(job) {
    if (job.state !== "done" || !job.video_id) return null;
    const moment = { videoId: job.video_id, start: null, end: null };
    const onclick = (event) => followed(event) && this.app.open(moment);
    return h("a", { href: this.app.addressOfMoment(moment), onclick }, "Look at it");
  }

  #typed() {
    clearTimeout(this.typing);
    this.typing = setTimeout(() => {
      this.words = this.find.value.trim();
      this.reload();
    }, 250);
  }

  #paint() {
    this.status.textContent = this.words && !this.total ? "" : count(this.total, "video");
    if (!this.total) {
      const [heading, words] = this.words
        ? ["No such video", "No video here has this in its name or in a tag."]
        : ["No videos yet", "Add some, and then describe what happens in them."];
      this.grid.replaceChildren(notice("", "film", heading, words));
      return;
    }
    const items = this.videos.map((video) => this.#item(video));
    const more = this.videos.length < this.total
      ? button({ words: "More videos", kind: "wide", onclick: () => this.#more() }) : null;
    this.grid.replaceChildren(h("ul", { class: "cards" }, ...items), ...(more ? [more] : []));
  }

  async #more() {
    try {
      const page = await api.videos(this.videos.length, PAGE_VIDEOS, this.words);
      [this.videos, this.total] = [[...this.videos, ...page.videos], page.total];
      this.#paint();
    } catch (error) {
      this.fault.textContent = error.message;
    }
  }

  #item(video) {
    const moment = momentOf(video);
    const link = card(moment, this.app.addressOfMoment(moment), (chosen) => this.app.open(chosen));
    const tags = video.tags.map((tag) => h("span", { class: "tag", dir: "auto" }, tag));
    const remove = button({
      label: `Remove ${video.title}`, name: "trash", kind: "quiet remove", onclick: () => this.#remove(video),
    });
    return h("li", {}, link, tags.length ? h("div", { class: "tags" }, ...tags) : null, remove);
  }

  async #remove(video) {
    const words = `${video.title} will not be found any more. If it was uploaded here its file is deleted, too; other files stay.`;
    if (!(await confirmed("Remove this video?", words, "Remove"))) return;
    try {
      await api.removeVideo(video.video_id);
      announce(`${video.title} was removed`);
      this.app.changed(video.video_id);
      await this.reload();
    } catch (error) {
      this.fault.textContent = error.message;
    }
  }
}

const nameOf = (job) => job.name ?? job.video_id ?? "A video";

function jobRow(job, ...controls) {
  const words = STATES[job.state] ?? "sending";
  const isOver = OVER.has(job.state);
  return h(
    "li", { class: `job ${job.state}` },
    h("span", { class: "name", dir: "auto" }, nameOf(job)),
    isOver ? null : h("progress", { max: "1", value: String(job.progress), "aria-label": `${nameOf(job)}: ${words}` }),
    h("span", { class: "state" }, words),
    ...controls,
    job.message && job.state !== "done" ? h("span", { class: "message" }, job.message) : null,
  );
}
