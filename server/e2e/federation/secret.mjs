// Chapters about encrypted rooms: the SDK's clients on both sides, whose devices
// come and go.

import assert from "node:assert/strict";

import { Account } from "../account.mjs";
import { Device } from "../device.mjs";
import { versions } from "./cast.mjs";

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
    const device = await Device.login(account, name);
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

  stop() {
    for (const device of this.devices) device.stop();
  }
}

// whisper makes an encrypted room of each version on either side.
export async function whisper(cast) {
  cast.circle = await Circle.gather(cast);
  const { helen, sam, thea } = cast.circle;
  cast.secrets = [];
  for (const version of versions) {
    for (const [owner, guest] of [[helen, sam], [sam, helen]]) {
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
}

// multiply adds a device on each side, which the others send their keys to, and
// removes it again.
export async function multiply(cast) {
  const { circle, secrets: [room] } = cast;
  const { helen, sam, thea } = circle;
  for (const [user, others] of [[helen, [sam, thea]], [sam, [helen, thea]]]) {
    const second = await circle.add(user, `${user.account.localpart}'s second`);
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
