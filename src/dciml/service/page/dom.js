// Small helpers to build the page. Text always enters as text nodes: nothing here parses HTML.

const SVG = "http://www.w3.org/2000/svg";

const ICONS = {
  alert: "M12 4 2.8 20h18.4zM12 10v4.5M12 17.2v.3",
  close: "M6 6l12 12M18 6L6 18",
  film: "M4 5h16v14H4zM8 5v14M16 5v14M4 9.7h4M4 14.3h4M16 9.7h4M16 14.3h4",
  full: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
  help: "M9 9.2a3 3 0 1 1 4.4 2.7c-1 .6-1.4 1.1-1.4 2.3M12 17.4v.3M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18",
  inside: "M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13M15.5 15.5 20 20M8 10.5h5M10.5 8v5",
  like: "M4 7h10v10H4zM8 7V4h12v12h-6",
  link: "M10 14a4 4 0 0 0 6 .4l3-3a4 4 0 0 0-5.7-5.7l-1.2 1.2M14 10a4 4 0 0 0-6-.4l-3 3a4 4 0 0 0 5.7 5.7l1.2-1.2",
  loop: "M17 3l3 3-3 3M4 11V9a3 3 0 0 1 3-3h13M7 21l-3-3 3-3M20 13v2a3 3 0 0 1-3 3H4",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5",
  muted: "M4 9.5v5h3.5L12 18.5v-13L7.5 9.5zM16 9.5l5 5M21 9.5l-5 5",
  next: "M9 5l7 7-7 7",
  pause: "M8 5v14M16 5v14",
  play: "M7 4.5v15l12-7.5z",
  plus: "M12 5v14M5 12h14",
  save: "M12 4v11M7.5 10.5 12 15l4.5-4.5M5 19h14",
  search: "M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13M15.5 15.5 20 20",
  sound: "M4 9.5v5h3.5L12 18.5v-13L7.5 9.5zM15.5 9a4 4 0 0 1 0 6M18 6.5a8 8 0 0 1 0 11",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8M12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M5.3 18.7l1.4-1.4M17.3 6.7l1.4-1.4",
  system: "M4 5h16v11H4zM9 20h6M12 16v4",
  trash: "M5 7h14M10 7V4.5h4V7M7 7l.8 12.5h8.4L17 7M10.5 10.5v5.5M13.5 10.5v5.5",
  upload: "M12 16V5M7.5 9.5 12 5l4.5 4.5M5 19h14",
};

/** An element: properties go to attributes (on… to listeners, true to empty ones), children become text or nodes. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** An SVG element with attributes. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** A line drawing of 24 by 24; says nothing to a screen reader. */
export function icon(name) {
  const drawing = svg("svg", { viewBox: "0 0 24 24", class: `icon icon-${name}`, "aria-hidden": "true" });
  drawing.append(svg("path", { d: ICONS[name] }));
  return drawing;
}

/** A button with an icon and, unless `label` alone shall name it, words. */
export function button({ label, words = null, name = null, kind = "quiet", ...properties }) {
  return h(
    "button",
    {
      type: "button", class: kind,
      "aria-label": words === null ? label : null, title: words === null ? label : null, ...properties,
    },
    name === null ? null : icon(name),
    words === null ? null : h("span", {}, words),
  );
}

/** Tell a screen reader; the same words again are said again. */
export function announce(words) {
  const region = document.getElementById("said");
  region.textContent = "";
  setTimeout(() => { region.textContent = words; }, 50);
}

/** The element with this id, which the page always has. */
export const byId = (id) => document.getElementById(id);

/** A key frame, or a quiet tile where there is none or it does not load. */
export function keyFrame(url) {
  const frame = h("span", { class: "frame" }, icon("film"));
  if (url === null || url === undefined) return frame;
  const picture = h("img", { src: url, alt: "", loading: "lazy", decoding: "async" });
  picture.addEventListener("error", () => picture.remove());
  frame.append(picture);
  return frame;
}

/** A block that fills an area with a message: heading, words, and things to do. */
export function notice(kind, name, heading, words, ...actions) {
  return h(
    "div",
    { class: `notice ${kind}` },
    icon(name),
    h("h2", {}, heading),
    words === null ? null : h("p", {}, words),
    actions.length ? h("div", { class: "actions" }, ...actions) : null,
  );
}
