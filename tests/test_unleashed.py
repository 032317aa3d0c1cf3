"""A server that speaks like OpenAI and gives its calls no id: refused, or let go where the preset says so."""

import pytest

from tests.support import world as worlds
from tests.support.contract import check
from tests.support.world import OFFER, example, fresh_offer

pytestmark = pytest.mark.anyio


def policy(unleashed=None, **limits):
    tree = example()
    acme = tree["tenants"]["acme"]
    acme["limits"] = limits
    del acme["limits_by"]
    if unleashed is not None:
        acme["presets"]["support"]["unleashed"] = unleashed
    return tree


def compatible(tree, **changes):
    return worlds.world(tree, emulated={"call_ids": False}, **changes)


async def test_without_leave_no_answer_is_handed_out():
    """Whatever the limits are: owner, operator and kill switch could not end the call either."""
    async with compatible(policy(open_calls={"user": 1})) as world:
        for _ in range(2):  # the first one's slot is free again
            answer = await world.relay()
            assert (answer.status_code, answer.json()["code"]) == (502, "provider_unavailable")
            assert "no id" in answer.json()["detail"]
            assert "location" not in answer.headers
            check("POST", "/sdp", answer)
        assert [(one["outcome"], one["reason"], "call_id" in one) for one in world.records] == [
            ("error", "provider_unavailable", False)
        ] * 2
        # It answered, so it is not down.
        assert await world.metric("switchboard_provider_breaker_open", provider="openai") == 0


async def test_with_leave_the_answer_is_handed_out_without_a_location():
    async with compatible(policy("allow")) as world:
        grant = (await world.mint()).json()["value"]
        answer = await world.relay(grant)
        assert answer.status_code == 201
        assert answer.text.startswith("v=0\r\n")
        assert "location" not in answer.headers
        check("POST", "/sdp", answer)
        assert (await world.relay(grant)).json()["code"] == "grant_used"
        opened = world.records[1]
        assert (opened["action"], opened["outcome"]) == ("call.open", "allowed")
        assert "call_id" not in opened
        assert (await world.client.get("/calls", headers=world.auth())).json()["calls"] == []


async def test_its_slot_is_taken_until_its_deadline():
    """Nobody can learn of an earlier end. What it was charged of minutes stays, as of every slot that lapses."""
    async with compatible(policy("allow", open_calls={"user": 2}, call_seconds=60)) as world:
        assert (await world.relay()).status_code == 201
        assert (await world.relay(offer=OFFER.replace(b"o=- ", b"o=- 99"))).status_code == 201
        full = await world.relay()
        assert (full.status_code, full.json()["code"]) == (429, "too_many_calls"), "it cannot be replaced"
        assert 58 <= int(full.headers["retry-after"]) <= 60
        ledger = world.broker._ledger
        assert list(await ledger.count(["acme"])) == [2]


async def test_an_offer_that_is_sent_again_opens_no_second_call():
    async with compatible(policy("allow")) as world:
        offer = fresh_offer(7)
        assert (await world.relay(offer=offer)).status_code == 201
        again = await world.relay(offer=offer)
        assert (again.status_code, again.json()["code"]) == (429, "too_many_calls")


async def test_an_answer_that_cannot_be_recorded_is_kept_and_frees_its_slot():
    async with compatible(policy("allow", open_calls={"user": 1})) as world:
        world.sink.failing = True
        assert (await world.relay()).json()["code"] == "audit_unavailable"
        world.sink.failing = False
        assert (await world.relay()).status_code == 201


async def test_a_server_that_gives_ids_is_leashed_all_the_same():
    async with worlds.world(policy("allow", open_calls={"user": 1})) as world:
        first = await world.relay()
        assert (await world.relay()).status_code == 201
        assert (await world.client.get(first.headers["location"], headers=world.auth())).json()[
            "ended_by"
        ] == "replaced"
