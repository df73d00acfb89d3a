// The gateway's calls. Every failure becomes an Error with a code and, where the service is busy, when to come again.

const TOKEN = "labelmill-token";
let askForToken = null;

/** Who to ask when the service wants a token: a function that gives a promise of one. */
export function onTokenNeeded(ask) {
  askForToken = ask;
}

function authorization() {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

export const hasToken = () => sessionStorage.getItem(TOKEN) !== null;

export class CallError extends Error {
  constructor(message, { status = 0, code = "", retryAfter = 0 } = {}) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
}

function problem(status, body, retryAfter) {
  let known = {};
  try {
    known = JSON.parse(body);
  } catch {
    known = {};
  }
  const message = known.detail || known.error || `The service answered ${status}.`;
  return new CallError(message, { status, code: known.code || "", retryAfter: Number(retryAfter) || 0 });
}

/** A request; asks for a token once where one is needed. */
export async function call(path, options = {}) {
  for (let again = false; ; again = true) {
    let answer;
    try {
      answer = await fetch(path, { ...options, headers: { ...authorization(), ...options.headers } });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new CallError("The service cannot be reached.");
    }
    if (answer.status === 401 && askForToken) {
      sessionStorage.setItem(TOKEN, await askForToken(again || hasToken()));
      continue;
    }
    if (!answer.ok) throw problem(answer.status, await answer.text(), answer.headers.get("Retry-After"));
    return answer;
  }
}

export const getJson = async (path) => (await call(path)).json();

export async function post(path, body) {
  const options = { method: "POST" };
  if (body !== undefined) Object.assign(options, { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
  return (await call(path, options)).json();
}

export const remove = (path) => call(path, { method: "DELETE" });

/** An upload that tells how far it is. */
export function upload(path, form, { headers = {}, onProgress = () => {} } = {}) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    for (const [name, value] of Object.entries({ ...authorization(), ...headers })) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", (event) => onProgress(event.total ? event.loaded / event.total : 0));
    request.addEventListener("load", () => {
      if (request.status < 300) resolve(JSON.parse(request.responseText));
      else reject(problem(request.status, request.responseText, request.getResponseHeader("Retry-After")));
    });
    request.addEventListener("error", () => reject(new CallError("The upload was cut off.")));
    request.send(form);
  });
}

/** Server-sent events, with the token that EventSource cannot send. Ends with the stream; goes on where it was cut. */
export async function listen(path, onEvent, signal) {
  let cursor = "";
  while (!signal.aborted) {
    try {
      const answer = await call(path, { signal, headers: cursor ? { "Last-Event-ID": cursor } : {} });
      for await (const event of events(answer.body)) {
        cursor = event.id || cursor;
        if (onEvent(event.name, event.data) === false) return;
      }
    } catch (error) {
      if (signal.aborted || error.status === 404) return;
    }
    await pause(2000);
  }
}

async function* events(stream) {
  const decoder = new TextDecoder();
  const reader = stream.getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const blocks = (rest + decoder.decode(value, { stream: true })).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const event = { name: "message", id: "", data: null };
        for (const line of block.split("\n")) {
          if (line.startsWith("event: ")) event.name = line.slice(7);
          else if (line.startsWith("id: ")) event.id = line.slice(4);
          else if (line.startsWith("data: ")) event.data = JSON.parse(line.slice(6));
        }
        if (event.data !== null) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** A key that makes a repeated upload the same job. */
export function freshKey() {
  const numbers = crypto.getRandomValues(new Uint32Array(4));
  return Array.from(numbers, (number) => number.toString(16).padStart(8, "0")).join("");
}
