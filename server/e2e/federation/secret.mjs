// Chapters about encrypted rooms: the SDK's clients on both sides, whose devices
// come and go.

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";

import { Account } from "../account.mjs";
import { Device } from "../device.mjs";
import { neverInClear } from "../network.mjs";

// A Synapse that missed a change of somebody's devices asks for them within 30 s of the
// time when it notices.
const patience = 90_000; // ms that a device waits

// A Circle is the users who talk in secret: Helen on Hearth, Sam and Thea on the
// Synapses.
export class Circle {
  devices = [];
  #texts = 0;

  static async gather(cast) {
    const circle = new Circle();
    const homes = { helen: cast.hearth, sam: cast.first, thea: cast.second };
    for (const [name, server] of Object.entries(homes)) {
      const account = new Account(server, name);
      await account.register();
      circle[name] = await circle.#open(account, `${name}'s first`);
    }
    return circle;
  }

  // add logs the user of a device in once more.
  add(device, name) {
    return this.#open(device.account, name);
  }

  async #open(account, name) {
    const device = await Device.login(account, name, patience);
    await device.start();
    this.devices.push(device);
    return device;
  }

  // talk: what one device says, all others read.
  async talk(room, speaker, hearers = this.devices) {
    const body = `${speaker.name}: secret ${++this.#texts}`;
    const id = await speaker.say(room, body);
    for (const device of hearers.filter((other) => other !== speaker)) {
      const event = await device.hears(room, id, body);
      assert.equal(event.getContent().body, body);
    }
  }

  // knows waits until a device has heard of another one.
  async knows(device, other) {
    await device.until(`the device ${other.name}`, async () => {
      const known = await device.crypto.getUserDeviceInfo([other.userID], true);
      return known.get(other.userID)?.has(other.deviceID);
    });
  }

  // reconnect has the devices of a server that was restarted look for it.
  async reconnect(server) {
    for (const device of this.devices) {
      if (device.account.server === server) await device.reconnect();
    }
  }

  // witnesses are one device of each server, as [agree] wants them.
  get witnesses() {
    return [this.helen, this.sam, this.thea].map((device) => ({
      say: (room, text) => device.say(room, text),
      hears: (room, id) => device.hears(room, id),
      state: async (room) => {
        const events = await device.client.roomState(room);
        return new Map(events.map((event) => [`${event.type} ${event.state_key}`, event]));
      },
    }));
  }

  stop() {
    for (const device of this.devices) device.stop();
  }
}

// whisper makes an encrypted room of each version on either side.
export async function whisper(cast) {
  cast.circle = await Circle.gather(cast);
  const { helen, sam, thea } = cast.circle;
  cast.secrets = [];
  for (const { version, owner: { server } } of cast.places) {
    const [owner, guest] = server === cast.hearth ? [helen, sam] : [sam, helen];
    const { room_id: room } = await owner.client.createRoom({
      preset: "private_chat",
      room_version: version,
      invite: [guest.userID, thea.userID],
      initial_state: [{ type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } }],
    });
    for (const invited of [guest, thea]) {
      await invited.until("the invite", () => invited.client.getRoom(room)?.getMyMembership() === "invite");
      await invited.client.joinRoom(room);
    }
    await cast.strike();
    for (const device of cast.circle.devices) {
      await device.until("three members", async () => {
        const known = device.client.getRoom(room);
        return known?.getJoinedMemberCount() === 3 && (await device.crypto.isEncryptionEnabledInRoom(room));
      });
    }
    for (const speaker of [owner, guest, thea]) await cast.circle.talk(room, speaker);
    cast.secrets.push(room);
  }
}

// amend edits and redacts what is said in secret.
export async function amend(cast) {
  const { circle, secrets } = cast;
  for (const speaker of [circle.helen, circle.sam]) {
    const room = secrets.at(-1);
    const target = await speaker.say(room, `${speaker.name}: Teh secret`);
    for (const device of circle.devices) await device.hears(room, target);
    const fixed = { msgtype: "m.text", body: `${speaker.name}: The secret` };
    neverInClear(fixed.body);
    await speaker.client.sendMessage(room, {
      ...fixed,
      "m.new_content": fixed,
      "m.relates_to": { rel_type: "m.replace", event_id: target },
    });
    await cast.strike();
    const event = (device) => device.room(room).findEventById(target);
    for (const device of circle.devices) {
      await device.until("the edit", () => event(device).getContent().body === fixed.body);
    }
    await speaker.client.redactEvent(room, target);
    for (const device of circle.devices) await device.until("the redaction", () => event(device).isRedacted());
  }
}

// multiply adds a device on each side, which the others send their keys to, and
// removes it again.
export async function multiply(cast) {
  const { circle, secrets: [room] } = cast;
  const { helen, sam, thea } = circle;
  for (const [user, others] of [[helen, [sam, thea]], [sam, [helen, thea]]]) {
    const second = await circle.add(user, `${user.account.localpart}'s second`);
    await cast.strike();
    for (const other of others) await circle.knows(other, second);
    for (const other of others) await circle.talk(room, other);
    await circle.talk(room, second);
    await second.client.logout(true);
    circle.devices.splice(circle.devices.indexOf(second), 1);
    for (const other of others) {
      await other.until(`the end of ${second.name}`, async () => {
        const known = await other.crypto.getUserDeviceInfo([user.userID], true);
        return !known.get(user.userID)?.has(second.deviceID);
      });
      await circle.talk(room, other);
    }
  }
}

// change gives devices another name and their users another identity, twice.
export async function change(cast) {
  const { helen, sam, thea } = cast.circle;
  for (const [user, others] of [[helen, [sam, thea]], [sam, [helen, thea]]]) {
    const name = `${user.name}, renamed`;
    await user.client.setDeviceDetails(user.deviceID, { display_name: name });
    for (const other of others) {
      await sees(other, user, "the new name", (keys) =>
        keys.device_keys[user.userID]?.[user.deviceID]?.unsigned?.device_display_name === name,
      );
    }
    for (let times = 0; times < 2; times++) {
      await user.crypto.bootstrapCrossSigning({
        setupNewCrossSigning: true,
        authUploadDeviceSigningKeys: (request) => user.account.proves(request),
      });
      await cast.strike();
      const master = ({ master_keys: keys }) => Object.keys(keys?.[user.userID]?.keys ?? {})[0];
      const own = master(await user.client.downloadKeysForUsers([user.userID]));
      assert.ok(own);
      for (const other of others) await sees(other, user, "the new identity", (keys) => master(keys) === own);
    }
  }
}

// sees waits until a device is given such keys of a user.
async function sees(device, user, what, test) {
  const late = Date.now() + patience;
  while (!test(await device.client.downloadKeysForUsers([user.userID]))) {
    if (Date.now() > late) throw new Error(`${device.name} waited ${patience / 1000} s for ${what} of ${user.name}`);
    await sleep(100);
  }
}

// hide sends while Hearth is dead: the keys wait with the other servers.
export async function hide(cast) {
  const { circle, secrets: [room], hearth } = cast;
  const { helen, sam, thea } = circle;
  await sam.crypto.forceDiscardSession(room); // the next message goes with a new key
  await hearth.kill();
  await helen.loses();
  await circle.talk(room, sam, [sam, thea]);
  await hearth.start();
  await helen.reconnect();
  const last = sam.timeline(room).at(-1).getId();
  await helen.hears(room, last);
  await circle.talk(room, helen);
}
