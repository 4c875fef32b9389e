// Chapters about rooms that all three servers share: how they are made and entered,
// what is said in them, and who may do what.

import assert from "node:assert/strict";

import { Refusal } from "./person.mjs";

// meet makes a room of each version on Hearth and on a Synapse. The others enter by
// its alias and by invites.
export async function meet(cast) {
  const { hugo, tess } = cast;
  for (const { version, owner, guest } of cast.places) {
    const room = await owner.makeRoom({ preset: "public_chat", room_version: version, name: `Version ${version}` });
    await owner.until("the own room", () => owner.rooms.has(room));
    const alias = await owner.nameRoom(room, `v${version}-${owner.localpart}`);
    assert.equal(await guest.join(alias), room);
    for (const invited of [tess, hugo]) {
      await owner.member(room, "invite", invited, "invite");
      await invited.until(`the invite to ${room}`, () => invited.invites.has(room));
      await invited.join(room);
    }
    cast.shared.push({ room, version, owner, guest });
  }
  await cast.each(async ({ room }) => {
    for (const person of cast.witnesses) {
      await person.until(`four members of ${room}`, async () => {
        const members = await person.call("GET", `/v3/rooms/${encodeURIComponent(room)}/joined_members`);
        return Object.keys(members.joined).length === 4;
      });
    }
  });
}

// talk: what one says, all read.
export async function talk(cast) {
  await cast.each(async ({ room }) => {
    for (const person of cast.witnesses) {
      const id = await person.say(room, `${person.localpart} speaks`);
      for (const other of cast.witnesses) {
        assert.equal((await other.hears(room, id)).content.body, `${person.localpart} speaks`);
      }
    }
  });
}

// mend edits a message and redacts another.
export async function mend(cast) {
  await cast.each(async ({ room, owner, guest }) => {
    const wrong = await guest.say(room, "Teh kettle");
    const edit = await guest.say(room, "* The kettle", {
      "m.new_content": { msgtype: "m.text", body: "The kettle" },
      "m.relates_to": { rel_type: "m.replace", event_id: wrong },
    });
    for (const person of cast.witnesses) {
      await person.hears(room, edit);
      const { unsigned } = await person.event(room, wrong);
      assert.equal(unsigned?.["m.relations"]?.["m.replace"]?.event_id, edit, `${person.localpart} sees the edit`);
    }
    const regretted = await guest.say(room, "I regret this");
    for (const person of cast.witnesses) await person.hears(room, regretted);
    await owner.redact(room, regretted); // with the power to
    for (const person of cast.witnesses) {
      await person.until(`the redaction of ${regretted}`, async () => {
        const { content } = await person.event(room, regretted);
        return Object.keys(content).length === 0;
      });
    }
  });
}

// rule hands power to a guest on another server, who uses it.
export async function rule(cast) {
  await cast.each(async ({ room, version, owner, guest }) => {
    await assert.rejects(guest.call("PUT", `/v3/rooms/${encodeURIComponent(room)}/state/m.room.topic`, { topic: "No" }), Refusal);
    const levels = await owner.content(room, "m.room.power_levels");
    if (version === "12") assert.equal(levels.users?.[owner.userID], undefined, "creators are not listed");
    await owner.set(room, "m.room.power_levels", { ...levels, users: { ...levels.users, [guest.userID]: 50 } });
    await guest.finds(room, "m.room.power_levels", "", ({ users }) => users?.[guest.userID] === 50);
    await guest.set(room, "m.room.topic", { topic: `Ruled by ${guest.localpart}` });
    for (const person of cast.witnesses) {
      await person.finds(room, "m.room.topic", "", ({ topic }) => topic === `Ruled by ${guest.localpart}`);
    }
  });
}

// expel kicks Tom, bans him and lifts the ban.
export async function expel(cast) {
  const { tom } = cast;
  await cast.each(async ({ room, owner, guest }) => {
    await tom.join(room, owner.server);
    await seen(cast, room, tom, "join");
    await guest.member(room, "kick", tom, "leave");
    await seen(cast, room, tom, "leave");
    await tom.join(room, owner.server);
    await seen(cast, room, tom, "join");
    await owner.member(room, "ban", tom, "ban");
    await seen(cast, room, tom, "ban");
    await assert.rejects(tom.call("POST", `/v3/join/${encodeURIComponent(room)}`, {}), Refusal);
    await owner.member(room, "unban", tom, "leave");
    await seen(cast, room, tom, "leave");
    await tom.join(room, owner.server);
    await seen(cast, room, tom, "join");
    await tom.leave(room);
    await seen(cast, room, tom, "leave");
  });
}

// seen waits until every server says what somebody is to a room.
export async function seen(cast, room, who, membership) {
  for (const person of cast.witnesses) {
    await person.finds(room, "m.room.member", who.userID, (content) => content.membership === membership);
  }
}

// restrict lets members of one room into another, across servers.
export async function restrict(cast) {
  const { tess, tom } = cast;
  for (const { room: club, version, owner, guest } of [...cast.shared]) {
    const room = await owner.makeRoom({
      preset: "private_chat",
      room_version: version,
      initial_state: [{
        type: "m.room.join_rules",
        content: { join_rule: "restricted", allow: [{ type: "m.room_membership", room_id: club }] },
      }],
    });
    await guest.join(room, owner.server);
    await tess.join(room, owner.server);
    await assert.rejects(tom.call("POST", `/v3/join/${encodeURIComponent(room)}?via=${owner.server.name}`, {}), Refusal);
    await entered(cast, room);
    cast.shared.push({ room, version, owner, guest });
  }
}

// knock: who knocks is let in or turned away.
export async function knock(cast) {
  const { tess, tom } = cast;
  for (const { version, owner, guest } of cast.places) {
    const room = await owner.makeRoom({
      preset: "private_chat",
      room_version: version,
      initial_state: [{ type: "m.room.join_rules", content: { join_rule: "knock" } }],
    });
    for (const person of [guest, tess, tom]) {
      await person.knock(room, owner.server);
      await owner.finds(room, "m.room.member", person.userID, ({ membership }) => membership === "knock");
    }
    await owner.member(room, "kick", tom, "leave");
    for (const person of [guest, tess]) {
      await owner.member(room, "invite", person, "invite");
      await person.until(`the invite to ${room}`, () => person.invites.has(room));
      await person.join(room, owner.server);
    }
    await entered(cast, room);
    cast.shared.push({ room, version, owner, guest });
  }
}

// entered waits until all witnesses see each other in a room.
export async function entered(cast, room) {
  for (const who of cast.witnesses) await seen(cast, room, who, "join");
}

// signal: receipts and typing go to the other servers.
export async function signal(cast) {
  const { hazel, simon, tess } = cast;
  const { room } = cast.shared[0];
  for (const [reader, writer] of [[hazel, simon], [simon, hazel], [tess, hazel]]) {
    const id = await writer.say(room, `Read this, ${reader.localpart}`);
    await reader.hears(room, id);
    await reader.call("POST", `/v3/rooms/${encodeURIComponent(room)}/receipt/m.read/${encodeURIComponent(id)}`, {});
    for (const other of cast.witnesses) {
      await other.until(`the receipt of ${reader.localpart}`, () => other.rooms.get(room).receipts.get(reader.userID) === id);
    }
    const typing = (on) =>
      reader.call("PUT", `/v3/rooms/${encodeURIComponent(room)}/typing/${encodeURIComponent(reader.userID)}`, {
        typing: on,
        ...(on && { timeout: 20_000 }),
      });
    for (const on of [true, false]) {
      await typing(on);
      for (const other of cast.witnesses) {
        let next = Date.now() + 3000;
        await other.until(`typing: ${on}`, async () => {
          if (other.rooms.get(room).typing.includes(reader.userID) === on) return true;
          if (Date.now() < next) return false;
          await typing(!on); // it may have been lost, as typing may, and only a change
          await typing(on); // is sent again
          next = Date.now() + 3000;
          return false;
        });
      }
    }
  }
}
