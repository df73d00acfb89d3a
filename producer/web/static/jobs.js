// The list of jobs, live: those that run are listened to, the others are looked at now and then.

import { call, freshKey, getJson, hasToken, listen, pause, post, remove, upload } from "./api.js";
import { announce, byId, complain, h } from "./dom.js";
import { ago, bytes, count, duration, plural, rate } from "./format.js";
import { close, openJob } from "./job.js";

/** Jobs that are listened to at the same time: each takes a connection. */
const LISTENED = 3;
/** Milliseconds between two looks at the list. */
const LOOK_MS = 4000;
const PAGE = 10;
/** Milliseconds in which a button that cannot be undone must be pressed again. */
const SURE_MS = 4000;

const cards = new Map();
const listening = new Map();
let shown = PAGE;

export async function watchJobs() {
  byId("jobs-more").addEventListener("click", () => {
    shown += PAGE;
    refresh();
  });
  for (;;) {
    if (!document.hidden) await refresh();
    await pause(LOOK_MS);
  }
}

export async function refresh() {
  let page;
  try {
    page = await getJson(`/v1/jobs?limit=${Math.min(200, shown)}`);
  } catch {
    return; // the head of the page says that the service is away
  }
  for (const job of page.jobs) draw(job);
  const there = new Set(page.jobs.map((job) => job.id));
  for (const [id, card] of cards) {
    if (!there.has(id) && !card.dataset.local) {
      card.remove();
      cards.delete(id);
    }
  }
  page.jobs.forEach((job, at) => {
    const locals = byId("jobs").querySelectorAll("[data-local]").length;
    const place = byId("jobs").children[at + locals];
    if (place !== cards.get(job.id)) byId("jobs").insertBefore(cards.get(job.id), place || null);
  });
  byId("jobs-more").hidden = page.next === null;
  byId("jobs-empty").hidden = cards.size > 0;
  const running = page.jobs.filter((job) => job.state !== "ended");
  byId("jobs-note").textContent = running.length ? `${count(running.length)} running` : "";
  for (const job of running) if (listening.size < LISTENED && !listening.has(job.id)) follow(job.id);
}

function follow(id) {
  const stop = new AbortController();
  listening.set(id, stop);
  const onEvent = (name, data) => {
    if (name === "progress") draw(data);
    if (name === "ended") {
      draw(data);
      announce(`${title(data)} has ended: ${summary(data)}`);
    }
    return name === "progress";
  };
  listen(`/v1/jobs/${id}/events`, onEvent, stop.signal).finally(() => {
    listening.delete(id);
    refresh();
  });
}

/** Make a job of files; its card is there while they are uploaded. */
export async function submit(entries, { model, topK, name }) {
  const form = new FormData();
  if (model) form.append("model", model);
  form.append("top_k", String(topK));
  form.append("metadata", JSON.stringify({ name: name.slice(0, 200) }));
  for (const entry of entries) form.append("files", entry.file, entry.name);
  const size = entries.reduce((sum, entry) => sum + entry.file.size, 0);
  const card = uploading(name, `Uploading ${plural(entries.length, "file")}, ${bytes(size)}`);
  const headers = { "Idempotency-Key": freshKey() };
  const onProgress = (share) => setParts(card.querySelector(".progress"), [["ok", share]], `${Math.round(share * 100)} % uploaded`);
  try {
    const onWait = (reason) => {
      card.querySelector(".job-text").textContent = `${reason.replace(/\.$/, "")}: trying again`;
    };
    const job = await once(() => upload("/v1/jobs", form, { headers, onProgress }), onWait);
    card.remove();
    draw(job);
    byId("jobs").prepend(cards.get(job.id));
    announce(`${title(job)} is under way`);
    openJob(job.id, title(job), { moved: false });
    await refresh();
    return job;
  } catch (error) {
    card.remove();
    complain(`${name}: ${error.message}`);
    await refresh();
    return null;
  }
}

/** Again, with the same key, where the service is busy or the connection was cut: the same key is the same job. */
async function once(send, onWait) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await send();
    } catch (error) {
      if (![0, 429, 503].includes(error.status) || attempt === 5) throw error;
      onWait(error.message);
      await pause(1000 * Math.max(1, error.retryAfter));
    }
  }
}

function uploading(name, text) {
  const bar = h("div", { class: "progress", role: "progressbar", "aria-label": `Upload of ${name}`, "aria-valuemin": 0, "aria-valuemax": 100 });
  const head = h("div", { class: "job-head" }, h("span", { class: "job-name" }, name), h("span", { class: "badge", "data-kind": "busy" }, "Uploading"));
  const card = h("li", { class: "job", "data-local": true }, head, bar, h("p", { class: "job-text" }, text));
  byId("jobs").prepend(card);
  byId("jobs-empty").hidden = true;
  return card;
}

function draw(job) {
  let card = cards.get(job.id);
  if (!card) {
    card = h("li", { class: "job", "data-job": job.id });
    cards.set(job.id, card);
    byId("jobs").append(card);
  }
  const said = JSON.stringify(job);
  if (card.dataset.said === said) return;
  if (job.images_per_s === undefined && listening.has(job.id)) return; // the listener knows better than the list
  card.dataset.said = said;
  card.dataset.state = job.state;
  if (!card.childElementCount) card.append(...skeleton(job));
  const [badge, kind] = standing(job);
  Object.assign(card.querySelector(".badge"), { textContent: badge });
  card.querySelector(".badge").dataset.kind = kind;
  const { total, succeeded, failed, cancelled, expired } = job.request_counts;
  const share = (number) => (total ? number / total : 0);
  const parts = [["ok", share(succeeded)], ["failed", share(failed)], ["left-out", share(cancelled + expired)]];
  const done = succeeded + failed + cancelled + expired;
  setParts(card.querySelector(".progress"), parts, `${count(done)} of ${count(total)} done`, share(done));
  card.querySelector(".job-text").textContent = `${summary(job)} · ${progress(job)}`;
  offer(card, job);
}

function skeleton(job) {
  const name = h("button", { type: "button", class: "job-name", title: `${title(job)} (${job.id})`, onclick: () => openJob(job.id, title(job)) }, title(job));
  const bar = h("div", { class: "progress", role: "progressbar", "aria-label": `Progress of ${title(job)}`, "aria-valuemin": 0, "aria-valuemax": 100 });
  return [
    h("div", { class: "job-head" }, name, h("span", { class: "badge" })),
    bar,
    h("p", { class: "job-text" }),
    h("div", { class: "job-actions" }),
  ];
}

function setParts(bar, parts, text, share = parts[0][1]) {
  while (bar.childElementCount < parts.length) bar.append(h("span", { class: parts[bar.childElementCount][0] }));
  parts.forEach(([, part], at) => bar.children[at].style.setProperty("--part", String(part)));
  bar.setAttribute("aria-valuenow", String(Math.round(share * 100)));
  bar.setAttribute("aria-valuetext", text);
}

const title = (job) => job.metadata.name || job.id;

function standing(job) {
  const { failed, cancelled, expired, total } = job.request_counts;
  if (job.state === "in_progress") return ["Running", "busy"];
  if (job.state === "cancelling") return ["Cancelling", "warn"];
  if (cancelled) return ["Cancelled", "warn"];
  if (expired) return ["Expired", "warn"];
  if (failed) return [failed === total ? "Failed" : `${count(failed)} failed`, "bad"];
  return ["Done", "good"];
}

function summary(job) {
  const counts = job.request_counts;
  const parts = [`${count(counts.succeeded)} of ${plural(counts.total, "image")}`];
  for (const name of ["failed", "cancelled", "expired"]) if (counts[name]) parts.push(`${count(counts[name])} ${name}`);
  return parts.join(", ");
}

function progress(job) {
  if (job.state === "ended") return ago(job.ended_at);
  if (!job.images_per_s) return "waiting";
  const left = job.seconds_left === null ? "" : `, ${duration(job.seconds_left)} left`;
  return `${rate(job.images_per_s)}${left}`;
}

// -- what can be done with a job -------------------------------------------------------------------------

function offer(card, job) {
  const wanted = job.state === "ended" ? ["jsonl", "csv"] : ["cancel"];
  if (job.state === "ended" && job.request_counts.failed) wanted.unshift("retry");
  if (job.state === "ended") wanted.push("delete");
  const box = card.querySelector(".job-actions");
  if (box.dataset.wanted === wanted.join()) return;
  const wasHere = box.contains(document.activeElement);
  box.dataset.wanted = wanted.join();
  box.replaceChildren(...wanted.map((name) => actions[name](job)));
  if (wasHere) card.querySelector(".job-name").focus(); // who works by keyboard is not sent back to the top
}

const actions = {
  cancel: (job) => act("Cancel", job, async () => draw(await post(`/v1/jobs/${job.id}/cancel`)), "danger"),
  retry: (job) => act("Retry failed", job, async () => {
    draw((await post(`/v1/jobs/${job.id}/retry`)).job);
    openJob(job.id, title(job), { moved: false });
  }),
  delete: (job) => sure(act("Delete", job, async () => {
    await remove(`/v1/jobs/${job.id}`);
    close(job.id);
    announce(`${title(job)} is deleted`);
    byId("jobs-title").focus();
  }, "danger")),
  jsonl: (job) => download(job, "jsonl"),
  csv: (job) => download(job, "csv"),
};

function act(text, job, run, kind = "") {
  let underWay = false;
  const onclick = async (event) => {
    if (underWay) return;
    underWay = true;
    event.target.setAttribute("aria-disabled", "true"); // a button that is disabled would lose the focus
    try {
      await run();
    } catch (error) {
      complain(error.message);
    }
    underWay = false;
    event.target.removeAttribute("aria-disabled");
    await refresh();
  };
  return h("button", { type: "button", class: `button quiet small ${kind}`, onclick, "aria-label": `${text}: ${title(job)}` }, text);
}

/** A button that has to be pressed twice, for what cannot be undone. */
function sure(button) {
  const text = button.textContent;
  const label = button.getAttribute("aria-label");
  button.addEventListener("click", (event) => {
    if (button.dataset.sure) return;
    event.stopImmediatePropagation();
    button.dataset.sure = "true";
    button.textContent = "Press again to delete";
    button.setAttribute("aria-label", label.replace(text, button.textContent));
    announce(button.textContent);
    setTimeout(() => {
      delete button.dataset.sure;
      button.textContent = text;
      button.setAttribute("aria-label", label);
    }, SURE_MS);
  }, { capture: true });
  return button;
}

/** A plain link; where a token is needed, which a link cannot send, the file goes through the page. */
function download(job, format) {
  const href = `/v1/jobs/${job.id}/results?format=${format}&download=true`;
  const link = h("a", { class: "button quiet small", href, download: "", "aria-label": `Download ${format.toUpperCase()}: ${title(job)}` }, `↓ ${format.toUpperCase()}`);
  link.addEventListener("click", async (event) => {
    if (!hasToken()) return;
    event.preventDefault();
    try {
      const blob = await (await call(href)).blob();
      const url = URL.createObjectURL(blob);
      h("a", { href: url, download: `${job.id}-results.${format}` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60000);
    } catch (error) {
      complain(error.message);
    }
  });
  return link;
}
