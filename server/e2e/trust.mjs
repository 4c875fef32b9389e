// Chapters about identities: accounts, cross-signing, verification, secret
// storage, key backup, and devices that come and go.

import assert from "node:assert/strict";

import { decodeRecoveryKey } from "matrix-js-sdk/lib/crypto-api/index.js";

import { Account } from "./account.mjs";
import { Device, isClear } from "./device.mjs";
import { verify } from "./verification.mjs";

// register makes the accounts of Alice and Bob.
export async function register(tale) {
  const run = Math.random().toString(36).slice(2, 8); // a foreign server may know the names
  tale.alice = new Account(tale.server, `alice_${run}`);
  tale.bob = new Account(tale.server, `bob_${run}`);
  const { flows } = await tale.alice.client.loginFlows();
  assert.ok(flows.some(({ type }) => type === "m.login.password"));
  await tale.alice.register();
  await tale.bob.register();
  await refused(tale.alice.register(), 400, "M_USER_IN_USE");
  await refused(tale.alice.login("thief", { password: "a guess" }), 403, "M_FORBIDDEN");
}

// login gives each user a first device.
export async function login(tale) {
  tale.alice1 = await Device.login(tale.alice, "alice1");
  tale.bob1 = await Device.login(tale.bob, "bob1");
  for (const device of [tale.alice1, tale.bob1]) {
    await device.start();
    const { user_id: user, device_id: id } = await device.client.whoami();
    assert.deepEqual({ user, id }, { user: device.userID, id: device.deviceID });
    const { devices } = await device.client.getDevices();
    assert.deepEqual(
      devices.map((known) => [known.device_id, known.display_name]),
      [[device.deviceID, device.name]],
    );
  }
}

// crossSign gives each user an identity and looks at it from both sides.
export async function crossSign(tale) {
  const { alice1, bob1 } = tale;
  for (const device of [alice1, bob1]) {
    await device.crypto.bootstrapCrossSigning({
      setupNewCrossSigning: true,
      authUploadDeviceSigningKeys: (request) => device.account.proves(request),
    });
    assert.ok(await device.crypto.isCrossSigningReady());
  }
  const own = await alice1.client.downloadKeysForUsers([alice1.userID]);
  const seen = await bob1.client.downloadKeysForUsers([alice1.userID]);
  for (const answer of [own, seen]) {
    const selfSigning = Object.keys(answer.self_signing_keys[alice1.userID].keys)[0];
    const device = answer.device_keys[alice1.userID][alice1.deviceID];
    assert.ok(device.signatures[alice1.userID][selfSigning], "the self-signing key signed the device");
    assert.ok(device.signatures[alice1.userID][`ed25519:${alice1.deviceID}`], "the device signed itself");
  }
  assert.deepEqual(seen.master_keys[alice1.userID].keys, own.master_keys[alice1.userID].keys);
  assert.ok(own.user_signing_keys[alice1.userID]);
  assert.equal(seen.user_signing_keys?.[alice1.userID], undefined, "the user-signing key is for its owner alone");
}

// setUpRecovery fills secret storage and begins a key backup.
export async function setUpRecovery(tale) {
  const { alice1 } = tale;
  const made = await alice1.crypto.createRecoveryKeyFromPassphrase();
  tale.recoveryKey = made.encodedPrivateKey;
  alice1.recoveryKey = made.privateKey;
  await alice1.crypto.bootstrapSecretStorage({
    createSecretStorageKey: async () => made,
    setupNewSecretStorage: true,
    setupNewKeyBackup: true,
  });
  await alice1.until("the backup", () => alice1.crypto.getActiveSessionBackupVersion());
  assert.ok(await alice1.crypto.isSecretStorageReady());
  const { key } = await alice1.client.getAccountDataFromServer("m.secret_storage.default_key");
  for (const name of ["cross_signing.master", "cross_signing.self_signing", "cross_signing.user_signing", "megolm_backup.v1"]) {
    const { encrypted } = await alice1.client.getAccountDataFromServer(`m.${name}`);
    assert.deepEqual(Object.keys(encrypted), [key], `m.${name} is stored under the default key`);
    assert.deepEqual(Object.keys(encrypted[key]).sort(), ["ciphertext", "iv", "mac"]);
  }
  const backup = await alice1.crypto.getKeyBackupInfo();
  assert.equal(backup.algorithm, "m.megolm_backup.v1.curve25519-aes-sha2");
  assert.equal(backup.count, 0);
  assert.equal(typeof backup.etag, "string");
  assert.equal(await alice1.crypto.getActiveSessionBackupVersion(), backup.version);
}

// addDevice gives Alice a second device, verified with the first.
export async function addDevice(tale) {
  const { alice1 } = tale;
  const alice2 = (tale.alice2 = await Device.login(tale.alice, "alice2"));
  await alice2.start();
  await alice1.until("the second device", async () => {
    const known = await alice1.crypto.getUserDeviceInfo([alice1.userID]);
    return known.get(alice1.userID).has(alice2.deviceID);
  });
  assert.equal(await trusts(alice1, alice2), false);
  await verify(alice2, alice1, () => alice2.crypto.requestOwnUserVerification());

  for (const [device, other] of [[alice1, alice2], [alice2, alice1]]) {
    await device.until(`trust in ${other.name}`, () => trusts(device, other));
  }
  await alice2.until("the secrets from the first device", async () => {
    const { privateKeysCachedLocally: keys } = await alice2.crypto.getCrossSigningStatus();
    return keys.masterKey && keys.selfSigningKey && keys.userSigningKey && (await alice2.crypto.getSessionBackupPrivateKey());
  });
  assert.deepEqual(
    await alice2.crypto.getSessionBackupPrivateKey(),
    await alice1.crypto.getSessionBackupPrivateKey(),
    "both devices hold the key of the backup",
  );
  const version = await alice1.crypto.getActiveSessionBackupVersion();
  await alice2.until("the backup", async () => (await alice2.crypto.getActiveSessionBackupVersion()) === version);
}

// verifyUsers lets Alice and Bob verify each other in their room.
export async function verifyUsers(tale) {
  const { alice1, alice2, bob1, room } = tale;
  bob1.crypto.prepareToEncrypt(bob1.room(room)); // as clients do when their user begins to type
  for (const device of [alice1, alice2]) {
    await bob1.until(`${device.name} signed by its owner`, async () => (await statusOf(bob1, device))?.signedByOwner);
    assert.equal(await trusts(bob1, device), false);
  }
  const verified = async (device, user) => (await device.crypto.getUserVerificationStatus(user)).isCrossSigningVerified();
  assert.equal(await verified(alice1, bob1.userID), false);
  await verify(alice1, bob1, () => alice1.crypto.requestVerificationDM(bob1.userID, room));
  for (const [device, user] of [[alice1, bob1.userID], [alice2, bob1.userID], [bob1, alice1.userID]]) {
    await device.until(`${user} verified`, () => verified(device, user));
  }
  for (const device of [alice1, alice2]) assert.ok(await trusts(bob1, device));
}

// recover logs Alice in on a third device that has nothing but the recovery key.
export async function recover(tale) {
  const { alice1, bob1, room } = tale;
  const sessions = await backedUp(alice1);
  const alice3 = (tale.alice3 = await Device.login(tale.alice, "alice3"));
  await alice3.start();
  const sealed = await alice3.until("a message that it cannot read", () =>
    alice3.timeline(room).find((event) => event.isDecryptionFailure()),
  );
  assert.equal(sealed.getType(), "m.room.message");
  assert.equal(sealed.getContent().msgtype, "m.bad.encrypted");

  const [, info] = await alice3.client.secretStorage.getKey();
  const key = decodeRecoveryKey(tale.recoveryKey);
  assert.equal(await alice3.client.secretStorage.checkKey(key.map((byte) => byte ^ 1), info), false);
  assert.equal(await alice3.client.secretStorage.checkKey(key, info), true);
  alice3.recoveryKey = key;
  await alice3.until("its public identity", () => alice3.crypto.userHasCrossSigningKeys());
  await alice3.crypto.bootstrapCrossSigning({});
  await alice3.crypto.loadSessionBackupPrivateKeyFromSecretStorage();
  const { trustInfo } = await alice3.crypto.checkKeyBackupAndEnable();
  assert.deepEqual(trustInfo, { trusted: true, matchesDecryptionKey: true });
  const { imported, total } = await alice3.crypto.restoreKeyBackup();
  assert.deepEqual({ imported, total }, { imported: sessions, total: sessions });

  await scrollToStart(alice3, room);
  await alice3.until("the whole history in clear", () =>
    alice3.timeline(room).every((event) => event.isRedacted() || isClear(event)),
  );
  assert.deepEqual(alice3.texts(room), tale.transcript);
  for (const device of [alice1, bob1]) {
    await device.until("trust in the third device", () => trusts(device, alice3));
  }
  await tale.hear([alice3], bob1, await tale.says(bob1, "Welcome back, whichever device this is."));
  await tale.hear([alice1, bob1], alice3, await tale.says(alice3, "My third one."));
}

// removeDevices ends two of Alice's sessions, one from afar.
export async function removeDevices(tale) {
  const { alice, alice1, alice2, alice3, bob1 } = tale;
  await refused(alice1.client.deleteDevice(alice2.deviceID), 401);
  await alice.proves((auth) => alice1.client.deleteDevice(alice2.deviceID, auth ?? undefined));
  await refused(alice2.client.whoami(), 401, "M_UNKNOWN_TOKEN");
  await alice3.client.logout();
  await refused(alice3.client.whoami(), 401, "M_UNKNOWN_TOKEN");
  await bob1.until("the end of two devices", async () => {
    const known = await bob1.crypto.getUserDeviceInfo([alice1.userID]);
    return [...known.get(alice1.userID).keys()].join() === alice1.deviceID;
  });
  const { devices } = await alice1.client.getDevices();
  assert.deepEqual(devices.map((device) => device.device_id), [alice1.deviceID]);
  await tale.hear([bob1], alice1, await tale.says(alice1, "Only one left now."));
}

// scrollToStart loads the timeline back to the creation of the room.
export async function scrollToStart(device, roomID) {
  const room = device.room(roomID);
  while (room.oldState.paginationToken !== null) await device.client.scrollback(room, 15);
  assert.equal(device.timeline(roomID)[0].getType(), "m.room.create");
}

// refused asserts that the request fails with that status and error code.
export async function refused(request, status, errcode) {
  await assert.rejects(request, (err) => {
    assert.deepEqual([err.httpStatus, errcode && err.errcode], [status, errcode], String(err));
    return true;
  });
}

// trusts tells whether the device knows, by a chain of signatures from its own
// identity, that the other is what it says.
async function trusts(device, other) {
  return (await statusOf(device, other))?.crossSigningVerified ?? false;
}

function statusOf(device, other) {
  return device.crypto.getDeviceVerificationStatus(other.userID, other.deviceID);
}

// backedUp waits until every session that the device holds is in the backup on
// the server, and returns how many there are.
async function backedUp(device) {
  return device.until("the backup of every session", async () => {
    const held = await device.crypto.exportRoomKeys();
    const { version, count } = await device.client.http.authedRequest("GET", "/room_keys/version");
    const { rooms } = await device.client.http.authedRequest("GET", "/room_keys/keys", { version });
    const stored = Object.values(rooms).flatMap(({ sessions }) => Object.entries(sessions));
    for (const [, session] of stored) {
      assert.deepEqual(Object.keys(session.session_data).sort(), ["ciphertext", "ephemeral", "mac"]);
    }
    const ids = new Set(stored.map(([id]) => id));
    return held.every(({ session_id: id }) => ids.has(id)) && ids.size === count && count;
  });
}
