// A person: a user of one of the servers with one client that is always in sync.
// The client is plain HTTP, so that all that the server says can be looked at.

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";

export const patience = 120_000; // ms that a wait or a request with its repetitions may take
const answerLimit = 20_000; // ms that a single request may take
const pollLimit = 60_000; // ms that a /sync may take
const pause = 100; // ms between two looks

// A Refusal is an error that a server answered with.
export class Refusal extends Error {
  constructor(call, status, body) {
    super(`${call}: ${status} ${JSON.stringify(body)}`);
    this.status = status;
    this.code = body?.errcode;
  }
}

// A Person acts on one server.
export class Person {
  rooms = new Map(); // room ID to what /sync told of it
  invites = new Set(); // room IDs
  presence = new Map(); // user ID to the newest that /sync told
  #txn = 0;
  #token;
  #ended = new AbortController();

  constructor(server, localpart) {
    this.server = server;
    this.localpart = localpart;
    this.userID = `@${localpart}:${server.name}`;
  }

  // arrive registers the user and begins to sync.
  async arrive() {
    const made = await this.call("POST", "/v3/register", {
      username: this.localpart,
      password: `the password of ${this.localpart}`,
      auth: { type: "m.login.dummy" },
    });
    assert.equal(made.user_id, this.userID);
    this.#token = made.access_token;
    this.#sync();
  }

  leaveTown() {
    this.#ended.abort();
  }

  // call makes a request of the client API. It is repeated while the server, or one
  // that it asks, is being restarted: requests that must not happen twice go by
  // once.
  async call(method, path, body, base = "/_matrix/client") {
    const late = Date.now() + patience;
    for (;;) {
      try {
        return await this.once(method, path, body, base);
      } catch (err) {
        const passing = !(err instanceof Refusal) || err.status >= 500 || err.status === 429;
        if (!passing || Date.now() > late) throw err;
      }
      await sleep(pause);
    }
  }

  // once makes a request a single time, and waits that many ms for its answer.
  async once(method, path, body, base = "/_matrix/client", limit = answerLimit) {
    const raw = body instanceof Uint8Array;
    const response = await fetch(this.server.url + base + path, {
      method,
      body: raw ? body : body && JSON.stringify(body),
      headers: {
        ...(this.#token && { Authorization: `Bearer ${this.#token}` }),
        ...(body && { "Content-Type": raw ? "image/png" : "application/json" }),
      },
      signal: AbortSignal.timeout(limit),
    });
    const bytes = Buffer.from(await response.arrayBuffer());
    const type = response.headers.get("Content-Type") ?? "";
    const answer = type.startsWith("application/json") ? JSON.parse(bytes) : bytes;
    if (!response.ok) throw new Refusal(`${this.localpart}: ${method} ${path}`, response.status, answer);
    return answer;
  }

  // changes makes a request that may not be repeated blindly: after a failure, which
  // isDone is given, it first looks whether it has been done.
  async changes(isDone, method, path, body) {
    const late = Date.now() + patience;
    for (;;) {
      try {
        return await this.once(method, path, body);
      } catch (err) {
        if (err instanceof Refusal && err.status < 500 && !(await isDone(err))) throw err;
        if (Date.now() > late) throw err;
        if (await isDone(err).catch(() => false)) return undefined;
      }
      await sleep(pause);
    }
  }

  // makeRoom makes a room and, where the server was killed meanwhile, maybe another
  // one that nobody ever hears of.
  async makeRoom(request) {
    const { room_id: room } = await this.call("POST", "/v3/createRoom", request);
    return room;
  }

  async nameRoom(room, localpart) {
    const alias = `#${localpart}:${this.server.name}`;
    await this.changes(
      async () => (await this.call("GET", `/v3/directory/room/${encodeURIComponent(alias)}`)).room_id === room,
      ...["PUT", `/v3/directory/room/${encodeURIComponent(alias)}`, { room_id: room }],
    );
    return alias;
  }

  // join enters a room by its ID or alias. via names servers to ask.
  async join(roomOrAlias, ...via) {
    const query = via.map((server) => `server_name=${server.name}&via=${server.name}`).join("&");
    const { room_id: room } = await this.call("POST", `/v3/join/${encodeURIComponent(roomOrAlias)}?${query}`, {});
    await this.until(`the room ${room}`, () => this.rooms.has(room));
    return room;
  }

  async knock(room, ...via) {
    const query = via.map((server) => `server_name=${server.name}&via=${server.name}`).join("&");
    await this.call("POST", `/v3/knock/${encodeURIComponent(room)}?${query}`, {});
  }

  // member changes somebody's membership: invite, kick, ban, unban.
  async member(room, deed, who, becomes) {
    await this.changes(
      async () => (await this.membership(room, who)) === becomes,
      ...["POST", `/v3/rooms/${encodeURIComponent(room)}/${deed}`, { user_id: who.userID }],
    );
  }

  async leave(room) {
    await this.changes(
      async () => !(await this.call("GET", "/v3/joined_rooms")).joined_rooms.includes(room),
      ...["POST", `/v3/rooms/${encodeURIComponent(room)}/leave`, {}],
    );
    await this.until(`the end of ${room}`, () => !this.rooms.has(room));
  }

  // refuse turns an invite down. Where a server refuses that, it may have been done
  // before, and /sync is given time to tell; one that failed is asked again soon.
  async refuse(room) {
    const isGone = () => !this.invites.has(room);
    await this.changes(
      (err) => this.soon(err.status < 500 ? 15_000 : 1000, isGone),
      ...["POST", `/v3/rooms/${encodeURIComponent(room)}/leave`, {}],
    );
    await this.until(`the end of the invite to ${room}`, isGone);
  }

  // upgrade replaces a room and returns the new one.
  async upgrade(room, version) {
    const replacement = async () => (await this.content(room, "m.room.tombstone"))?.replacement_room;
    const path = `/v3/rooms/${encodeURIComponent(room)}/upgrade`;
    await this.changes(replacement, "POST", path, { new_version: version });
    return replacement();
  }

  profile(who) {
    return this.call("GET", `/v3/profile/${encodeURIComponent(who.userID)}`);
  }

  // describe sets a field of the own profile.
  async describe(field, value) {
    await this.call("PUT", `/v3/profile/${encodeURIComponent(this.userID)}/${field}`, { [field]: value });
  }

  async membership(room, who) {
    const state = await this.state(room);
    return state.get(`m.room.member ${who.userID}`)?.content.membership;
  }

  async send(room, type, content) {
    const path = `/v3/rooms/${encodeURIComponent(room)}/send/${type}/${this.#next()}`;
    return (await this.call("PUT", path, content)).event_id;
  }

  say(room, body, more) {
    return this.send(room, "m.room.message", { msgtype: "m.text", body, ...more });
  }

  async redact(room, event) {
    const path = `/v3/rooms/${encodeURIComponent(room)}/redact/${encodeURIComponent(event)}/${this.#next()}`;
    return (await this.call("PUT", path, {})).event_id;
  }

  async set(room, type, content, key = "") {
    const path = `/v3/rooms/${encodeURIComponent(room)}/state/${type}/${encodeURIComponent(key)}`;
    return (await this.call("PUT", path, content)).event_id;
  }

  // state is the room's current state by type and state key.
  async state(room) {
    const events = await this.call("GET", `/v3/rooms/${encodeURIComponent(room)}/state`);
    return new Map(events.map((event) => [`${event.type} ${event.state_key}`, event]));
  }

  async content(room, type, key = "") {
    return (await this.state(room)).get(`${type} ${key}`)?.content;
  }

  event(room, id) {
    return this.call("GET", `/v3/rooms/${encodeURIComponent(room)}/event/${encodeURIComponent(id)}`);
  }

  // history is the texts of a room from its end to its beginning, page by page.
  async history(room) {
    const texts = [];
    for (let from = ""; ; ) {
      const page = await this.call(
        "GET",
        `/v3/rooms/${encodeURIComponent(room)}/messages?dir=b&limit=25${from && `&from=${encodeURIComponent(from)}`}`,
      );
      texts.push(...page.chunk.filter(({ type }) => type === "m.room.message").map(({ content }) => content.body));
      if (!page.end) return texts;
      from = page.end;
    }
  }

  // hears waits until /sync has brought an event.
  async hears(room, id) {
    await this.until(`the event ${id} in ${room}`, () => this.rooms.get(room)?.timeline.has(id));
    return this.rooms.get(room).timeline.get(id);
  }

  // finds waits until the current state of a room is as a test says.
  finds(room, type, key, test) {
    return this.until(`${type} ${key} in ${room}`, async () => test((await this.content(room, type, key)) ?? {}));
  }

  // until waits for a condition, which is looked at again and again.
  async until(what, condition) {
    const found = await this.soon(patience, condition);
    if (!found) throw new Error(`${this.localpart} waited ${patience / 1000} s for ${what}`);
    return found;
  }

  // soon is until for that many ms. It returns what the condition last returned.
  async soon(limit, condition) {
    const late = Date.now() + limit;
    for (;;) {
      const found = await condition();
      if (found || Date.now() > late) return found;
      await sleep(pause);
    }
  }

  #next() {
    return `${this.localpart}-${++this.#txn}`;
  }

  async #sync() {
    let since = "";
    while (!this.#ended.signal.aborted) {
      try {
        const path = `/v3/sync?timeout=2000&filter=${filter}${since && `&since=${encodeURIComponent(since)}`}`;
        const answer = await this.once("GET", path, undefined, undefined, pollLimit);
        this.#take(answer);
        since = answer.next_batch;
      } catch {
        await sleep(pause);
      }
    }
  }

  #take({ rooms = {}, presence = {} }) {
    for (const [id, joined] of Object.entries(rooms.join ?? {})) {
      const room = this.rooms.get(id) ?? { timeline: new Map(), typing: [], receipts: new Map() };
      this.rooms.set(id, room);
      this.invites.delete(id);
      for (const event of joined.timeline?.events ?? []) room.timeline.set(event.event_id, event);
      for (const { type, content } of joined.ephemeral?.events ?? []) {
        if (type === "m.typing") room.typing = content.user_ids;
        if (type === "m.receipt") noteReceipts(room, content);
      }
    }
    for (const id of Object.keys(rooms.invite ?? {})) this.invites.add(id);
    for (const id of Object.keys(rooms.leave ?? {})) {
      this.invites.delete(id);
      this.rooms.delete(id);
    }
    for (const { sender, content } of presence.events ?? []) this.presence.set(sender, content);
  }
}

const filter = encodeURIComponent(JSON.stringify({ room: { timeline: { limit: 100 } } }));

// noteReceipts keeps the newest public receipt of each user.
function noteReceipts(room, content) {
  for (const [event, kinds] of Object.entries(content)) {
    for (const user of Object.keys(kinds["m.read"] ?? {})) room.receipts.set(user, event);
  }
}
