// The story of two users with a real client: each chapter goes on from where the
// one before ended, and after a failure nothing more is told.

import "./runtime.mjs";

import assert from "node:assert/strict";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { setTimeout } from "node:timers/promises";

import * as chat from "./chat.mjs";
import { openLog } from "./log.mjs";
import * as people from "./people.mjs";
import * as rooms from "./rooms.mjs";
import { openServer } from "./server.mjs";
import { Tale } from "./tale.mjs";
import { talkInThread } from "./thread.mjs";
import * as trust from "./trust.mjs";

const chapterLimit = 90_000; // ms
const folder = process.env.E2E_FOLDER ?? mkdtempSync(join(tmpdir(), "hearth-e2e-"));
const tale = new Tale();
const forever = new Promise(() => {});
let broken = false;

openLog(folder);
after(() => tale.end());

function chapter(name, tell, possible = () => true) {
  test(name, { timeout: chapterLimit }, async (t) => {
    if (broken) return t.skip("an earlier chapter failed");
    if (!possible()) return t.skip("no commands to restart this server");
    try {
      await Promise.race([tell(tale, t), tale.server?.failure ?? forever]);
      tale.holds();
    } catch (err) {
      broken = true;
      await Promise.race([tale.server?.failure, setTimeout(100)]); // its death explains more
      throw err;
    }
  });
}

chapter("the server starts", async () => {
  tale.server = await openServer(folder);
});
chapter("Alice and Bob register", trust.register);
chapter("they log in", trust.login);
chapter("they make cross-signing identities", trust.crossSign);
chapter("Alice sets up secret storage and key backup", trust.setUpRecovery);
chapter("Alice verifies her second device by SAS", trust.addDevice);
chapter("Alice opens an encrypted room and invites Bob", chat.openRoom);
chapter("Alice and Bob verify each other by SAS", trust.verifyUsers);
chapter("they talk, and count what is unread", chat.talk);
chapter("Bob reads privately, Alice moves her read marker", chat.readPrivately);
chapter("Bob misses messages and catches up", chat.missMessages);
chapter("Alice sends offline and repeats a lost request", chat.speakOffline);
chapter("Bob reacts", chat.react);
chapter("Alice edits", chat.edit);
chapter("the server is restarted", restart, () => tale.server.canRestart);
chapter("Alice redacts", chat.redact);
chapter("Alice shares an encrypted file", chat.attach);
chapter("they answer in a thread", talkInThread);
chapter("Alice builds a space", rooms.buildSpace);
chapter("Alice upgrades a room", rooms.upgrade);
chapter("Carol moves in, with tokens that are refreshed", people.moveIn);
chapter("Carol knocks", rooms.knock);
chapter("Bob changes his profile", people.changeProfiles);
chapter("Alice sees who is there", people.appear);
chapter("Bob ignores Carol", people.ignore);
chapter("the server is killed", crash, () => tale.server.canBeKilled);
chapter("Alice recovers everything on a third device", trust.recover);
chapter("Alice removes two devices", trust.removeDevices);

// restart stops the server while Bob is away and messages wait for him.
async function restart(_, t) {
  const { alice1, alice2, bob1, room, server } = tale;
  await bob1.reads(room, bob1.timeline(room).at(-1).getId(), 0);
  await bob1.unplug();
  await alice1.crypto.forceDiscardSession(room); // its key waits for Bob as a to-device message
  const waiting = [];
  for (const body of ["Before the restart.", "Still before."]) waiting.push(await tale.says(alice1, body));
  await server.stop();
  for (const device of [alice1, alice2]) await device.loses();
  await assert.rejects(alice1.say(room, "Nobody answers."));
  const unsent = alice1.unsent(room);
  t.diagnostic(`answers ${Math.round(await server.start())} ms after the start`);
  for (const device of [alice1, alice2]) await device.reconnect();
  await bob1.plug();
  for (const id of waiting) await tale.hear([bob1, alice2], alice1, id);
  await bob1.counts(room, 2);
  const { event_id: late } = await alice1.client.resendEvent(unsent, alice1.room(room));
  tale.note(late, "Nobody answers.");
  await tale.hear([alice2, bob1], alice1, late);
  await bob1.counts(room, 3);
  await tale.hear([alice1, alice2], bob1, await tale.says(bob1, "I am back, are you?"));
  await tale.hear([alice1, bob1], alice2, await tale.says(alice2, "We are."));
}

// crash kills the server right after it acknowledged a receipt and a message.
async function crash() {
  const { alice1, alice2, bob1, room, server } = tale;
  const read = bob1.timeline(room).at(-1).getId();
  await bob1.reads(room, read, 0);
  const body = "Acknowledged is acknowledged.";
  const id = await alice1.say(room, body);
  await server.kill();
  tale.note(id, body);
  for (const device of tale.devices) await device.loses();
  await server.start();
  for (const device of tale.devices) await device.reconnect();
  await tale.hear([alice2, bob1], alice1, id);
  const kept = (await bob1.freshSync()).rooms.join[room];
  assert.equal(kept.unread_notifications.notification_count, 1);
  const receipts = kept.ephemeral.events.find(({ type }) => type === "m.receipt").content;
  assert.ok(receipts[read]?.["m.read"]?.[bob1.userID], "the receipt was kept");
  await tale.hear([alice1, alice2], bob1, await tale.says(bob1, "Was that the fuse?"));
}
