// Dialogs: help with the keyboard, the token, and a question before something is removed.

import { openSession, Problem } from "./api.js";
import { button, h } from "./dom.js";

const KEYS = [
  ["/", "to the search box"],
  ["← ↑ ↓ →", "from result to result"],
  ["Enter", "open the result and play it"],
  ["Space", "play and pause"],
  ["L", "loop the moment"],
  ["Esc", "close the player"],
  ["?", "this help"],
];

const ABOUT =
  "Say in a sentence what can be seen: “a red car drives to the left”. The result leads to the second at which it " +
  "begins. The bars below the video show how well each part of it fits.";

/** Show a dialog until it is closed; resolves to its return value. */
function ask(name, heading, ...content) {
  const id = `${name}-heading`;
  const dialog = h("dialog", { "aria-labelledby": id, class: name }, h("h2", { id }, heading), ...content);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue);
    });
  });
}

/** `keys`: { on, set(on) }: single keys can be switched off (WCAG 2.1.4). */
export function showHelp(keys) {
  if (document.querySelector("dialog[open]")) return;
  const rows = KEYS.map(([key, words]) => h("tr", {}, h("th", { scope: "row" }, h("kbd", {}, key)), h("td", {}, words)));
  const box = h("input", { type: "checkbox", checked: keys.on, onchange: () => keys.set(box.checked) });
  ask(
    "help", "Help",
    h("p", {}, ABOUT),
    h("table", {}, h("caption", { class: "unseen" }, "Keys"), h("tbody", {}, ...rows)),
    h("p", {}, "On the timeline, arrows move by one second, with Shift by five, Page Up and Page Down by a tenth."),
    h("label", { class: "check" }, box, "Use single keys (/, ?, L, Space, arrows)"),
    h("form", { method: "dialog" }, h("button", { class: "primary" }, "Close")),
  );
}

/** Resolves to whether the reader says yes. */
export async function confirmed(heading, words, yes) {
  const answer = await ask(
    "confirm", heading, h("p", { dir: "auto" }, words),
    h(
      "form", { method: "dialog" },
      h("button", { value: "no" }, "Cancel"), h("button", { value: "yes", class: "danger" }, yes),
    ),
  );
  return answer === "yes";
}

let waiting = null;

/** Ask for the server's token until it takes one; questions at the same time share one dialog. */
export function askForToken() {
  waiting ??= tokenDialog().finally(() => { waiting = null; });
  return waiting;
}

async function tokenDialog() {
  const field = h("input", {
    type: "password", id: "token", autocomplete: "current-password", required: true, "aria-describedby": "token-fault",
  });
  const fault = h("p", { id: "token-fault", class: "fault-line", role: "alert" });
  const form = h(
    "form", {}, h("label", { for: "token" }, "Token"), field, fault,
    h("div", { class: "actions" }, h("button", { class: "primary", type: "submit" }, "Go on")),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await openSession(field.value);
      form.closest("dialog").close("taken");
    } catch (error) {
      fault.textContent = error.message;
      field.select();
    }
  });
  const answer = await ask("token", "This server wants a token", h("p", {}, "Whoever started it can give it to you."), form);
  if (answer !== "taken") {
    throw new Problem("A token is needed", "Without its token, the server shows nothing.", 401);
  }
}

/** The button that goes from system to light to dark colours. */
export function themeButton(control, storage) {
  const names = ["system", "light", "dark"];
  const icons = { system: "system", light: "sun", dark: "moon" };
  const paint = () => {
    const now = document.documentElement.dataset.theme ?? "system";
    control.replaceChildren(button({ label: now, name: icons[now] }).firstChild);
    control.setAttribute("aria-label", now === "system" ? "Colours: as the system" : `Colours: ${now}`);
    control.title = control.getAttribute("aria-label");
    return now;
  };
  control.addEventListener("click", () => {
    const next = names[(names.indexOf(paint()) + 1) % names.length];
    if (next === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    storage.set("dciml-theme", next);
    paint();
  });
  paint();
}
