// A button that cuts a moment out of its video and downloads it.

import * as api from "./api.js";
import { announce, button, h } from "./dom.js";
import { range } from "./format.js";

/** A button for a moment; null where there is no file, or nothing to cut. `hasWords`: in a row of buttons with words. */
export function saveButton(moment, hasWords) {
  if (moment.start === null || moment.mediaUrl === null) return null;
  const label = `Download ${range(moment.start, moment.end)} of ${moment.title}`;
  const control = button({
    label, words: hasWords ? "Download clip" : null, name: "save", kind: hasWords ? "soft save" : "quiet save",
    onclick: () => save(moment, control),
  });
  return control;
}

async function save(moment, control) {
  const place = control.parentElement;
  place.querySelector(":scope > .fault-line")?.remove();
  control.disabled = true;
  control.classList.add("is-cutting");
  announce("Cutting the moment …");
  try {
    const { name, content } = await api.clip(moment);
    download(name, content);
    announce(`${name} is ready`);
  } catch (error) {
    place.append(h("p", { class: "fault-line", role: "alert" }, error.message));
  } finally {
    control.disabled = false;
    control.classList.remove("is-cutting");
  }
}

function download(name, content) {
  const address = URL.createObjectURL(content);
  const link = h("a", { href: address, download: name, hidden: true });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
