// The tale: who takes part, what was said, and what must hold at any time.

import assert from "node:assert/strict";

// A Tale is the state that the chapters hand on.
export class Tale {
  server;
  alice; // Account
  bob; // Account
  alice1; // Device
  alice2; // Device
  alice3; // Device
  bob1; // Device
  carol; // Account
  carol1; // Device
  room; // ID of the encrypted room
  garden; // ID of a public room
  recoveryKey; // as it is shown to Alice
  #said = []; // { id, body } of the texts that stand, in the order of the room

  get devices() {
    return [this.alice1, this.alice2, this.alice3, this.bob1, this.carol1].filter(Boolean);
  }

  // says lets a device send a text into the room and looks at what the server
  // stored of it.
  async says(device, body) {
    const id = await device.say(this.room, body);
    this.note(id, body);
    assertSealed(await device.raw(this.room, id), device, id);
    return id;
  }

  // note adds a text that reached the room by another way.
  note(id, body) {
    this.#said.push({ id, body });
  }

  edited(id, body) {
    this.#said.find((text) => text.id === id).body = body;
  }

  redacted(id) {
    this.#said = this.#said.filter((text) => text.id !== id);
  }

  bodyOf(id) {
    return this.#said.find((text) => text.id === id).body;
  }

  // hear waits until each device has the text in clear, signed by its sender.
  async hear(devices, from, id) {
    const events = await Promise.all(devices.map((device) => device.hears(this.room, id)));
    for (const event of events) {
      assert.equal(event.getSender(), from.userID);
      assert.deepEqual(event.getContent(), { msgtype: "m.text", body: this.bodyOf(id) });
    }
  }

  // transcript is every text that stands, oldest first.
  get transcript() {
    return this.#said.map(({ body }) => body);
  }

  // holds asserts what is true between any two chapters.
  holds() {
    for (const device of this.devices) {
      assert.deepEqual(device.network.faults, [], `${device.name}: faults`);
      assertDeliveredOnce(device, this.room);
    }
    for (const account of [this.alice, this.bob, this.carol].filter(Boolean)) {
      assert.deepEqual(account.network.faults, [], `${account.localpart}: faults`);
    }
  }

  // end stops all that runs. The devices still poll when the server is stopped:
  // it has to end with open requests.
  async end() {
    try {
      await this.server?.close();
    } finally {
      for (const device of this.devices) device.stop();
    }
  }
}

// assertSealed checks an event in the form in which the server gives it.
function assertSealed(raw, device, id) {
  assert.equal(raw.event_id, id);
  assert.equal(raw.type, "m.room.encrypted");
  assert.equal(raw.sender, device.userID);
  assert.ok(Number.isInteger(raw.origin_server_ts));
  assert.equal(raw.state_key, undefined);
  assert.equal(raw.content.algorithm, "m.megolm.v1.aes-sha2");
  assert.match(raw.content.ciphertext, /^[A-Za-z0-9+/]+$/);
  assert.match(raw.content.session_id, /^[A-Za-z0-9+/]+$/);
  assert.equal(raw.content.body, undefined);
  assert.equal(typeof raw.unsigned?.transaction_id, "string", "the sending device gets its transaction ID");
}

// assertDeliveredOnce: no event comes to a device by /sync a second time.
function assertDeliveredOnce(device, room) {
  const ids = device.network.joined(room).flatMap(({ timeline }) => (timeline?.events ?? []).map((event) => event.event_id));
  const again = ids.filter((id, at) => ids.indexOf(id) !== at);
  assert.deepEqual(again, [], `${device.name}: events that /sync gave twice`);
}
