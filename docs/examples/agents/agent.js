import { OpenAIRealtimeWebRTC, RealtimeAgent, RealtimeSession } from "@openai/agents-realtime";

/** The same with an agent, whose instructions take the place of the preset's: they are sent by the page. */
export async function talkToAgent(switchboard, userToken, preset, speaker, instructions, onEvent) {
  const headers = { Authorization: `Bearer ${userToken}` };
  const answer = await fetch(`${switchboard}/token?preset=${preset}`, { headers });
  if (!answer.ok) throw new Error((await answer.json()).detail);
  const { value, calls_url, session: { model } } = await answer.json();
  const transport = new OpenAIRealtimeWebRTC({ baseUrl: calls_url, audioElement: speaker });
  const session = new RealtimeSession(new RealtimeAgent({ name: preset, instructions }), { transport, model });
  session.on("transport_event", onEvent);
  await session.connect({ apiKey: value });
  return session;
}
