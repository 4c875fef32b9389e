// Accounts: registration through the client API, and user-interactive
// authentication (client-server API, "User-interactive authentication API").

import assert from "node:assert/strict";

import { createClient } from "matrix-js-sdk";

import { loggerFor } from "./log.mjs";
import { Network } from "./network.mjs";

// An Account is a user with a password.
export class Account {
  constructor(server, localpart) {
    this.server = server;
    this.localpart = localpart;
    this.password = `the password of ${localpart}`;
    this.network = new Network(server);
    this.client = createClient({
      baseUrl: server.url,
      fetchFn: this.network.fetch,
      logger: loggerFor(localpart),
    });
  }

  // register makes the account and logs no device in.
  async register() {
    const request = { username: this.localpart, password: this.password, inhibit_login: true };
    const made = await authenticate(
      (auth) => this.client.registerRequest({ ...request, ...(auth && { auth }) }),
      { type: "m.login.dummy" },
    );
    assert.equal(made.access_token, undefined, "inhibit_login: no device is logged in");
    assert.match(made.user_id, new RegExp(`^@${this.localpart}:.+$`));
    this.userID = made.user_id;
  }

  // login makes a new device and returns the answer of the server. More may hold
  // further members of the request.
  login(deviceName, more = {}) {
    return this.client.loginRequest({
      type: "m.login.password",
      identifier: { type: "m.id.user", user: this.localpart },
      password: this.password,
      initial_device_display_name: deviceName,
      ...more,
    });
  }

  // proves completes a request that asks for the password.
  proves(request) {
    const identifier = { type: "m.id.user", user: this.localpart };
    return authenticate(request, { type: "m.login.password", identifier, password: this.password });
  }
}

// authenticate makes a request that the server may answer with 401 and its
// flows; then it makes it again with the one stage that it can complete.
async function authenticate(request, stage) {
  try {
    return await request(null);
  } catch (err) {
    if (err.httpStatus !== 401) throw err;
    const { flows, session } = err.data;
    assert.equal(typeof session, "string", "the challenge has a session");
    assert.ok(
      flows.some(({ stages }) => stages.length === 1 && stages[0] === stage.type),
      `no flow with ${stage.type} alone in ${JSON.stringify(flows)}`,
    );
    return request({ ...stage, session });
  }
}
