// The story of three servers: Hearth and two that no one here wrote. E2E_KILLS=1
// tells it with Hearth killed in the middle of each chapter.

import "../runtime.mjs";

import assert from "node:assert/strict";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { openLog } from "../log.mjs";
import { agree } from "./agreement.mjs";
import { Cast, kills } from "./cast.mjs";
import * as change from "./change.mjs";
import * as life from "./life.mjs";
import * as secret from "./secret.mjs";
import * as world from "./world.mjs";

const chapterLimit = 600_000; // ms
const folder = process.env.E2E_FOLDER ?? mkdtempSync(join(tmpdir(), "hearth-federation-"));
const cast = new Cast();
let broken = false;

openLog(folder);
after(async () => {
  cast.circle?.stop();
  await cast.part();
});

function chapter(name, tell, killed = false) {
  test(name, { timeout: chapterLimit }, async (t) => {
    if (broken) return t.skip("an earlier chapter failed");
    const telling = new AbortController();
    const killer = killed && kills ? kill(telling.signal, t) : undefined;
    try {
      await Promise.race([tell(cast, t), cast.hearth?.failure ?? new Promise(() => {})]);
    } catch (err) {
      broken = true;
      throw err;
    } finally {
      telling.abort();
      await killer;
    }
  });
}

// kill ends Hearth as a power cut would, again and again while a chapter is told. It
// lives the longer the slower it starts and the more often it was killed, so that a
// chapter gets on on any machine.
async function kill(told, t) {
  let times = 0;
  while (!told.aborted) {
    await sleep(100 + Math.random() * 900);
    const took = await cast.crash();
    const life = Math.min(30_000, 1500 * 1.15 ** times++) + 10 * took;
    await sleep(life, undefined, { signal: told }).catch(() => {});
  }
  t.diagnostic(`killed ${times} times`);
}

chapter("three servers start", (c) => c.raise(folder));
chapter("five people arrive", (c) => c.gather());
chapter("rooms of versions 10, 11 and 12 are made on either side", life.meet, true);
chapter("all talk", life.talk, true);
chapter("they edit and redact", life.mend, true);
chapter("guests are given power", life.rule, true);
chapter("other names", change.rename, true);
chapter("Tom is kicked, banned and unbanned", life.expel, true);
chapter("members of a room enter another", life.restrict, true);
chapter("they knock", life.knock, true);
chapter("invites come to nothing", change.decline, true);
chapter("receipts and typing", life.signal, true);
chapter("presence", change.appear, true);
chapter("rooms are replaced", change.replace, true);
chapter("all users of Hearth leave and come back", change.vanish, true);
chapter("rooms are found after a kill", change.find);
chapter("files go both ways", world.exchange, true);
chapter("latecomers read the past", world.remember, true);
chapter("encrypted rooms", secret.whisper);
chapter("secrets are edited and redacted", secret.amend);
chapter("devices come and go", secret.multiply);
chapter("other devices and identities", secret.change);
chapter("Hearth is killed while keys are sent", secret.hide);
chapter("one server after the other is away", world.miss);
chapter("two sides quarrel unheard", world.quarrel);
chapter("all servers agree on every room", async (c, t) => {
  let events = 0;
  await c.each(async ({ room }) => {
    events += await agree(c.witnesses, room);
  });
  for (const room of c.secrets) events += await agree(c.circle.witnesses, room);
  assert.ok(events > 0);
  t.diagnostic(`${c.shared.length + c.secrets.length} rooms, ${events} events of state`);
});
