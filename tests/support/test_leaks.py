"""The scan finds what it is for."""

import base64
from urllib.parse import quote

import pytest

from tests.support.leaks import Leaks


def test_a_planted_secret_is_found_where_it_was_said():
    leaks = Leaks()
    leaks.plant("API key", "sk-planted-1234")
    leaks.saw("log", "all is well")
    assert leaks.found() == []
    leaks.saw("log", "key sk-planted-1234 refused")
    assert leaks.found() == ["API key in log: …key [HERE]"]


def test_a_credential_is_pardoned_in_its_own_answer_alone():
    leaks = Leaks()
    value = "ek_" + "x" * 60
    leaks.handed_out("answer 1", value)
    leaks.saw("answer 1", f'{{"value": "{value}"}}')
    assert leaks.found() == []
    leaks.saw("audit", f"call_id: {value[:45]}")
    assert [one.partition(":")[0] for one in leaks.found()] == ["client secret or grant in audit"]


@pytest.mark.parametrize(
    "form",
    [
        lambda text: text,
        lambda text: quote(text, safe=""),
        lambda text: text.encode().hex(),
        lambda text: base64.b64encode(text.encode()).decode(),
        lambda text: base64.b64encode(f"a{text}bc".encode()).decode(),
        lambda text: base64.urlsafe_b64encode(f"ab{text}".encode()).decode().rstrip("="),
        lambda text: text.encode("unicode_escape").decode(),
    ],
)
def test_a_planted_secret_is_found_in_every_form(form):
    leaks = Leaks()
    secret = leaks.plant("subject", "user/ä?planted>>1234")
    leaks.saw("header", f"X-Odd: {form(secret)}")
    assert [one.partition(":")[0] for one in leaks.found()] == ["subject in header"]


def test_what_a_credential_holds_is_no_leak_in_its_own_answer_and_is_one_beside_it():
    leaks = Leaks()
    leaks.plant("subject", "user-planted-1234")
    claims = base64.urlsafe_b64encode(b'{"sub":"user-planted-1234"}').decode()
    token = f"head.{claims}.signature"
    leaks.saw("answer 1", f"token: {token}")
    assert len(leaks.found()) == 1
    leaks.handed_out("answer 1", token)
    assert leaks.found() == []
    leaks.saw("answer 1", "and it is user-planted-1234")
    assert len(leaks.found()) == 1
