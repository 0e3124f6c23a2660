// A picture as a question: dropped on the page or pasted into the search field; sent small, and shown as a chip.

import { byId, h, icon } from "./dom.js";

const SIDE = 512; // pixels; models look at fewer
let asked = 0;

/** `ask(picture)` is called with { id, name, address, content } for each picture that is dropped or pasted. */
export function takePictures(ask, fail) {
  const box = byId("search");
  const take = async (file) => {
    try {
      ask(await shrunk(file));
    } catch {
      fail(new Error(`${file.name || "The picture"} cannot be read by this browser.`));
    }
  };
  // Before the listeners that take dropped videos.
  for (const name of ["dragenter", "dragover"]) {
    addEventListener(name, (event) => {
      if (!isPicture(event.dataTransfer)) return;
      stop(event);
      box.classList.add("takes-picture");
    }, true);
  }
  addEventListener("dragleave", (event) => event.relatedTarget === null && box.classList.remove("takes-picture"), true);
  addEventListener("drop", (event) => {
    box.classList.remove("takes-picture");
    if (!isPicture(event.dataTransfer)) return;
    stop(event);
    take(event.dataTransfer.files[0]);
  }, true);
  byId("sentence").addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find(({ type }) => type.startsWith("image/"));
    if (!file) return;
    event.preventDefault();
    take(file);
  });
}

/** A chip that shows the picture that was asked by. */
export function pictureChip(picture, onRemove) {
  const label = h("span", {}, "like ", h("bdi", {}, picture.name));
  const remove = h("button", { type: "button", "aria-label": `Remove: ${label.textContent}`, onclick: onRemove }, icon("close"));
  return h("li", { class: "chip picture" }, h("img", { src: picture.address, alt: "" }), label, remove);
}

function isPicture(data) {
  const files = [...(data?.items ?? [])].filter(({ kind }) => kind === "file");
  return files.length > 0 && files.every(({ type }) => type.startsWith("image/"));
}

function stop(event) {
  event.preventDefault();
  event.stopImmediatePropagation();
}

/** The picture as a JPEG of at most SIDE by SIDE, on white. */
async function shrunk(file) {
  const whole = await createImageBitmap(file);
  const scale = Math.min(1, SIDE / Math.max(whole.width, whole.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(whole.width * scale));
  canvas.height = Math.max(1, Math.round(whole.height * scale));
  const pen = canvas.getContext("2d");
  pen.fillStyle = "white";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(whole, 0, 0, canvas.width, canvas.height);
  whole.close();
  const address = canvas.toDataURL("image/jpeg", 0.9);
  asked += 1;
  return { id: asked, name: file.name || "a picture", address, content: address.slice(address.indexOf(",") + 1) };
}
