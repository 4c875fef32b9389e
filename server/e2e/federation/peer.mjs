// A real Synapse as another server of the federation, run by the script that
// SYNAPSE_SCRIPT names (its folder of programs in SYNAPSE_ROOT).

import { execFile } from "node:child_process";
import { mkdirSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

import { freePort, Server } from "../server.mjs";

const run = promisify(execFile);

// What Synapse must not do in a story in which servers come and go: wait for ten
// minutes before it tries a server again.
const settings = `
federation:
  destination_min_retry_interval: 1s
  destination_max_retry_interval: 2s
  destination_retry_multiplier: 2
  max_long_retry_delay: 2s
  max_short_retry_delay: 1s
presence: {enabled: true}
`;

// A Synapse is one instance with its data in a folder of its own.
export class Synapse extends Server {
  #data;
  #ca;
  #ports;
  #pid;

  static async make(folder, ca) {
    mkdirSync(folder);
    return new Synapse(folder, ca, await freePort(), await freePort());
  }

  constructor(folder, ca, clientPort, federationPort) {
    super(`http://127.0.0.1:${clientPort}`);
    this.#data = folder;
    this.#ca = ca;
    this.#ports = [clientPort, federationPort];
    this.name = `localhost:${federationPort}`;
    process.once("exit", () => this.#pid && kill(this.#pid));
  }

  async run() {
    const extra = `${this.#data}.yaml`;
    await writeFile(extra, settings);
    const [client, federation] = this.#ports.map(String);
    await run(process.env.SYNAPSE_SCRIPT, [
      ...["start", this.#data, client, federation, this.name],
      ...["--ca", this.#ca, "--extra", extra],
    ]);
    this.#pid = Number(await readFile(join(this.#data, "synapse.pid"), "utf8"));
  }

  assertAlive() {}

  end(signal) {
    if (signal === "SIGKILL") kill(this.#pid);
    return run(process.env.SYNAPSE_SCRIPT, ["stop", this.#data]); // waits for its end
  }
}

function kill(pid) {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // it has ended
  }
}

// certificate has the script sign one for this host, and returns its files.
export async function certificate(ca, prefix) {
  await run(process.env.SYNAPSE_SCRIPT, ["cert", ca, "localhost", prefix]);
  return { cert: `${prefix}.crt`, key: `${prefix}.key`, root: join(ca, "ca.crt") };
}
