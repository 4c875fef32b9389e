// Chapters about people: a neighbour whose session is refreshed, profiles,
// presence, and who is ignored.

import assert from "node:assert/strict";

import { Account } from "./account.mjs";
import { Device } from "./device.mjs";
import { refused } from "./trust.mjs";

// moveIn brings Carol, whose access tokens are short-lived.
export async function moveIn(tale) {
  tale.carol = new Account(tale.server, tale.alice.localpart.replace("alice", "carol"));
  await tale.carol.register();
  const session = await tale.carol.login("carol1", { refresh_token: true });
  assert.equal(typeof session.refresh_token, "string");
  assert.ok(session.expires_in_ms > 0);
  const carol1 = (tale.carol1 = new Device(tale.carol, "carol1", session));
  await carol1.start();

  const fresh = await carol1.client.refreshToken(session.refresh_token);
  assert.notEqual(fresh.access_token, session.access_token);
  assert.equal((await carol1.client.whoami()).device_id, carol1.deviceID, "the old token is good until the new one is used");
  const again = await carol1.client.refreshToken(session.refresh_token);
  carol1.client.setAccessToken(again.access_token);
  assert.equal((await carol1.client.whoami()).device_id, carol1.deviceID);
  await refused(carol1.client.refreshToken(session.refresh_token), 401, "M_UNKNOWN_TOKEN");
  const old = await carol1.network.fetch(`${carol1.client.getHomeserverUrl()}/_matrix/client/v3/account/whoami`, {
    headers: { Authorization: `Bearer ${session.access_token}` },
  });
  assert.equal(old.status, 401);
  const { errcode, soft_logout: soft } = await old.json();
  assert.deepEqual([errcode, soft], ["M_UNKNOWN_TOKEN", true]);
}

// changeProfiles changes what others see of a user.
export async function changeProfiles(tale) {
  const { alice1, bob1, room } = tale;
  await bob1.client.setDisplayName("Bob the baker");
  const { content_uri: face } = await bob1.client.uploadContent(Buffer.from("not really a picture"), {
    type: "image/png",
    includeFilename: false,
  });
  await bob1.client.setAvatarUrl(face);
  await alice1.until("Bob's new name and face", () => {
    const { rawDisplayName, events } = alice1.room(room).getMember(bob1.userID);
    return rawDisplayName === "Bob the baker" && events.member.getContent().avatar_url === face;
  });
  assert.ok(await bob1.client.doesServerSupportExtendedProfiles());
  await bob1.client.setExtendedProfileProperty("m.tz", "Europe/Zurich");
  await bob1.client.setExtendedProfileProperty("org.example.bread", { favourite: "rye" });
  assert.deepEqual(await alice1.client.getExtendedProfile(bob1.userID), {
    displayname: "Bob the baker",
    avatar_url: face,
    "m.tz": "Europe/Zurich",
    "org.example.bread": { favourite: "rye" },
  });
  await bob1.client.deleteExtendedProfileProperty("m.tz");
  assert.ok(!(await alice1.client.getExtendedProfileProperty(bob1.userID, "m.tz")));
  const { results } = await alice1.client.searchUserDirectory({ term: "the baker" });
  assert.deepEqual(results.map((found) => found.user_id), [bob1.userID]);
}

// appear shows to those who share a room who is there.
export async function appear(tale) {
  const { alice1, bob1 } = tale;
  await bob1.client.setPresence({ presence: "online", status_msg: "kneading" });
  await alice1.until("what Bob does", () => {
    const user = alice1.client.getUser(bob1.userID);
    return user?.presence === "online" && user.presenceStatusMsg === "kneading";
  });
  await bob1.client.setSyncPresence("unavailable");
  await bob1.client.setPresence({ presence: "unavailable", status_msg: "baking" });
  await alice1.until("that Bob is busy", () => {
    const user = alice1.client.getUser(bob1.userID);
    return user.presence === "unavailable" && user.presenceStatusMsg === "baking";
  });
  const { presence, status_msg: status } = await alice1.client.getPresence(bob1.userID);
  assert.deepEqual([presence, status], ["unavailable", "baking"]);
  await bob1.client.setSyncPresence("online");
}

// ignore lets Bob hear nothing more of Carol, and then hear her again.
export async function ignore(tale) {
  const { alice1, bob1, carol1, garden } = tale;
  await carol1.client.joinRoom(garden);
  const heard = (device, body) => device.timeline(garden).some((event) => event.getContent().body === body);
  await carol1.until("the garden", () => carol1.client.getRoom(garden)?.getMyMembership() === "join");
  await carol1.client.sendTextMessage(garden, "Psst!");
  await bob1.until("Carol's word", () => heard(bob1, "Psst!"));

  await bob1.client.setIgnoredUsers([carol1.userID]);
  await bob1.until("his list", () => bob1.client.isUserIgnored(carol1.userID));
  await carol1.client.sendTextMessage(garden, "Can you hear me?");
  const { room_id: trap } = await carol1.client.createRoom({ preset: "private_chat", invite: [bob1.userID] });
  const after = "She is talking to you.";
  await alice1.client.sendTextMessage(garden, after);
  await bob1.until("Alice's word", () => heard(bob1, after));
  assert.ok(!heard(bob1, "Can you hear me?"), "an ignored message stays away");
  assert.equal(bob1.client.getRoom(trap), null, "so does an ignored invitation");
  assert.ok(heard(alice1, "Can you hear me?"), "others hear her");

  await bob1.client.setIgnoredUsers([]);
  await bob1.until("his list", () => !bob1.client.isUserIgnored(carol1.userID));
  await carol1.client.sendTextMessage(garden, "And now?");
  await bob1.until("Carol again", () => heard(bob1, "And now?"));
}
