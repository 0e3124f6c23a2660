// What the page shows, and the address that says so: each state can be shared, and back and forward lead through them.
//
// { view, question: { sentence, like }, filters: { folder, tag, min, max, after, before, inside }, moment }
// A question may also have a `picture`, see picture.js, which no address can hold.
// `like` and `moment` are { videoId, start, end } or null; a moment without times (start null) is the whole video.

export const FILTERS = ["folder", "tag", "min", "max", "after", "before", "inside"];

const span = (text) => {
  const match = /^(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)$/.exec(text ?? "");
  return match ? { start: Number(match[1]), end: Number(match[2]) } : { start: null, end: null };
};

const spanText = ({ start, end }) => `${Number(start.toFixed(3))}-${Number(end.toFixed(3))}`;

export function placeOf(address) {
  const query = new URLSearchParams(address);
  const moment = (id, times) => (query.get(id) ? { videoId: query.get(id), ...span(query.get(times)) } : null);
  const like = moment("like", "like_t");
  return {
    view: query.get("view") === "videos" ? "videos" : "search",
    question: { sentence: query.get("q") ?? "", like: like?.start === null ? null : like },
    filters: Object.fromEntries(FILTERS.map((name) => [name, query.get(name) ?? ""])),
    moment: moment("v", "t"),
  };
}

/** The address of a place, relative to the page. */
export function addressOf(place) {
  const query = new URLSearchParams();
  if (place.view === "videos") query.set("view", "videos");
  if (place.question.sentence) query.set("q", place.question.sentence);
  if (place.question.like) {
    query.set("like", place.question.like.videoId);
    query.set("like_t", spanText(place.question.like));
  }
  for (const name of FILTERS) if (place.filters[name]) query.set(name, place.filters[name]);
  if (place.moment) {
    query.set("v", place.moment.videoId);
    if (place.moment.start !== null) query.set("t", spanText(place.moment));
  }
  const text = query.toString();
  return text ? `?${text}` : "./";
}

export const emptyFilters = () => Object.fromEntries(FILTERS.map((name) => [name, ""]));

/** Whether something is asked at all. */
export const asks = (place) => place.question.sentence !== "" || place.question.like !== null || Boolean(place.question.picture);

/** The part of a place on which its answer depends. */
export const questionKey = (place) =>
  `${addressOf({ ...place, view: "search", moment: null })} ${place.question.picture?.id ?? ""}`;

export const sameMoment = (one, other) =>
  one === other ||
  (one !== null && other !== null && one.videoId === other.videoId && near(one.start, other.start) && near(one.end, other.end));

const near = (one, other) => (one === null || other === null ? one === other : Math.abs(one - other) < 0.01);
