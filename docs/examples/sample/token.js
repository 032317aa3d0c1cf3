/** The provider's sample page with a token: a secret from /token, then the offer to where it is good. */
export async function talk(switchboard, userToken, preset, speaker, onEvent) {
  const headers = { Authorization: `Bearer ${userToken}` }; // 1. the JWT of your own login
  const tokenResponse = await fetch(`${switchboard}/token?preset=${preset}`, { headers }); // 2. was "/token"
  if (!tokenResponse.ok) throw new Error((await tokenResponse.json()).detail);
  const data = await tokenResponse.json();
  const EPHEMERAL_KEY = data.value;

  const pc = new RTCPeerConnection();
  pc.ontrack = (e) => { speaker.srcObject = e.streams[0]; };
  const ms = await navigator.mediaDevices.getUserMedia({ audio: true });
  pc.addTrack(ms.getTracks()[0]);
  const dc = pc.createDataChannel("oai-events");
  dc.addEventListener("message", (e) => onEvent(JSON.parse(e.data)));

  const offer = await pc.createOffer();
  await pc.setLocalDescription(offer);
  const sdpResponse = await fetch(data.calls_url, { // 3. was "https://api.openai.com/v1/realtime/calls"
    method: "POST",
    body: offer.sdp,
    headers: { Authorization: `Bearer ${EPHEMERAL_KEY}`, "Content-Type": "application/sdp" },
  });
  if (!sdpResponse.ok) throw new Error(`No call: ${sdpResponse.status}`);
  await pc.setRemoteDescription({ type: "answer", sdp: await sdpResponse.text() });
  return pc;
}
