"""The table of clients: what is missing or failed is told, and fails."""

from tests.support.clients import Client, Try, clients, table

PAGE = """
| client | paths | works |
|---|---|---|
| `@scope/name` 1.2.3 | relay, direct | calls |
| `openai` 3.52.0 for Python | relay | calls |
| a page of yours | beta | calls |

| other | table |
"""
KNOWN = {
    "@scope/name": Client("1.2.3", ("relay", "direct")),
    "openai for Python": Client("3.52.0", ("relay",)),
    "a page of yours": Client("", ("beta",)),
}
FIRST = Try("@scope/name", "relay", 120, passed=True)
REST = (
    Try("@scope/name", "direct", 90, passed=True),
    Try("openai for Python", "relay", 1500, passed=True),
    Try("a page of yours", "beta", 70, passed=True),
)


def test_the_page_says_which_clients_there_are():
    assert clients(PAGE) == KNOWN


def test_the_table_is_whole_with_the_median_of_several_tests():
    lines, is_whole = table(KNOWN, [FIRST, Try("@scope/name", "relay", 200, passed=True), *REST])
    assert lines == [
        "client             version  path    connected  result",
        "@scope/name        1.2.3    relay      160 ms  passed",
        "@scope/name        1.2.3    direct      90 ms  passed",
        "openai for Python  3.52.0   relay     1500 ms  passed",
        "a page of yours    –        beta        70 ms  passed",
    ]
    assert is_whole


def test_a_client_without_a_test_is_missing():
    lines, is_whole = table(KNOWN, REST)
    assert lines[1] == "@scope/name        1.2.3    relay           –  missing"
    assert not is_whole


def test_one_test_that_failed_is_enough():
    for failed in (Try("@scope/name", "relay", 80, passed=False), Try("@scope/name", "relay", None, passed=True)):
        lines, is_whole = table(KNOWN, [FIRST, failed, *REST])
        assert lines[1].endswith("failed")
        assert not is_whole
