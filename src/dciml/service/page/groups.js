// Moments by video: the best one as a card, the others of its video under it.

import { h } from "./dom.js";
import { count } from "./format.js";
import { saveButton } from "./save.js";

const SHOWN_OTHERS = 3;

/** Moments, best first → by video, in the order of their best moments. */
export function grouped(moments) {
  const groups = new Map();
  for (const moment of moments) groups.set(moment.videoId, [...(groups.get(moment.videoId) ?? []), moment]);
  return [...groups.values()];
}

/** A video as an item of the list; `linkOf(moment, best)` leads to a moment, which is the best or stands under it. */
export function group([best, ...others], linkOf) {
  const [shown, rest] = others.length > SHOWN_OTHERS + 1
    ? [others.slice(0, SHOWN_OTHERS), others.slice(SHOWN_OTHERS)] : [others, []];
  const list = (moments, label = null) =>
    h("ol", { class: "also", "aria-label": label },
      ...moments.map((moment) => h("li", {}, linkOf(moment, best), saveButton(moment, false))));
  return h(
    "li", { class: "group" },
    h("div", { class: "best" }, linkOf(best, best), saveButton(best, false)),
    shown.length ? list(shown, `Other moments of ${best.title}`) : null,
    rest.length ? h("details", { class: "rest" }, h("summary", {}, count(rest.length, "more moment")), list(rest)) : null,
  );
}
