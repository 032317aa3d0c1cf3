"""The rendered objects: what each value does, and what no value may change."""

import hashlib
import json
import math
import re
import shutil
from pathlib import Path

import pytest
import ryaml

from tests.helm import chart
from tests.helm.chart import container, environment, objects, only, pod

SELECTOR = {"app.kubernetes.io/name": "switchboard", "app.kubernetes.io/instance": chart.RELEASE}
PROBE = {"app.kubernetes.io/name": "switchboard-probe", "app.kubernetes.io/instance": chart.RELEASE}
WITH_REDIS = {"redis": {"url": "redis://redis:6379"}}
every_case = pytest.mark.parametrize("case", chart.CASE_NAMES)


def specs(case):
    """The pods of a case: the service's, and those of the probe."""
    return [pod(case)["spec"], *(one["spec"] for one in chart.probe_pods(case).values())]


# Restricted pod security, as Kubernetes lists it: https://kubernetes.io/docs/concepts/security/pod-security-standards/


@every_case
def test_the_pod_keeps_to_the_restricted_level(case):
    for spec in specs(case):
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        kinds = {kind for volume in spec.get("volumes", ()) for kind in volume if kind != "name"}
        assert kinds <= {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (only_one,) = spec["containers"]
        assert only_one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not any("hostPort" in port for port in only_one.get("ports", ()))


@every_case
def test_pods_have_no_token_and_no_variables_of_services(case):
    for spec in specs(case):
        assert spec["automountServiceAccountToken"] is False
        # A Service called `switchboard` would set SWITCHBOARD_PORT=tcp://…, and the program would not start.
        assert spec["enableServiceLinks"] is False
    for (kind, _), one in objects(case).items():
        if kind == "ServiceAccount":
            assert one["automountServiceAccountToken"] is False


@every_case
def test_selectors_are_fixed(case):
    assert only("Deployment", case)["spec"]["selector"] == {"matchLabels": SELECTOR}
    labels = pod(case)["metadata"]["labels"]
    assert SELECTOR.items() <= labels.items()
    for (kind, name), one in objects(case).items():
        spec = one.get("spec", {})
        if kind == "Service":
            assert spec["selector"] == SELECTOR, name
        if kind in {"NetworkPolicy", "PodDisruptionBudget"} and not name.endswith("-probe"):
            assert (spec.get("podSelector") or spec["selector"]) == {"matchLabels": SELECTOR}
        if kind == "ServiceMonitor":
            assert SELECTOR.items() <= spec["selector"]["matchLabels"].items()


@every_case
def test_names_and_namespaces(case):
    for (_, name), one in objects(case).items():
        assert name == "voice-switchboard" or name.startswith("voice-switchboard-")
        assert len(name) <= 63
        assert one["metadata"]["namespace"] == chart.NAMESPACE
        assert one["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"


@pytest.mark.parametrize(
    ("release", "name"),
    [
        ("voice", "voice-switchboard"),
        ("switchboard", "switchboard"),
        ("my-switchboard-2", "my-switchboard-2"),
        ("a" * 53, "a" * 38 + "-switchboard"),
    ],
)
def test_the_release_names_everything(release, name):
    found = objects("many-tenants", release=release)
    assert ("Deployment", name) in found
    assert all(len(its) <= 63 and (its == name or its.startswith(f"{name}-")) for _, its in found)


def test_no_object_holds_a_null():
    def nulls(node, path):
        if isinstance(node, dict):
            return [found for name, value in node.items() for found in nulls(value, (*path, name))]
        if isinstance(node, list):
            return [found for number, value in enumerate(node) for found in nulls(value, (*path, number))]
        return [path] if node is None else []

    for case in chart.CASE_NAMES:
        assert [nulls(one, key) for key, one in objects(case).items() if nulls(one, key)] == []


# The Deployment.


@pytest.mark.parametrize(("drain", "sleep", "duck"), [(20, 10, 0), (0, 1, 2.5), (45.5, 20, 0), (600, 300, 120)])
def test_the_grace_period_fits_sleep_lame_duck_and_drain(drain, sleep, duck):
    given = {"settings": {"drain_seconds": drain, "lame_duck_seconds": duck}, "preStopSeconds": sleep}
    assert container("one-pod", given)["lifecycle"] == {"preStop": {"sleep": {"seconds": sleep}}}
    assert float(environment("one-pod", given)["SWITCHBOARD_DRAIN_SECONDS"]) == drain
    assert float(environment("one-pod", given)["SWITCHBOARD_LAME_DUCK_SECONDS"]) == duck
    grace = pod("one-pod", given)["spec"]["terminationGracePeriodSeconds"]
    assert grace == sleep + math.ceil(duck) + math.ceil(drain) + 5


def test_the_sleep_is_the_time_of_the_lame_duck():
    assert environment("one-pod")["SWITCHBOARD_LAME_DUCK_SECONDS"] == "0"


def test_a_changed_policy_replaces_the_pods():
    def checksum(case, given=None):
        return pod(case, given)["metadata"]["annotations"]["checksum/policy"]

    text = chart.objects("one-pod")["ConfigMap", "voice-switchboard-policy-0"]["data"]["acme.yaml"]
    assert len(checksum("one-pod")) == hashlib.sha256().digest_size * 2
    assert checksum("one-pod") == checksum("one-pod", {"replicas": 1, "podLabels": {"team": "voice"}})
    assert checksum("one-pod") != checksum("one-pod", {"policy": {"files": {"acme.yaml": text + "# more\n"}}})
    assert checksum("one-pod") != checksum("one-pod", {"policy": {"existingConfigMaps": ["more"]}})


def test_probes_look_at_the_public_port():
    found = container("one-pod")
    assert found["startupProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert found["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert found["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert found["startupProbe"]["periodSeconds"] * found["startupProbe"]["failureThreshold"] >= 30
    # A pod that is only slow must leave the Service long before it is killed.
    ready, alive = found["readinessProbe"], found["livenessProbe"]
    assert ready["periodSeconds"] * ready["failureThreshold"] < alive["periodSeconds"] * alive["failureThreshold"]


def test_without_redis_two_pods_are_never_there_at_once():
    assert only("Deployment", "one-pod")["spec"]["strategy"] == {"type": "Recreate"}
    rolling = only("Deployment", "three-pods")["spec"]["strategy"]
    assert rolling == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}}


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ({}, "registry.example.com/switchboard:0.1.0"),
        ({"tag": "1.2.3"}, "registry.example.com/switchboard:1.2.3"),
        ({"digest": f"sha256:{'a' * 64}"}, f"registry.example.com/switchboard@sha256:{'a' * 64}"),
        ({"tag": "1.2.3", "digest": f"sha256:{'a' * 64}"}, f"registry.example.com/switchboard@sha256:{'a' * 64}"),
    ],
)
def test_which_image_runs(image, name):
    assert container("one-pod", {"image": image})["image"] == name


def test_what_a_cluster_asks_of_pods():
    spec = pod("strict-cluster")["spec"]
    assert spec["serviceAccountName"] == "voice"
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert spec["nodeSelector"] == {"kubernetes.io/arch": "amd64"}
    assert spec["tolerations"] == [{"key": "voice", "operator": "Exists", "effect": "NoSchedule"}]
    assert spec["priorityClassName"] == "voice"
    assert "podAntiAffinity" in spec["affinity"]
    assert "topologySpreadConstraints" not in spec
    metadata = pod("strict-cluster")["metadata"]
    assert metadata["annotations"]["sidecar.istio.io/inject"] == "true"
    # A label of the user's own, but none that would take the pod out of its selector.
    assert metadata["labels"] == {**SELECTOR, "team": "voice"}
    assert {"name": "TZ", "value": "Europe/Berlin"} in container("strict-cluster")["env"]
    assert {kind for kind, _ in objects("strict-cluster")} == {"ConfigMap", "Deployment", "Pod", "Service"}


def test_pods_are_spread_if_it_can_be():
    constraints = pod("one-pod")["spec"]["topologySpreadConstraints"]
    assert [one["topologyKey"] for one in constraints] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    for one in constraints:
        assert one["labelSelector"] == {"matchLabels": SELECTOR}
        assert one["whenUnsatisfiable"] == "ScheduleAnyway"
        assert one["matchLabelKeys"] == ["pod-template-hash"]


def test_what_may_be_written_is_in_memory():
    (scratch,) = [one for one in pod("one-pod")["spec"]["volumes"] if "emptyDir" in one]
    assert scratch["emptyDir"] == {"medium": "Memory", "sizeLimit": "32Mi"}
    mounts = {one["mountPath"]: one for one in container("one-pod")["volumeMounts"]}
    assert mounts["/tmp"]["name"] == scratch["name"]
    assert [path for path, one in mounts.items() if not one.get("readOnly")] == ["/tmp"]


def test_workers_share_their_metrics_in_memory():
    """Room for five processes, with more tenants than a hundred."""
    (scratch,) = [one for one in pod("workers")["spec"]["volumes"] if "emptyDir" in one]
    assert scratch["emptyDir"] == {"medium": "Memory", "sizeLimit": f"{16 * 5 * 2}Mi"}
    assert environment("workers")["PROMETHEUS_MULTIPROC_DIR"] == "/tmp/metrics"
    # One process alone keeps its values to itself: there the library must not look for files.
    assert "PROMETHEUS_MULTIPROC_DIR" not in environment("three-pods")


# Settings.


def test_settings_are_variables_as_the_program_reads_them():
    found = environment("strict-cluster")
    assert found["SWITCHBOARD_PROVIDER_TIMEOUT"] == "7.5"
    assert found["SWITCHBOARD_EDGE_LIMIT"] == "20/second;300/minute"
    assert found["SWITCHBOARD_EDGE_EXEMPT"] == "192.0.2.0/24"
    assert environment("gateway")["SWITCHBOARD_TRUSTED_PROXIES"] == "10.0.0.0/8,fd00::/8"
    assert environment("audit-file")["SWITCHBOARD_AUDIT_FSYNC"] == "true"
    # A large number stays a number: Helm alone would write 1.073741824e+09.
    assert environment("audit-file")["SWITCHBOARD_AUDIT_ROTATE_BYTES"] == "1073741824"


@pytest.mark.parametrize(
    ("case", "replicas"), [("one-pod", "1"), ("three-pods", "3"), ("gateway", "2"), ("autoscaling", "3")]
)
def test_limits_are_divided_among_the_pods_there_are(case, replicas):
    assert environment(case)["SWITCHBOARD_EXPECTED_REPLICAS"] == replicas


def test_whoever_knows_better_says_among_how_many():
    given = {**WITH_REDIS, "autoscaling": {"enabled": True, "minReplicas": 4}}
    assert environment("one-pod", given)["SWITCHBOARD_EXPECTED_REPLICAS"] == "4"
    given = {**given, "settings": {"expected_replicas": 6}}
    assert environment("one-pod", given)["SWITCHBOARD_EXPECTED_REPLICAS"] == "6"


# Secrets.


def test_secrets_are_files():
    found = environment("three-pods")
    folder = "/run/secrets/switchboard"
    assert {name: value for name, value in found.items() if name.endswith("_FILE")} == {
        "SWITCHBOARD_SIGNING_KEYS_FILE": f"{folder}/signing-keys",
        "SWITCHBOARD_USER_KEY_SECRET_FILE": f"{folder}/user-key-secret",
        "SWITCHBOARD_AUDIT_KEY_FILE": f"{folder}/audit-key",
        "SWITCHBOARD_ADMIN_TOKEN_FILE": f"{folder}/admin-token",
        "SWITCHBOARD_REDIS_URL_FILE": f"{folder}/redis-url",
    }
    (volume,) = [one for one in pod("three-pods")["spec"]["volumes"] if "secret" in one]
    # Read by the pod's group, which fsGroup is, and by nobody else.
    assert volume["secret"] == {"secretName": "switchboard", "defaultMode": 0o440}
    (mount,) = [one for one in container("three-pods")["volumeMounts"] if one["name"] == volume["name"]]
    assert mount == {"name": "secrets", "mountPath": folder, "readOnly": True}


def test_secrets_that_a_policy_wants_as_variables():
    wanted = {"name": "OPENAI_API_KEY", "valueFrom": {"secretKeyRef": {"name": "switchboard", "key": "openai-api-key"}}}
    assert wanted in container("one-pod")["env"]


def test_an_unchained_audit_is_said_so():
    found = environment("strict-cluster")
    assert found["SWITCHBOARD_AUDIT_KEY"] == "none"
    assert "SWITCHBOARD_AUDIT_KEY_FILE" not in found


def test_secrets_out_of_a_store():
    made = only("ExternalSecret", "external-secret")["spec"]
    assert made["secretStoreRef"] == {"name": "vault", "kind": "ClusterSecretStore"}
    assert {one["secretKey"] for one in made["data"]} >= {"signing-keys", "user-key-secret", "audit-key", "redis-url"}
    (volume,) = [one for one in pod("external-secret")["spec"]["volumes"] if "secret" in one]
    assert volume["secret"]["secretName"] == made["target"]["name"] == "voice-switchboard"


# The policy.


def test_policies_are_a_folder_of_files():
    found = objects("many-tenants")["ConfigMap", "voice-switchboard-policy-0"]["data"]
    assert set(found) == {"acme.yaml", "common.yaml", "widgets.yaml"}
    (volume,) = [one for one in pod("many-tenants")["spec"]["volumes"] if "projected" in one]
    names = [source["configMap"]["name"] for source in volume["projected"]["sources"]]
    assert names == ["voice-switchboard-policy-0", "tenants-of-the-north", "tenants-of-the-south"]
    assert environment("many-tenants")["SWITCHBOARD_CONFIG"] == "/etc/switchboard"


def test_policies_of_others_alone():
    given = {
        "image": {"repository": "switchboard"},
        "settings": {"public_url": "https://voice.example.com"},
        "policy": {"existingConfigMaps": ["tenants"]},
        "secret": {"existingSecret": "switchboard"},
    }
    assert "ConfigMap" not in {kind for kind, _ in objects("", given)}
    (volume,) = [one for one in pod("", given)["spec"]["volumes"] if "projected" in one]
    assert volume["projected"]["sources"] == [{"configMap": {"name": "tenants"}}]


def test_policies_that_one_config_map_does_not_hold():
    files = {f"tenant-{number:02}.yaml": f"# {number}\n{'x' * 250_000}" for number in range(11)}
    found = {
        name: one["data"]
        for (kind, name), one in objects("one-pod", {"policy": {"files": files}}).items()
        if kind == "ConfigMap"
    }
    assert len(found) == 4
    assert {name: text for part in found.values() for name, text in part.items() if name != "acme.yaml"} == files
    for part in found.values():
        assert sum(map(len, part.values())) <= 900_000
    (volume,) = [one for one in pod("one-pod", {"policy": {"files": files}})["spec"]["volumes"] if "projected" in one]
    assert [source["configMap"]["name"] for source in volume["projected"]["sources"]] == list(found)


@pytest.mark.parametrize(
    "text", ["a: '1'\n", "a: |\n  two\n  lines\n\n", 'a: "\\u2028 and \\t"\n', "# ünï: {{ .Values.x }}\n", "---\na: 1"]
)
def test_policies_arrive_letter_by_letter(text):
    (found,) = [
        one["data"]["odd.yaml"]
        for (kind, _), one in objects("one-pod", {"policy": {"files": {"odd.yaml": text}}}).items()
        if kind == "ConfigMap"
    ]
    assert found == text


# Ways in.


def test_the_ops_port_is_never_on_the_public_service():
    for case in chart.CASE_NAMES:
        services = {name: one["spec"] for (kind, name), one in objects(case).items() if kind == "Service"}
        public, ops = services["voice-switchboard"], services["voice-switchboard-ops"]
        assert [(port["name"], port["targetPort"]) for port in public["ports"]] == [("http", "http")]
        assert [(port["name"], port["targetPort"]) for port in ops["ports"]] == [("ops", "ops")]
        assert "type" not in ops
        assert ops["clusterIP"] == "None"
    balanced = objects("autoscaling")["Service", "voice-switchboard"]
    assert (balanced["spec"]["type"], balanced["spec"]["ports"][0]["port"]) == ("LoadBalancer", 443)
    assert balanced["metadata"]["annotations"] == {"example.com/load-balancer-tls": "voice-example-com"}


def test_nothing_leads_in_by_default():
    assert not {"Ingress", "HTTPRoute"} & {kind for kind, _ in objects("one-pod")}


def test_an_ingress():
    spec = only("Ingress", "three-pods")["spec"]
    assert spec["ingressClassName"] == "nginx"
    # The host is the one of the public URL, so that it stands in one place.
    assert spec["tls"] == [{"secretName": "voice-example-com", "hosts": ["voice.example.com"]}]
    (rule,) = spec["rules"]
    assert rule["host"] == "voice.example.com"
    backend = {"service": {"name": "voice-switchboard", "port": {"name": "http"}}}
    assert rule["http"]["paths"] == [{"path": "/", "pathType": "Prefix", "backend": backend}]
    given = {"ingress": {"enabled": True, "hosts": ["a.example", "b.example"], "annotations": {"x/y": "z"}}}
    made = only("Ingress", "one-pod", given)
    assert [rule["host"] for rule in made["spec"]["rules"]] == ["a.example", "b.example"]
    assert not {"tls", "ingressClassName"} & set(made["spec"])
    assert made["metadata"]["annotations"] == {"x/y": "z"}


def test_a_route():
    spec = only("HTTPRoute", "gateway")["spec"]
    assert spec["parentRefs"] == [{"name": "public", "namespace": "gateways", "sectionName": "https"}]
    assert spec["hostnames"] == ["voice.example.com"]
    assert spec["rules"] == [{"backendRefs": [{"name": "voice-switchboard", "port": 80}]}]
    given = {"httpRoute": {"enabled": True, "parentRefs": [{"name": "a"}], "hostnames": ["*.b.example"]}}
    assert only("HTTPRoute", "one-pod", given)["spec"]["hostnames"] == ["*.b.example"]


# The network.


def test_what_may_come_in_and_go_out():
    spec = chart.network_policy("gateway")
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    gateways = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gateways"}}}
    monitoring = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    assert spec["ingress"] == [
        {"ports": [{"port": "http", "protocol": "TCP"}], "from": [gateways, {"podSelector": {"matchLabels": PROBE}}]},
        {"ports": [{"port": "ops", "protocol": "TCP"}], "from": [monitoring]},
    ]
    names, https, redis = spec["egress"]
    assert names == {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}
    assert https["ports"] == [{"port": 443, "protocol": "TCP"}]
    assert redis == {
        "ports": [{"port": 6379, "protocol": "TCP"}],
        "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "redis"}}}],
    }


def test_no_pod_reaches_the_credentials_of_its_node():
    _, https = chart.network_policy("one-pod")["egress"]
    blocks = [peer["ipBlock"] for peer in https["to"]]
    assert [block["cidr"] for block in blocks] == ["0.0.0.0/0", "::/0"]
    assert "169.254.0.0/16" in blocks[0]["except"]
    assert "fd00:ec2::254/128" in blocks[1]["except"]


def test_more_rules_of_the_network():
    extra = {"ports": [{"port": 8443}]}
    given = {"networkPolicy": {"scrapers": [], "extraEgress": [extra]}}
    spec = chart.network_policy("one-pod", given)
    assert len(spec["ingress"]) == 1  # nobody asks the ops port
    assert spec["egress"][-1] == extra
    redis = chart.network_policy("sentinel")["egress"][-1]
    assert redis == {"ports": [{"port": port, "protocol": "TCP"} for port in (6379, 26379)]}
    assert len(chart.network_policy("one-pod")["egress"]) == 2  # no Redis, no rule for it


# The prober.


@every_case
def test_nothing_of_the_service_takes_a_probe_for_one_of_its_pods(case):
    for one in chart.probe_pods(case).values():
        labels = one["metadata"]["labels"]
        assert PROBE.items() <= labels.items()
        for (kind, _), other in objects(case).items():
            spec = other.get("spec", {})
            selector = {
                "Service": spec.get("selector"),
                "PodDisruptionBudget": spec.get("selector", {}).get("matchLabels") if kind != "Service" else None,
            }.get(kind)
            assert selector is None or not selector.items() <= labels.items(), kind


def test_helm_test_is_a_probe():
    whole = only("Pod", "one-pod")
    assert whole["metadata"]["annotations"] == {
        "helm.sh/hook": "test",
        "helm.sh/hook-delete-policy": "before-hook-creation",
    }
    (prober,) = whole["spec"]["containers"]
    # Nobody has said who it is.
    assert prober["args"] == ["probe", "--url=http://voice-switchboard:80", "--anonymous"]
    assert "env" not in prober
    assert "volumes" not in whole["spec"]
    assert whole["spec"]["restartPolicy"] == "Never"
    assert ("CronJob", "voice-switchboard-probe") not in objects("one-pod")


def test_a_prober_with_a_key():
    pods = chart.probe_pods("prober")
    assert set(pods) == {"CronJob", "Pod"}
    for one in pods.values():
        (prober,) = one["spec"]["containers"]
        assert prober["args"] == [
            "probe",
            "--url=https://voice.example.com",
            "--call",
            "--issuer=https://probe.example.com",
            "--origin=https://probe.example.com",
            "--timeout=25",
        ]
        assert prober["env"] == [
            {"name": "SWITCHBOARD_PROBE_SIGNING_KEY_FILE", "value": "/run/secrets/probe/probe-key"}
        ]
        (volume,) = one["spec"]["volumes"]
        assert volume["secret"] == {"secretName": "switchboard-probe", "defaultMode": 0o440}
        assert prober["volumeMounts"] == [{"name": "secrets", "mountPath": "/run/secrets/probe", "readOnly": True}]
        assert prober["image"] == container("prober")["image"]
        # What it has opened it hangs up, within a step's time.
        assert one["spec"]["terminationGracePeriodSeconds"] >= 25


def test_probes_do_not_overlap_and_do_not_last():
    spec = only("CronJob", "prober")["spec"]
    assert spec["schedule"] == "*/5 * * * *"
    assert spec["concurrencyPolicy"] == "Forbid"
    job = spec["jobTemplate"]["spec"]
    assert job["backoffLimit"] == 0
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    # Its steps, two more for what is to be hung up, and a minute to begin.
    assert job["activeDeadlineSeconds"] == 60 + 2 * 25 + 60
    longer = {"prober": {"options": {"deadline": 90.5, "timeout": 10}}}
    assert only("CronJob", "prober", longer)["spec"]["jobTemplate"]["spec"]["activeDeadlineSeconds"] == 91 + 20 + 60


def test_options_that_are_lists_numbers_and_switches():
    options = {
        "call": False,
        "claim": ["org_id=acme", "plan=pro"],
        "skip": ["wrong-origin"],
        "deadline": 90,
        "key_id": "k",
    }
    (prober,) = chart.probe_pods("prober", {"prober": {"options": options}})["Pod"]["spec"]["containers"]
    assert set(prober["args"][2:]) == {
        "--claim=org_id=acme",
        "--claim=plan=pro",
        "--skip=wrong-origin",
        "--deadline=90",
        "--key-id=k",
        "--issuer=https://probe.example.com",
        "--origin=https://probe.example.com",
        "--timeout=25",
    }


@pytest.mark.parametrize(
    ("release", "name"), [("voice", "voice-switchboard-probe"), ("a" * 53, f"{'a' * 38}-switchb-probe")]
)
def test_a_cron_jobs_name_leaves_room_for_its_jobs(release, name):
    found = [one for kind, one in objects("prober", release=release) if kind == "CronJob"]
    assert found == [name]
    assert len(name) <= 52
    # As the alert looks for it.
    assert re.fullmatch(".*switchb.*-probe", name)


def test_the_network_lets_probes_through():
    probe = {"podSelector": {"matchLabels": PROBE}}
    gateways = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gateways"}}}
    assert chart.network_policy("prober")["ingress"][0]["from"] == [gateways, probe]
    assert "from" not in chart.network_policy("one-pod")["ingress"][0]
    spec = chart.network_policy("prober", of="-probe")
    assert spec["podSelector"] == {"matchLabels": PROBE}
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in spec
    names, service, way = spec["egress"]
    assert names == {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}
    assert service == {
        "ports": [{"port": 8080, "protocol": "TCP"}],
        "to": [{"podSelector": {"matchLabels": SELECTOR}}],
    }
    assert way == {"ports": [{"port": 443, "protocol": "TCP"}]}
    assert len(chart.network_policy("one-pod", of="-probe")["egress"]) == 2


@pytest.mark.parametrize(
    ("url", "port"),
    [("https://voice.example.com", 443), ("http://voice.local/below", 80), ("https://voice.example.com:8443/x", 8443)],
)
def test_the_network_lets_probes_out_where_they_are_sent(url, port):
    assert chart.network_policy("prober", {"prober": {"url": url}}, of="-probe")["egress"][-1] == {
        "ports": [{"port": port, "protocol": "TCP"}]
    }


# Load and drains.


def test_an_autoscaler_decides_alone():
    assert "replicas" not in only("Deployment", "autoscaling")["spec"]
    spec = only("HorizontalPodAutoscaler", "autoscaling")["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "voice-switchboard"}
    assert (spec["minReplicas"], spec["maxReplicas"]) == (3, 20)
    cpu, requests = spec["metrics"]
    assert cpu["resource"] == {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}
    assert requests["pods"] == {
        "metric": {"name": "switchboard_http_requests_per_second"},
        "target": {"type": "AverageValue", "averageValue": "100"},
    }
    given = {**WITH_REDIS, "autoscaling": {"enabled": True}}
    assert [one["type"] for one in only("HorizontalPodAutoscaler", "one-pod", given)["spec"]["metrics"]] == ["Resource"]


def test_drains():
    assert only("PodDisruptionBudget", "three-pods")["spec"]["maxUnavailable"] == 1
    assert only("PodDisruptionBudget", "autoscaling")["spec"]["maxUnavailable"] == "25%"
    # With one pod, any budget would hold up every drain for ever.
    assert ("PodDisruptionBudget", "voice-switchboard") not in objects("one-pod")


# Monitoring.


def test_the_monitor_finds_the_ops_service_alone():
    monitor = only("ServiceMonitor", "monitoring")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["endpoints"] == [{"port": "ops", "path": "/metrics", "interval": "15s"}]
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    services = {name: one for (kind, name), one in objects("monitoring").items() if kind == "Service"}
    assert [name for name, one in services.items() if wanted <= one["metadata"]["labels"].items()] == [
        "voice-switchboard-ops"
    ]


def test_rules_and_dashboards_are_those_of_deploy():
    rules = sorted((chart.ROOT / "deploy" / "prometheus").glob("rules*.yaml"))
    groups = [group for file in rules for group in ryaml.loads(file.read_text(encoding="utf-8"))["groups"]]
    assert only("PrometheusRule", "monitoring")["spec"]["groups"] == groups
    boards = sorted((chart.ROOT / "deploy" / "grafana").glob("*.json"))
    assert boards
    for board in boards:
        made = objects("monitoring")["ConfigMap", f"voice-switchboard-dashboard-{board.stem}"]
        assert json.loads(made["data"][board.name]) == json.loads(board.read_text(encoding="utf-8"))
        assert made["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert len(made["data"][board.name]) < 1_000_000


def test_without_rules_and_dashboards_nothing_empty_is_made(tmp_path, monkeypatch):
    bare = tmp_path / "switchboard"
    shutil.copytree(chart.CHART, bare, ignore=shutil.ignore_patterns("files"))
    case = chart.CHART / "ci" / "monitoring-values.yaml"
    found = chart.manifests(chart.helm("template", "voice", bare, "--values", case))
    assert "PrometheusRule" not in {one["kind"] for one in found}
    assert not [one for one in found if "dashboard" in one["metadata"]["name"]]


# Notes.


def notes(case, given=None):
    values = chart.CHART / "ci" / f"{case}-values.yaml"
    how: list[str | Path] = ["--namespace", chart.NAMESPACE, "--values", values, "--set-json", "podAnnotations={}"]
    for name, value in (given or {}).items():
        how += ["--set-json", f"{name}={json.dumps(value)}"]
    return chart.helm("install", chart.RELEASE, chart.CHART, "--dry-run=client", *how).partition("NOTES:")[2]


def test_notes_tell_the_next_step():
    said = notes("one-pod")
    assert "serves https://voice.example.com" in said
    assert "kubectl --namespace calls port-forward service/voice-switchboard 8080:80" in said
    assert "There is no Redis" in said
    assert "rollout status deployment/voice-switchboard" in said
    assert "after a change of switchboard" in said
    assert "whom not (more with prober.existingSecret):\n    helm test voice --namespace calls --logs\n" in said
    assert "whom not:\n    helm test voice" in notes("prober")


def test_notes_name_what_was_forgotten():
    assert "settings.trusted_proxies" in notes("one-pod", {"ingress.enabled": True})
    assert "settings.trusted_proxies" not in notes("three-pods")
    assert "port-forward" not in notes("three-pods")
    assert "There is no Redis" not in notes("three-pods")
    assert "tenants-of-the-north" in notes("many-tenants")
