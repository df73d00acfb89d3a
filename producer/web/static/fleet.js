// What is served, by whom, and how much waits.

import { getJson, pause } from "./api.js";
import { byId, h } from "./dom.js";
import { ago, bytes, count, plural, rate } from "./format.js";

/** Milliseconds between two looks. */
const LOOK_MS = 3000;

export async function watchFleet() {
  for (;;) {
    if (!document.hidden) await look();
    await pause(LOOK_MS);
  }
}

async function look() {
  let known;
  try {
    known = await getJson("/v1/models");
  } catch (error) {
    const away = error.status === 503 ? "Redis is away" : error.message;
    pulse("down", away);
    delete byId("fleet").dataset.said;
    byId("fleet").replaceChildren(h("p", { class: "empty" }, `${away.replace(/\.$/, "")}. This page looks again every few seconds.`));
    return;
  }
  const ready = known.workers.filter((worker) => ["READY", "BUSY"].includes(worker.state)).length;
  if (ready) pulse("ready", `${plural(ready, "worker")} ready`);
  else pulse("down", "No worker is ready");
  options(known);
  const drawn = [...known.models.map(model), workers(known.workers)];
  const said = JSON.stringify(known);
  if (byId("fleet").dataset.said === said) return;
  byId("fleet").dataset.said = said;
  byId("fleet").replaceChildren(...drawn);
}

function pulse(state, text) {
  byId("pulse").dataset.state = state;
  if (byId("pulse-text").textContent !== text) byId("pulse-text").textContent = text;
}

function options(known) {
  const select = byId("model");
  const names = known.models.map((one) => one.name);
  if (select.dataset.names === names.join()) return;
  select.disabled = !names.length;
  if (!names.length) {
    delete select.dataset.names;
    select.replaceChildren(h("option", { value: "" }, "none is served"));
    return;
  }
  select.dataset.names = names.join();
  const before = names.includes(select.value) ? select.value : known.default_model;
  select.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
  if (names.includes(before)) select.value = before;
}

function model(one) {
  const facts = [
    ["Waiting", plural(one.backlog, "image")],
    ["Workers", count(one.workers)],
    ["Labels", count(one.labels)],
    ["At most", rate(one.images_per_s)],
  ];
  const list = h("dl", { class: "facts" }, ...facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
  return h("div", { class: "model" }, h("p", { class: "model-name", title: one.digests.join(", ") }, one.name), list);
}

function workers(known) {
  if (!known.length) return h("p", { class: "empty" }, "No worker is there. Start one: labelmill-worker serve");
  const rows = known.map((worker) => {
    const state = ["READY", "BUSY"].includes(worker.state) ? "ready" : "other";
    const name = h("span", { "data-state": state }, h("span", { class: "dot", "aria-hidden": "true" }), worker.state.toLowerCase());
    const about = `${plural(worker.processes, "process", "processes")}, ${bytes(worker.rss_bytes)}, started ${ago(worker.started_at)}`;
    return h("li", { class: "worker" }, name, h("span", {}, about));
  });
  return h("ul", { class: "workers", "aria-label": "Workers" }, ...rows);
}
