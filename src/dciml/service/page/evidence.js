// What spoke for a moment where pictures and the text beside a video are searched together.

import { h } from "./dom.js";

/** What each kind of evidence says of a moment, and the line that spoke; null where there is only one kind. */
export function why({ evidence, line }) {
  if (!evidence?.length && !line) return null;
  const kinds = (evidence ?? []).map(({ kind, cosine }) => h("span", {}, `${kind} ${cosine.toFixed(2)}`));
  return h(
    "span", { class: "why" },
    kinds.length ? h("span", { class: "kinds" }, ...kinds) : null,
    line ? h("q", { class: "line", dir: "auto" }, line) : null,
  );
}
