// The chapter about threads: replies, their own counts and receipts, what is
// bundled with the root, and the list of a room's threads.

import assert from "node:assert/strict";

import { Direction } from "matrix-js-sdk";

import { neverInClear } from "./network.mjs";

// talkInThread lets Alice and Bob answer beside the conversation of the room.
export async function talkInThread(tale) {
  const { alice1, alice2, bob1, room } = tale;
  const root = await tale.says(alice1, "What shall we plant?");
  await tale.hear([bob1, alice2], alice1, root);
  await bob1.reads(room, root, 0);
  await alice1.reads(room, root, 0);

  const first = await reply(bob1, room, root, "Beans.");
  const second = await reply(bob1, room, root, "And basil.");
  const third = await reply(alice2, room, root, "No basil.");
  await bob1.until("the thread", () => follows(bob1, room, root, ["Beans.", "And basil.", "No basil."]));
  for (const device of [alice1, alice2]) {
    await device.until("the thread", () => follows(device, room, root, ["Beans.", "And basil.", "No basil."]));
    assert.ok(!device.timeline(room).some((event) => [first, second, third].includes(event.getId())), "replies stand aside");
  }
  await bob1.until("1 unread reply", () => bob1.network.unreadThread(room, root) === 1);
  assert.equal(bob1.network.unread(room), 0, "the room itself is read");
  assert.equal(alice1.network.unreadThread(room, root), 0, "her own reply, sent from the other device, reads the thread");
  await bob1.client.sendReadReceipt(bob1.room(room).findEventById(third));
  await bob1.until("no unread reply", () => bob1.network.unreadThread(room, root) === 0);

  const { unsigned } = await bob1.raw(room, root);
  const bundle = unsigned["m.relations"]["m.thread"];
  assert.equal(bundle.count, 3);
  assert.equal(bundle.current_user_participated, true);
  assert.equal(bundle.latest_event.event_id, third);
  const list = await bob1.client.createThreadListMessagesRequest(room, null, 10, Direction.Backward);
  assert.deepEqual(list.chunk.map((event) => event.event_id), [root]);

  const { events } = await alice1.client.relations(room, root, "m.thread", null, { limit: 2 });
  assert.deepEqual(events.map((event) => event.getId()), [third, second]);
  await tale.hear([alice1, alice2], bob1, await tale.says(bob1, "Back to the kitchen."));
}

async function reply(device, room, root, body) {
  neverInClear(body);
  const { event_id: id } = await device.client.sendMessage(room, root, { msgtype: "m.text", body });
  const raw = await device.raw(room, id);
  assert.equal(raw.type, "m.room.encrypted");
  assert.equal(raw.content["m.relates_to"].rel_type, "m.thread");
  assert.equal(raw.content["m.relates_to"].event_id, root);
  return id;
}

// follows tells whether the device has exactly these replies in clear.
function follows(device, room, root, bodies) {
  const replies = device.room(room).getThread(root)?.events.filter((event) => event.getId() !== root) ?? [];
  return replies.map((event) => event.getContent().body).join() === bodies.join();
}
