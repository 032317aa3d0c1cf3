"""An offer that any provider can answer, made without WebRTC: nobody will ever send media by it.

Sources: RFC 8866 (SDP), RFC 8839 (ICE), RFC 8122 (fingerprint), RFC 8841 (data channel), RFC 9429 (its order).
"""

import secrets


def new_offer() -> bytes:
    """Audio and a data channel, as a browser offers them, with an identity of its own.

    The fingerprint is of no certificate: no candidate is given, so no connection ever gets as far as DTLS.
    """
    fingerprint = ":".join(f"{byte:02X}" for byte in secrets.token_bytes(32))
    transport = [
        "c=IN IP4 0.0.0.0",
        f"a=ice-ufrag:{secrets.token_hex(4)}",
        f"a=ice-pwd:{secrets.token_hex(16)}",
        "a=ice-options:trickle",
        f"a=fingerprint:sha-256 {fingerprint}",
        "a=setup:actpass",
    ]
    lines = [
        "v=0",
        f"o=- {secrets.randbits(62)} 2 IN IP4 127.0.0.1",
        "s=-",
        "t=0 0",
        "a=group:BUNDLE 0 1",
        "a=msid-semantic: WMS *",
        "m=audio 9 UDP/TLS/RTP/SAVPF 111 0 8",
        *transport,
        "a=mid:0",
        "a=sendrecv",
        "a=msid:- probe",
        "a=rtcp:9 IN IP4 0.0.0.0",
        "a=rtcp-mux",
        "a=rtpmap:111 opus/48000/2",
        "a=fmtp:111 minptime=10;useinbandfec=1",
        "a=rtpmap:0 PCMU/8000",
        "a=rtpmap:8 PCMA/8000",
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
        *transport,
        "a=mid:1",
        "a=sctp-port:5000",
        "a=max-message-size:262144",
    ]
    return "\r\n".join([*lines, ""]).encode()
