from collections.abc import Callable
from typing import Any

import httpx
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription


async def call(
    switchboard: str, user_token: str, microphone: MediaStreamTrack, on_event: Callable[[Any], Any]
) -> tuple[RTCPeerConnection, str]:
    """Speaks into a call: its connection, whose receiver has the voice of the other side, and its address."""
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))  # 1. the provider has a public address: no STUN
    peer.addTrack(microphone)
    peer.createDataChannel("oai-events").on("message", on_event)
    await peer.setLocalDescription(await peer.createOffer())
    headers = {"authorization": f"Bearer {user_token}", "content-type": "application/sdp"}  # 2. the JWT of your login
    async with httpx.AsyncClient(base_url=switchboard, headers=headers) as http:
        answer = await http.post("/sdp?preset=support", content=peer.localDescription.sdp)  # 3. no model: a preset
    if answer.is_error:
        await peer.close()
        raise ConnectionError(answer.json()["detail"])
    await peer.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
    return peer, f"{switchboard}{answer.headers['location']}"


async def hang_up(call_url: str, user_token: str, peer: RTCPeerConnection) -> None:
    await peer.close()
    async with httpx.AsyncClient() as http:
        await http.delete(call_url, headers={"authorization": f"Bearer {user_token}"})
