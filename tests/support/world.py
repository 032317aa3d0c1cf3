"""The service as it is built, the emulator behind it over real HTTP, a real key server: what most tests talk to."""

import copy
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import ryaml

from switchboard import app, emulator
from switchboard.config.reading import check
from switchboard.settings import Settings
from tests.support import keys
from tests.support.leaks import LEAKS
from tests.support.servers import KeyServer, serving

EXAMPLE = Path(__file__).parents[2] / "deploy" / "switchboard.example.yaml"
OFFER = (Path(__file__).parents[2] / "service/switchboard/data/sample-offer.sdp").read_bytes()
ORIGIN = "https://app.acme.example"
PUBLIC_URL = "https://voice.example.com"
API_KEY = LEAKS.plant("API key", "sk-test-0123456789abcdefghijklmnop")
OTHER_API_KEY = LEAKS.plant("API key", "sk-test-9876543210zyxwvutsrqponm")
LEGACY_SECRET = LEAKS.plant("shared secret", "a-shared-secret-of-the-legacy-backend-42")
SIGNING_KEY = LEAKS.plant("signing key", "signing-key-of-the-tests-0123456789")
USER_KEY_SECRET = LEAKS.plant("user key secret", "user-key-secret-of-the-tests-0123456")
AUDIT_KEY = LEAKS.plant("audit key", "audit-key-of-the-tests-0123456789abcd")
ADMIN_TOKEN = LEAKS.plant("admin token", "admin-token-of-the-tests-0123456789ab")
TODAY = date(2026, 11, 20)

MINTING = (
    "/token",
    "/v1/realtime/client_secrets",
    "/v1/realtime/translations/client_secrets",
    "/v1/realtime/sessions",
    "/v1/realtime/transcription_sessions",
)

for text in ("of Acme with orders", "senior engineer on call", "the concierge of Widgets"):
    LEAKS.plant("instructions", text)


def example() -> dict[str, Any]:
    """The example policy as a tree of one's own."""
    return dict(ryaml.loads(EXAMPLE.read_text()))


def fresh_offer(number: int = 0) -> bytes:
    """A browser's offer; each number another one, as every connection of a browser has."""
    return OFFER.replace(b"o=- ", b"o=- %d" % number) if number else OFFER


class ListSink:
    """Keeps audit records; fails on demand, as a full disk does: unexpectedly, or known beforehand."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.failing = False
        self.ill = False

    async def ready(self) -> None:
        if self.ill:
            raise OSError(28, "No space left on device")

    async def write(self, record: bytes) -> None:
        if self.failing or self.ill:
            raise OSError(28, "No space left on device")
        LEAKS.saw("audit", record.decode())
        self.records.append(json.loads(record))

    def reopen(self) -> None:
        """Nothing is open."""


class World:
    """A running service and those around it."""

    def __init__(self, *, client: httpx.AsyncClient, ops: httpx.AsyncClient, **around: Any) -> None:
        self.client = client
        self.ops = ops
        self.sink: ListSink = around["sink"]
        self.emulator: emulator.Emulator = around["emulated"]
        self.key_server: KeyServer = around["key_server"]
        self.emulator_url: str = around["emulator_url"]
        self.public: Any = around["public"]
        self.broker: Any = around["service"].broker
        self.service: Any = around["service"]
        self._offers = 0

    def token(self, **changes: Any) -> str:
        """A good token of a user of acme; changes as in `keys.claims`."""
        return keys.sign(keys.claims(**changes), keys.private_key("RSA"), kid="rsa-1")

    def widgets_token(self, **changes: Any) -> str:
        """A good token of a user of widgets, by the shared secret."""
        content = {"iss": "https://legacy.widgets.example/", "org_id": None, "sub": "user-walter-77c0", **changes}
        return keys.sign(keys.claims(**content), LEGACY_SECRET, "HS256")

    def auth(self, token: str | None = None, **headers: str) -> dict[str, str]:
        return {"authorization": f"Bearer {token or self.token()}", **headers}

    async def mint(self, token: str | None = None, path: str = "/token", **body: Any) -> httpx.Response:
        return await self.client.post(path, headers=self.auth(token), json=body)

    async def relay(
        self, token: str | None = None, path: str = "/sdp", offer: bytes | None = None, **headers: str
    ) -> httpx.Response:
        """Post an offer: the one that is given, or one that nobody has sent before."""
        content = fresh_offer(self._offers) if offer is None else offer
        self._offers += offer is None
        return await self.client.post(
            path, headers={"content-type": "application/sdp", **self.auth(token, **headers)}, content=content
        )

    async def faults(self, **faults: Any) -> None:
        """Make the provider misbehave from now on."""
        async with httpx.AsyncClient() as client:
            answer = await client.put(f"{self.emulator_url}/_emulator/faults", json=faults)
            assert answer.status_code == 200, answer.text

    @property
    def records(self) -> list[dict[str, Any]]:
        return self.sink.records

    async def metric(self, name: str, **labels: str) -> float:
        """A sample's value by its name and labels; 0 if there is none."""
        text = (await self.ops.get("/metrics")).text
        for line in text.splitlines():
            if line.startswith(name) and all(f'{label}="{value}"' in line for label, value in labels.items()):
                return float(line.rpartition(" ")[2])
        return 0.0


def settings(**changes: Any) -> Settings:
    given = {
        "public_url": PUBLIC_URL,
        "signing_keys": SIGNING_KEY,
        "user_key_secret": USER_KEY_SECRET,
        "audit_key": AUDIT_KEY,
        "provider_timeout": 2.0,
        **changes,
    }
    return Settings(**given)


@asynccontextmanager
async def world(
    policy: Mapping[str, Any] | None = None, *, tracing: Any = None, emulated: Mapping[str, Any] = {}, **changes: Any
) -> AsyncIterator[World]:
    """A world around the example policy, or another one.

    Args:
        policy: a tree; provider addresses and key set addresses are replaced by the emulator's and the key server's.
        tracing: what makes spans.
        emulated: options of the emulator.
        changes: to the settings.
    """
    async with AsyncExitStack() as stack:
        key_server = KeyServer(keys.jwk(keys.private_key("RSA"), "rsa-1"), keys.jwk(keys.private_key("EC"), "ec-1"))
        await stack.enter_async_context(key_server.running())
        keys_taken = frozenset({API_KEY, OTHER_API_KEY})
        upstream = emulator.create_app(emulator.Options(**{"keys": keys_taken, "media": False, **emulated}))
        await stack.enter_async_context(upstream.router.lifespan_context(upstream))
        emulator_url = await stack.enter_async_context(serving(upstream))
        base_url = emulator_url + upstream.state.emulator.flavour.prefix
        sink = ListSink()
        service = await stack.enter_async_context(
            app.build(
                settings(**changes),
                _config(policy or example(), key_server, base_url),
                sink=sink,
                environ={
                    "OPENAI_API_KEY": API_KEY,
                    "OTHER_API_KEY": OTHER_API_KEY,
                    "LEGACY_JWT_SECRET": LEGACY_SECRET,
                },
                tracing=tracing,
            )
        )
        service.readiness.ready()
        client = await stack.enter_async_context(_client(service.public, PUBLIC_URL))
        ops = await stack.enter_async_context(_client(service.ops, "http://ops.local"))
        yield World(
            client=client,
            ops=ops,
            sink=sink,
            emulated=upstream.state.emulator,
            key_server=key_server,
            emulator_url=emulator_url,
            public=service.public,
            service=service,
        )
        await ops.get("/metrics")  # seen once more at the end, for the scan


def _client(asgi: Any, base_url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(asgi, raise_app_exceptions=False),
        base_url=base_url,
        event_hooks={"response": [_overhear]},
    )


async def _overhear(response: httpx.Response) -> None:
    """Every answer is evidence for the scan at the end of the run."""
    await response.aread()
    place = f"answer {response.request.method} {response.request.url.path} {response.headers.get('x-request-id')}"
    LEAKS.saw(place, f"{response.status_code} {dict(response.headers)} {response.text}")
    if response.request.url.path in MINTING and response.status_code == 200:
        LEAKS.handed_out(place, response.json()["value"])


def _config(policy: Mapping[str, Any], key_server: KeyServer, base_url: str) -> Any:
    tree = copy.deepcopy(dict(policy))
    for provider in tree["providers"].values():
        provider["base_url"] = base_url
    for issuer in tree["issuers"]:
        if "jwks_url" in issuer:
            issuer["jwks_url"] = f"{key_server.url}/jwks.json"
    checked = check(tree, today=TODAY)
    assert checked.config is not None, [str(mistake) for mistake in checked.mistakes]
    return checked.config
