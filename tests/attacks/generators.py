"""Hypothesis strategies for what the service takes: offers as browsers make them, tokens, sessions, forms."""

from hypothesis import strategies as st

from switchboard.sdp import MAX_BYTES

ICE_CHARS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/"  # RFC 8839, section 5.4
_ice = lambda low, high: st.text(ICE_CHARS, min_size=low, max_size=high)  # noqa: E731


def _candidate(number: int, address: str, port: int) -> str:
    return f"a=candidate:{number} 1 udp 2113937151 {address} {port} typ host"


@st.composite
def offers(draw: st.DrawFn) -> bytes:
    """An offer that a browser could have made: RFC 8866, with what WebRTC adds; at most what the service takes."""
    end = draw(st.sampled_from(["\r\n", "\n"]))
    fingerprint = ":".join(f"{byte:02X}" for byte in draw(st.binary(min_size=32, max_size=32)))
    transport = [
        "c=IN IP4 0.0.0.0",
        f"a=ice-ufrag:{draw(_ice(4, 32))}",
        f"a=ice-pwd:{draw(_ice(22, 64))}",
        f"a=fingerprint:sha-256 {fingerprint}",
        "a=setup:actpass",
    ]
    candidates = [
        _candidate(number, draw(st.ip_addresses().map(str)), draw(st.integers(1, 65535)))
        for number in range(draw(st.integers(0, 6)))
    ]
    audio = [
        "m=audio 9 UDP/TLS/RTP/SAVPF 111 0",
        *transport,
        "a=mid:0",
        draw(st.sampled_from(["a=sendrecv", "a=sendonly", "a=recvonly"])),
        "a=rtcp-mux",
        "a=rtpmap:111 opus/48000/2",
        *candidates,
    ]
    data = ["m=application 9 UDP/DTLS/SCTP webrtc-datachannel", *transport, "a=mid:1", "a=sctp-port:5000"]
    sections = draw(st.sampled_from([[audio], [audio, data], [data, audio]]))
    name = draw(st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), max_size=20))
    head = ["v=0", f"o=- {draw(st.integers(0, 2**63))} 2 IN IP4 127.0.0.1", f"s={name or '-'}", "t=0 0"]
    offer = "".join(line + end for section in [head, *sections] for line in section).encode()
    assert len(offer) <= MAX_BYTES
    return offer


def sessions() -> st.SearchStrategy[dict[str, object]]:
    """What the example's preset `support` lets a caller change, in every combination."""
    voice = st.sampled_from(["marin", "cedar"])
    speed = st.floats(0.8, 1.2)
    output = st.fixed_dictionaries({}, optional={"voice": voice, "speed": speed})
    return st.fixed_dictionaries({}, optional={"audio": st.fixed_dictionaries({}, optional={"output": output})})


def claims(subject: str) -> st.SearchStrategy[dict[str, object]]:
    """Changes to good claims that leave them good: audiences in a list, other people's claims, odd names."""
    text = st.text(st.characters(codec="utf-8"), max_size=40)
    json = st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | text, st.lists, max_leaves=4)
    return st.fixed_dictionaries(
        {"sub": st.just(subject)},
        optional={
            "aud": st.just(["another", "switchboard"]),
            "nbf": st.integers(0, 1_700_000_000),
            "name": json,
            "plan": st.sampled_from(["free", "pro", ["pro"], None, 7]),
            "jti": text,
            "https://acme.example/roles": json,
        },
    )
