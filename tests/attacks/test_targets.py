"""What atheris drives with a million inputs (`make prove-fuzz`), driven by hypothesis with some hundred each time."""

import asyncio
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.attacks import generators, targets

SEEDS, WORDS = targets.seeds(), targets.WORDS

few = settings(
    max_examples=100,
    derandomize=True,
    database=None,
    deadline=500,
    suppress_health_check=[HealthCheck.differing_executors],
)


@pytest.fixture(scope="module")
def drive():
    with asyncio.Runner() as runner:
        yield targets.targets(runner.get_loop().run_until_complete)


def mutants(name: str) -> st.SearchStrategy[bytes]:
    """A good input with something cut out, put in and flipped; or its words in any order."""

    @st.composite
    def mutant(draw: st.DrawFn) -> bytes:
        text = bytearray(draw(st.sampled_from(SEEDS[name])))
        for _ in range(draw(st.integers(1, 4))):
            place = draw(st.integers(0, len(text)))
            end = place + draw(st.integers(0, 8))
            text[place:end] = draw(st.one_of(st.sampled_from([b"", *WORDS[name]]), st.binary(max_size=6)))
        return bytes(text)

    words = st.lists(st.one_of(st.sampled_from(WORDS[name]), st.binary(max_size=4)), max_size=12).map(b"".join)
    return st.one_of(mutant(), words, st.binary(max_size=200))


@pytest.mark.parametrize("name", SEEDS)
def test_what_nobody_would_write(drive, name):
    @few
    @given(mutants(name))
    def each(text: bytes) -> None:
        drive[name](text)

    each()


@pytest.mark.parametrize("name", SEEDS)
def test_the_first_seed_is_taken(drive, name):
    """Else the fuzzers would see little but refusals at the door."""
    assert drive[name](SEEDS[name][0])


@few
@given(generators.offers())
def test_every_browsers_offer_is_taken(drive, offer):
    assert drive["sdp"](offer)
    assert drive["multipart"](b"\3" + offer)


@few
@given(generators.claims("user-fuzz"))
def test_every_good_token_is_taken(drive, claims):
    good = json.loads(SEEDS["jwt"][0].partition(b"\n")[2])
    token = json.dumps({**good, **claims}).encode()
    assert drive["jwt"](b's{"alg":"HS256"}\n' + token)


def test_a_defect_is_no_refusal(drive, monkeypatch):
    """A year beyond what fits into a number was a 500 once; here it is one again."""
    monkeypatch.setattr(
        "switchboard.identity.verifier.Verifier._check_lifetime", lambda self, claims, _: claims["exp"] - 0.5
    )
    good = {**json.loads(SEEDS["jwt"][0].partition(b"\n")[2]), "exp": 10**400}
    with pytest.raises(OverflowError):
        drive["jwt"](b's{"alg":"HS256"}\n' + json.dumps(good).encode())
