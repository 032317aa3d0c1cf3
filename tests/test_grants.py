from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import replace

import pytest

from switchboard.errors import GrantExpired, InvalidRequest, InvalidToken
from switchboard.grants import MAX_BYTES, PREFIX, Grants
from switchboard.identity import Principal

ALICE = Principal("https://login.acme.example/", "user-alice-1f8e", "acme", {"plan": "pro", "org": {"id": 7}})
OLD, NEW = b"an-old-secret-of-32-characters-or-more", b"a-new-secret-of-32-characters-or-more"


def grants(*secrets, now=1000.0) -> Grants:
    return Grants(secrets or (NEW,), clock=lambda: now)


def issue(made: Grants):
    return made.issue(ALICE, preset="support", wanted={"audio": {"output": {"voice": "cedar"}}}, seconds=60)


def test_what_is_sealed_is_opened():
    token, grant = issue(grants())
    assert token.startswith("ek_swb_")
    assert grants().open(token) == grant
    assert grant.expires_at == 1060
    assert grant.principal == ALICE


def test_nothing_can_be_read_from_outside():
    token, _ = issue(grants())
    encoded = token.removeprefix(PREFIX)
    raw = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    for text in (b"alice", b"acme", b"support", b"cedar"):
        assert text not in raw


def test_two_grants_differ():
    made = grants()
    assert issue(made)[0] != issue(made)[0]
    assert issue(made)[1].id != issue(made)[1].id


def test_secrets_rotate():
    old, old_grant = issue(grants(OLD))
    new, new_grant = issue(grants(NEW, OLD))
    both = grants(NEW, OLD)
    assert both.open(old) == old_grant
    assert both.open(new) == grants(NEW).open(new) == new_grant
    with pytest.raises(InvalidToken):
        grants(NEW).open(old)


def test_a_grant_ends():
    token, grant = issue(grants())
    assert grants(now=1059.9).open(token) == grant
    with pytest.raises(GrantExpired):
        grants(now=1060.0).open(token)
    assert grants(now=9999.0).open(token, even_expired=True) == grant


def test_every_changed_byte_is_noticed():
    token, _ = issue(grants())
    encoded = token.removeprefix(PREFIX)
    raw = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    for place in range(len(raw)):
        changed = bytearray(raw)
        changed[place] ^= 1
        with pytest.raises(InvalidToken):
            grants().open(PREFIX + urlsafe_b64encode(bytes(changed)).decode().rstrip("="))


def test_a_grant_fits_into_a_header():
    with pytest.raises(InvalidRequest, match="too large for a grant"):
        grants().issue(ALICE, preset="support", wanted={"instructions": "x" * MAX_BYTES}, seconds=60)


@pytest.mark.parametrize("value", ["\ud800", 2**70])
def test_claims_that_cannot_be_written(value):
    principal = replace(ALICE, claims={"plan": value})
    with pytest.raises(InvalidToken):
        grants().issue(principal, preset="support", wanted={}, seconds=60)


@pytest.mark.parametrize("text", ["", "A", "AAAA", "!!!!", "é", "A" * 5000, "=" * 10, "x" * MAX_BYTES])
def test_nonsense(text):
    with pytest.raises(InvalidToken):
        grants().open(PREFIX + text)
