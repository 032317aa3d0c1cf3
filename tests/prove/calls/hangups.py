"""A provider that refuses, breaks off or swallows hang-ups for a while."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tests.prove.calls.books import OVER_SECONDS, add_replica, left_behind, open_call, read_books, until, warm
from tests.prove.client import Caller
from tests.prove.service import Ground, Result, Say, ground, policy, table, tenant

TENANT = "prove"
CALL_SECONDS = 10  # the shortest that a policy may say
WAIT_SECONDS = 2.0
TICK_SECONDS, HANGUP_SECONDS = 0.5, 2.0
EACH = 8  # calls that each replica opens
OWNED = 2  # of these, calls that their owners try to end meanwhile
FAULTS: Mapping[str, Mapping[str, Any]] = {
    "500": {"status": 500},
    "429": {"status": 429, "retry_after": 60},
    "breaks off": {"reset": True},
    "no answer": {"delay_seconds": 600},
}


def prove_hang_ups(say: Say, *, outages: Sequence[float]) -> Result:
    """Hang-ups are tried until the provider says that the call is over; all soon after it does.

    Args:
        say: progress.
        outages: how long each lasts beyond the deadline, in seconds.
    """
    result, rows = Result(), []
    limits = {"call_seconds": CALL_SECONDS}
    for outage in outages:
        say(f"hang-ups fail until {outage:.0f} s after the deadline")
        with ground(policy(**{TENANT: tenant(limits=limits)})) as place:
            for _ in range(2):
                add_replica(place)
            place.start()
            rows.append(asyncio.run(_run(place, outage, result)))
    result.lines = table(
        "hang-ups fail until so long after the deadline",
        "calls",
        "latest end after the provider was back",
        "bound",
        "of their owners' own",
        "ends on record once",
        rows=rows,
    )
    return result


async def _run(place: Ground, outage: float, result: Result) -> list[object]:
    await warm(place)
    owners: list[tuple[int, str, str]] = []
    for replica in place.replicas:
        async with Caller(replica.port) as caller:
            for _ in range(EACH):
                user, location = await open_call(caller, TENANT)
            owners += [(replica.port, user.token, location)]
    begin = time.monotonic()
    await asyncio.sleep(CALL_SECONDS - 1)
    back = begin + CALL_SECONDS + outage
    refused: list[str] = []
    for name, fault in FAULTS.items():
        await asyncio.to_thread(place.faults, **fault, operations=["hangup"])
        if name == "500":  # their own tries fail once, and are not forgotten
            for port, token, location in owners:
                async with Caller(port) as caller:
                    refused.append((await caller.ask("DELETE", location, token)).json["code"])
        await asyncio.sleep(max(0.0, (back - time.monotonic()) / (len(FAULTS) - list(FAULTS).index(name))))
    await asyncio.to_thread(place.faults)
    back_at = time.time()
    bound = WAIT_SECONDS + HANGUP_SECONDS + TICK_SECONDS + 0.5  # which the last try itself may take
    await until(lambda: not left_behind(place.redis), bound + OVER_SECONDS)
    books, left = await read_books(place), await asyncio.to_thread(left_behind, place.redis)
    late = [
        float("inf") if entry.provider.ended_at is None else entry.provider.ended_at - back_at
        for entry in books.entries
    ]
    owned = [entry for entry in books.entries if entry.register.ended_by == "owner"]
    what = f"{outage:.0f} s:"
    result.bound(max(late) <= bound, f"{what} ended {max(late):.1f} s after the provider was back")
    result.bound(min(late) >= 0, f"{what} ended while hang-ups failed")
    result.bound(set(books.ends) == {1}, f"{what} ends on record: {books.ends}")
    result.bound(set(refused) == {"provider_unavailable"}, f"{what} owners were told {refused}")
    result.bound(len(owned) == len(owners), f"{what} {len(owned)} of {len(owners)} are their owners'")
    result.bound(not left, f"{what} left in the register: {left}")
    return [f"{outage:.0f} s", len(late), f"{max(late):.1f} s", f"{bound:.1f} s", len(owned), books.ends[1]]
