"""What the provider takes for an offer, and an answer that fits one without any media behind it."""

import secrets
from typing import Final

from switchboard.emulator.refusal import invalid_offer

_NEEDED: Final = ("m=audio ", "a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:", "a=setup:")
_DATA_CHANNEL: Final = "m=application "


def checked_offer(body: bytes) -> str:
    """The offer as text; the missing end of its last line alone is enough for a refusal."""
    try:
        offer = body.decode("utf-8")
    except UnicodeDecodeError:
        raise invalid_offer() from None
    lines = offer.splitlines()
    whole = offer.startswith("v=0") and offer.endswith("\n")
    if not whole or not all(any(line.startswith(need) for line in lines) for need in _NEEDED):
        raise invalid_offer()
    return offer


def has_data_channel(offer: str) -> bool:
    return any(line.startswith(_DATA_CHANNEL) for line in offer.splitlines())


def canned_answer(offer: str) -> str:
    """One section for each of the offer's, in its order, shaped like a recorded answer; nothing listens."""
    ufrag, password = secrets.token_urlsafe(6), secrets.token_urlsafe(24)
    digest = ":".join(f"{byte:02X}" for byte in secrets.token_bytes(32))
    sections = _sections(offer)
    lines = [
        "v=0",
        f"o=- {secrets.randbits(62)} 2 IN IP4 0.0.0.0",
        "s=-",
        "t=0 0",
        "a=msid-semantic:WMS *",
        f"a=fingerprint:sha-256 {digest}",
        "a=ice-lite",
        f"a=group:BUNDLE {' '.join(mid for _, mid in sections)}",
    ]
    for media, mid in sections:
        lines += [media, "c=IN IP4 0.0.0.0", "a=setup:passive", f"a=mid:{mid}"]
        lines += [f"a=ice-ufrag:{ufrag}", f"a=ice-pwd:{password}", *_details(media)]
        lines += ["a=candidate:1 1 udp 2130706431 192.0.2.1 3478 typ host", "a=end-of-candidates"]
    return "\r\n".join([*lines, ""])


def _sections(offer: str) -> list[tuple[str, str]]:
    """The `m=` line to answer with, and the `mid`, of each section."""
    sections: list[tuple[str, str]] = []
    for line in offer.splitlines():
        if line.startswith("m="):
            sections.append((_media(line), str(len(sections))))
        elif line.startswith("a=mid:") and sections:
            sections[-1] = (sections[-1][0], line.removeprefix("a=mid:"))
    return sections


def _media(line: str) -> str:
    if line.startswith("m=audio "):
        return "m=audio 9 UDP/TLS/RTP/SAVPF 111"
    if line.startswith(_DATA_CHANNEL):
        return "m=application 9 UDP/DTLS/SCTP webrtc-datachannel"
    kind = line.split(" ", 1)[0]
    return f"{kind} 0 UDP/TLS/RTP/SAVPF 0"


def _details(media: str) -> list[str]:
    if media.startswith("m=audio "):
        return [
            "a=rtcp-mux",
            "a=rtpmap:111 opus/48000/2",
            "a=fmtp:111 minptime=10;useinbandfec=1",
            "a=sendrecv",
        ]
    if media.startswith(_DATA_CHANNEL):
        return ["a=sctp-port:5000", "a=max-message-size:1073741823"]
    return ["a=inactive"]
