// Chapters about what happens between servers: files, history, absence, conflicts.

import assert from "node:assert/strict";

// A PNG of one pixel.
const pixel = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNg+M9QDwADgQF/6bUKZQAAAABJRU5ErkJggg==",
  "base64",
);

// exchange shows a file of each server to the others.
export async function exchange(cast) {
  for (const owner of cast.witnesses) {
    const { content_uri: uri } = await owner.call("POST", "/v3/upload?filename=dot.png", pixel, "/_matrix/media");
    const [, server, id] = /^mxc:\/\/([^/]+)\/(.+)$/.exec(uri);
    for (const other of cast.witnesses) {
      assert.deepEqual(await other.call("GET", `/v1/media/download/${server}/${id}`), pixel, `${other.localpart} loads it`);
      const thumbnail = await other.call("GET", `/v1/media/thumbnail/${server}/${id}?width=32&height=32&method=crop`);
      assert.equal(thumbnail.subarray(1, 4).toString(), "PNG", `${other.localpart} loads a thumbnail`);
    }
  }
}

const texts = 40; // more than any server hands over with a join

// remember: who comes late reads what was said before, back to the beginning.
export async function remember(cast) {
  const { tess } = cast;
  for (const { version, owner, guest } of cast.turns) {
    const room = await owner.makeRoom({ preset: "public_chat", room_version: version });
    const said = [];
    for (let n = 0; n < texts; n++) {
      said.unshift(`${n} of the past`);
      await owner.say(room, said[0]);
    }
    for (const late of [guest, tess]) {
      await late.join(room, owner.server);
      await late.until("the whole past", async () => {
        const heard = await late.history(room);
        return heard.length === texts && (assert.deepEqual(heard, said), true);
      });
    }
    cast.shared.push({ room, version, owner, guest });
  }
}

// miss stops a Synapse, and then Hearth, while the others talk.
export async function miss(cast) {
  const { hazel, simon, tess, first, hearth } = cast;
  for (const [absent, away, speakers] of [[first, simon, [hazel, tess]], [hearth, hazel, [simon, tess]]]) {
    await absent.stop();
    const missed = [];
    for (const { room } of cast.founded) {
      for (const speaker of speakers) missed.push([room, await speaker.say(room, `While ${away.localpart} is away`)]);
    }
    const displayname = `${speakers[0].localpart}, who saw it`;
    await speakers[0].describe("displayname", displayname);
    await absent.start();
    await cast.strike(); // while it catches up
    for (const [room, id] of missed) await away.hears(room, id);
    for (const { room } of cast.founded) {
      await away.finds(room, "m.room.member", speakers[0].userID, (content) => content.displayname === displayname);
      const id = await away.say(room, `${away.localpart} is back`);
      for (const speaker of speakers) await speaker.hears(room, id);
    }
  }
}

// quarrel has both sides change the same state while they cannot hear each other.
export async function quarrel(cast) {
  const { hazel, simon, tess, tom, hearth, first, second } = cast;
  const rooms = cast.founded;
  for (const { room, owner } of rooms) {
    await tom.join(room, owner.server);
    for (const person of cast.witnesses) {
      await person.finds(room, "m.room.member", tom.userID, ({ membership }) => membership === "join");
    }
  }
  await second.stop();
  await hearth.stop();
  for (const { room, owner } of rooms) {
    await simon.set(room, "m.room.topic", { topic: "As Simon has it" });
    if (owner === simon) await simon.member(room, "kick", tom, "leave");
    await simon.say(room, "Said on Simon's side");
  }
  await first.stop();
  await hearth.start();
  for (const { room, owner } of rooms) {
    await hazel.set(room, "m.room.topic", { topic: "As Hazel has it" });
    if (owner === hazel) {
      const levels = await hazel.content(room, "m.room.power_levels");
      await hazel.set(room, "m.room.power_levels", { ...levels, events: { ...levels.events, "m.room.topic": 60 } });
      await hazel.member(room, "ban", tom, "ban");
    }
    await hazel.say(room, "Said on Hazel's side");
  }
  for (const server of [first, second]) await server.start();
  await cast.strike();
  for (const { room } of rooms) {
    for (const speaker of [hazel, simon, tess]) {
      const id = await speaker.say(room, `${speaker.localpart} hears both`);
      for (const other of cast.witnesses) await other.hears(room, id);
    }
  }
}
