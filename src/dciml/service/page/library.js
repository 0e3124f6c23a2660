// The videos of the collection: looking through them, adding files with progress, removing.

import * as api from "./api.js";
import { confirmed } from "./dialogs.js";
import { announce, button, byId, h, icon, notice } from "./dom.js";
import { count } from "./format.js";
import { card, momentOf } from "./results.js";
import { Teach } from "./teach.js";
import { Uploads } from "./uploads.js";

const PAGE_VIDEOS = 48;

export class Library {
  /** `app`: { addressOfMoment, open, goVideos, changed }; `changed(removedId)` is told when videos came or went. */
  constructor(app) {
    [this.app, this.words, this.videos, this.total] = [app, "", [], 0];
    this.root = byId("videos-view");
    this.find = h("input", { type: "search", id: "find-video", placeholder: "Part of its name, or a tag", oninput: () => this.#typed() });
    this.files = h("input", {
      type: "file", id: "files", accept: "video/*", multiple: true, class: "unseen", onchange: () => this.#chosen(),
    });
    this.path = h("input", { type: "text", id: "path", required: true, placeholder: "folder/video.mp4" });
    this.fault = h("p", { class: "fault-line", role: "alert" });
    this.uploads = new Uploads({
      addressOfMoment: app.addressOfMoment,
      open: app.open,
      added: () => { app.changed(); this.reload(); },
      fault: (words) => { this.fault.textContent = words; },
    });
    this.status = h("p", { class: "status", role: "status" });
    this.grid = h("div", { class: "grid" });
    this.teach = new Teach(app);
    this.root.append(
      h("h1", { id: "videos-heading" }, "Videos"),
      this.#dropArea(), this.#pathForm(), this.fault, this.uploads.element, this.teach.element,
      h("div", { class: "finder" }, h("label", { for: "find-video" }, "Find a video"), this.find),
      this.status, this.grid,
    );
    this.#takeDrops();
  }

  async show() {
    await Promise.all([this.reload(), this.uploads.look(), this.teach.show()]);
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
    this.fault.textContent = "";
    this.uploads.add(files);
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
      this.uploads.follow(job, this.path.value);
      this.path.value = "";
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
