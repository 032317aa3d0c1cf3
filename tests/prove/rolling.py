"""Two replicas behind nginx, configured as the chart renders them, while all of them are replaced.

    python -m tests.prove.rolling [--write]

Pods are processes of this machine with the Deployment's own arguments, variables, files, probes and times; what
Kubernetes does with them is done here: `RollingUpdate`, one pod more than wanted, none less. nginx has the file in
deploy/nginx; which pods it leads to is told to it by a reload, as an Ingress controller does. Meanwhile users mint,
call, look and hang up, and `switchboard probe` tries all its steps again and again. Exit code 1 if a bound is broken.
"""

import argparse
import asyncio
import json
import math
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson
import ryaml
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import async_playwright

from switchboard.probe.steps import STEPS
from tests.deploy.nginx import Nginx, nginx
from tests.e2e.conftest import ARGUMENTS
from tests.e2e.site import Site, serving_site
from tests.helm import chart
from tests.helm.local import LocalPod, Stopped, environment_here
from tests.prove.machine import machine
from tests.prove.service import ISSUER, Result, new_offer, new_user, policy, say_on_stderr, table, tell, tenant
from tests.support import world
from tests.support.process import Process, free_ports, switchboard
from tests.support.redis import redis_server

PAGE = Path(__file__).parents[2] / "docs" / "proof" / "rolling.md"
CASE = "gateway"  # two pods that share a Redis
ORIGIN = "https://app.acme.example"
SECRETS = {
    "signing-keys": world.SIGNING_KEY,
    "user-key-secret": world.USER_KEY_SECRET,
    "audit-key": world.AUDIT_KEY,
    "openai-api-key": world.API_KEY,
    "issuer-secret": world.LEGACY_SECRET,
}
USERS = 3
EXAMPLE = "whip/talk.js"
TALK = """async ([url, token]) => {
  window.events = [];
  const speaker = document.getElementById("speaker");
  window.client = await example.talk(url, token, speaker, (event) => events.push(event.type));
  window.peer = client.peer;
}"""
CONNECTED = "peer.connectionState === 'connected' && events.includes('session.created')"
PAUSE_SECONDS = 0.1  # of a user between two requests
PROBE_PAUSE_SECONDS = 1.0
SETTLE_SECONDS = 3.0  # of load before the first pod is replaced, and after the last


@dataclass
class Load:
    """What users and probes met.

    `wrong` are answers that no user should have met, `opened` the ids of calls, `talks` the calls of the browser that
    connected, `probes` runs of the probe by their exit code.
    """

    answers: Counter[str] = field(default_factory=Counter)
    milliseconds: list[float] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    probes: Counter[int] = field(default_factory=Counter)
    talks: int = 0
    wrong: list[str] = field(default_factory=list)
    is_over: asyncio.Event = field(default_factory=asyncio.Event)


class User:
    """Somebody who mints, calls by the grant, looks, sends a heartbeat and hangs up, as somebody new each time."""

    def __init__(self, load: Load, proxy: Nginx) -> None:
        self._load = load
        self._proxy = proxy

    async def run(self) -> None:
        async with self._proxy.client(timeout=30) as client:
            while not self._load.is_over.is_set():
                await self._once(client)

    async def _once(self, client: httpx.AsyncClient) -> None:
        who = new_user("acme")
        minted = await self._ask(client, "POST", "/token", who.token, 200)
        if minted is None:
            return
        grant = minted.json()["value"]
        sdp = {"content-type": "application/sdp"}
        opened = await self._ask(client, "POST", "/sdp", grant, 201, content=new_offer(), headers=sdp)
        if opened is None:
            return
        place = opened.headers["location"]
        self._load.opened.append(place.rpartition("/")[2])
        await self._ask(client, "GET", place, who.token, 200)
        await self._ask(client, "POST", f"{place}/report", grant, 204, json={"event": "alive"})
        await self._ask(client, "DELETE", place, who.token, 200)

    async def _ask(
        self, client: httpx.AsyncClient, method: str, path: str, token: str, expected: int, **content: Any
    ) -> httpx.Response | None:
        await asyncio.sleep(PAUSE_SECONDS)
        headers = {"authorization": f"Bearer {token}", "origin": ORIGIN, **content.pop("headers", {})}
        begin = time.perf_counter()
        try:
            answer = await client.request(method, path, headers=headers, **content)
        except httpx.TransportError as error:
            self._load.wrong.append(f"{method} {path}: {error!r}")
            return None
        self._load.milliseconds.append((time.perf_counter() - begin) * 1000)
        self._load.answers[f"{method} {answer.status_code}"] += 1
        if answer.status_code != expected:
            self._load.wrong.append(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
            return None
        return answer


async def probe_again_and_again(load: Load, proxy: Nginx, key: Path) -> None:
    """All steps, calls included, by the way that callers take: TLS and nginx."""
    arguments = ["--url", proxy.url, "--call", "--origin", ORIGIN, "--signing-key-file", str(key), "--json"]
    arguments += ["--issuer", ISSUER, "--claim", "org_id=acme"]
    env = {"SSL_CERT_FILE": str(proxy.folder / "proxy.crt")}
    while not load.is_over.is_set():
        process = await asyncio.to_thread(Process, "probe", *arguments, env=env)
        code = await asyncio.to_thread(process.wait, 120)
        load.probes[code] += 1
        steps = orjson.loads(process.out)["steps"] if process.out else []
        load.opened += [step["detail"].rpartition(" ")[2] for step in steps if step["step"] == "call"]
        if code or [step["step"] for step in steps if step["outcome"] == "passed"] != list(STEPS):
            load.wrong.append(f"probe: {code} {steps} {process.err}")
        process.kill()
        await asyncio.sleep(PROBE_PAUSE_SECONDS)


async def talk_again_and_again(load: Load, proxy: Nginx, site: Site) -> None:
    """A browser on a page of another origin, with a microphone and somebody else's client, until it hears an event."""
    async with async_playwright() as playwright:
        found = shutil.which("chromium") or shutil.which("google-chrome")
        browser = await playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        # The proxy's certificate is one that nobody knows.
        context = await browser.new_context(ignore_https_errors=True, permissions=["microphone"])
        context.set_default_timeout(20_000)
        while not load.is_over.is_set():
            page = await context.new_page()
            try:
                await page.goto(site.page(EXAMPLE))
                await page.evaluate(TALK, [proxy.url, new_user("browser").token])
                await page.wait_for_function(CONNECTED)
                load.opened.append(str(await page.evaluate("client.getResourceUrl()")).rpartition("/")[2])
                async with page.expect_response(lambda answer: answer.request.method == "DELETE") as ended:
                    await page.evaluate("client.destroy()")
                if (await ended.value).status == 200:
                    load.talks += 1
            except PlaywrightError as error:
                load.wrong.append(f"browser: {error}")
            await page.close()
        await browser.close()


class Deployment:
    """What Kubernetes does: pods that come and go, and a Service that leads to those that are ready.

    Args:
        folder: for the pods' folders.
        given: values that differ from the case's.
        redis_url: of the Redis here.
        stack: ends what is left.
    """

    def __init__(self, folder: Path, given: chart.Values, redis_url: str, stack: ExitStack) -> None:
        spec = chart.only("Deployment", CASE, given)["spec"]
        rolling = spec["strategy"]["rollingUpdate"]
        assert spec["strategy"]["type"] == "RollingUpdate"
        assert rolling["maxUnavailable"] == 0
        self.replicas: int = spec["replicas"]
        self.surge = math.ceil(self.replicas * int(rolling["maxSurge"].removesuffix("%")) / 100)
        assert self.surge == 1
        self._folder = folder
        self._given = given
        self._redis_url = redis_url
        self._stack = stack
        self._made = 0
        self.pods: list[LocalPod] = []
        self.ready_seconds: list[float] = []
        self.stopped: list[Stopped] = []

    def begin(self) -> LocalPod:
        """A new pod, which is not ready yet."""
        self._made += 1
        folder = self._folder / f"pod-{self._made}"
        folder.mkdir()
        env = environment_here(CASE, folder, SECRETS, self._redis_url, self._given)
        pod = LocalPod(CASE, env, self._given)
        self._stack.callback(pod.process.kill)
        return pod

    async def replace(self, proxy: Nginx) -> None:
        """Each old pod by a new one: the new one is ready before the old one leaves."""
        for old in tuple(self.pods):
            new = self.begin()
            self.ready_seconds.append(await asyncio.to_thread(new.until_ready))
            self.pods.append(new)
            lead_to(proxy, self.pods)
            say_on_stderr(f"pod {self._made} is ready; one leaves …")
            # Leaving the Service and the sleep before the signal begin at once.
            self.pods.remove(old)
            lead_to(proxy, self.pods)
            await asyncio.sleep(old.pre_stop_seconds)
            assert all([old.answers("livenessProbe"), *(pod.answers("readinessProbe") for pod in self.pods)])
            self.stopped.append(await asyncio.to_thread(old.stop))
            old.process.kill()


def lead_to(proxy: Nginx, pods: Sequence[LocalPod]) -> None:
    """What an Ingress controller does when the endpoints of a Service change."""
    file = proxy.folder / "switchboard.conf"
    servers = "".join(f"    server 127.0.0.1:{pod.port} max_fails=1 fail_timeout=1s;\n" for pod in pods)
    text, changed = re.subn(r"(?:^ +server 127\.0\.0\.1:\d+ [^\n]*;\n)+", servers, file.read_text(), flags=re.MULTILINE)
    assert changed == 1
    # At once: an empty file is one without a server, and nginx would close its port.
    aside = file.with_suffix(".new")
    aside.write_text(text)
    aside.replace(file)
    pid = int((proxy.folder / "nginx.pid").read_text())
    os.kill(pid, signal.SIGHUP)


@dataclass
class Place:
    """The first pods behind nginx, where the issuer's key is, somebody's site, and the providers."""

    deployment: Deployment
    proxy: Nginx
    key: Path
    site: Site
    providers: list[str]

    def calls(self) -> list[dict[str, Any]]:
        """All that the providers have seen."""
        answers = [httpx.get(f"{url}/_emulator/calls", trust_env=False).text for url in self.providers]
        return [call for answer in answers for call in json.loads(answer)["calls"]]


def emulated(stack: ExitStack, *options: str) -> str:
    """A provider; gives its URL."""
    (port,) = free_ports(1)
    process = stack.enter_context(switchboard("emulate", "--port", str(port), "--key", world.API_KEY, *options))
    process.until(f"http://127.0.0.1:{port}/_emulator/faults")
    return f"http://127.0.0.1:{port}"


def served(site: Site, *providers: str) -> chart.Values:
    """Values: whom it serves, and that all of them come from this machine. Everything else is the case's."""
    limits = {"open_calls": {"tenant": 1000}, "call_seconds": 600}
    acme = tenant(origins=[ORIGIN], limits=limits)
    presets = {"support": acme["presets"]["talk"]}
    tree = policy(
        acme=acme,
        browser={**acme, "provider": "media", "origins": [site.url], "presets": presets, "default_preset": "support"},
    )
    tree["issuers"][0]["secret"] = "file:/run/secrets/switchboard/issuer-secret"
    tree["providers"] = {
        name: {"kind": "openai", "base_url": f"{url}/v1", "keys": ["file:/run/secrets/switchboard/openai-api-key"]}
        for name, url in zip(("openai", "media"), providers, strict=True)
    }
    settings = {"edge_exempt": ["127.0.0.0/8"], "trusted_proxies": ["127.0.0.0/8"]}
    return {"policy": {"files": {"acme.yaml": ryaml.dumps(tree)}}, "settings": settings}


@contextmanager
def ground() -> Iterator[Place]:
    """Everything, as long as the block lasts."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = stack.enter_context(redis_server(folder))
        providers = [emulated(stack, "--no-media"), emulated(stack)]  # the second one answers with real WebRTC
        site = stack.enter_context(serving_site())
        deployment = Deployment(folder, served(site, *providers), redis.url, stack)
        for _ in range(deployment.replicas):
            deployment.pods.append(deployment.begin())
        for pod in deployment.pods:
            deployment.ready_seconds.append(pod.until_ready())
        place = folder / "nginx"
        place.mkdir()
        proxy = stack.enter_context(nginx(place, [pod.port for pod in deployment.pods]))
        key = folder / "key"
        key.write_text(world.LEGACY_SECRET)
        yield Place(deployment, proxy, key, site, providers)


async def run(place: Place) -> Load:
    """All pods replaced, under load."""
    load = Load()
    async with asyncio.TaskGroup() as group:
        for _ in range(USERS):
            group.create_task(User(load, place.proxy).run())
        group.create_task(probe_again_and_again(load, place.proxy, place.key))
        group.create_task(talk_again_and_again(load, place.proxy, place.site))
        await asyncio.sleep(SETTLE_SECONDS)
        await place.deployment.replace(place.proxy)
        await asyncio.sleep(SETTLE_SECONDS)
        load.is_over.set()
    return load


def judged(deployment: Deployment, load: Load, calls: Sequence[dict[str, Any]]) -> Result:
    """What was found, held to its bounds."""
    result = Result()
    for wrong in load.wrong:
        result.broken.append(wrong)
    result.bound(set(load.probes) == {0} and load.probes[0] >= deployment.replicas, f"probes: {load.probes}")
    result.bound(load.talks >= deployment.replicas, f"talks: {load.talks}")
    result.bound(len(load.milliseconds) > 200, "too few requests to say anything")
    result.bound([one.code for one in deployment.stopped] == [0] * deployment.replicas, f"ends: {deployment.stopped}")
    ids = [call["id"] for call in calls]
    result.bound(sorted(load.opened) == sorted(ids), "calls at the provider that no caller heard of, or the reverse")
    result.bound(all(call["ended_at"] is not None for call in calls), "calls that were not hung up")
    slowest = sorted(load.milliseconds)
    result.lines += table(
        "what",
        "found",
        rows=[
            ("pods replaced", len(deployment.stopped)),
            ("from start to ready", f"{max(deployment.ready_seconds):.1f} s at most"),
            ("from SIGTERM to the end, exit code 0", f"{max(one.seconds for one in deployment.stopped):.1f} s at most"),
            ("requests of users", len(load.milliseconds)),
            ("answers", ", ".join(f"{count} × {what}" for what, count in sorted(load.answers.items()))),
            ("answers that were not as expected, broken connections", len(load.wrong)),
            ("median and slowest answer", f"{slowest[len(slowest) // 2]:.0f} ms, {slowest[-1]:.0f} ms"),
            (f"runs of `switchboard probe`, {len(STEPS)} steps passed in each", load.probes[0]),
            ("calls of the browser, connected, heard and hung up", load.talks),
            ("calls at the providers, each known to one caller and hung up", len(ids)),
        ],
    )
    return result


def main() -> int:
    """Run, print."""
    arguments = argparse.ArgumentParser(description="Replace all pods behind nginx under load.")
    arguments.add_argument("--write", action="store_true", help=f"write docs/proof/{PAGE.name}")
    write = arguments.parse_args().write
    with ground() as place:
        say_on_stderr(f"{place.deployment.replicas} pods are ready behind nginx …")
        load = asyncio.run(run(place))
        result = judged(place.deployment, load, place.calls())
        sleep = place.deployment.pods[0].pre_stop_seconds
    said = [
        "# Proof: rolling restart",
        "",
        "Written by `make prove-rolling`.",
        "",
        *machine(),
        "",
        f"Two pods of `helm/switchboard/ci/{CASE}-values.yaml` behind nginx with `deploy/nginx/switchboard.conf`,",
        "each replaced as the Deployment's strategy says: a third one starts, its probes pass, an old one leaves,",
        f"sleeps {sleep:.0f} s and gets SIGTERM. They are processes of one machine with the arguments, variables,",
        "files, probes and times of the rendered Deployment; the policy is one for the emulator, and there is one",
        "Redis. There is no kubelet and no Ingress controller: this program does what they would.",
        "",
        f"Meanwhile {USERS} users mint, call by the grant, look, send a heartbeat and hang up; `switchboard probe",
        "--call` runs again and again; and Chromium, on a page of another origin, calls by a WHIP client with real",
        "WebRTC. All go by TLS and nginx.",
        "",
        *result.lines,
        "",
    ]
    return tell("\n".join(said), {"rolling": result}, PAGE, write=write)


if __name__ == "__main__":
    sys.exit(main())
