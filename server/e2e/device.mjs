// A device: one login of a user in one SDK client with its own crypto store in
// memory and its own connection.

import assert from "node:assert/strict";

import {
  ClientEvent,
  createClient,
  EventStatus,
  Filter,
  HttpApiEvent,
  MatrixEventEvent,
  RoomEvent,
  RoomMemberEvent,
  RoomStateEvent,
  SyncState,
} from "matrix-js-sdk";
import { CryptoEvent } from "matrix-js-sdk/lib/crypto-api/index.js";
import { RustBackupManager } from "matrix-js-sdk/lib/rust-crypto/backup.js";

import { loggerFor } from "./log.mjs";
import { neverInClear, Network } from "./network.mjs";

const usualPatience = 20_000; // ms that until waits
const timelineLimit = 10; // events of a room in one /sync answer

// The SDK spreads the uploads of many clients over ten seconds; here is one.
RustBackupManager.maxBackupLoopStartDelayMillis = 50;

// The changes of a client that may make a condition true.
const changes = [
  ClientEvent.AccountData,
  ClientEvent.Room,
  ClientEvent.Sync,
  CryptoEvent.DevicesUpdated,
  CryptoEvent.KeyBackupDecryptionKeyCached,
  CryptoEvent.KeyBackupSessionsRemaining,
  CryptoEvent.KeyBackupStatus,
  CryptoEvent.KeysChanged,
  CryptoEvent.UserTrustStatusChanged,
  HttpApiEvent.SessionLoggedOut,
  MatrixEventEvent.Decrypted,
  MatrixEventEvent.Replaced,
  RoomEvent.AccountData,
  RoomEvent.LocalEchoUpdated,
  RoomEvent.MyMembership,
  RoomEvent.Receipt,
  RoomEvent.Redaction,
  RoomEvent.Timeline,
  RoomEvent.UnreadNotifications,
  RoomMemberEvent.Membership,
  RoomStateEvent.Events,
];

export class Device {
  recoveryKey; // set it to let the device open secret storage

  // login makes a device of the account; it is idle until start. Its until waits that
  // many ms.
  static async login(account, name, patience) {
    const session = await account.login(name);
    assert.equal(session.user_id, account.userID);
    return new Device(account, name, session, patience);
  }

  constructor(account, name, session, patience = usualPatience) {
    this.account = account;
    this.name = name;
    this.patience = patience;
    this.userID = session.user_id;
    this.deviceID = session.device_id;
    this.network = new Network(account.server);
    this.client = createClient({
      baseUrl: account.server.url,
      userId: session.user_id,
      deviceId: session.device_id,
      accessToken: session.access_token,
      fetchFn: this.network.fetch,
      logger: loggerFor(name),
      disableVoip: true,
      cryptoCallbacks: { getSecretStorageKey: (wanted) => this.#secretStorageKey(wanted) },
    });
  }

  get crypto() {
    return this.client.getCrypto();
  }

  // start returns when the device has done its first sync.
  async start() {
    await this.client.initRustCrypto({ useIndexedDB: false });
    const filter = new Filter(this.userID);
    filter.setTimelineLimit(timelineLimit);
    filter.setUnreadThreadNotifications(true);
    await this.client.startClient({ filter, lazyLoadMembers: true, threadSupport: true, initialSyncLimit: timelineLimit });
    await this.until("the first sync", () => this.client.getSyncState() === SyncState.Syncing);
  }

  stop() {
    this.client.stopClient();
  }

  // until waits for the condition, which is looked at again after each change of
  // the client, and returns what it returned.
  until(what, condition) {
    const late = new Error(`${this.name} waited ${this.patience / 1000} s for ${what}`); // made here for its stack
    return new Promise((resolve, reject) => {
      let looking = false;
      let again = false;
      const look = async () => {
        again = true;
        if (looking) return;
        looking = true;
        try {
          while (again) {
            again = false;
            const found = await condition();
            if (found) return settle(resolve, found);
          }
        } catch (err) {
          return settle(reject, err);
        } finally {
          looking = false;
        }
      };
      const later = () => setImmediate(look); // after the SDK's own listeners
      const settle = (end, value) => {
        clearTimeout(limit);
        for (const change of changes) this.client.off(change, later);
        end(value);
      };
      const limit = setTimeout(() => settle(reject, late), this.patience);
      for (const change of changes) this.client.on(change, later);
      look();
    });
  }

  // unplug returns when the client knows that it is offline.
  async unplug() {
    this.network.unplug();
    await this.loses();
  }

  // loses returns when the client has noticed that its server is gone.
  async loses() {
    await this.until("the loss of the connection", () =>
      [SyncState.Reconnecting, SyncState.Error].includes(this.client.getSyncState()),
    );
  }

  // plug returns when the client has caught up.
  async plug() {
    this.network.plug();
    await this.reconnect();
  }

  // reconnect makes a client that lost its server look for it now.
  async reconnect() {
    this.client.retryImmediately();
    await this.until("the connection", () => this.client.getSyncState() === SyncState.Syncing);
  }

  room(roomID) {
    const room = this.client.getRoom(roomID);
    assert.ok(room, `${this.name} knows ${roomID}`);
    return room;
  }

  // timeline is what the device holds of the room without a gap, oldest first.
  timeline(roomID) {
    return this.room(roomID).getLiveTimeline().getEvents();
  }

  // texts are the messages of the timeline as a user would read them.
  texts(roomID) {
    return this.timeline(roomID)
      .filter((event) => event.getType() === "m.room.message" && event.getContent().msgtype === "m.text")
      .filter((event) => !event.isRelation("m.replace"))
      .map((event) => event.getContent().body);
  }

  // unsent is the message that could not be sent.
  unsent(roomID) {
    return this.timeline(roomID).find((event) => event.status === EventStatus.NOT_SENT);
  }

  // say sends a text and returns the ID of the event.
  async say(roomID, body) {
    neverInClear(body);
    const { event_id: id } = await this.client.sendTextMessage(roomID, body);
    return id;
  }

  // hears waits until the device has the event and has decrypted it.
  async hears(roomID, eventID, what = eventID) {
    const event = await this.until(`the event ${what} in clear`, () => {
      const found = this.client.getRoom(roomID)?.findEventById(eventID);
      return found && isClear(found) ? found : undefined;
    });
    assert.ok(event.isEncrypted(), `${what} came encrypted`);
    return event;
  }

  // raw asks the server for an event as it stores it.
  raw(roomID, eventID) {
    return this.client.fetchRoomEvent(roomID, eventID);
  }

  // freshSync asks for what a client without any history gets. It goes around
  // the device's own network, whose answers are those of one running client.
  async freshSync() {
    const filter = encodeURIComponent(JSON.stringify({ room: { timeline: { limit: 1 } } }));
    const response = await this.account.network.fetch(
      `${this.client.getHomeserverUrl()}/_matrix/client/v3/sync?timeout=0&filter=${filter}`,
      { headers: this.authorization },
    );
    assert.equal(response.status, 200);
    return response.json();
  }

  // authorization is the header of a request that goes around the SDK.
  get authorization() {
    return { Authorization: `Bearer ${this.client.getAccessToken()}` };
  }

  // reads sends a public read receipt and waits until the server counts so.
  async reads(roomID, eventID, left) {
    await this.client.sendReadReceipt(this.room(roomID).findEventById(eventID));
    await this.counts(roomID, left);
  }

  // counts waits until the server has told of that many unread events.
  async counts(roomID, unread) {
    await this.until(`${unread} unread events instead of ${this.network.unread(roomID)}`, () =>
      this.network.unread(roomID) === unread,
    );
  }

  async #secretStorageKey({ keys }) {
    if (!this.recoveryKey) return null;
    const [id] = Object.keys(keys);
    return [id, this.recoveryKey];
  }
}

// isClear tells whether an event never was encrypted or has been decrypted.
export function isClear(event) {
  return event.getType() !== "m.room.encrypted" && !event.isBeingDecrypted() && !event.isDecryptionFailure();
}
