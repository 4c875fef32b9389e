// Chapters about rooms beside the one where all meet: a space, a room whose door
// one knocks at, and a room that gets a new version.

import assert from "node:assert/strict";

import { refused } from "./trust.mjs";

// buildSpace groups two rooms, one of which only members of the space may join.
export async function buildSpace(tale) {
  const { alice1, bob1 } = tale;
  const via = [alice1.userID.slice(alice1.userID.indexOf(":") + 1)];
  const { room_id: space } = await alice1.client.createRoom({
    name: "House",
    preset: "private_chat",
    creation_content: { type: "m.space" },
  });
  const { room_id: garden } = await alice1.client.createRoom({ name: "Garden", preset: "public_chat", topic: "Outside" });
  const { room_id: cellar } = await alice1.client.createRoom({
    name: "Cellar",
    preset: "private_chat",
    initial_state: [
      {
        type: "m.room.join_rules",
        state_key: "",
        content: { join_rule: "restricted", allow: [{ type: "m.room_membership", room_id: space }] },
      },
    ],
  });
  tale.garden = garden;
  await alice1.client.sendStateEvent(space, "m.space.child", { via, order: "b" }, garden);
  await alice1.client.sendStateEvent(space, "m.space.child", { via, order: "a", suggested: true }, cellar);
  await alice1.client.sendStateEvent(cellar, "m.space.parent", { via, canonical: true }, space);

  await refused(bob1.client.getRoomHierarchy(space), 403, "M_FORBIDDEN");
  await refused(bob1.client.joinRoom(cellar), 403, "M_FORBIDDEN");
  await alice1.client.invite(space, bob1.userID);
  await bob1.until("the invitation", () => bob1.client.getRoom(space)?.getMyMembership() === "invite");
  await bob1.client.joinRoom(space);
  await bob1.until("the space", () => bob1.room(space).isSpaceRoom() && bob1.room(space).getMyMembership() === "join");

  const { rooms } = await bob1.client.getRoomHierarchy(space);
  assert.deepEqual(rooms.map((room) => [room.room_id, room.name]), [[space, "House"], [cellar, "Cellar"], [garden, "Garden"]]);
  assert.deepEqual(rooms[0].children_state.map((child) => child.state_key).sort(), [cellar, garden].sort());
  assert.equal(rooms[0].room_type, "m.space");
  assert.deepEqual([rooms[1].join_rule, rooms[1].allowed_room_ids], ["restricted", [space]]);
  assert.deepEqual([rooms[2].topic, rooms[2].num_joined_members], ["Outside", 1]);
  const { rooms: suggested } = await bob1.client.getRoomHierarchy(space, 10, 1, true);
  assert.deepEqual(suggested.map((room) => room.room_id), [space, cellar]);

  await bob1.client.joinRoom(cellar);
  await bob1.client.joinRoom(garden);
  await alice1.until("Bob in the cellar", () => alice1.room(cellar).getMember(bob1.userID)?.membership === "join");
}

// knock lets a stranger ask for entry, in vain and then with success.
export async function knock(tale) {
  const { alice1, carol1 } = tale;
  const { room_id: room } = await alice1.client.createRoom({
    name: "Study",
    preset: "private_chat",
    initial_state: [{ type: "m.room.join_rules", state_key: "", content: { join_rule: "knock" } }],
  });
  await refused(carol1.client.joinRoom(room), 403, "M_FORBIDDEN");
  const asks = async (reason) => {
    await carol1.client.knockRoom(room, { reason });
    await carol1.until("her own knock", () => carol1.client.getRoom(room)?.getMyMembership() === "knock");
    assert.equal(carol1.room(room).name, "Study");
    await alice1.until("the knock", () => alice1.room(room).getMember(carol1.userID)?.membership === "knock");
    assert.equal(alice1.room(room).getMember(carol1.userID).events.member.getContent().reason, reason);
  };
  await asks("May I borrow a book?");
  await alice1.client.kick(room, carol1.userID, "Not today.");
  await carol1.until("the refusal", () => carol1.room(room).getMyMembership() === "leave");
  await asks("Today?");
  await alice1.client.invite(room, carol1.userID);
  await carol1.until("the invitation", () => carol1.room(room).getMyMembership() === "invite");
  await carol1.client.joinRoom(room);
  await carol1.until("the study", () => carol1.room(room).getMyMembership() === "join");
  await carol1.client.sendTextMessage(room, "Thank you!");
  await alice1.until("her thanks", () => alice1.timeline(room).some((event) => event.getContent().body === "Thank you!"));
}

// upgrade replaces a room by one of another version, and both follow.
export async function upgrade(tale) {
  const { alice1, bob1 } = tale;
  const { room_id: old } = await alice1.client.createRoom({
    name: "Attic",
    topic: "Old things",
    preset: "private_chat",
    room_version: "10",
  });
  await alice1.client.setRoomTag(old, "m.favourite", { order: 0.3 });
  await alice1.client.invite(old, bob1.userID);
  await bob1.client.joinRoom(old);
  await bob1.until("the attic", () => bob1.client.getRoom(old)?.getMyMembership() === "join");
  await refused(bob1.client.upgradeRoom(old, "12"), 403, "M_FORBIDDEN");
  await refused(alice1.client.upgradeRoom(old, "thirteen"), 400, "M_UNSUPPORTED_ROOM_VERSION");
  const { replacement_room: fresh } = await alice1.client.upgradeRoom(old, "12");
  for (const device of [alice1, bob1]) {
    await device.until("the tombstone", () => {
      const grave = device.room(old).currentState.getStateEvents("m.room.tombstone", "");
      return grave?.getContent().replacement_room === fresh;
    });
  }
  await refused(bob1.client.sendTextMessage(old, "Hello?"), 403, "M_FORBIDDEN");
  await alice1.until("the new attic", () => alice1.client.getRoom(fresh)?.name === "Attic");
  const room = alice1.room(fresh);
  assert.equal(room.getVersion(), "12");
  assert.equal(room.currentState.getStateEvents("m.room.create", "").getContent().predecessor.room_id, old);
  assert.equal(room.currentState.getStateEvents("m.room.topic", "").getContent().topic, "Old things");
  await alice1.until("its tag", () => alice1.room(fresh).tags["m.favourite"]?.order === 0.3);
  await alice1.client.invite(fresh, bob1.userID);
  await bob1.client.joinRoom(fresh);
  await bob1.client.sendTextMessage(fresh, "Smells of paint.");
  await alice1.until("the first words", () => alice1.timeline(fresh).some((event) => event.getContent().body === "Smells of paint."));
  await bob1.until("the old one followed", () => bob1.client.getVisibleRooms().every((known) => known.roomId !== old));
}
