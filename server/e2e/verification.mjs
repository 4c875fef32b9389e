// Verification by comparing a short authentication string, as two users do it
// (client-server API, "Short Authentication String (SAS) verification").

import assert from "node:assert/strict";

import {
  CryptoEvent,
  VerificationPhase,
  VerificationRequestEvent,
  VerifierEvent,
} from "matrix-js-sdk/lib/crypto-api/index.js";

const patience = 20_000; // ms for each step

// verify lets `from` ask by `request` and `to` accept; both compare emoji.
export async function verify(from, to, request) {
  const asked = once(to.client, CryptoEvent.VerificationRequestReceived, `${to.name}: a verification request`);
  const ours = await request();
  const theirs = await asked;
  assert.equal(theirs.otherUserId, from.userID);
  assert.equal(theirs.initiatedByMe, false);
  assert.equal(theirs.transactionId, ours.transactionId);

  await theirs.accept();
  await phase(ours, VerificationPhase.Ready, `${from.name}: the acceptance`);
  assert.ok(ours.otherPartySupportsMethod("m.sas.v1"));
  const verifier = await ours.startVerification("m.sas.v1");
  await phase(theirs, VerificationPhase.Started, `${to.name}: the start`);
  assert.equal(theirs.chosenMethod, "m.sas.v1");

  const shown = [sas(verifier, from.name), sas(theirs.verifier, to.name)];
  const done = [verifier.verify(), theirs.verifier.verify()];
  const [left, right] = await raceWith(Promise.all(shown), done);
  assert.equal(left.sas.emoji.length, 7);
  assert.deepEqual(left.sas, right.sas, "both see the same emoji and numbers");

  await left.confirm();
  await right.confirm();
  await Promise.all(done);
  await phase(ours, VerificationPhase.Done, `${from.name}: the end`);
  await phase(theirs, VerificationPhase.Done, `${to.name}: the end`);
}

async function sas(verifier, name) {
  return verifier.getShowSasCallbacks() ?? (await once(verifier, VerifierEvent.ShowSas, `${name}: the emoji`));
}

// raceWith fails as soon as one of the others does.
function raceWith(promise, others) {
  return Promise.race([promise, Promise.all(others).then(() => promise)]);
}

function phase(request, wanted, what) {
  return new Promise((resolve, reject) => {
    const settle = (end, value) => {
      clearTimeout(limit);
      request.off(VerificationRequestEvent.Change, look);
      end(value);
    };
    const look = () => {
      if (request.phase === wanted) settle(resolve);
      if (request.phase === VerificationPhase.Cancelled) {
        settle(reject, new Error(`${what}: cancelled with ${request.cancellationCode}`));
      }
    };
    const limit = setTimeout(
      () => settle(reject, new Error(`${what} did not come, phase is ${VerificationPhase[request.phase]}`)),
      patience,
    );
    request.on(VerificationRequestEvent.Change, look);
    look();
  });
}

function once(emitter, event, what) {
  return new Promise((resolve, reject) => {
    const limit = setTimeout(() => {
      emitter.off(event, take);
      reject(new Error(`${what} did not come`));
    }, patience);
    const take = (value) => {
      clearTimeout(limit);
      resolve(value);
    };
    emitter.once(event, take);
  });
}
