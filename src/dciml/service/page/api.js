// The server's answers. Every failure is a `Problem` with a sentence for the reader.

const HEADINGS = {
  400: "That could not be read", 403: "That is not allowed here", 404: "That is not here", 409: "That is here already",
  413: "That is too large", 422: "That cannot be answered", 429: "The server is busy", 500: "Something went wrong",
  503: "The server is busy", 507: "The server has no room left",
};

export class Problem extends Error {
  /** `retryAfter`: seconds that the server asks to wait; `more`: further members of its answer. */
  constructor(title, detail, status, retryAfter = 0, more = {}) {
    super(detail || title);
    [this.title, this.detail, this.status, this.retryAfter, this.more] = [title, detail, status, retryAfter, more];
  }

  /** Whether the same question may be answered another time. */
  get mayPass() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

let askForToken = null;

/** `ask(wasRefused)` resolves once the reader has given a token that the server took. */
export function onTokenNeeded(ask) {
  askForToken = ask;
}

async function request(path, { read = (response) => response.json(), ...options } = {}, mayAsk = true) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The server does not answer", "It may have been stopped, or the network is down.", 0);
  }
  if (response.status === 401 && mayAsk && askForToken) {
    await askForToken();
    return request(path, { read, ...options }, false);
  }
  if (!response.ok) throw await problemOf(response.status, () => response.json(), response.headers.get("Retry-After"));
  return response.status === 204 ? null : read(response);
}

async function problemOf(status, readJson, retryAfter = null) {
  let body = {};
  try { body = await readJson(); } catch { /* a proxy's error page, say */ }
  const busy = status === 429 || status === 503;
  const title = HEADINGS[status] ?? (typeof body.title === "string" ? body.title : `The server answered ${status}`);
  const detail = typeof body.detail === "string" ? body.detail : busy ? "Try again in a moment." : "";
  return new Problem(title, detail, status, secondsOf(retryAfter), body ?? {});
}

/** What `Retry-After` says: seconds, or a date. */
function secondsOf(header) {
  if (header === null) return 0;
  const seconds = /^\d+$/.test(header.trim()) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return seconds > 0 ? seconds : 0;
}

const post = (path, body, signal) =>
  request(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal });

const number = (text) => (text === "" ? undefined : Number(text));
const unix = (day) => (day === "" ? undefined : new Date(`${day}T00:00:00`).getTime() / 1000);

function limits(filters) {
  return {
    folder: filters.folder || undefined,
    tag: filters.tag || undefined,
    after: unix(filters.after),
    before: unix(filters.before),
    min_duration_seconds: number(filters.min),
    max_duration_seconds: number(filters.max),
    video_ids: filters.inside ? [filters.inside] : undefined,
  };
}

export const search = (sentence, filters, k, signal) =>
  post("api/search", { sentence, k, ...limits(filters) }, signal);

/** `content`: of a picture file, in Base64. */
export const picture = (content, filters, k, signal) =>
  post("api/picture", { picture: content, k, ...limits(filters) }, signal);

export const similar = ({ videoId, start, end }, filters, k, signal) =>
  post("api/similar", { video_id: videoId, start_seconds: start, end_seconds: end, k, ...limits(filters) }, signal);

export const examples = () => request("api/examples");
export const video = (id) => request(`api/videos/${encodeURIComponent(id)}`);
export const removeVideo = (id) => request(`api/videos/${encodeURIComponent(id)}`, { method: "DELETE" });
export const folder = () => request("api/folder");
export const jobs = () => request("api/jobs");
export const job = (id) => request(`api/jobs/${encodeURIComponent(id)}`);
export const cancelJob = (id) => request(`api/jobs/${encodeURIComponent(id)}`, { method: "DELETE" });
export const uploads = () => request("api/uploads");
export const copy = (id) => request(`api/copies/${encodeURIComponent(id)}`);
export const makeCopy = (id) => request(`api/copies/${encodeURIComponent(id)}`, { method: "POST" });
export const teaching = () => request("api/teach");
export const teach = () => request("api/teach", { method: "POST" });
export const undoTeaching = () => request("api/teach", { method: "DELETE" });
export const takeBack = (id) => request(`api/told/${encodeURIComponent(id)}`, { method: "DELETE" });
export const told = (videoId, offset, limit) =>
  request(`api/told?${new URLSearchParams({ offset, limit, ...(videoId === null ? {} : { video_id: videoId }) })}`);
export const tell = (videoId, start, end, sentence) =>
  post("api/told", { video_id: videoId, start_seconds: start, end_seconds: end, sentence });
export const addPath = (path) => post("api/videos", { path });

export const videos = (offset, limit, words, signal) =>
  request(`api/videos?${new URLSearchParams({ offset, limit, search: words })}`, { signal });

/** A moment as a file: { name, content }. The server cuts it, which takes a while. */
export function clip({ videoId, start, end }) {
  const query = new URLSearchParams({ start: start.toFixed(3), end: end.toFixed(3) });
  const read = async (response) => ({ name: nameIn(response.headers), content: await response.blob() });
  return request(`clips/${encodeURIComponent(videoId)}?${query}`, { read });
}

function nameIn(headers) {
  const match = /filename\*=UTF-8''(\S+)/.exec(headers.get("Content-Disposition") ?? "");
  return match ? decodeURIComponent(match[1]) : "moment.mp4";
}

/** Exchange a token for a cookie that pictures and videos are sent with, too; the page keeps no token. */
export async function openSession(token) {
  const response = await fetch(`./?${new URLSearchParams({ token })}`, { credentials: "same-origin" });
  if (!response.ok) throw await problemOf(response.status, () => response.json());
}

/** Send a file under a title; `onProgress` hears the share sent. Returns { answer, cancel }. (fetch cannot tell how far it is.) */
export function upload(file, title, onProgress) {
  const call = new XMLHttpRequest();
  const answer = new Promise((resolve, reject) => {
    call.upload.addEventListener("progress", (event) => event.lengthComputable && onProgress(event.loaded / event.total));
    call.addEventListener("error", () => reject(new Problem("The upload broke off", "The server does not answer.", 0)));
    call.addEventListener("abort", () => reject(new Problem("Cancelled", "", 0)));
    call.addEventListener("load", async () => {
      const read = async () => JSON.parse(call.responseText);
      if (call.status >= 400) reject(await problemOf(call.status, read, call.getResponseHeader("Retry-After")));
      else read().then(resolve, () => reject(new Problem("The server gave no answer that can be read", "", call.status)));
    });
  });
  const form = new FormData();
  form.append("title", title);
  form.append("file", file, file.name);
  call.open("POST", "api/videos");
  call.send(form);
  return { answer, cancel: () => call.abort() };
}

/** Why a media file does not play, as the server tells it; "" when the server does send it. */
export async function whyNoMedia(url) {
  try {
    const response = await fetch(url, { headers: { Range: "bytes=0-0" }, credentials: "same-origin" });
    if (response.ok) return "";
    return (await problemOf(response.status, () => response.json())).message;
  } catch {
    return "The server does not answer.";
  }
}
