import OpenAI from "openai";
import { OpenAIRealtimeWS } from "openai/realtime/ws"; // which needs the package `ws`

/** Asks in text: by a client secret from Switchboard, over a WebSocket that goes straight to the provider. */
export async function ask(switchboard, provider, userToken, question) {
  const here = new OpenAI({ baseURL: `${switchboard}/v1`, apiKey: userToken }); // 1. the JWT of your own login
  const { value, session } = await here.realtime.clientSecrets.create({});
  const there = new OpenAI({ baseURL: provider, apiKey: value }); // 2. the secret in place of a key
  const socket = new OpenAIRealtimeWS({ model: session.model }, there); // 3. the model of the preset
  return new Promise((resolve, reject) => {
    socket.on("session.created", () => {
      socket.send({ type: "session.update", session: { type: "realtime", output_modalities: ["text"] } });
      const content = [{ type: "input_text", text: question }];
      socket.send({ type: "conversation.item.create", item: { type: "message", role: "user", content } });
      socket.send({ type: "response.create" });
    });
    socket.on("response.output_text.done", ({ text }) => resolve(text));
    socket.on("error", reject);
  }).finally(() => socket.close());
}
