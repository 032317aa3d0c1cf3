import { OpenAIRealtimeWebRTC } from "@openai/agents-realtime";

/** Talk with the assistant of a preset. Then `callId` of what is returned names the call. */
export async function talk(switchboard, userToken, preset, speaker, onEvent) {
  const headers = { Authorization: `Bearer ${userToken}` }; // the JWT of your own login
  const answer = await fetch(`${switchboard}/token?preset=${preset}`, { headers }); // 1. instead of a route of your own
  if (!answer.ok) throw new Error((await answer.json()).detail);
  const { value, calls_url, session } = await answer.json();
  const transport = new OpenAIRealtimeWebRTC({ baseUrl: calls_url, audioElement: speaker }); // 2. where the token is good
  transport.on("*", onEvent);
  await transport.connect({ apiKey: value, model: session.model }); // 3. the preset's model, not the package's default
  return transport;
}

/** Hang up a call that goes through Switchboard. One by a client secret ends with `transport.close()` alone. */
export async function hangUp(switchboard, userToken, transport) {
  const call = `${switchboard}/sdp/${transport.callId}`;
  transport.close(); // after which it has no `callId`
  const headers = { Authorization: `Bearer ${userToken}` };
  return (await fetch(call, { method: "DELETE", keepalive: true, headers })).json();
}
