// Building the page without HTML in strings: names of files are text and can be nothing else.

/** An element: h("p", {class: "muted", onclick: f, "aria-label": "x"}, "text", child, ...). */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** A bar of a width between 0 and 1; what it says is said in text beside it. */
export function track(share) {
  const fill = h("span", { class: "bar-fill" });
  fill.style.setProperty("--score", String(Math.min(1, Math.max(0, share))));
  return h("span", { class: "bar-track", "aria-hidden": "true" }, fill);
}

/** Say something to those who listen instead of looking. */
export function announce(text) {
  byId("announce").textContent = text;
}

/** A message that stays until it is closed, or for a while. */
export function complain(text) {
  const toast = h("div", { class: "toast" }, h("span", {}, text));
  toast.append(h("button", { type: "button", class: "button quiet small", onclick: () => toast.remove() }, "Close"));
  byId("toasts").append(toast);
  setTimeout(() => toast.remove(), 15000);
}
