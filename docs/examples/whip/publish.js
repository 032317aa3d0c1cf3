import { WHIPClient } from "@eyevinn/whip-web-client";

/** Speak into a call. Then `await client.getResourceUrl()` waits until it is open, `client.destroy()` hangs up. */
export async function publish(switchboard, userToken) {
  const client = new WHIPClient({
    endpoint: `${switchboard}/sdp?preset=support`, // 1. instead of the streaming service's
    opts: { authkey: userToken }, // 2. the JWT of your own login, or a grant from /token
  });
  await client.setIceServersFromEndpoint();
  const microphone = await navigator.mediaDevices.getUserMedia({ audio: true }); // 3. no video
  await client.ingest(microphone);
  return client;
}
