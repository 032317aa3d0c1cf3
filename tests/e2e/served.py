"""`switchboard serve` for the tests of clients: processes of their own for it and for both providers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from tests.e2e.running import Running, until
from tests.prove import service
from tests.prove.service import Ground, Replica, ground
from tests.support import world as worlds
from tests.support.process import Process, free_ports, switchboard

START_SECONDS = 20.0


class Served(Running):
    """One replica, before it the users of an issuer whose secret the tests have, behind it the providers."""

    def __init__(self, place: Ground, replica: Replica) -> None:
        super().__init__("serve", replica.url, replica.ops_url)
        self._place = place
        self._replica = replica

    @property
    def records(self) -> list[dict[str, Any]]:
        return self._replica.records

    @property
    def provider_url(self) -> str:
        return str(self._place.provider.base_url).rstrip("/")

    def _issued(self, tenant: str, subject: str, claims: dict[str, str]) -> str:
        return service.token(subject, tenant=tenant, **claims)


def policy(origin: str) -> dict[str, Any]:
    """The example's tenants, each with presets of all types and with a page at `origin`; beside them is a tenant at
    Azure that hides its session. One issuer speaks for all.
    """
    tree = worlds.example()
    tree["issuers"] = service.policy()["issuers"]
    captions = tree["tenants"]["widgets"]["presets"]["captions"]["session"]
    translation = {"type": "translation", "model": "gpt-realtime-translate", "audio": {"output": {"language": "es"}}}
    for name, delivery in (("acme", "relay"), ("widgets", "direct")):
        tenant = tree["tenants"][name]
        tenant["origins"].append(origin)
        tenant["presets"]["captions"] = {"delivery": delivery, "session": captions}
        tenant["presets"]["interpreter"] = {"delivery": delivery, "session": translation}
    tree["providers"]["azure"] = {"kind": "azure", "base_url": "", "keys": ["env:OPENAI_API_KEY"]}
    session = tree["tenants"]["acme"]["presets"]["support"]["session"]
    presets = {"support": {"delivery": "relay", "hide_instructions": True, "session": session}}
    discreet = {"provider": "azure", "origins": [origin], "default_preset": "support", "presets": presets}
    tree["tenants"]["discreet"] = discreet
    return tree


@contextmanager
def served(tree: dict[str, Any]) -> Iterator[Served]:
    """The service under this policy, whose providers `openai` and `azure` become emulators; it has to end well and to
    have had nothing to complain of.
    """
    with switchboard("emulate", "--port", "0", "--azure") as azure:
        tree["providers"]["azure"]["base_url"] = until(lambda: _base_url(azure), START_SECONDS, "emulator of Azure")
        with ground(tree, media=True) as place:
            (port,) = free_ports(1)
            # In memory: Redis has a tenth of a second, which browsers on a busy machine do not always leave it.
            replica = place.add(port=str(port), public_url=f"http://127.0.0.1:{port}", redis_url="")
            place.start()
            running = Served(place, replica)
            yield running
            running.client.close()
            for process in (replica.process, place.emulator, azure):
                assert process.stop() == 0, process.err
            lines = [orjson.loads(line) for line in replica.log.splitlines()]
            assert [line for line in lines if line["level"] not in ("debug", "info")] == []


def _base_url(emulator: Process) -> str | None:
    assert emulator.popen.poll() is None, emulator.err
    return emulator.out.removeprefix("base URL: ") or None
