/** A page that was written for LiteLLM's WebRTC routes: a token, then the offer with it, both to the proxy. */
export async function talk(switchboard, userToken, preset, speaker, onEvent) {
  const tokenAnswer = await fetch(`${switchboard}/v1/realtime/client_secrets`, { // 1. was the proxy's address
    method: "POST",
    headers: { Authorization: `Bearer ${userToken}`, "Content-Type": "application/json" }, // 2. was a key of LiteLLM's
    body: JSON.stringify({ session: { type: "realtime", model: preset } }), // 3. was { model }; now a preset's name
  });
  if (!tokenAnswer.ok) throw new Error((await tokenAnswer.json()).detail);
  const token = (await tokenAnswer.json()).value; // 4. was client_secret.value

  const peer = new RTCPeerConnection();
  peer.ontrack = ({ streams }) => { speaker.srcObject = streams[0]; };
  const microphone = await navigator.mediaDevices.getUserMedia({ audio: true });
  peer.addTrack(microphone.getTracks()[0]);
  peer.createDataChannel("oai-events").onmessage = ({ data }) => onEvent(JSON.parse(data));
  await peer.setLocalDescription(await peer.createOffer());

  const answer = await fetch(`${switchboard}/v1/realtime/calls`, { // as it was
    method: "POST",
    headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/sdp" },
    body: peer.localDescription.sdp,
  });
  if (!answer.ok) throw new Error((await answer.json()).detail);
  await peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });
  return peer;
}
