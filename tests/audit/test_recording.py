import asyncio

import pytest

from switchboard.audit import MAX_TEXT, RECORDED, Audit, Caller, Event
from switchboard.audit.chain import CHAINED
from switchboard.audit.sinks import Sink
from switchboard.errors import AuditUnavailable, ProviderTimeout, TenantSuspended
from tests.support.world import ListSink

pytestmark = pytest.mark.anyio
CALLER = Caller("r-1", "token", "https://app.example", "192.0.2.1", "agent")


async def test_a_record_has_the_documented_fields_in_order():
    assert RECORDED + CHAINED == (
        "time", "id", "request_id", "action", "outcome", "reason", "tenant", "issuer", "user_key", "preset",
        "overrides", "dropped", "shadow", "provider", "provider_request_id", "credential_sha256", "call_id",
        "expires_at", "seconds", "origin", "client_ip", "user_agent", "duration_ms",
        "chain", "seq", "prev", "hash",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("raised", "outcome", "reason"),
    [
        (None, "allowed", "ok"),
        (TenantSuspended(), "denied", "tenant_suspended"),
        (ProviderTimeout(), "error", "provider_timeout"),
        (RuntimeError("x"), "error", "internal_error"),
        (asyncio.CancelledError(), "error", "cancelled"),
    ],
)
async def test_every_way_out_is_recorded(raised, outcome, reason):
    sink = ListSink()
    seen: list[Event] = []
    audit = Audit(sink, observers=[seen.append])

    async def decide():
        async with audit.record("token.mint", CALLER) as event:
            event.tenant = "acme"
            if raised is not None:
                raise raised

    if raised is None:
        await decide()
    else:
        with pytest.raises(type(raised)):
            await decide()
    (record,) = sink.records
    assert record == {
        "time": record["time"],
        "id": record["id"],
        "request_id": "r-1",
        "action": "token.mint",
        "outcome": outcome,
        "reason": reason,
        "tenant": "acme",
        "origin": "https://app.example",
        "client_ip": "192.0.2.1",
        "user_agent": "agent",
        "duration_ms": record["duration_ms"],
    }
    assert record["time"].endswith("Z")
    assert [one.outcome for one in seen] == [outcome]


async def test_the_record_is_written_before_the_block_is_left():
    sink = ListSink()
    async with Audit(sink).record("token.mint", CALLER):
        assert sink.records == []
    assert len(sink.records) == 1


async def test_a_failed_record_undoes_the_deed():
    sink = ListSink()
    undone: list[bool] = []
    seen: list[Event] = []
    sink.failing = True

    async def undo():
        undone.append(True)

    with pytest.raises(AuditUnavailable):
        async with Audit(sink, observers=[seen.append]).record("call.open", CALLER) as event:
            event.undo = undo
    assert undone == [True]
    assert [(one.outcome, one.reason) for one in seen] == [("error", "audit_unavailable")]


async def test_texts_are_bounded():
    sink = ListSink()
    caller = Caller("r-1", None, "o" * 9999, "1", "u" * 9999)
    async with Audit(sink).record("token.mint", caller) as event:
        event.overrides = tuple(f"{'x' * 999}{number}" for number in range(999))
    (record,) = sink.records
    assert len(record["origin"]) == len(record["user_agent"]) == MAX_TEXT
    assert len(record["overrides"]) == MAX_TEXT
    assert max(map(len, record["overrides"])) == MAX_TEXT


async def test_nothing_begins_while_nothing_can_be_written():
    sink = ListSink()
    sink.ill = True
    seen: list[Event] = []
    begun = False
    with pytest.raises(AuditUnavailable):
        async with Audit(sink, observers=[seen.append]).record("token.mint", CALLER):
            begun = True
    assert not begun
    assert [(one.outcome, one.reason) for one in seen] == [("error", "audit_unavailable")]


@pytest.mark.parametrize("action", ["call.end", "admin.hang_up", "admin.suspend"])
async def test_what_takes_something_away_is_done_first(action):
    """A full disk must not keep a call open, nor an operator from the kill switch; the caller still hears of it."""
    sink = ListSink()
    sink.ill = True
    done = False
    with pytest.raises(AuditUnavailable):
        async with Audit(sink).record(action, CALLER):
            done = True
    assert done


class SlowSink(ListSink):
    """Takes a record, and then its time."""

    async def write(self, record: bytes) -> None:
        await super().write(record)
        await asyncio.sleep(60)


@pytest.mark.parametrize(("sink", "raised"), [(SlowSink(), asyncio.CancelledError), (None, RuntimeError)])
async def test_a_deed_whose_record_is_not_certain_is_undone(sink, raised):
    class BrokenSink(ListSink):
        async def write(self, record: bytes) -> None:
            raise RuntimeError("a defect")

    undone: list[bool] = []

    async def undo():
        undone.append(True)

    async def decide(to: Sink):
        async with Audit(to).record("call.open", CALLER) as event:
            event.undo = undo

    task = asyncio.create_task(decide(sink or BrokenSink()))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(raised):
        await task
    assert undone == [True]


@pytest.mark.parametrize(
    ("shown", "record"),
    [
        (str, {"client_ip": "192.0.2.1"}),
        (lambda _: "192.0.2.0/24", {"client_ip": "192.0.2.0/24"}),
        (lambda _: None, {}),
    ],
)
async def test_how_much_of_an_address_is_shown(shown, record):
    sink = ListSink()
    async with Audit(sink, shown_address=shown).record("token.mint", CALLER):
        pass
    assert {name: value for name, value in sink.records[0].items() if name == "client_ip"} == record
