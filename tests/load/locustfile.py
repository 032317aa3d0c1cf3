"""What users do: sign in, ask for a token, call, look at the call, hang up; all at once at times, some with bad tokens.

Run by `make load`, in a virtual environment of its own, so it imports nothing of the repository. What a run has to hold
stands in THRESHOLDS; a run that does not ends with 1.
"""

import itertools
import os
import random
import time
import uuid
from pathlib import Path
from typing import Any

from locust import FastHttpUser, LoadTestShape, between, events, task
from locust.runners import WorkerRunner

IDENTITY = os.environ["LOAD_IDENTITY"]
OFFER = Path(os.environ["LOAD_OFFER"]).read_bytes()
USERS = int(os.environ["LOAD_USERS"])
SECONDS = int(os.environ["LOAD_SECONDS"])
ORIGIN = "https://app.load.example"

# Milliseconds at the 95th percentile, by name of the request: what a user does not notice.
# Offers go through the emulator, which is Python too and writes a whole answer.
THRESHOLDS = {"/token": 250, "/token, direct": 400, "/sdp": 500, "/sdp/[id]": 250, "/sdp/[id], hang up": 500}
MAX_FAILED = 0.001  # of all requests; a bad token that is refused as it should be is none
SIGN_IN_AGAIN_SECONDS = 240

_offers = itertools.count(random.randrange(10**9))


class Waves(LoadTestShape):
    """A quarter of all users, and twice in a run all of them at once, for a sixth of the time."""

    def tick(self) -> tuple[int, float] | None:
        at = self.get_run_time() / SECONDS
        if at >= 1:
            return None
        in_burst = 1 / 3 <= at < 1 / 2 or 2 / 3 <= at < 5 / 6
        return (USERS, USERS / 2) if in_burst else (max(1, USERS // 4), USERS / 10)


class Person(FastHttpUser):
    """Somebody with a browser."""

    wait_time = between(0.5, 2.5)
    network_timeout = 20.0
    connection_timeout = 10.0

    def on_start(self) -> None:
        self.name = f"load-{uuid.uuid4()}"
        self.sign_in()

    def sign_in(self) -> None:
        """A JWT from the identity provider, which is not what is measured."""
        answer = self.client.post(f"{IDENTITY}/login?user={self.name}", name="(sign in)")
        self.token = answer.json()["token"]
        self.signed_in_at = time.monotonic()

    @task(8)
    def talk(self) -> None:
        """A grant, a call with it, a look or two, heartbeats, the end."""
        credential = self.asked("GET", "/token?preset=relayed", "/token", 200)
        if credential is None:
            return
        grant = credential.json()["value"]
        offer = OFFER.replace(b"o=- ", b"o=- %d" % next(_offers), 1)
        headers = {"content-type": "application/sdp"}
        answer = self.asked("POST", "/sdp", "/sdp", 201, bearer=grant, data=offer, headers=headers)
        if answer is None:
            return
        call = answer.headers["location"].replace("https://voice.example.com", "")
        self.asked(
            "POST", f"{call}/report", "/sdp/[id]/report", 204, json={"event": "connected", "ms_to_connected": 420.0}
        )
        for _ in range(random.randint(1, 3)):
            self.wait()
            found = self.asked("GET", call, "/sdp/[id]", 200)
            if found is not None and found.json()["state"] != "open":
                return
            self.asked("POST", f"{call}/report", "/sdp/[id]/report", 204, json={"event": "alive", "rtt_ms": 40.0})
        if random.random() < 0.1:  # closes the lid: the next call takes this one's place
            return
        self.asked("DELETE", call, "/sdp/[id], hang up", 200)

    @task(2)
    def mint(self) -> None:
        """The provider's own client secret."""
        self.asked("GET", "/token?preset=direct", "/token, direct", 200)

    @task(1)
    def come_with_a_bad_token(self) -> None:
        """One that was changed, or none at all."""
        if random.random() < 0.5:
            head, content, signature = self.token.split(".")
            self.asked("GET", "/token", "/token, bad", 401, bearer=f"{head}.{content}.{signature[::-1]}")
        else:
            self.asked("GET", "/token", "/token, bad", 401, bearer="")

    def asked(self, method: str, path: str, name: str, status: int, *, bearer: str | None = None, **how: Any) -> Any:
        """One request; its answer, or None if the status is another one."""
        if time.monotonic() - self.signed_in_at > SIGN_IN_AGAIN_SECONDS:
            self.sign_in()
        headers = {"origin": ORIGIN, **how.pop("headers", {})}
        chosen = self.token if bearer is None else bearer
        if chosen:
            headers["authorization"] = f"Bearer {chosen}"
        with self.client.request(method, path, name=name, headers=headers, catch_response=True, **how) as response:
            if response.status_code == status:
                response.success()
                return response
            response.failure(f"{response.status_code}, not {status}: {(response.text or '')[:200]}")
            return None


@events.quitting.add_listener
def judge(environment: Any, **_: Any) -> None:
    """Ends the run with 1 if it did not hold what is wanted; only where all figures come together."""
    if isinstance(environment.runner, WorkerRunner):
        return
    stats, broken = environment.stats, []
    if stats.total.fail_ratio > MAX_FAILED:
        broken.append(f"{stats.total.fail_ratio:.2%} of all requests failed, not {MAX_FAILED:.1%} at the most")
    by_name = {name: entry for (name, _), entry in stats.entries.items()}
    for name, most in THRESHOLDS.items():
        if name not in by_name:
            broken.append(f"{name} was never asked for")
        elif (p95 := by_name[name].get_response_time_percentile(0.95)) > most:
            broken.append(f"{name}: {p95:.0f} ms at the 95th percentile, not {most} at the most")
    for line in broken:
        print(f"BROKEN  {line}")
    environment.process_exit_code = 1 if broken else 0
