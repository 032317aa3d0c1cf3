"""What processes answer is heard, whoever asks."""

import httpx
import pytest

from tests.support import overheard
from tests.support.leaks import Leaks

ANSWER = httpx.MockTransport(
    lambda _: httpx.Response(200, json={"value": "in-the-body"}, headers={"x-marker": "above"})
)


@pytest.fixture
def heard(monkeypatch):
    leaks = Leaks()
    monkeypatch.setattr(overheard, "LEAKS", leaks)
    return leaks


@pytest.mark.anyio
async def test_head_and_body_are_heard(heard):
    httpx.Client(transport=ANSWER).get("http://switchboard.test/calls")
    async with httpx.AsyncClient(transport=ANSWER) as client:
        await client.get("http://switchboard.test/calls")
    assert [place for place, _ in heard.texts] == ["answer GET /calls None"] * 2
    assert all("in-the-body" in text and "above" in text for _, text in heard.texts)


def test_a_credential_is_meant_for_its_own_answer_alone(heard):
    client = httpx.Client(transport=ANSWER)
    client.post("http://switchboard.test/token")
    assert heard.found() == []
    client.get("http://switchboard.test/calls")
    assert [line.partition(":")[0] for line in heard.found()] == ["client secret or grant in answer GET /calls None"]
