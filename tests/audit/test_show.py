import pytest

from switchboard.audit.show import Filter, header, row, wanted
from tests.support.chains import decision

RECORDS = [
    decision(1, tenant="acme", outcome="allowed", action="call.open", call_id="rtc_1"),
    decision(2, tenant="acme", outcome="denied", reason="rate_limited"),
    decision(3, tenant="widgets", outcome="error"),
]


@pytest.mark.parametrize(
    ("which", "taken"),
    [
        (Filter(), [1, 2, 3]),
        (Filter(tenant="acme"), [1, 2]),
        (Filter(tenant="acme", outcome="denied"), [2]),
        (Filter(action="call.open"), [1]),
        (Filter(call_id="rtc_1"), [1]),
        (Filter(user_key=f"{2:064x}"), [2]),
        (Filter(user_key="0" * 63), [1, 2, 3]),
        (Filter(user_key="f"), []),
        (Filter(since="2026-11-20T10:00:00.002Z"), [2, 3]),
        (Filter(until="2026-11-20T10:00:00.002Z"), [1]),
        (Filter(since="2026-11-20T10:00:00.002Z", until="2026-11-20T10:00:00.003Z"), [2]),
    ],
)
def test_filters(which, taken):
    assert [int(record["id"], 16) for _, record in wanted(RECORDS, which)] == taken


def test_what_is_no_record_is_left_out():
    lines = [b"", b"\n", b"[1]", b"torn {", b'{"some":"json"}', b'"x"', *RECORDS]
    assert [line for line, _ in wanted(lines, Filter())] == RECORDS


def test_the_table():
    ((_, record),) = wanted(RECORDS[:1], Filter())
    assert header().split() == [
        "time", "action", "outcome", "reason", "tenant", "preset", "user_key", "call_id", "request_id"
    ]  # fmt: skip
    assert row(record).split() == [
        "2026-11-20T10:00:00.001Z", "call.open", "allowed", "ok", "acme", "–", "0" * 12, "rtc_1", "r-1"
    ]  # fmt: skip
    assert header().index("call_id") == row(record).index("rtc_1")
