"""What is remembered of verified tokens: so many, those used last."""

import gc

from switchboard.identity import Principal
from switchboard.identity.keys import StaticKey
from switchboard.identity.known import Known, KnownTokens

KEYS = StaticKey(b"key")


def known(subject: str) -> Known:
    principal = Principal("https://login.acme.example/", subject, "acme", {"sub": subject})
    return Known(principal, KEYS, None, "HS256", b"key", begins=0.0, ends=1.0)


def test_those_used_last_are_known():
    tokens = KnownTokens(most=2)
    tokens.put("a", known("a"))
    tokens.put("b", known("b"))
    assert tokens.get("a") == known("a")
    tokens.put("c", known("c"))
    assert [tokens.get(token) for token in "abc"] == [known("a"), None, known("c")]
    assert len(tokens) == 2


def test_a_token_itself_is_not_kept():
    tokens = KnownTokens()
    token = "a-token-" + "x" * 4000
    tokens.put(token, known("a"))
    assert not any(
        token is found for holder in gc.get_referrers(tokens.get(token)) for found in gc.get_referents(holder)
    )
    assert token not in repr(vars(tokens))


def test_any_text_may_be_asked_for():
    assert KnownTokens().get("\ud800") is None
