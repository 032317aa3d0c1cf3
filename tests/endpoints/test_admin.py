"""/admin on the ops port, as HTTP: who is let in, how answers look, and that nothing is there without a token."""

import pytest

from switchboard.config.schema import Config
from switchboard.tenants import is_tenant_name
from tests.support import world as worlds
from tests.support.contract import _check_problem
from tests.support.world import ADMIN_TOKEN

pytestmark = pytest.mark.anyio

AUTH = {"authorization": f"Bearer {ADMIN_TOKEN}"}
ROUTES = [
    ("GET", "/admin/calls"),
    ("DELETE", "/admin/calls/rtc_1"),
    ("POST", "/admin/tenants/acme/suspend"),
    ("POST", "/admin/tenants/acme/resume"),
]
every_route = pytest.mark.parametrize(("method", "path"), ROUTES)


@pytest.fixture
async def world(anyio_backend):
    async with worlds.world(admin_token=ADMIN_TOKEN) as made:
        yield made


def check_problem(answer, status, code):
    """A refusal in the one form that all have."""
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    _check_problem(answer.json(), answer)


@every_route
async def test_without_a_token_there_is_no_admin(method, path, anyio_backend):
    async with worlds.world() as world:
        answer = await world.ops.request(method, path, headers=AUTH)
        check_problem(answer, 404, "not_found")
        assert answer.json()["error"]["param"] is None
        assert world.records == []
        for other in ("/metrics", "/healthz", "/readyz"):
            assert (await world.ops.get(other)).status_code == 200


@every_route
async def test_the_public_port_has_no_admin(world, method, path):
    check_problem(await world.client.request(method, path, headers=AUTH), 404, "not_found")
    assert world.records == []


@every_route
@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "missing_token"),
        ("", "missing_token"),
        ("Bearer", "missing_token"),
        (f"Basic {ADMIN_TOKEN}", "missing_token"),
        (ADMIN_TOKEN, "missing_token"),
        (f"Bearer {ADMIN_TOKEN}x", "invalid_token"),
        (f"Bearer {ADMIN_TOKEN[:-1]}", "invalid_token"),
        (f"Bearer {ADMIN_TOKEN.upper()}", "invalid_token"),
        ("Bearer é" + "x" * 40, "invalid_token"),
    ],
)
async def test_who_is_no_operator(world, method, path, authorization, code):
    headers = {} if authorization is None else {"authorization": authorization.encode("latin-1")}
    answer = await world.ops.request(method, path, headers=headers)
    check_problem(answer, 401, code)
    assert ('error="invalid_token"' in answer.headers["www-authenticate"]) == (code == "invalid_token")
    assert [(one["outcome"], one["reason"]) for one in world.records] == [("denied", code)]


async def test_the_scheme_is_written_in_any_case(world):
    answer = await world.ops.get("/admin/calls", headers={"authorization": f"bEARER  {ADMIN_TOKEN} "})
    assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/admin/calls", "/admin/tenants/acme/suspend", "/admin/tenants/acme/resume"])
async def test_answers_are_kept_by_nobody(world, path):
    method = "POST" if "tenants" in path else "GET"
    answer = await world.ops.request(method, path, headers={**AUTH, "x-request-id": "night-1"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-request-id"] == world.records[-1]["request_id"] == "night-1"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/admin/calls", "GET"),
        ("HEAD", "/admin/calls", "GET"),
        ("GET", "/admin/calls/rtc_1", "DELETE"),
        ("GET", "/admin/tenants/acme/suspend", "POST"),
        ("OPTIONS", "/admin/tenants/acme/resume", "POST"),
    ],
)
async def test_another_method(world, method, path, allow):
    answer = await world.ops.request(method, path, headers={**AUTH, "origin": "https://app.acme.example"})
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)
    assert not [name for name in answer.headers if name.startswith("access-control")], "no page may ask"


@pytest.mark.parametrize("path", ["/admin", "/admin/", "/admin/calls/", "/admin/tenants/acme", "/admin/calls/a/b"])
async def test_other_paths(world, path):
    check_problem(await world.ops.get(path, headers=AUTH), 404, "not_found")


@pytest.mark.parametrize(("method", "path"), ROUTES[:2])
async def test_a_parameter_twice(world, method, path):
    answer = await world.ops.request(method, f"{path}?tenant=acme&tenant=widgets", headers=AUTH)
    check_problem(answer, 400, "invalid_request")
    assert answer.json()["error"]["param"] == "tenant"


async def test_an_empty_tenant_is_not_everybody(world):
    """`?tenant=$T` of a script whose variable is empty must not list, and then end, everybody's calls."""
    check_problem(await world.ops.get("/admin/calls?tenant=", headers=AUTH), 404, "not_found")


@pytest.mark.parametrize(("trusted", "seen"), [("127.0.0.1", "198.51.100.7"), ("10.0.0.0/8", "127.0.0.1")])
async def test_the_operators_address_is_found_as_on_the_public_port(trusted, seen, anyio_backend):
    async with worlds.world(admin_token=ADMIN_TOKEN, trusted_proxies=trusted) as world:
        await world.ops.get("/admin/calls", headers={**AUTH, "x-forwarded-for": "198.51.100.7"})
        assert world.records[-1]["client_ip"] == seen


@pytest.mark.parametrize(
    "name", ["acme", "ACME", "a", "0", "a.b-c_d", "x" * 63, "x" * 64, "", "-a", "a b", "a:b", "a\n"]
)
def test_a_tenants_name_is_what_a_policy_takes(name):
    example = worlds.example()
    example["tenants"] = {name: example["tenants"]["widgets"]}
    example["issuers"] = [{**example["issuers"][1], "tenant": name}]
    try:
        Config.model_validate(example)
    except ValueError:
        assert not is_tenant_name(name)
    else:
        assert is_tenant_name(name)
