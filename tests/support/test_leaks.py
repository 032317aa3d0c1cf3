"""The scan finds what it is for."""

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
