"""The Redis of deploy/kubernetes, as the documentation has people use it with the chart."""

import re
import subprocess
import time
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis as client_library

from tests.helm import chart, kubernetes
from tests.support.process import free_ports
from tests.support.redis import BINARY

FILE = chart.ROOT / "deploy" / "kubernetes" / "redis.yaml"
MANIFESTS = chart.manifests(FILE.read_text(encoding="utf-8"))
DEPLOYMENT, SERVICE, POLICY = MANIFESTS
POD: dict[str, Any] = DEPLOYMENT["spec"]["template"]["spec"]


@pytest.mark.parametrize("minor", kubernetes.MINORS)
def test_objects_are_as_kubernetes_wants_them(minor):
    assert [mistake for one in MANIFESTS for mistake in kubernetes.mistakes(one, minor)] == []


def test_it_keeps_to_the_restricted_level():
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = POD["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False


def test_the_chart_and_it_find_each_other():
    """The URL of the case is the Service; the pods of the chart are those whom its policy lets in, on its port."""
    url = urlsplit(chart.environment("gateway")["SWITCHBOARD_REDIS_URL"])
    assert str(url.hostname).split(".")[0] == SERVICE["metadata"]["name"]
    assert url.port == SERVICE["spec"]["ports"][0]["port"]
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    assert labels == SERVICE["spec"]["selector"] == POLICY["spec"]["podSelector"]["matchLabels"]
    (peer,) = POLICY["spec"]["ingress"][0]["from"]
    assert peer["podSelector"]["matchLabels"].items() <= chart.pod("gateway")["metadata"]["labels"].items()
    ports = [rule["ports"] for rule in chart.network_policy("gateway")["egress"]]
    assert [{"port": POD["containers"][0]["ports"][0]["containerPort"], "protocol": "TCP"}] in ports


def test_the_documentation_says_the_same():
    page = (chart.ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    assert "deploy/kubernetes/redis.yaml" in page
    (url,) = re.findall(r"--set redis\.url=(\S+)", page)
    assert urlsplit(url).hostname == SERVICE["metadata"]["name"]
    assert urlsplit(url).port == SERVICE["spec"]["ports"][0]["port"]


def test_a_real_redis_takes_these_arguments(tmp_path):
    """Started as its container would be, it evicts nothing and keeps nothing."""
    port = free_ports(1)[0]
    program, *arguments = POD["containers"][0]["args"]
    assert program == "redis-server"
    here = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path)]
    process = subprocess.Popen([BINARY, *arguments, *here], stdout=subprocess.DEVNULL)
    try:
        with client_library.Redis(port=port, decode_responses=True) as client:
            end = time.monotonic() + 10
            while time.monotonic() < end:
                try:
                    client.ping()
                    break
                except client_library.ConnectionError:
                    time.sleep(0.02)
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert client.config_get("save") == {"save": ""}
            memory = int(client.config_get("maxmemory")["maxmemory"])
            limit = POD["containers"][0]["resources"]["limits"]["memory"]
            assert memory < int(limit.removesuffix("Mi")) * 2**20
    finally:
        process.terminate()
        process.wait(10)
    assert list(tmp_path.iterdir()) == []
