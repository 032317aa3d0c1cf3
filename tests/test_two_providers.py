"""Tenants on different providers in one process: OpenAI by key, Azure by a token that azure-identity gets over TLS, and
a server that only speaks like OpenAI.
"""

from contextlib import ExitStack
from dataclasses import dataclass

import httpx
import pytest
import ryaml

from tests.support import keys
from tests.support.identity import ASSERTION, Identity
from tests.support.process import Process, free_ports, switchboard
from tests.support.world import API_KEY, LEGACY_SECRET, OFFER, PUBLIC_URL, SIGNING_KEY, USER_KEY_SECRET, example

APP, CLIENT = "3d9a8c52-0000-4000-8000-00000000a11c", "3d9a8c52-0000-4000-8000-00000000c11e"
ISSUER = "https://legacy.widgets.example/"


@dataclass(frozen=True)
class Front:
    """The service, its two providers and who vouches for it at one of them."""

    client: httpx.Client
    process: Process
    url: str
    ops: str
    upstreams: dict[str, str]
    identity: Identity

    def ask(self, method, path, tenant, **request):
        claims = keys.claims(iss=ISSUER, org_id=tenant, sub=f"user-of-{tenant}")
        headers = {"authorization": f"Bearer {keys.sign(claims, LEGACY_SECRET, 'HS256')}"}
        if "content" in request:
            headers["content-type"] = "application/sdp"
        return self.client.request(method, self.url + path, headers=headers, **request)

    def calls(self, kind):
        return self.client.get(f"{self.upstreams[kind]}/_emulator/calls").json()["calls"]

    def faults(self, kind, **faults):
        self.client.put(f"{self.upstreams[kind]}/_emulator/faults", json=faults)


def policy(base_urls):
    tree = example()
    tree["providers"] = {
        "openai": {"kind": "openai", "base_url": base_urls["openai"], "keys": ["env:OPENAI_API_KEY"]},
        "azure": {"kind": "azure", "base_url": base_urls["azure"], "entra": True},
    }
    tree["providers"]["cellar"] = {**tree["providers"]["openai"], "base_url": base_urls["cellar"], "call_ids": False}
    lab = {"delivery": "relay", "unleashed": "allow", "session": {"type": "realtime"}}
    tree["tenants"]["lab"] = {"provider": "cellar", "origins": "any", "default_preset": "try", "presets": {"try": lab}}
    tree["tenants"]["acme"]["provider"] = "azure"
    tree["tenants"]["acme"]["presets"]["support"]["hide_instructions"] = True
    (issuer,) = tree["issuers"][1:]
    del issuer["tenant"]
    tree["issuers"] = [{**issuer, "tenant_claim": "org_id", "tenants": ["acme", "widgets", "lab"]}]
    return tree


@pytest.fixture(scope="module")
def front(tmp_path_factory):
    folder, identity = tmp_path_factory.mktemp("providers"), Identity()
    with ExitStack() as stack:
        authority = stack.enter_context(identity.as_authority(folder))
        emulators = {
            kind: stack.enter_context(switchboard("emulate", "--port", "0", "--no-media", *options))
            for kind, options in (
                ("openai", ["--key", API_KEY]),
                ("azure", ["--azure"]),
                ("cellar", ["--key", API_KEY, "--no-call-ids"]),
            )
        }
        for emulated in emulators.values():
            while not emulated.out:
                assert emulated.popen.poll() is None, emulated.err
        base_urls = {kind: emulated.out.removeprefix("base URL: ") for kind, emulated in emulators.items()}
        (folder / "policy.yaml").write_text(ryaml.dumps(policy(base_urls)))
        (folder / "federated").write_text(ASSERTION)
        public, ops = free_ports(2)
        env = {
            "SWITCHBOARD_CONFIG": str(folder / "policy.yaml"),
            "SWITCHBOARD_HOST": "127.0.0.1",
            "SWITCHBOARD_PORT": str(public),
            "SWITCHBOARD_OPS_PORT": str(ops),
            "SWITCHBOARD_PUBLIC_URL": PUBLIC_URL,
            "SWITCHBOARD_SIGNING_KEYS": SIGNING_KEY,
            "SWITCHBOARD_USER_KEY_SECRET": USER_KEY_SECRET,
            "SWITCHBOARD_AUDIT_KEY": "none",
            "OPENAI_API_KEY": API_KEY,
            "LEGACY_JWT_SECRET": LEGACY_SECRET,
            # As the workload identity of a pod has it.
            "AZURE_AUTHORITY_HOST": identity.url,
            "AZURE_TENANT_ID": APP,
            "AZURE_CLIENT_ID": CLIENT,
            "AZURE_FEDERATED_TOKEN_FILE": str(folder / "federated"),
            "SSL_CERT_FILE": str(authority),
        }
        process = stack.enter_context(switchboard("serve", env=env))
        process.until(f"http://127.0.0.1:{public}/readyz")
        upstreams = {kind: base_url.partition("/v1")[0].removesuffix("/openai") for kind, base_url in base_urls.items()}
        client = stack.enter_context(httpx.Client(trust_env=False, timeout=10))
        yield Front(client, process, f"http://127.0.0.1:{public}", f"http://127.0.0.1:{ops}", upstreams, identity)


def test_each_tenant_is_served_by_its_own_provider(front):
    answer = front.ask("POST", "/sdp", "acme", content=OFFER)
    assert answer.status_code == 201, front.process.err
    (call,) = front.calls("azure")
    assert answer.headers["location"] == f"/sdp/{call['id']}"
    assert len(call["id"]) == len("rtc_") + 32
    ended = front.ask("DELETE", answer.headers["location"], "acme")
    assert (ended.status_code, front.calls("azure")[0]["state"]) == (200, "ended")
    minted = front.ask("POST", "/token", "widgets")
    assert minted.json()["calls_url"] == f"{front.upstreams['openai']}/v1/realtime/calls"
    assert front.calls("openai") == []


def test_a_server_that_names_no_calls(front):
    answer = front.ask("POST", "/sdp", "lab", content=OFFER)
    assert (answer.status_code, "location" in answer.headers) == (201, False)
    assert len(front.calls("cellar")) == 1


def test_one_provider_that_is_ill_is_no_trouble_to_the_other(front):
    front.faults("openai", status=500)
    assert front.ask("POST", "/token", "widgets").json()["code"] == "provider_unavailable"
    assert front.ask("POST", "/sdp", "acme", content=OFFER).status_code == 201
    front.faults("openai")


def test_the_token_was_asked_for_once_and_before_anybody_called(front):
    (asked,) = front.identity.asked
    assert {name: asked[name] for name in ("tenant", "client_id", "scope", "grant_type", "client_assertion")} == {
        "tenant": APP,
        "client_id": CLIENT,
        "scope": "https://ai.azure.com/.default",
        "grant_type": "client_credentials",
        "client_assertion": ASSERTION,
    }
    text = httpx.get(f"{front.ops}/metrics", trust_env=False).text
    assert 'switchboard_provider_key_set_aside{key="entra",provider="azure"} 0.0' in text
