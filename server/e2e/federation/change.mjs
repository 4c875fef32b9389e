// Chapters about users and rooms that change: profiles, presence, invites that come to
// nothing, rooms that all users of a server leave, and those that are replaced.

import assert from "node:assert/strict";

import { match } from "./agreement.mjs";
import { entered, seen } from "./life.mjs";

// rename gives everybody another name, which shows in all rooms and in the profile.
export async function rename(cast) {
  for (const person of cast.witnesses) {
    const displayname = `${person.localpart} the ${cast.shared.length}th`;
    const avatar = `mxc://${person.server.name}/${person.localpart}`;
    await person.describe("displayname", displayname);
    await person.describe("avatar_url", avatar);
    for (const other of cast.witnesses) {
      await cast.each(({ room }) =>
        other.finds(room, "m.room.member", person.userID, (content) =>
          content.displayname === displayname && content.avatar_url === avatar,
        ),
      );
      const profile = await other.profile(person);
      assert.deepEqual([profile.displayname, profile.avatar_url], [displayname, avatar], `${other.localpart} looks up`);
    }
  }
}

// appear: what one says of himself, the others see.
export async function appear(cast) {
  let times = 0;
  for (const person of cast.witnesses) {
    const path = `/v3/presence/${encodeURIComponent(person.userID)}/status`;
    for (const other of cast.witnesses.filter((one) => one !== person)) {
      const words = `${person.localpart} waves to ${other.localpart}`;
      let next = 0;
      await other.until(`the presence of ${person.localpart}`, async () => {
        if (other.presence.get(person.userID)?.status_msg?.startsWith(words)) return true;
        if (Date.now() < next) return false;
        next = Date.now() + 3000; // it may have been lost, as presence may
        await person.call("PUT", path, { presence: "online", status_msg: `${words} ${++times}` });
        return false;
      });
    }
  }
}

// decline: an invite is turned down, and another one is taken back.
export async function decline(cast) {
  const { hazel, simon, hugo, tess, tom } = cast;
  for (const [owner, invited] of [[hazel, tom], [simon, hugo], [tess, hugo]]) {
    const room = await owner.makeRoom({ preset: "private_chat" });
    const comes = () => invited.until(`the invite to ${room}`, () => invited.invites.has(room));
    const leaves = () => owner.finds(room, "m.room.member", invited.userID, ({ membership }) => membership === "leave");
    await owner.member(room, "invite", invited, "invite");
    await comes();
    await refuse(cast, invited, room, owner);
    await leaves();
    await owner.member(room, "invite", invited, "invite");
    await comes();
    await owner.member(room, "kick", invited, "leave");
    await invited.until(`the end of the invite to ${room}`, () => !invited.invites.has(room));
  }
}

// refuse turns an invite down. A Synapse asks the inviting server once for that: without
// an answer it makes an end of the invite that no other server ever hears of. So Hearth
// is spared while it is asked; that it can be asked is seen by a profile.
async function refuse(cast, invited, room, owner) {
  if (owner.server !== cast.hearth) return invited.refuse(room);
  await cast.spare(async () => {
    await invited.profile(owner);
    await invited.refuse(room);
  });
}

// vanish has all users of Hearth leave a room, which goes on without them, and come
// back by an alias of another server.
export async function vanish(cast) {
  const { hazel, hugo, simon, tess } = cast;
  for (const { room, version, owner } of cast.founded.slice(-3)) {
    const alias = await simon.nameRoom(room, `back-${version}-${owner.localpart}`);
    for (const person of [hazel, hugo]) {
      await person.leave(room);
      for (const other of [simon, tess]) {
        await other.finds(room, "m.room.member", person.userID, ({ membership }) => membership === "leave");
      }
    }
    const topic = "Where is everybody?";
    await simon.set(room, "m.room.topic", { topic });
    for (const person of [hazel, hugo]) assert.equal(await person.join(alias), room);
    for (const person of [hazel, hugo]) await seen(cast, room, person, "join");
    assert.equal((await hugo.content(room, "m.room.topic")).topic, topic);
    await match(cast.witnesses, room);
    const here = await tess.say(room, "Here you are");
    await hazel.hears(room, here);
  }
}

// replace upgrades a room on either side. The others find the way to the new one.
export async function replace(cast) {
  const { tess } = cast;
  for (const { version, owner, guest } of cast.turns) {
    const old = await owner.makeRoom({ preset: "public_chat", room_version: version, topic: "Old" });
    for (const person of [guest, tess]) await person.join(old, owner.server);
    await entered(cast, old);
    const room = await owner.upgrade(old, version === "12" ? "11" : "12");
    for (const person of [guest, tess]) {
      await person.finds(old, "m.room.tombstone", "", (content) => content.replacement_room === room);
      await person.join(room, owner.server);
      assert.equal((await person.content(room, "m.room.create")).predecessor.room_id, old);
      assert.equal((await person.content(room, "m.room.topic")).topic, "Old");
    }
    await entered(cast, room);
    await match(cast.witnesses, old);
    cast.shared.push({ room, version: version === "12" ? "11" : "12", owner, guest });
  }
}

// find has rooms joined by an alias right after Hearth was killed, which is on one side
// of it and then on the other.
export async function find(cast) {
  const { hazel, simon, hearth } = cast;
  for (const { version, owner, guest } of [
    { version: "12", owner: hazel, guest: simon },
    { version: "12", owner: simon, guest: hazel },
  ]) {
    const room = await owner.makeRoom({ preset: "public_chat", room_version: version });
    const alias = await owner.nameRoom(room, `found-${owner.localpart}`);
    await hearth.kill();
    const [found] = await Promise.all([guest.join(alias), hearth.start()]);
    assert.equal(found, room);
    await cast.tess.join(alias);
    await entered(cast, room);
    cast.shared.push({ room, version, owner, guest });
  }
}
