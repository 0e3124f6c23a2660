// Keys that work anywhere on the page. Single keys can be switched off in the help.

import { byId } from "./dom.js";

const STEPS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

/** `app`: { links, close, toggle, loop, help, toBox, isOpen }; each returns whether it did something; `keys`: { on }. */
export function listenToKeys(app, keys) {
  addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector("dialog[open]")) return; // a dialog has its own Escape
    const answer = event.key === "Escape" ? escape : keys.on ? plain : null;
    if (answer?.(event, app)) event.preventDefault();
  });
}

function escape(event, app) {
  if (document.fullscreenElement || !app.isOpen()) return false;
  app.close();
  return true;
}

function plain(event, app) {
  const { key, target } = event;
  const isBox = target === byId("sentence");
  if (isBox && key === "ArrowDown") return step(app, key);
  if (target.matches("input, select, textarea, [contenteditable]")) return false;
  if (key === "/") return app.toBox();
  if (key === "?") return app.help();
  if (key === " ") return !target.matches("button, summary, [role=button]") && app.toggle();
  if (key.toLowerCase() === "l") return app.loop();
  return key in STEPS && step(app, key);
}

/** Move the focus between the results; up and down go by rows where they stand in a grid. */
function step(app, key) {
  const links = app.links();
  if (!links.length) return false;
  const at = links.indexOf(document.activeElement);
  let next = at < 0 ? links.find((link) => link.hasAttribute("aria-current")) ?? links[0] : links[at + STEPS[key]];
  if (at >= 0 && (key === "ArrowUp" || key === "ArrowDown")) next = inNextRow(links, links[at], STEPS[key]);
  if (next) next.focus();
  else if (key === "ArrowUp") byId("sentence").focus();
  return true;
}

function inNextRow(links, from, direction) {
  const here = from.getBoundingClientRect();
  const rows = links
    .map((link) => ({ link, box: link.getBoundingClientRect() }))
    .filter(({ box }) => direction * (box.top - here.top) > here.height / 2);
  if (!rows.length) return null;
  const away = ({ box }) => direction * (box.top - here.top);
  const under = rows.filter(({ box }) => box.left < here.right && box.right > here.left).sort((one, other) => away(one) - away(other));
  if (under.length) return under[0].link; // columns may be of different heights
  const top = rows[direction > 0 ? 0 : rows.length - 1].box.top;
  const row = rows.filter(({ box }) => Math.abs(box.top - top) < 4);
  row.sort((one, other) => Math.abs(one.box.left - here.left) - Math.abs(other.box.left - here.left));
  return row[0].link;
}
