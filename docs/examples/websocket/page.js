/** Opens a WebSocket from a page straight to the provider, by a client secret from Switchboard. */
export async function open(switchboard, userToken, preset, onEvent) {
  const headers = { Authorization: `Bearer ${userToken}` }; // 1. the JWT of your own login
  const answer = await fetch(`${switchboard}/token?preset=${preset}`, { headers });
  if (!answer.ok) throw new Error((await answer.json()).detail);
  const { value, calls_url, session } = await answer.json();
  const url = new URL(calls_url.replace(/^http/, "ws").replace(/\/calls$/, "")); // 2. such as wss://api.openai.com/v1/realtime
  url.searchParams.set("model", session.model);
  const socket = new WebSocket(url, ["realtime", `openai-insecure-api-key.${value}`]); // 3. a page has no headers here
  socket.onmessage = ({ data }) => onEvent(JSON.parse(data));
  return socket;
}
