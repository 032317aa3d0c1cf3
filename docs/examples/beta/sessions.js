/** A page of the beta that chose its session by itself: a flat one to /v1/realtime/sessions, then the offer. */
export async function talk(switchboard, userToken, flat, speaker, onEvent) {
  const base = `${switchboard}/v1/realtime`; // 1. was "https://api.openai.com/v1/realtime"
  const beta = { "OpenAI-Beta": "realtime=v1" };
  const minted = await fetch(`${base}/sessions`, {
    method: "POST",
    headers: { Authorization: `Bearer ${userToken}`, "Content-Type": "application/json", ...beta }, // 2. was a key
    body: JSON.stringify(flat), // 3. as it was, with what the preset lets a caller change
  });
  if (!minted.ok) throw new Error((await minted.json()).detail);
  const { client_secret, model } = await minted.json();

  const peer = new RTCPeerConnection();
  peer.ontrack = ({ streams }) => { speaker.srcObject = streams[0]; };
  const microphone = await navigator.mediaDevices.getUserMedia({ audio: true });
  peer.addTrack(microphone.getAudioTracks()[0]);
  peer.createDataChannel("oai-events").onmessage = ({ data }) => onEvent(JSON.parse(data));
  await peer.setLocalDescription();
  const answered = await fetch(`${base}?model=${model}`, {
    method: "POST",
    headers: { Authorization: `Bearer ${client_secret.value}`, "Content-Type": "application/sdp", ...beta },
    body: peer.localDescription.sdp,
  });
  if (!answered.ok) throw new Error((await answered.json()).detail);
  await peer.setRemoteDescription({ type: "answer", sdp: await answered.text() });
  return { peer, dropped: minted.headers.get("Switchboard-Dropped") };
}
