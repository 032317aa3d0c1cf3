"""The judge of the drill, its figures, and the drill itself in small. `make drill` runs it in full."""

import hashlib
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from switchboard.calls import Call
from switchboard.errors import Refusal as OurRefusal
from tests.prove import service
from tests.prove.calls.books import Books, Entry
from tests.prove.client import Reply
from tests.prove.drill import __main__ as proof
from tests.prove.drill import judging, load
from tests.prove.drill.faults import FAULTS, VICTIM
from tests.prove.drill.judging import RIGHT, SUCCESSES, Answer, Window, judge, longest_decision, recovered_after
from tests.prove.drill.running import Found, late_seconds
from tests.prove.service import ProviderCall, Result

BY_NAME = {fault.name: fault for fault in FAULTS}
WINDOW = Window(10, 18, within=3)
OTHER = 1 - VICTIM


def answer(kind="offer", text="201", *, replica=OTHER, sent=12.0, took=0.01):
    return Answer(kind, replica, sent, sent + took, text)


def verdict(given, fault, window=WINDOW):
    return judge(given, BY_NAME[fault].allowed, window, victim=BY_NAME[fault].victim)


@pytest.mark.parametrize("kind", RIGHT)
def test_what_is_right_is_right_under_every_fault(kind):
    assert {verdict(answer(kind, text), fault) for text in RIGHT[kind] for fault in BY_NAME} == {"right"}


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("forged", "200"),
        ("unknown key", "201"),
        ("expired", "200"),
        ("foreign", "201"),
        ("forged", "401 expired_token"),
        ("used grant", "201"),
        ("second offer", "201"),
        ("read", "404 call_not_found"),
        ("read", "200 ended"),
        ("list", "200 missing"),
        ("end", "200 open"),
        ("grant", "401 invalid_token"),
        ("offer", "500 internal_error"),
        ("secret", "500 internal_error"),
        ("offer", "cut off"),
        ("grant", "not connected"),
    ],
)
def test_nothing_excuses_these_at_a_replica_that_is_well(kind, text):
    assert {verdict(answer(kind, text), fault) for fault in BY_NAME} == {"wrong"}


@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [
        ("redis-gone", "offer", "503 degraded"),
        ("redis-failover", "used grant", "503 degraded"),
        ("redis-slow", "read", "503 degraded"),
        ("provider-5xx", "secret", "502 provider_unavailable"),
        ("provider-frozen", "end", "504 provider_timeout"),
        ("provider-cut", "second offer", "503 provider_busy"),
        ("provider-429", "offer by grant", "503 provider_busy"),
        ("disk-full", "forged", "503 audit_unavailable"),
    ],
)
def test_what_the_documentation_allows_is_refused_rightly(fault, kind, text):
    assert verdict(answer(kind, text), fault) == "refused"


@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [
        ("redis-gone", "grant", "503 degraded"),  # `local` decides by itself
        ("redis-gone", "forged", "503 degraded"),
        ("redis-gone", "offer", "503 provider_busy"),
        ("provider-gone", "grant", "503 provider_busy"),  # nobody has to be asked
        ("provider-gone", "read", "502 provider_unavailable"),
        ("provider-gone", "offer", "503 degraded"),
        ("provider-429", "secret", "502 provider_unavailable"),
        ("provider-slow", "secret", "504 provider_timeout"),
        ("jwks-gone", "grant", "503 degraded"),  # the old keys serve
        ("disk-full", "read", "503 audit_unavailable"),
        ("config-broken", "offer", "503 degraded"),
        ("clock-stepped", "grant", "401 expired_token"),
    ],
)
def test_what_another_fault_would_excuse_is_wrong(fault, kind, text):
    assert verdict(answer(kind, text), fault) == "wrong"


@pytest.mark.parametrize("text", judging.NO_ANSWERS)
@pytest.mark.parametrize("fault", ["replica-killed", "replica-frozen", "jwks-gone-restart"])
def test_only_the_replica_at_fault_may_be_silent(fault, text):
    assert verdict(answer("offer", text, replica=VICTIM), fault) == "refused"
    assert verdict(answer("offer", text, replica=OTHER), fault) == "wrong"


@pytest.mark.parametrize(
    ("sent", "took", "expected"),
    [(9.0, 0.5, "wrong"), (9.0, 1.5, "refused"), (17.9, 0.2, "refused"), (20.9, 4.0, "refused"), (21.1, 0.1, "wrong")],
)
def test_a_fault_excuses_what_it_met_and_for_a_while_after(sent, took, expected):
    assert verdict(answer(text="503 degraded", sent=sent, took=took), "redis-gone") == expected


def test_refusals_of_the_judge_are_those_of_the_service():
    known = {f"{one.status} {one.code}" for one in _family(OurRefusal) if hasattr(one, "code")}
    named = {refusal.text for fault in FAULTS for refusal in fault.allowed} - set(judging.NO_ANSWERS)
    named |= {text for texts in RIGHT.values() for text in texts if text.startswith("4")}
    assert named <= known


def _family(kind):
    return {kind}.union(*(_family(one) for one in kind.__subclasses__()))


def _successes(times, *, text=None):
    return [
        answer(kind, text or next(iter(RIGHT[kind])), replica=replica, sent=time)
        for time in times
        for kind in sorted(SUCCESSES)
        for replica in (0, 1)
    ]


def test_recovery_is_the_first_of_a_row_of_successes():
    answers = _successes([17, 19, 20, 21])
    assert recovered_after(answers, 18, row=3, replicas=2) == pytest.approx(1.01)
    assert recovered_after(answers, 18, row=4, replicas=2) is None


def test_a_failure_begins_the_row_anew():
    answers = [*_successes([19, 20]), answer("end", "504 provider_timeout", sent=20.5), *_successes([21, 22, 23])]
    assert recovered_after(answers, 18, row=3, replicas=2) == pytest.approx(3.01)


def test_a_kind_that_does_not_come_back_is_no_recovery():
    answers = [one for one in _successes([19, 20, 21]) if (one.kind, one.replica) != ("list", 1)]
    assert recovered_after(answers, 18, row=2, replicas=2) is None


def test_the_longest_decision_waits_for_no_provider_and_no_frozen_replica():
    answers = [
        answer("read", "200 open", took=0.2),
        answer("offer", "503 degraded", took=0.3),
        answer("offer", "201", took=4),
        answer("read", "200 open", replica=VICTIM, took=5),
        answer("grant", "200", replica=VICTIM, sent=30, took=0.1),
        answer("grant", "no answer in time", took=3),
    ]
    assert longest_decision(answers, but=VICTIM, window=WINDOW) == pytest.approx(0.3)
    assert longest_decision(answers, but=None, window=WINDOW) == pytest.approx(5)


def test_a_call_is_late_by_its_deadline_or_by_when_the_provider_is_back():
    def entry(ended_at, deadline):
        call = Call("rtc_1", "drill", "iss", "user", "talk", "openai", "env:K", 0.0, deadline)
        return Entry(ProviderCall("rtc_1", "user", 0, ended_at), call, 1)

    books = Books([entry(107, 100), entry(103, 100), entry(None, 100), entry(140, 130)], [])
    assert late_seconds(books, None) == [7, 3, float("inf"), 10]
    assert late_seconds(books, 105) == [2, -2, float("inf"), 10]


def test_what_was_handed_out_must_be_on_record():
    held = load.Load([1, 2])
    client = load.Client(held, 0)
    client._keep(Reply(200, {}, b'{"value": "ek_swb_1"}'))
    client._keep(Reply(201, {"location": "/sdp/rtc_1"}, b""))
    sha256 = hashlib.sha256(b"ek_swb_1").hexdigest()
    record = {"outcome": "allowed", "credential_sha256": sha256}
    assert held.unaccounted([record]) == {"rtc_1"}
    assert held.unaccounted([record, {"outcome": "denied", "call_id": "rtc_1"}]) == {"rtc_1"}
    assert held.unaccounted([record, {"outcome": "allowed", "call_id": "rtc_1"}]) == set()


FOUND = Found(
    BY_NAME["redis-gone"],
    lasted=8.0,
    verdicts=Counter(right=90, refused=10),
    refusals=Counter({"503 degraded": 10}),
    wrong=Counter(),
    unaccounted=0,
    late=0,
    latest=0.5,
    longest=0.12,
    recovery=0.4,
    amiss=(),
)


def test_a_line_of_the_table():
    expected = ["Redis killed, started again", "8.0 s", 100, 90, 10, 0, 0, 0, "0.5 s", "120 ms", "0.4 s"]
    assert proof.row(FOUND) == expected
    assert proof.bounds(FOUND) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"wrong": Counter({"forged, meanwhile, replica 0: 200": 1})}, "wrong: 1 × forged, meanwhile, replica 0: 200"),
        ({"unaccounted": 2}, "2 credentials are not on record"),
        ({"late": 1, "latest": 7.0}, "1 calls ended too late, the latest by 7.0 s"),
        ({"recovery": None}, "it did not recover"),
        ({"amiss": ("nobody was refused",)}, "nobody was refused"),
    ],
)
def test_each_bound_is_held(change, said):
    assert proof.bounds(replace(FOUND, **change)) == [said]


def test_only_a_redis_that_seemed_away_is_a_busy_machine():
    assert not FOUND.is_busy
    assert replace(FOUND, wrong=Counter({"read, before, replica 0: 503 degraded": 3})).is_busy
    assert not replace(FOUND, wrong=Counter({"read, before: 503 degraded": 3, "offer: 500 internal_error": 1})).is_busy


def test_the_page_tells_every_fault():
    page = proof.page([replace(FOUND, fault=fault) for fault in FAULTS], ["a reload"])
    assert page.startswith("# Proof: the drill\n")
    assert all(page.count(f"\n| {fault.what} |") == 2 for fault in FAULTS)
    assert "Repeated, because this machine was so busy that Redis seemed to be away: a reload." in page


def test_operations_tells_what_each_fault_looks_like():
    text = (Path(proof.ROOT) / "docs" / "operations.md").read_text()
    section = text.partition("\n## The drill\n")[2].partition("\n## ")[0]
    assert all(f"\n| {fault.what} |" in section for fault in FAULTS)
    panels = json.loads((Path(proof.ROOT) / "deploy" / "grafana" / "switchboard.json").read_text())["panels"]
    assert set(re.findall(r"“([^”]+)”", section)) <= {panel["title"] for panel in panels}


@pytest.mark.parametrize("arguments", [["--write"], ["--full", "--write", "--only", "redis-gone"], ["--only", "rain"]])
def test_a_part_is_not_written_as_the_whole(monkeypatch, capsys, arguments):
    monkeypatch.setattr("sys.argv", ["drill", *arguments])
    with pytest.raises(SystemExit) as ended:
        proof.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize("write", [True, False])
def test_only_a_clean_drill_is_written(tmp_path, write):
    page, broken = tmp_path / "proof" / "drill.md", {"redis-gone": Result(broken=["it did not recover"])}
    assert service.tell("the page", broken, page, write=write) == 1
    assert not page.exists()
    assert service.tell("the page", {"redis-gone": Result()}, page, write=write) == 0
    assert page.exists() == write


@pytest.mark.long
@pytest.mark.parametrize("name", proof.IN_SHORT)
def test_the_drill_in_small(name):
    found, _ = proof.run(BY_NAME[name], print, seconds=proof.SHORT_SECONDS)
    assert proof.bounds(found) == []
