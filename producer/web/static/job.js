// One job, opened: its results as they come, the failed ones with their reason.

import { call, listen } from "./api.js";
import { byId, h, track } from "./dom.js";
import { count, percent } from "./format.js";
import { pictureOf } from "./local.js";

/** Results read at a time, and rows after which those that still come are only counted. */
const PAGE = 100;
const MOST_LIVE = 500;

let open = null;

/** Show a job; `moved` brings the reader to it. */
export function openJob(id, title, { moved = true } = {}) {
  close();
  open = { id };
  byId("opened-title").textContent = title;
  byId("opened").hidden = false;
  byId("opened").dataset.opened = id;
  choose(false);
  if (!moved) return;
  byId("opened").scrollIntoView({ block: "nearest", behavior: "smooth" });
  byId("opened-title").focus({ preventScroll: true });
}

export function prepareOpened() {
  byId("opened-close").addEventListener("click", () => {
    close();
    byId("choose-files").focus();
  });
  byId("opened-all").addEventListener("click", () => choose(false));
  byId("opened-errors").addEventListener("click", () => choose(true));
  byId("opened-more").addEventListener("click", () => load(open));
}

/** Close the job that is open; with an id only if it is that one. */
export function close(id) {
  if (!open || (id && open.id !== id)) return;
  open.stop.abort();
  open = null;
  byId("opened").hidden = true;
  byId("opened-rows").replaceChildren();
}

function choose(errors) {
  open.stop?.abort();
  open = { id: open.id, errors, stop: new AbortController(), cursor: "", shown: 0 };
  byId("opened-all").setAttribute("aria-pressed", String(!errors));
  byId("opened-errors").setAttribute("aria-pressed", String(errors));
  byId("opened-rows").replaceChildren();
  byId("opened-note").textContent = "";
  load(open);
}

const after = (job) => (job.cursor ? `&after=${encodeURIComponent(job.cursor)}` : "");

/** One page of what is there; after the last one, what still comes. */
async function load(job) {
  const { signal } = job.stop;
  byId("opened-more").hidden = true;
  let text;
  try {
    const what = job.errors ? "errors" : "results";
    text = await (await call(`/v1/jobs/${job.id}/${what}?limit=${PAGE}${after(job)}`, { signal })).text();
  } catch (error) {
    if (!signal.aborted) byId("opened-note").textContent = error.message;
    return;
  }
  if (signal.aborted) return;
  const results = text.split("\n").filter(Boolean).map((line) => JSON.parse(line));
  if (results.length) job.cursor = results.at(-1).cursor;
  add(job, results);
  if (results.length === PAGE) byId("opened-more").hidden = false;
  else follow(job, signal);
}

function follow(job, signal) {
  const onEvent = (name, data) => {
    if (name === "results") add(job, job.errors ? data.filter((result) => result.status !== "succeeded") : data, MOST_LIVE);
    return name === "progress" || name === "results";
  };
  listen(`/v1/jobs/${job.id}/events?results=true${after(job)}`, onEvent, signal);
}

/** Put rows to the list; of those that come by themselves no more than the page can bear. */
function add(job, results, most = Infinity) {
  const room = Math.max(0, most - byId("opened-rows").childElementCount);
  byId("opened-rows").append(...results.slice(0, room).map(row));
  job.shown += results.length;
  const rows = byId("opened-rows").childElementCount;
  const none = job.errors ? "None so far" : "Nothing yet";
  byId("opened-note").textContent = rows < job.shown ? `The first ${count(rows)} are shown` : rows ? `${count(rows)} shown` : none;
}

const blank = () => h("span", { class: "row-picture", "aria-hidden": "true" });

function row(result) {
  const picture = pictureOf(result.custom_id);
  const image = picture
    ? h("img", { class: "row-picture", src: picture, alt: "", loading: "lazy", onerror: (event) => event.target.replaceWith(blank()) })
    : blank();
  const name = h("span", { class: "row-name", title: result.custom_id }, result.custom_id);
  if (result.labels) {
    const [best] = result.labels;
    const score = h("span", { class: "row-score" }, track(best.score), h("span", {}, percent(best.score)));
    return h("li", { class: "row" }, image, name, h("span", { class: "row-label", title: best.label }, best.label), score);
  }
  const code = h("code", { class: "code" }, result.error ? result.error.code : result.status);
  const reason = h("span", { class: "row-reason" }, result.error ? `${result.error.message} ` : "", code);
  return h("li", { class: "row", "data-status": result.status }, image, name, reason);
}
