// What must hold at the end: all servers have the same state in every room, event
// for event.

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";

import { patience } from "./person.mjs";

// agree waits until the witnesses, each of another server, are shown the same state of
// a room. Each says something first, which ends what forks there are.
export async function agree(witnesses, room) {
  for (const witness of witnesses) {
    const id = await witness.say(room, "I agree");
    for (const other of witnesses) await other.hears(room, id);
  }
  return match(witnesses, room);
}

// match is agree without a word.
export async function match(witnesses, room) {
  const late = Date.now() + patience;
  for (;;) {
    const [mine, ...others] = await Promise.all(witnesses.map((witness) => identify(witness, room)));
    try {
      for (const state of others) assert.deepEqual(state, mine);
      return mine.length;
    } catch (err) {
      if (Date.now() > late) throw new Error(`the servers do not agree about ${room}`, { cause: err });
    }
    await sleep(250);
  }
}

// identify lists which event stands for each type and state key.
async function identify(witness, room) {
  const state = await witness.state(room);
  return [...state].map(([key, { event_id: id }]) => `${key} ${id}`).sort();
}
