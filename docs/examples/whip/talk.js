import { WHIPClient } from "@eyevinn/whip-web-client";

/** The same, and hear the answer: WHIP itself goes one way, so the peer connection is made here. */
export async function talk(switchboard, userToken, speaker, onEvent) {
  const client = new WHIPClient({
    endpoint: `${switchboard}/sdp?preset=support`,
    opts: { authkey: userToken, iceServers: [], noTrickleIce: true, timeout: 300 }, // asks nothing beforehand, waits 300 ms
    peerConnectionFactory: (configuration) => {
      const peer = new RTCPeerConnection(configuration);
      peer.createOffer = () => RTCPeerConnection.prototype.createOffer.call(peer); // without "no audio back"
      peer.ontrack = ({ streams }) => { speaker.srcObject = streams[0]; };
      peer.createDataChannel("oai-events").onmessage = ({ data }) => onEvent(JSON.parse(data));
      return peer;
    },
  });
  await client.ingest(await navigator.mediaDevices.getUserMedia({ audio: true }));
  return client;
}
