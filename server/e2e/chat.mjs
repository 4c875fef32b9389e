// Chapters about the room: inviting, talking on and off line, receipts and
// counts, relations, attachments.

import assert from "node:assert/strict";

import { download, mediaURL, upload } from "./attachment.mjs";
import { neverInClear } from "./network.mjs";
import { refused, scrollToStart } from "./trust.mjs";

// openRoom makes an encrypted room in which Alice and Bob meet.
export async function openRoom(tale) {
  const { alice1, alice2, bob1 } = tale;
  const { room_id: room } = await alice1.client.createRoom({
    preset: "private_chat",
    name: "Kitchen",
    initial_state: [{ type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } }],
  });
  tale.room = room;
  await alice1.client.invite(room, bob1.userID);
  await bob1.until("the invitation", () => bob1.client.getRoom(room)?.getMyMembership() === "invite");
  assert.equal(bob1.room(room).name, "Kitchen");
  assert.equal(bob1.room(room).getMember(bob1.userID).events.member.getSender(), alice1.userID);
  const { events } = bob1.network.syncs.findLast((sync) => sync.rooms?.invite?.[room]).rooms.invite[room].invite_state;
  const types = new Set(events.map(({ type }) => type));
  for (const part of ["create", "join_rules", "name", "encryption", "member"]) {
    assert.ok(types.has(`m.room.${part}`), `the invitation tells of m.room.${part}, not only ${[...types]}`);
  }
  await bob1.client.joinRoom(room);
  const { "m.room_versions": versions } = await alice1.client.getCapabilities();
  for (const device of [alice1, alice2, bob1]) {
    await device.until("both in an encrypted room", async () => {
      const known = device.client.getRoom(room);
      return known?.getJoinedMemberCount() === 2 && (await device.crypto.isEncryptionEnabledInRoom(room));
    });
    assert.equal(device.room(room).getVersion(), versions.default);
    const members = await device.client.getJoinedRoomMembers(room);
    assert.deepEqual(Object.keys(members.joined).sort(), [alice1.userID, bob1.userID].sort());
  }
}

// talk sends both ways while all are online, and counts what was read.
export async function talk(tale) {
  const { alice1, alice2, bob1, room } = tale;
  const say = (from, body) => tale.says(from, body);
  const last = bob1.timeline(room).at(-1).getId();
  await bob1.reads(room, last, 0);

  const texts = ["Is there bread?", "And butter?", "I can go."];
  const [bread, butter, go] = [await say(alice1, texts[0]), await say(alice1, texts[1]), await say(alice1, texts[2])];
  for (const id of [bread, butter, go]) await tale.hear([bob1, alice2], alice1, id);
  await bob1.counts(room, 3);
  await bob1.until("3 shown", () => bob1.room(room).getUnreadNotificationCount() === 3);
  await bob1.reads(room, butter, 1);
  await bob1.reads(room, go, 0);
  await alice1.until("Bob's receipt", () => alice1.room(room).getEventReadUpTo(bob1.userID) === go);

  const wait = await say(alice1, "Or wait for me.");
  await tale.hear([bob1], alice1, wait);
  await bob1.counts(room, 1);
  const bring = await say(bob1, "Bring jam, please. Grüße 🍓");
  await tale.hear([alice1, alice2], bob1, bring);
  await bob1.reads(room, wait, 0);
  await alice1.counts(room, 1);
  await alice2.counts(room, 1);
  await alice1.reads(room, bring, 0);
  await alice2.counts(room, 0); // what one device read is read on the other
  await alice2.until("her own receipt", () => alice2.room(room).getEventReadUpTo(alice1.userID) === bring);

  await tale.hear([alice1], alice2, await say(alice2, "From the other device."));
}

// readPrivately reads without telling the other, and moves the read marker.
export async function readPrivately(tale) {
  const { alice1, alice2, bob1, room } = tale;
  const secret = await tale.says(alice1, "Have you seen this?");
  await tale.hear([bob1], alice1, secret);
  await bob1.until("an unread event", () => bob1.network.unread(room) > 0);
  await bob1.client.sendReadReceipt(bob1.room(room).findEventById(secret), "m.read.private");
  await bob1.counts(room, 0);
  const answer = await tale.says(bob1, "Seen what?");
  await tale.hear([alice1, alice2], bob1, answer);
  for (const device of [alice1, alice2]) {
    assert.ok(!JSON.stringify(device.network.syncs).includes("m.read.private"), "a private receipt stays private");
  }
  await alice1.client.setRoomReadMarkers(room, answer, alice1.room(room).findEventById(answer));
  await alice2.until("the read marker", () => alice2.room(room).getAccountData("m.fully_read")?.getContent().event_id === answer);
  await bob1.until("Alice's receipt", () => bob1.room(room).getEventReadUpTo(alice1.userID) === answer);
}

// missMessages lets Bob be away for a few messages, then for more than one
// answer to /sync holds.
export async function missMessages(tale) {
  const { alice1, alice2, bob1, room } = tale;
  await bob1.unplug();
  await alice1.crypto.forceDiscardSession(room);
  const few = [];
  for (const body of ["One", "Two", "Three"]) few.push([alice1, await tale.says(alice1, `${body} while you were away.`)]);
  few.push([alice2, await tale.says(alice2, "Four, from here.")]);
  await bob1.plug();
  for (const [from, id] of few) await tale.hear([bob1], from, id);
  await bob1.counts(room, 4);
  await bob1.reads(room, few.at(-1)[1], 0);

  await bob1.unplug();
  const many = [];
  for (let n = 1; n <= 30; n++) many.push(await tale.says(alice1, `Line ${n} of a long story.`));
  const before = bob1.network.joined(room).length;
  await bob1.plug();
  await tale.hear([bob1], alice1, many.at(-1));
  const gap = bob1.network.joined(room).slice(before).find((part) => part.timeline?.limited);
  assert.ok(gap, "a limited timeline after 30 events");
  const { timeline } = gap;
  assert.equal(typeof timeline.prev_batch, "string");
  assert.equal(timeline.events.length, 10);
  await bob1.counts(room, 30);
  await scrollToStart(bob1, room);
  for (const id of many) await tale.hear([bob1], alice1, id);
  assert.deepEqual(bob1.texts(room), tale.transcript, "nothing is lost or doubled at the gap");
  await bob1.reads(room, many.at(-1), 0);
}

// speakOffline sends without a connection, and again after a lost answer.
export async function speakOffline(tale) {
  const { alice1, alice2, bob1, room } = tale;
  await alice1.unplug();
  const body = "Written in a tunnel.";
  await assert.rejects(alice1.say(room, body));
  const waiting = alice1.unsent(room);
  assert.equal(waiting.getContent().body, body);
  await alice1.plug();
  const { event_id: sent } = await alice1.client.resendEvent(waiting, alice1.room(room));
  tale.note(sent, body);
  await tale.hear([alice2, bob1], alice1, sent);

  const lost = alice1.network.loseAnswer("PUT", /\/send\/m\.room\.encrypted\//);
  await assert.rejects(alice1.say(room, "Did you get this?"));
  const { url, sent: request, answer } = await lost;
  tale.note(answer.event_id, "Did you get this?");
  await tale.hear([alice1, alice2, bob1], alice1, answer.event_id);
  const again = await alice1.network.fetch(url, {
    method: "PUT",
    body: request,
    headers: { ...alice1.authorization, "Content-Type": "application/json" },
  });
  assert.deepEqual(await again.json(), answer, "a repeated transaction is the same event");
  await tale.hear([alice1, bob1], alice2, await tale.says(alice2, "Once is enough."));
  for (const device of [alice1, alice2, bob1]) {
    assert.equal(device.texts(room).filter((text) => text === "Did you get this?").length, 1, device.name);
  }
}

// react annotates a message and takes it back.
export async function react(tale) {
  const { alice1, alice2, bob1, room } = tale;
  const target = await tale.says(alice1, "I made soup.");
  await tale.hear([bob1, alice2], alice1, target);
  const unread = alice1.network.unread(room);
  const content = { "m.relates_to": { rel_type: "m.annotation", event_id: target, key: "👍" } };
  const { event_id: reaction } = await bob1.client.sendEvent(room, "m.reaction", content);
  const likes = (device) => {
    const children = device.room(room).relations.getChildEventsForEvent(target, "m.annotation", "m.reaction");
    const [[key, events] = []] = children?.getSortedAnnotationsByKey() ?? [];
    return key === "👍" ? [...events].map((event) => event.getSender()) : [];
  };
  for (const device of [alice1, alice2]) {
    await device.until("the reaction", () => likes(device).join() === bob1.userID);
  }
  assert.equal(alice1.network.unread(room), unread, "a reaction counts for nothing");
  await refused(bob1.client.sendEvent(room, "m.reaction", content), 400, "M_DUPLICATE_ANNOTATION");
  const { events } = await alice1.client.relations(room, target, "m.annotation", "m.reaction");
  assert.deepEqual(events.map((event) => event.getId()), [reaction]);
  await bob1.client.redactEvent(room, reaction);
  for (const device of [alice1, alice2]) {
    await device.until("no reaction", () => likes(device).length === 0);
  }
}

// edit replaces the text of a message.
export async function edit(tale) {
  const { alice1, alice2, bob1, room } = tale;
  const target = await tale.says(alice1, "It has lentels.");
  await tale.hear([bob1], alice1, target);
  await bob1.reads(room, target, 0);
  const fixed = { msgtype: "m.text", body: "It has lentils." };
  neverInClear(fixed.body);
  const { event_id: id } = await alice1.client.sendMessage(room, {
    ...fixed,
    body: `* ${fixed.body}`,
    "m.new_content": fixed,
    "m.relates_to": { rel_type: "m.replace", event_id: target },
  });
  tale.edited(target, fixed.body);
  for (const device of [alice1, alice2, bob1]) {
    const event = device.room(room).findEventById(target);
    await device.until("the edited text", () => event.getContent().body === fixed.body);
    assert.equal(event.replacingEventId(), id);
  }
  const raw = await bob1.raw(room, id);
  assert.equal(raw.type, "m.room.encrypted");
  assert.deepEqual(raw.content["m.relates_to"], { rel_type: "m.replace", event_id: target });
  const { unsigned } = await bob1.raw(room, target);
  assert.equal(unsigned["m.relations"]?.["m.replace"]?.event_id, id, "the edit is bundled with its event");
  const { events } = await bob1.client.relations(room, target, "m.replace", null);
  assert.deepEqual(events.map((event) => event.getId()), [id]);
  assert.equal(bob1.network.unread(room), 0, "an edit counts for nothing");
}

// redact takes a message back.
export async function redact(tale) {
  const { alice1, alice2, bob1, room } = tale;
  const target = await tale.says(alice1, "Bob snores.");
  await tale.hear([alice2, bob1], alice1, target);
  await refused(bob1.client.redactEvent(room, target), 403, "M_FORBIDDEN");
  const { event_id: id } = await alice1.client.redactEvent(room, target, undefined, { reason: "not nice" });
  tale.redacted(target);
  for (const device of [alice1, alice2, bob1]) {
    const event = device.room(room).findEventById(target);
    await device.until("the redaction", () => event.isRedacted());
    assert.deepEqual(event.getContent(), {});
    const raw = await device.raw(room, target);
    assert.deepEqual(raw.content, {});
    assert.equal(raw.event_id, target);
    assert.equal(raw.unsigned.redacted_because.event_id, id);
    assert.equal(raw.unsigned.redacted_because.type, "m.room.redaction");
    assert.equal(raw.unsigned.redacted_because.sender, alice1.userID);
    assert.equal(raw.unsigned.redacted_because.content.reason, "not nice");
  }
}

// attach shares an encrypted file with the other device and the other user.
export async function attach(tale) {
  const { alice1, alice2, bob1, room } = tale;
  const bytes = Buffer.from(Array.from({ length: 300_001 }, (_, n) => (n * n + (n >> 7)) & 0xff));
  const file = await upload(alice1, bytes);
  neverInClear(file.key.k);
  const info = { mimetype: "application/pdf", size: bytes.length };
  const content = { msgtype: "m.file", body: "recipe.pdf", filename: "recipe.pdf", info, file };
  const { event_id: id } = await alice1.client.sendMessage(room, content);
  for (const device of [alice2, bob1]) {
    const event = await device.hears(room, id, "the attachment");
    assert.deepEqual(event.getContent().file, file);
    assert.deepEqual(event.getContent().info, info);
    assert.ok((await download(device, event.getContent().file)).equals(bytes), `${device.name} reads the file`);
  }
  const stranger = await bob1.network.fetch(mediaURL(bob1, file));
  assert.equal(stranger.status, 401);
  assert.equal((await stranger.json()).errcode, "M_MISSING_TOKEN");
}
