"""What a request leaves behind is freed at once: looking for garbage is what would make others wait."""

import gc
import os
import types

import pytest

import switchboard
from tests.support import world as worlds

pytestmark = pytest.mark.anyio

PACKAGE = os.path.dirname(switchboard.__file__)  # noqa: PTH120 - as code objects have it
ROUNDS = 3  # as many as the quota of the example lets through


def is_ours(found: object) -> bool:
    """Whether an object is of the service: a value of its types, or something of its code that runs or waits."""
    match found:
        case types.FunctionType():
            code = found.__code__
        case types.MethodType():
            code = found.__func__.__code__
        case types.CoroutineType():
            code = found.cr_code
        case types.GeneratorType():
            code = found.gi_code
        case types.FrameType():
            code = found.f_code
        case _:
            return type(found).__module__.startswith("switchboard")
    return code.co_filename.startswith(PACKAGE)


async def whole_call(world) -> None:
    """Everything that a frontend asks for, and a refusal."""
    assert (await world.mint()).status_code == 200
    location = (await world.relay()).headers["location"]
    assert (await world.client.get(location, headers=world.auth())).status_code == 200
    assert (await world.client.delete(location, headers=world.auth())).status_code == 200
    assert (await world.client.get("/token")).status_code == 401


@pytest.mark.parametrize("ledger", ["memory", "redis"])
async def test_a_request_leaves_no_circle_behind(redis, patient, ledger):
    async with worlds.world(redis_url=redis.url if ledger == "redis" else None) as world:
        await whole_call(world)
        gc.collect()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for _ in range(ROUNDS):
                await whole_call(world)
            gc.collect()
        finally:
            gc.set_debug(0)
            ours = [repr(one)[:200] for one in gc.garbage if is_ours(one)]
            gc.garbage.clear()
    assert ours == []
