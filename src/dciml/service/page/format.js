// Times, shares and counts in words.

const two = (number) => String(number).padStart(2, "0");

const NEARLY_SECONDS = 0.05; // a time that is this near to the next whole second counts as it

/** Hours, minutes and whole seconds that have passed, as any player counts them. The rule of `clock.py`. */
function clockParts(seconds) {
  const whole = Math.max(0, Math.floor(seconds + NEARLY_SECONDS + 1e-6));
  return [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
}

/** 75.9 → "01:15"; with hours "1:02:03". */
export function clock(seconds) {
  const [hours, minutes, rest] = clockParts(seconds);
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${two(minutes)}:${two(rest)}`;
}

export const range = (start, end) => `${clock(start)}–${clock(end)}`;

/** The same for a screen reader. */
export function spoken(seconds) {
  const [hours, minutes, rest] = clockParts(seconds);
  const parts = [];
  if (hours) parts.push(count(hours, "hour"));
  if (minutes) parts.push(count(minutes, "minute"));
  if (rest || !parts.length) parts.push(count(rest, "second"));
  return parts.join(" ");
}

/** 100 → "2 min": how long something still takes, roughly. */
export function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 360) / 10} h`;
}

export const count = (number, word) => `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;

/** A share as "87 %"; never "0 %" or "100 %" of something that is only nearly so. */
export function percent(share) {
  if (share > 0 && share < 0.01) return "< 1 %";
  if (share < 1 && share > 0.99) return "> 99 %";
  return `${Math.round(100 * share)} %`;
}

/** How sure the search is of a moment, the one place that says so: its own confidence where there is one, else the bare score. */
export function sureness(hit) {
  const own = hit.momentConfidence;
  if (own !== null && own !== undefined) {
    return { share: own, words: percent(own), label: `Confidence ${percent(own)}, of its video ${percent(hit.confidence)}` };
  }
  return { share: null, words: hit.score.toFixed(2), label: `Score ${hit.score.toFixed(2)}` };
}

/** 0.083 → "0.08 s". */
export const took = (seconds) => `${seconds < 10 ? seconds.toFixed(2) : Math.round(seconds)} s`;

export function bytes(number) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(1, number)) / 3));
  return `${(number / 1000 ** power).toFixed(power ? 1 : 0)} ${units[power]}`;
}
