// Does with the package `openai` what each line on standard input says, and answers with a line: what it gave, or threw.
import { createInterface } from "node:readline";
import OpenAI from "openai";

import * as example from "../../../docs/examples/openai/call.js";

const OPERATIONS = {
  create_secret: ({ client, body = {}, query }) => client.realtime.clientSecrets.create(body, { query }),
  create_translation: ({ client, body }) => client.realtime.translations.clientSecrets.create(body),
  async create_call({ client, body, query }) {
    const answer = await client.realtime.calls.create(body, { query });
    return { location: answer.headers.get("location"), answer: await answer.text() };
  },
  hang_up: ({ client, call_id }) => client.realtime.calls.hangup(call_id),
  async open_by_example({ url, token, offer }) {
    const { callId, answer } = await example.openCall(url, token, offer);
    return { call_id: callId, answer };
  },
  hang_up_by_example: ({ url, token, call_id }) => example.hangUp(url, token, call_id),
};

function told(error) {
  // By what the package calls it: a build may give its classes other names.
  const threw = Object.keys(OpenAI).find((name) => OpenAI[name] === error.constructor) ?? error.constructor.name;
  if (!(error instanceof OpenAI.APIError)) return { threw, message: error.stack };
  const { status, code, param, type, message, requestID, error: body } = error;
  return { threw, status, code, param, type, message, request_id: requestID, body };
}

for await (const line of createInterface({ input: process.stdin })) {
  const { operation, url, token, timeout, ...rest } = JSON.parse(line);
  const settings = timeout ? { timeout: timeout * 1000 } : {};
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: token, ...settings });
  const outcome = await OPERATIONS[operation]({ client, url, token, ...rest }).then(
    (gave) => ({ gave: typeof gave === "object" ? gave : null }), // of a hang-up: undefined, or an empty text
    told,
  );
  console.log(JSON.stringify(outcome));
}
