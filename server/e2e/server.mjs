// The homeserver under test: a Hearth binary that the story starts, stops and
// kills itself, or a server that runs already.

import { spawn, execFile } from "node:child_process";
import { createWriteStream, mkdirSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";

const startLimit = 30_000; // ms until the first answer
const stopLimit = 15_000; // ms from SIGTERM to the end of the process

// openServer starts the server that the environment names. HOMESERVER_URL is a
// running one; HOMESERVER_STOP, HOMESERVER_KILL and HOMESERVER_START are shell
// commands for the restarts, which are left out without them. Otherwise
// E2E_BIN is run with its data in the folder.
export async function openServer(folder) {
  const url = process.env.HOMESERVER_URL;
  const server = url ? new ForeignServer(url.replace(/\/$/, "")) : new Hearth(folder, await freePort(), "hearth.test");
  await server.start();
  return server;
}

// A Server is up while requests to it may be expected to succeed.
export class Server {
  up = false;
  failure; // rejects if the server ends by itself
  fail;

  constructor(url) {
    this.url = url;
    this.failure = new Promise((_, reject) => {
      this.fail = reject;
    });
    this.failure.catch(() => {}); // it is looked at by whoever waits
  }

  // start returns when the server answers, and how many ms that took.
  async start() {
    const began = performance.now();
    await this.run();
    await this.#answering(began);
    this.up = true;
    return performance.now() - began;
  }

  // stop ends the server as its owner would.
  async stop() {
    this.up = false;
    await this.end("SIGTERM");
  }

  // kill ends the server as a power cut would.
  async kill() {
    this.up = false;
    await this.end("SIGKILL");
  }

  // close ends the server if the story started it.
  close() {
    return this.stop();
  }

  async #answering(began) {
    for (;;) {
      try {
        const response = await fetch(`${this.url}/_matrix/client/versions`);
        if (response.ok) return;
      } catch (err) {
        if (performance.now() - began > startLimit) throw new Error(`${this.url} does not answer`, { cause: err });
      }
      this.assertAlive();
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
}

// A Hearth is the binary that E2E_BIN names, with its data in a folder and what
// further settings the story needs.
export class Hearth extends Server {
  #folder;
  #args;
  #process;
  #ended;

  constructor(folder, port, name, ...settings) {
    super(`http://127.0.0.1:${port}`);
    this.#folder = folder;
    this.#args = [
      "serve",
      ...["--data", join(folder, "data")],
      ...["--server-name", name],
      ...["--listen", `127.0.0.1:${port}`],
      ...["--registration", "open"],
      ...["--rate-limits", "off"],
      ...["--password-cost", "4"],
      ...settings,
    ];
    mkdirSync(join(folder, "data"), { recursive: true });
    process.once("exit", () => this.#process?.kill("SIGKILL"));
  }

  get canRestart() {
    return true;
  }

  get canBeKilled() {
    return true;
  }

  async run() {
    const log = createWriteStream(join(this.#folder, "server.log"), { flags: "a" });
    this.#process = spawn(process.env.E2E_BIN, this.#args, { stdio: ["ignore", "pipe", "pipe"] });
    this.#process.stdout.pipe(log, { end: false });
    this.#process.stderr.pipe(log, { end: false });
    this.#ended = new Promise((resolve) => {
      this.#process.once("error", (err) => resolve({ err }));
      this.#process.once("exit", (code, signal) => {
        if (this.up) this.fail(new Error(`the server ended by itself: ${signal ?? `exit code ${code}`}`));
        resolve({ code, signal });
      });
    });
  }

  assertAlive() {
    const { exitCode, signalCode, pid } = this.#process;
    if (pid === undefined) throw new Error(`cannot run ${process.env.E2E_BIN}`);
    if (exitCode !== null || signalCode !== null) {
      throw new Error(`the server ended at its start: ${signalCode ?? `exit code ${exitCode}`}`);
    }
  }

  async end(signal) {
    this.#process.kill(signal);
    const slow = setTimeout(() => this.#process.kill("SIGKILL"), stopLimit);
    const end = await this.#ended;
    clearTimeout(slow);
    if (signal === "SIGTERM" && end.code !== 0) {
      throw new Error(`after SIGTERM the server ended with ${end.signal ?? `exit code ${end.code}`}`);
    }
  }
}

class ForeignServer extends Server {
  #commands = {
    start: process.env.HOMESERVER_START,
    SIGTERM: process.env.HOMESERVER_STOP,
    SIGKILL: process.env.HOMESERVER_KILL,
  };
  #running = true;

  get canRestart() {
    return Boolean(this.#commands.start && this.#commands.SIGTERM);
  }

  get canBeKilled() {
    return Boolean(this.#commands.start && this.#commands.SIGKILL);
  }

  async run() {
    if (!this.#running) await shell(this.#commands.start);
    this.#running = true;
  }

  assertAlive() {}

  async close() {}

  async end(signal) {
    await shell(this.#commands[signal]);
    this.#running = false;
  }
}

function shell(command) {
  return promisify(execFile)("sh", ["-c", command], { timeout: startLimit + stopLimit });
}

// freePort returns a port of this host that nobody listens on. It is below those that
// the system gives to connections, so that none of them takes it while a server is dead.
export async function freePort() {
  for (let tries = 1; ; tries++) {
    const port = 12_000 + Math.floor(Math.random() * 18_000);
    try {
      await listens(port);
      return port;
    } catch (e) {
      if (tries === 100) throw e;
    }
  }
}

// listens listens on a port for a moment.
function listens(port) {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once("error", reject);
    probe.listen(port, "127.0.0.1", () => probe.close(resolve));
  });
}
