"""schemathesis in small; `make prove-fuzz` gives it more time."""

import pytest

from tests.attacks import contract
from tests.support.contract import OPERATIONS
from tests.support.leaks import LEAKS

SEED = 20261120
SUBJECT = LEAKS.plant("subject", "user-of-schemathesis")  # whom the hooks sign for


@pytest.mark.anyio
@pytest.mark.long
async def test_the_whole_contract():
    outcome = await contract.run(seed=SEED, examples=3)
    assert outcome.code == 0, outcome.output
    assert f"Seed: {SEED}" in outcome.output
    assert outcome.cases > 500
    taken = {(method, route) for method, route, status in outcome.answers if status[0] == "2"}
    assert set(OPERATIONS.values()) - taken == set(), "nothing that was asked of them was right"
    assert {status for *_, status in outcome.answers} >= {"200", "201", "204", "400", "401", "404", "405", "415"}
    assert not [answer for answer in outcome.answers if answer[2] in {"0", "500"}]
