"""Metrics: bounded whatever callers do, never against the audit, and rendered beside requests, not instead of them."""

import asyncio
import gc
import re
import threading
import time
from collections import Counter

import httpx
import prometheus_client
import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from switchboard.audit import Event
from switchboard.errors import Refusal
from switchboard.metrics import Metrics
from switchboard.metrics.families import OTHER, Family
from switchboard.ratelimit import Quota, Standing, Window
from switchboard.reports import Report
from tests.support import world as worlds

pytestmark = pytest.mark.anyio

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
ACTIONS = ("token.mint", "grant.issue", "call.open", "call.end", "admin.calls", "admin.hang_up", "admin.suspend")


def event(tenant: str | None = "acme", **facts) -> Event:
    return Event(**{"time": "now", "id": "1", "request_id": "r-1", "action": "token.mint", "tenant": tenant, **facts})


def refusals(of: type[Refusal] = Refusal) -> set[str]:
    codes = {of.code} if hasattr(of, "code") else set()
    return codes.union(*map(refusals, of.__subclasses__()))


def samples(text: str, name: str) -> dict[frozenset[tuple[str, str]], float]:
    """The samples of one name, by their labels."""
    lines = re.findall(rf"^{name}(?:{{(.*?)}})? (\S+)", text, re.MULTILINE)
    return {frozenset(re.findall(r'(\w+)="([^"]*)"', labels)): float(value) for labels, value in lines}


async def text_of(metrics: Metrics, accept: str = "") -> str:
    return (await metrics.render(accept))[0].decode()


# Bounds


async def test_ten_thousand_tenants_are_a_hundred_and_the_others():
    metrics = Metrics(max_tenants=100)
    names = [f"tenant-{number}" for number in range(10_000)]
    metrics.show(tenants=names, issuers=names, providers=names)
    quota = Standing((Window(Quota("tenant", 100, 60), 25, 10.0),))
    for name in names:
        metrics.observe_decision(event(name, standing=quota, shadow=("user-minute",)))
        metrics.observe_decision(event(name, action="call.end", outcome="allowed", reason="owner", seconds=3.0))
        metrics.observe_report(name, Report("ended", 1.0, 1.0, 1.0, 0.5, 1.0))
        metrics.observe_report(name, Report("connected"))
        metrics.observe_jwks(name, "ok")
        metrics.observe_provider(name, "mint", "200", 0.1)
    shown = metrics.shown_of(names)
    metrics.observe_open_calls(dict.fromkeys(shown, 1))
    text = await text_of(metrics)
    assert shown == names[:100]
    assert set(re.findall(r'tenant="([^"]*)"', text)) == {*names[:100], OTHER}
    assert len(set(re.findall(r'issuer="([^"]*)"', text))) == len(set(re.findall(r'provider="([^"]*)"', text))) == 101
    assert len(text) < 1_000_000
    counted = samples(text, "switchboard_decisions_total")
    assert sum(counted.values()) == 20_000
    assert {value for labels, value in counted.items() if ("tenant", OTHER) in labels} == {9_900}


async def test_whoever_is_named_first_in_the_policy_is_shown_however_requests_come():
    metrics = Metrics(max_tenants=1)
    metrics.show(tenants=["acme", "widgets"], issuers=[], providers=[])
    metrics.observe_decision(event("widgets"))
    metrics.observe_decision(event("acme"))
    metrics.observe_decision(event(None))
    assert {dict(labels)["tenant"] for labels in samples(await text_of(metrics), "switchboard_decisions_total")} == {
        "acme",
        OTHER,
        "",
    }


async def test_the_setting_bounds_them():
    async with worlds.world(metrics_tenants=1) as world:
        await world.mint()
        await world.mint(world.widgets_token())
        assert await world.metric("switchboard_decisions_total", tenant="acme") == 1
        assert await world.metric("switchboard_decisions_total", tenant=OTHER) == 1


def test_a_family_that_is_full_counts_what_is_new_as_other():
    counter = Family(prometheus_client.Counter("x", "X", ("a", "b"), registry=None), ("a", "b"), most=2)
    for number in range(5):
        counter.of(str(number), "b").inc()
    (piece,) = counter.pieces(100)
    assert [(sample.labels, sample.value) for sample in piece.samples] == [
        ({"a": "0", "b": "b"}, 1.0),
        ({"a": "1", "b": "b"}, 1.0),
        ({"a": OTHER, "b": OTHER}, 3.0),
    ]


# Form


def filled(tenants: int = 3) -> Metrics:
    metrics = Metrics(max_tenants=tenants)
    names = [f"tenant-{number}" for number in range(tenants)]
    metrics.show(tenants=names, issuers=names, providers=names)
    for name in names:
        for action in ACTIONS:
            for code in sorted(refusals()):
                metrics.observe_decision(event(name, action=action, outcome="denied", reason=code))
        metrics.observe_decision(event(name, action="call.end", outcome="allowed", reason="owner", seconds=30.0))
        metrics.observe_report(name, Report("connected", 250, 40, 3.5, 0.01))
    for status in (200, 201, 401, 403, 429, 502):
        metrics.observe_http("/token", "POST", status, 0.02, f"r-{status}")
    return metrics


async def test_a_page_is_what_the_library_would_have_written():
    metrics = filled()
    assert await text_of(metrics) == generate_latest(metrics.registry).decode()
    assert await text_of(metrics, OPENMETRICS) == generate_openmetrics(metrics.registry).decode()


async def test_exemplars_name_a_request_where_the_format_has_them(world):
    answer = await world.mint()
    request_id = answer.headers["x-request-id"]
    page = await world.ops.get("/metrics", headers={"accept": OPENMETRICS})
    assert page.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in text_string_to_metric_families(page.text)}
    for name in ("switchboard_decisions", "switchboard_http_request_duration_seconds"):
        exemplars = [sample.exemplar for sample in families[name].samples if sample.exemplar]
        assert [one.labels for one in exemplars] == [{"request_id": request_id}]
    assert families["switchboard_http_request_duration_seconds"].unit == "seconds"
    plain = await world.ops.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert request_id not in plain.text


async def test_an_id_that_is_too_long_for_an_exemplar_is_left_out(world):
    long = "x" * 128
    answer = await world.client.post("/token", headers={**world.auth(), "x-request-id": long})
    assert (answer.status_code, answer.headers["x-request-id"]) == (200, long)
    page = await world.ops.get("/metrics", headers={"accept": OPENMETRICS})
    assert "switchboard_decisions_total{" in page.text
    assert long not in page.text


@pytest.mark.parametrize("accept", ["", "*/*", "text/html", "application/openmetrics-text;version=what", "\x00,;=;,"])
async def test_whatever_a_scraper_accepts_it_gets_a_page(accept):
    body, content_type = await filled().render(accept)
    assert body.startswith(b"# HELP")
    assert content_type.startswith(("text/plain", "application/openmetrics-text"))


def test_names_and_units_are_as_prometheus_wants_them():
    for family in Metrics().registry.collect():
        assert re.fullmatch(r"switchboard_[a-z_]+", family.name)
        assert not re.search(r"_(ms|milliseconds|minutes|percent|count|total)$", family.name), family.name
        assert family.documentation.endswith(".")
        if family.type == "histogram":
            assert family.name.endswith(("_seconds", "_ratio"))


# What is observed


async def test_what_a_browser_saw_is_shown_by_tenant():
    metrics = Metrics()
    metrics.show(tenants=["acme"], issuers=[], providers=[])
    metrics.observe_report("acme", Report("connected", ms_to_connected=250))
    metrics.observe_report("acme", Report("alive", rtt_ms=40, jitter_ms=3, loss=0.0, audio_seconds=20))
    metrics.observe_report("acme", Report("alive", rtt_ms=80, jitter_ms=30, loss=0.04, audio_seconds=40))
    metrics.observe_report("acme", Report("ended", audio_seconds=50))
    metrics.observe_report("acme", Report("failed"))
    text = await text_of(metrics)
    seen = {
        name: samples(text, f"switchboard_client_{name}")[frozenset({("tenant", "acme")})]
        for name in (
            "time_to_connected_seconds_sum", "rtt_seconds_sum", "jitter_seconds_sum", "loss_ratio_sum",
            "loss_ratio_count", "audio_seconds_sum", "audio_seconds_count",
        )
    }  # fmt: skip
    # What was heard grows from report to report: only the last one is the call's.
    assert seen == pytest.approx(
        {
            "time_to_connected_seconds_sum": 0.25,
            "rtt_seconds_sum": 0.12,
            "jitter_seconds_sum": 0.033,
            "loss_ratio_sum": 0.04,
            "loss_ratio_count": 2,
            "audio_seconds_sum": 50,
            "audio_seconds_count": 1,
        }
    )
    assert samples(text, "switchboard_client_connections_total") == {
        frozenset({("tenant", "acme"), ("outcome", "connected")}): 1,
        frozenset({("tenant", "acme"), ("outcome", "failed")}): 1,
    }


async def test_metrics_and_audit_agree_after_a_mixed_run():
    async with worlds.world() as world:
        calls = [await world.relay() for _ in range(3)]
        await world.mint()
        await world.mint(world.widgets_token())
        await world.mint(preset="none")
        await world.client.get("/token")
        await world.client.get("/token", headers=world.auth(origin="https://evil.example"))
        await world.relay(offer=b"v=1")
        await world.client.delete(calls[-1].headers["location"], headers=world.auth())
        await world.client.delete(calls[-1].headers["location"], headers=world.auth())
        await world.faults(status=500)
        await world.mint(world.widgets_token())
        for _ in range(12):
            await world.mint()
        recorded = Counter(
            (one["action"], one.get("tenant", ""), one["outcome"], one["reason"]) for one in world.records
        )
        world.sink.ill = True
        assert (await world.mint()).status_code == 503
        text = (await world.ops.get("/metrics")).text
        assert samples(text, "switchboard_audit_records_total") == {frozenset(): len(world.records)}
        counted = {
            tuple(dict(labels)[name] for name in ("action", "tenant", "outcome", "reason")): value
            for labels, value in samples(text, "switchboard_decisions_total").items()
        }
        # The one decision that is not on record, because it could not be.
        assert counted.pop(("token.mint", "", "error", "audit_unavailable")) == 1
        assert counted == recorded
        assert len(recorded) > 8
        ended = samples(text, "switchboard_calls_ended_total")
        assert sum(ended.values()) == sum(one["action"] == "call.end" and "seconds" in one for one in world.records)


async def test_a_loop_that_is_held_is_seen_to_be_late():
    async with worlds.world() as world:
        await asyncio.sleep(0.3)
        time.sleep(0.6)  # noqa: ASYNC251 - what must not happen
        await asyncio.sleep(0.3)
        text = (await world.ops.get("/metrics")).text
        buckets = samples(text, "switchboard_event_loop_lag_seconds_bucket")
        assert buckets[frozenset({("le", "+Inf")})] > buckets[frozenset({("le", "0.25")})]


# While requests go on


class Turns:
    """The processor time that the loop spends between two of its turns, in seconds: other processes do not count."""

    async def __aenter__(self) -> list[float]:
        gc.collect()  # what was made until now is not this block's
        self._taken: list[float] = []
        self._task = asyncio.create_task(self._count())
        await asyncio.sleep(0.01)
        self._taken.clear()
        return self._taken

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    async def _count(self) -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0)
            self._taken.append(time.thread_time() - before)


@pytest.mark.timing
async def test_a_scrape_of_the_largest_registry_does_not_hold_the_loop():
    metrics = filled(tenants=100)
    threads = threading.active_count()
    async with Turns() as taken:
        body, _ = await metrics.render(OPENMETRICS)
    lines = body.count(b"\n")
    assert lines > 25_000
    assert len(taken) > 50
    # A step of 1 ms, and a collection of garbage at times.
    assert max(taken) < 0.03
    assert sorted(taken)[len(taken) // 2] < 0.005
    assert threading.active_count() == threads


@pytest.mark.timing
async def test_several_scrapers_take_turns():
    metrics = filled(tenants=100)
    async with Turns() as taken:
        await asyncio.gather(*(metrics.render("") for _ in range(3)))
    assert max(taken) < 0.03


async def test_requests_are_answered_in_the_middle_of_a_scrape():
    async with worlds.world() as world:
        names = [f"tenant-{number}" for number in range(100)]
        metrics = world.service.metrics
        metrics.show(tenants=names, issuers=[], providers=[])
        for name in names:
            for code in sorted(refusals()):
                metrics.observe_decision(event(name, outcome="denied", reason=code))
        scrape = asyncio.create_task(world.ops.get("/metrics"))
        answered = 0
        while not scrape.done():
            assert (await world.client.get("/healthz")).status_code == 200
            answered += 1
            await asyncio.sleep(0)  # without a network nothing here waits
        assert answered > 3
        page: httpx.Response = await scrape
        assert 'tenant="tenant-97"' in page.text
