// A device's connection to the server: it can be unplugged, can lose an answer,
// and holds every request and answer to what the specification asks of all.

const secrets = new Set();

// neverInClear makes it a fault to send the text to the server as it is.
export function neverInClear(text) {
  secrets.add(text);
}

// A Network carries the requests of one device.
export class Network {
  calls = []; // "PUT /path 200", in order of the answers
  faults = []; // answers that no homeserver should give, requests that no client should send
  syncs = []; // the bodies of the answers to /sync, in order
  #server;
  #cable = new AbortController(); // aborted while unplugged
  #loss; // the next answer to lose

  constructor(server) {
    this.#server = server;
  }

  // unplug fails what is under way and everything later, until plug.
  unplug() {
    this.#cable.abort();
  }

  plug() {
    this.#cable = new AbortController();
  }

  // loseAnswer lets the next request with that method and path through and loses
  // the answer on its way back. The promise resolves to what was lost.
  loseAnswer(method, path) {
    return new Promise((resolve) => {
      this.#loss = { method, path, resolve };
    });
  }

  // joined gives the parts of all /sync answers about a joined room.
  joined(roomID) {
    return this.syncs.map((sync) => sync.rooms?.join?.[roomID]).filter(Boolean);
  }

  // unread is the newest count of unread events that the server gave for a room.
  unread(roomID) {
    const counts = this.joined(roomID).map((room) => room.unread_notifications);
    return counts.filter((count) => count?.notification_count !== undefined).at(-1)?.notification_count;
  }

  // unreadThread is the same for a thread; one that is not listed is read.
  unreadThread(roomID, root) {
    const counted = this.joined(roomID).filter((room) => room.unread_notifications);
    return counted.at(-1)?.unread_thread_notifications?.[root]?.notification_count ?? 0;
  }

  fetch = async (resource, init = {}) => {
    const url = new URL(resource);
    const method = init.method ?? "GET";
    const cable = this.#cable.signal;
    const signal = init.signal ? AbortSignal.any([init.signal, cable]) : cable;
    this.#checkRequest(method, url, init.body);
    let response, body;
    try {
      response = await fetch(url, { ...init, signal });
      body = Buffer.from(await response.arrayBuffer());
    } catch (err) {
      if (cable.aborted) throw new TypeError(`${method} ${url.pathname}: unplugged`);
      throw err;
    }
    this.#checkAnswer(method, url, response, body);
    this.#dropIfLost(method, url, init.body, response, body);
    const headers = new Headers(response.headers);
    headers.delete("Content-Encoding");
    headers.delete("Content-Length");
    return new Response(body, { status: response.status, statusText: response.statusText, headers });
  };

  #checkRequest(method, url, body) {
    const sent = decodeURIComponent(url.href) + (typeof body === "string" ? body : "");
    for (const secret of secrets) {
      if (sent.includes(secret)) this.faults.push(`${method} ${url.pathname} carries ${secret} in clear`);
    }
  }

  #checkAnswer(method, url, response, body) {
    const call = `${method} ${url.pathname} ${response.status}`;
    const answer = parse(body);
    this.calls.push(call);
    if (response.ok && url.pathname.endsWith("/sync")) this.syncs.push(answer);
    if (!this.#server.up) return;
    if (response.status >= 500 || response.status === 429) this.faults.push(`${call}: ${body}`);
    if (response.headers.get("Access-Control-Allow-Origin") !== "*") this.faults.push(`${call}: closed to web clients`);
    if (response.ok && url.pathname.includes("/media/download/")) return;
    if (answer === undefined || !/^application\/json\b/.test(response.headers.get("Content-Type"))) {
      this.faults.push(`${call}: the answer is not JSON`);
    } else if (!response.ok && typeof answer.errcode !== "string" && !answer.flows) {
      this.faults.push(`${call}: no errcode in ${body}`);
    }
  }

  #dropIfLost(method, url, sent, response, body) {
    if (this.#loss?.method !== method || !this.#loss.path.test(url.pathname)) return;
    this.#loss.resolve({ url, sent, status: response.status, answer: parse(body) });
    this.#loss = undefined;
    throw new TypeError(`${method} ${url.pathname}: the answer was lost`);
  }
}

function parse(body) {
  try {
    return JSON.parse(body);
  } catch {
    return undefined;
  }
}
