/** The provider's sample page with the unified interface: the offer to the server, the answer back. */
export async function talk(switchboard, userToken, preset, speaker, onEvent) {
  const pc = new RTCPeerConnection();
  pc.ontrack = (e) => { speaker.srcObject = e.streams[0]; };
  const ms = await navigator.mediaDevices.getUserMedia({ audio: true });
  pc.addTrack(ms.getTracks()[0]);
  const dc = pc.createDataChannel("oai-events");
  dc.addEventListener("message", (e) => onEvent(JSON.parse(e.data)));

  const offer = await pc.createOffer();
  await pc.setLocalDescription(offer);
  const sdpResponse = await fetch(`${switchboard}/session?preset=${preset}`, { // 1. was "/session"
    method: "POST",
    body: offer.sdp,
    headers: {
      Authorization: `Bearer ${userToken}`, // 2. the JWT of your own login
      "Content-Type": "application/sdp",
    },
  });
  if (!sdpResponse.ok) throw new Error((await sdpResponse.json()).detail); // 3. a refusal says why
  await pc.setRemoteDescription({ type: "answer", sdp: await sdpResponse.text() });
  return pc;
}
