// Where the SDK's many words go: one file per run, for the reader of a failure.

import { createWriteStream } from "node:fs";
import { join } from "node:path";
import { format } from "node:util";

import { logger as root } from "matrix-js-sdk/lib/logger.js";

// openLog sends everything that the SDK logs to sdk.log in the folder.
export function openLog(folder) {
  const sink = createWriteStream(join(folder, "sdk.log"));
  root.methodFactory = (level) =>
    function write(...words) {
      const stamp = new Date().toISOString();
      sink.write(`${stamp} ${level} ${this?.prefix ?? ""} ${format(...words)}\n`);
    };
  root.rebuild();
}

// loggerFor is the SDK's logger with the device's name before each line.
export function loggerFor(name) {
  return root.getChild(`[${name}]`);
}
