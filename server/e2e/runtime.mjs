// What the SDK expects of its runtime and Node 20 lacks. The SDK is written for
// Node 22; Promise.withResolvers is all that the story would miss without it.
// Import this file before the SDK.

Promise.withResolvers ??= function withResolvers() {
  const made = {};
  made.promise = new this((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
};
