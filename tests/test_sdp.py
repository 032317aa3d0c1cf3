import pytest

from switchboard.errors import InvalidOffer, PayloadTooLarge
from switchboard.sdp import MAX_BYTES, check_offer, looks_like_answer
from tests.support.world import OFFER


def test_a_browsers_offer_is_fine():
    check_offer(OFFER)
    check_offer(OFFER.replace(b"\r\n", b"\n"))


@pytest.mark.parametrize(
    ("offer", "reason"),
    [
        (b"", "v=0"),
        (b"\xff\xfe" + OFFER, "UTF-8"),
        (b"v=0\r\n\0" + OFFER, "NUL"),
        (b"hello", "v=0"),
        (b"v=1\r\n", "v=0"),
        (b" " + OFFER, "v=0"),
        (b"v=00\r\n" + OFFER, "v=0"),
        (OFFER[:-2], "line end"),
        (OFFER.rstrip(), "line end"),
        (OFFER.replace(b"m=audio", b"m=video"), "audio section"),
        (OFFER.replace(b"a=ice-ufrag:", b"a=x-ufrag:"), "ice-ufrag"),
        (OFFER.replace(b"a=ice-pwd:", b"a=x-pwd:"), "ice-pwd"),
        (OFFER.replace(b"a=fingerprint:", b"a=x:"), "fingerprint"),
        (b"v=0\r\ns=m=audio a=ice-ufrag: a=ice-pwd: a=fingerprint:\r\n", "audio section"),
    ],
)
def test_what_cannot_be_an_offer(offer, reason):
    with pytest.raises(InvalidOffer, match=reason):
        check_offer(offer)


def test_an_offer_is_bounded():
    filled = OFFER + b"a=x:" + b"y" * (MAX_BYTES - len(OFFER) - 6) + b"\r\n"
    assert len(filled) == MAX_BYTES
    check_offer(filled)
    with pytest.raises(PayloadTooLarge):
        check_offer(filled + b"\n")


def test_answers():
    assert looks_like_answer(OFFER)
    for answer in (b"", b"v=0\r\n", b"<html>", OFFER.rstrip(), OFFER.replace(b"m=audio", b"m=video")):
        assert not looks_like_answer(answer)
