import OpenAI from "openai";

/** Opens a call with a peer connection's offer: its id, and the answer for that connection. */
export async function openCall(switchboard, userToken, offer) {
  const client = new OpenAI({
    baseURL: `${switchboard}/v1`, // 1. instead of OpenAI's
    apiKey: userToken, // 2. the JWT of your own login, or a grant; no key of OpenAI's
  });
  const session = { type: "realtime", model: "support" }; // 3. the preset's name, and what it lets a caller change
  const answer = await client.realtime.calls.create({ sdp: offer, session });
  return { callId: answer.headers.get("location").split("/").at(-1), answer: await answer.text() };
}

export async function hangUp(switchboard, userToken, callId) {
  await new OpenAI({ baseURL: `${switchboard}/v1`, apiKey: userToken }).realtime.calls.hangup(callId);
}
