"""The form of a line, held against another implementation of HMAC."""

import json
import re
import subprocess

import orjson
import pytest

from switchboard.audit.chain import BODY, END, ENDING, PREV, Chain, Link
from tests.support.chains import KEY, decision


def test_a_line():
    chain = Chain(KEY)
    first, link = chain.seal(b'{"time":"t"}', Link())
    second, end = chain.seal(decision(1), link)
    assert re.fullmatch(rb'\{"time":"t","chain":"[0-9a-f]{24}","seq":1,"prev":"0{64}","hash":"[0-9a-f]{64}"\}\n', first)
    one, two = json.loads(first), json.loads(second)
    assert (two["chain"], two["seq"], two["prev"]) == (one["chain"], 2, one["hash"])
    assert link == Link(1, one["hash"].encode())
    assert end == Link(2, two["hash"].encode())
    assert list(two)[-4:] == ["chain", "seq", "prev", "hash"]
    assert second[:-1][BODY] + second[:-1][END] + b"\n" == second
    assert second[:-1][END] == ENDING % end.hash
    assert second[:-1][PREV] == link.hash
    assert {**two, **json.loads(decision(1))} == two


def test_any_tool_can_verify_a_record():
    line, _ = Chain(KEY).seal(decision(1), Link())
    body, _, rest = line.partition(b',"hash":"')
    command = ["openssl", "dgst", "-sha256", "-hmac", KEY.decode()]
    said = subprocess.run(command, input=body, capture_output=True, check=True).stdout.decode()
    assert said.split()[-1] == rest[:64].decode()


@pytest.mark.parametrize("other", [KEY[:-1] + b"x", KEY + b"x"])
def test_another_key_makes_another_hash(other):
    chain = Chain(KEY)
    stranger = Chain(other)
    stranger.id = chain.id
    assert chain.seal(decision(), Link()) != stranger.seal(decision(), Link())


def test_every_process_has_a_chain_of_its_own():
    assert len({Chain(KEY).id for _ in range(100)}) == 100


def test_sealing_does_not_read_the_record():
    """What a text holds is not taken for a field, whatever it looks like."""
    tricky = orjson.dumps({"user_agent": '","chain":"x","seq":9,"prev":"","hash":"'})
    line, _ = Chain(KEY).seal(tricky, Link())
    assert json.loads(line)["seq"] == 1
