/** The page of OpenAI's console for the beta: `client_secret.value` from /token, then the offer to `?model=`. */
export async function talk(switchboard, userToken, speaker, onEvent) {
  const headers = { Authorization: `Bearer ${userToken}` }; // 1. the JWT of your own login
  const tokenResponse = await fetch(`${switchboard}/token`, { headers }); // 2. was "/token"
  if (!tokenResponse.ok) throw new Error((await tokenResponse.json()).detail);
  const data = await tokenResponse.json();
  const EPHEMERAL_KEY = data.client_secret.value;

  const pc = new RTCPeerConnection();
  pc.ontrack = (e) => { speaker.srcObject = e.streams[0]; };
  const ms = await navigator.mediaDevices.getUserMedia({ audio: true });
  pc.addTrack(ms.getTracks()[0]);
  const dc = pc.createDataChannel("oai-events");
  dc.addEventListener("message", (e) => onEvent(JSON.parse(e.data)));

  const offer = await pc.createOffer();
  await pc.setLocalDescription(offer);
  const baseUrl = `${switchboard}/v1/realtime`; // 3. was "https://api.openai.com/v1/realtime"
  const model = "gpt-4o-realtime-preview-2024-12-17";
  const sdpResponse = await fetch(`${baseUrl}?model=${model}`, {
    method: "POST",
    body: offer.sdp,
    headers: { Authorization: `Bearer ${EPHEMERAL_KEY}`, "Content-Type": "application/sdp" },
  });
  if (!sdpResponse.ok) throw new Error((await sdpResponse.json()).detail);
  await pc.setRemoteDescription({ type: "answer", sdp: await sdpResponse.text() });
  return pc;
}
