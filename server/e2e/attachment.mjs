// Encrypted attachments as clients make them (client-server API, "Sending
// encrypted attachments": AES-CTR, SHA-256, a JWK, version v2).

import assert from "node:assert/strict";
import { webcrypto } from "node:crypto";

const { subtle } = webcrypto;

// encrypt returns the bytes to upload and the EncryptedFile without its url.
export async function encrypt(bytes) {
  const iv = new Uint8Array(16); // the lower 64 bits are the counter and begin at 0
  webcrypto.getRandomValues(iv.subarray(0, 8));
  const key = await subtle.generateKey({ name: "AES-CTR", length: 256 }, true, ["encrypt", "decrypt"]);
  const sealed = Buffer.from(await subtle.encrypt({ name: "AES-CTR", counter: iv, length: 64 }, key, bytes));
  const { kty, k, alg, ext } = await subtle.exportKey("jwk", key);
  return {
    sealed,
    file: {
      v: "v2",
      key: { kty, key_ops: ["encrypt", "decrypt"], alg, k, ext },
      iv: unpadded(iv),
      hashes: { sha256: unpadded(await subtle.digest("SHA-256", sealed)) },
    },
  };
}

// decrypt checks the hash of what was downloaded and returns the bytes.
export async function decrypt(sealed, file) {
  assert.equal(file.v, "v2");
  assert.equal(unpadded(await subtle.digest("SHA-256", sealed)), file.hashes.sha256, "the hash of the download");
  const key = await subtle.importKey("jwk", file.key, { name: "AES-CTR" }, false, ["decrypt"]);
  const counter = Buffer.from(file.iv, "base64");
  return Buffer.from(await subtle.decrypt({ name: "AES-CTR", counter, length: 64 }, key, sealed));
}

// upload encrypts the bytes, stores them, and returns the EncryptedFile.
export async function upload(device, bytes) {
  const { sealed, file } = await encrypt(bytes);
  assert.ok(!sealed.equals(bytes));
  const { content_uri: url } = await device.client.uploadContent(sealed, {
    type: "application/octet-stream",
    includeFilename: false,
  });
  assert.match(url, /^mxc:\/\/[^/]+\/[A-Za-z0-9_-]+$/);
  return { ...file, url };
}

// download fetches what an EncryptedFile names and returns it in clear.
export async function download(device, file) {
  const response = await device.network.fetch(mediaURL(device, file), { headers: device.authorization });
  assert.equal(response.status, 200);
  assert.match(response.headers.get("Content-Type"), /^application\/octet-stream\b/);
  return decrypt(Buffer.from(await response.arrayBuffer()), file);
}

// mediaURL is where the device downloads the file, with authentication.
export function mediaURL(device, file) {
  return device.client.mxcUrlToHttp(file.url, undefined, undefined, undefined, false, true, true);
}

function unpadded(bytes) {
  return Buffer.from(bytes).toString("base64").replace(/=+$/, "");
}
