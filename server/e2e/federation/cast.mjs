// The cast: three servers, who lives where, and the rooms that they share.

import { mkdirSync } from "node:fs";
import { join } from "node:path";

import { Hearth, freePort } from "../server.mjs";
import { certificate, Synapse } from "./peer.mjs";
import { Person } from "./person.mjs";

async function makeHearth(folder, ca) {
  mkdirSync(folder);
  const { cert, key, root } = await certificate(ca, join(folder, "tls"));
  const port = await freePort();
  const name = `localhost:${port}`;
  const server = new Hearth(
    ...[folder, await freePort(), name],
    ...["--listen-tls", `127.0.0.1:${port}`, "--tls-cert", cert, "--tls-key", key],
    ...["--federation-ca", root, "--allow-private-networks", "--presence", "on"],
  );
  server.name = name;
  return server;
}

// versions are those in which rooms are made on either side.
const versions = ["10", "11", "12"];

// kills says that Hearth is killed in the middle of everything.
export const kills = Boolean(process.env.E2E_KILLS);

// A Cast is what the chapters hand on.
export class Cast {
  hearth;
  first; // Synapse
  second; // Synapse
  hazel; // on Hearth, as is Hugo
  hugo;
  simon; // on the first Synapse
  tess; // on the second, as is Tom
  tom;
  shared = []; // { room, version, owner, guest }: all five but Tom are in them, each guest is on another server
  #turn = Promise.resolve(); // the end of the last deed that [Cast.spare] or [Cast.crash] was asked for

  // raise starts the servers. Each has a name that says where it is.
  async raise(folder) {
    const ca = join(folder, "ca");
    const hearth = process.env.E2E_BIN === "synapse" ? Synapse.make : makeHearth;
    this.hearth = await hearth(join(folder, "hearth"), ca);
    this.first = await Synapse.make(join(folder, "first"), ca);
    this.second = await Synapse.make(join(folder, "second"), ca);
    for (const server of this.servers) await server.start();
  }

  get servers() {
    return [this.hearth, this.first, this.second];
  }

  get people() {
    return [this.hazel, this.hugo, this.simon, this.tess, this.tom].filter(Boolean);
  }

  // witnesses are one person of each server.
  get witnesses() {
    return [this.hazel, this.simon, this.tess];
  }

  async gather() {
    const homes = { hazel: this.hearth, hugo: this.hearth, simon: this.first, tess: this.second, tom: this.second };
    for (const [name, server] of Object.entries(homes)) {
      this[name] = new Person(server, name);
      await this[name].arrive();
    }
  }

  // turns are where rooms are made in each version, on one side after the other.
  get turns() {
    const { hazel, simon } = this;
    return versions.map((version, n) =>
      n % 2 ? { version, owner: simon, guest: hazel } : { version, owner: hazel, guest: simon },
    );
  }

  // places are the same on either side; in a telling with kills, which takes long
  // enough, they are the turns alone.
  get places() {
    const swapped = ({ version, owner, guest }) => ({ version, owner: guest, guest: owner });
    return kills ? this.turns : this.turns.flatMap((turn) => [turn, swapped(turn)]);
  }

  // founded are the shared rooms that began with the story.
  get founded() {
    return this.shared.slice(0, this.places.length);
  }

  // crash kills Hearth as a power cut would and starts it again. It returns how many ms
  // the start took.
  crash() {
    return this.spare(async () => {
      await this.hearth.kill();
      return this.hearth.start();
    });
  }

  // spare does a deed while Hearth is up and is not killed: such deeds and crashes wait
  // for each other.
  spare(deed) {
    const done = this.#turn.then(deed);
    this.#turn = done.catch(() => {});
    return done;
  }

  // strike is crash, in a telling with kills, where a chapter cannot be told while that
  // happens at any time.
  async strike() {
    if (!kills) return;
    await this.crash();
    await this.circle?.reconnect(this.hearth);
  }

  // each does the same in all shared rooms.
  async each(deed) {
    for (const place of this.shared) await deed(place);
  }

  async part() {
    for (const person of this.people) person.leaveTown();
    for (const server of this.servers) if (server?.up) await server.close();
  }
}
