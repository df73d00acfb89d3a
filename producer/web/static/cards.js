// Pictures that are labelled at once: a card each, with bars for its labels as they arrive.

import { call, pause } from "./api.js";
import { announce, byId, h, track } from "./dom.js";
import { percent, plural } from "./format.js";

/** Pictures under way at the same time, and how often a busy service is asked again. */
const AT_ONCE = 4;
const TRIES = 12;

const waiting = [];
let underWay = 0;
let total = 0;
let done = 0;
let failed = 0;

export function labelAll(entries, options) {
  if (waiting.length + underWay === 0 && done === total && !byId("cards").childElementCount) total = done = failed = 0;
  for (const { file, name } of [...entries].reverse()) {
    const card = makeCard(file, name);
    byId("cards").prepend(card);
    waiting.unshift({ card, file, name, options });
  }
  total += entries.length;
  tell();
  while (underWay < AT_ONCE && waiting.length) next();
}

export function clearCards() {
  for (const image of byId("cards").querySelectorAll("img")) URL.revokeObjectURL(image.src);
  waiting.length = 0;
  byId("cards").replaceChildren();
  total = done = underWay;
  failed = 0;
  tell();
}

async function next() {
  const one = waiting.shift();
  if (!one) return;
  underWay += 1;
  try {
    show(one.card, await ask(one));
  } catch (error) {
    failed += one.card.isConnected ? 1 : 0; // not those that were cleared meanwhile
    fail(one.card, error.message);
  }
  underWay -= 1;
  done += 1;
  tell();
  next();
}

async function ask({ card, file, name, options }) {
  for (let attempt = 1; ; attempt += 1) {
    const form = new FormData();
    if (options.model) form.append("model", options.model);
    form.append("top_k", String(options.topK));
    form.append("image", file, name);
    try {
      return await (await call("/predict", { method: "POST", body: form })).json();
    } catch (error) {
      if (![429, 503].includes(error.status) || attempt === TRIES) throw error;
      defer(card, error.message);
      await pause(1000 * Math.max(1, error.retryAfter));
    }
  }
}

function tell() {
  byId("cards-toolbar").hidden = !byId("cards").childElementCount;
  const without = failed ? `, ${failed} without a label` : "";
  const text = done < total ? `${done} of ${plural(total, "picture")} done${without}` : `${plural(total, "picture")}${without}`;
  if (byId("cards-count").textContent !== text) byId("cards-count").textContent = text;
  if (total && done === total) announce(`${plural(done - failed, "picture")} labelled${without}`);
}

function makeCard(file, name) {
  const picture = h("div", { class: "card-picture" });
  const image = h("img", { src: URL.createObjectURL(file), alt: "", loading: "lazy" });
  image.addEventListener("error", () => picture.replaceWith(h("div", { class: "card-picture none" }, "No preview")));
  picture.append(image);
  const body = h("div", { class: "card-body" }, h("p", { class: "card-name", title: name }, name));
  body.append(h("div", { class: "skeleton short" }), h("div", { class: "skeleton" }), h("div", { class: "skeleton" }));
  return h("li", { class: "card", "data-state": "waiting", "aria-label": name }, picture, body);
}

function fill(card, state, ...content) {
  const body = card.querySelector(".card-body");
  body.replaceChildren(body.querySelector(".card-name"), ...content);
  card.dataset.state = state;
}

/** Say why a picture waits; its skeleton stays. */
function defer(card, reason) {
  const said = card.querySelector(".reason") || card.querySelector(".card-body").appendChild(h("p", { class: "reason" }));
  said.textContent = `${reason}: trying again`;
}

function show(card, answer) {
  const bars = answer.labels.map(({ label, score }) => {
    const line = [h("span", { class: "bar-name", title: label }, label), h("span", { class: "bar-score" }, percent(score))];
    return h("li", { class: "bar" }, ...line, track(score));
  });
  const list = h("ul", { class: "bars", "aria-label": "Labels and scores" }, ...bars);
  fill(card, "done", h("p", { class: "card-label" }, answer.object_name), list);
}

function fail(card, reason) {
  fill(card, "failed", h("p", { class: "card-label failed" }, "No label"), h("p", { class: "reason" }, reason));
}
