"""What a well-formed offer is: a scan over lines, not a parser. The offer itself travels on byte for byte.

Sources: RFC 8866 (SDP), RFC 8839 (ICE in SDP), RFC 8122 (fingerprint), RFC 9725 section 4.2 (what WHIP offers hold).
"""

from switchboard.errors import InvalidOffer, PayloadTooLarge

MEDIA_TYPE = "application/sdp"
MAX_BYTES = 64 * 1024  # the provider's documented bound


def check_offer(offer: bytes) -> None:
    """Refuse what no provider could answer, before it costs anybody anything.

    Raises:
        PayloadTooLarge: more than 64 KB.
        InvalidOffer: not UTF-8, not SDP, or without audio, ICE credentials or a DTLS fingerprint.
    """
    if len(offer) > MAX_BYTES:
        raise PayloadTooLarge(f"An SDP offer may hold {MAX_BYTES} bytes.")
    try:
        text = offer.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidOffer("The offer is not UTF-8 text.") from None
    if "\0" in text:
        raise InvalidOffer("The offer holds a NUL byte.")
    if not text.startswith(("v=0\r\n", "v=0\n")):
        raise InvalidOffer("An SDP offer begins with the line `v=0`.")
    if not text.endswith("\n"):
        # The provider refuses it, and the browser's own text always has it: something on the way cut it off.
        raise InvalidOffer("The offer's last line has no line end; send the browser's `sdp` unchanged.")
    lines = text.split("\n")
    for prefix, meaning in (
        ("m=audio ", "an audio section (`m=audio`)"),
        ("a=ice-ufrag:", "ICE credentials (`a=ice-ufrag`)"),
        ("a=ice-pwd:", "ICE credentials (`a=ice-pwd`)"),
        ("a=fingerprint:", "a DTLS fingerprint (`a=fingerprint`)"),
    ):
        if not any(line.startswith(prefix) for line in lines):
            raise InvalidOffer(f"The offer lacks {meaning}.")


def looks_like_answer(answer: bytes) -> bool:
    """Whether what a provider sent back can be an SDP answer at all."""
    return answer.startswith((b"v=0\r\n", b"v=0\n")) and b"\nm=audio " in answer and answer.endswith(b"\n")
