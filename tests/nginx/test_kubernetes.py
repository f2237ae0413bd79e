"""The manifests: by Kubernetes' own schemas, by the sidecar's own reader, and by addition.

There is no cluster here. What can be known without one is: that an API server would take the resources,
that names and ports meet, and that the seconds of a deploy add up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # ships no types
import pytest
import yaml

from proxy.config import Config, parse
from tests.conftest import StartSidecar
from tests.support.client import ask
from tests.support.command import PROJECT
from tests.support.nginx import FOLDER

FILES = sorted((FOLDER / "kubernetes").glob("*.yaml"))

#: The oldest that knows what the manifests use, and the newest that the validator knows.
VERSIONS = ("1.30", kubernetes_validate.latest_version())

#: Resources of operators, for which Kubernetes has no schema. Their files say so.
FOREIGN = {"PodMonitor", "HTTPRoute"}

#: Seconds that the sidecar takes at most after its ``drain``; docs/operations.md tells them.
LAST_WORDS = 3

#: What may stand in an id behind the node's name.
TAIL = "aB3-_" * 4 + "xy"


def documents(name: str) -> list[Any]:
    """Return the resources of a file."""
    return list(yaml.safe_load_all((FOLDER / "kubernetes" / name).read_text("utf-8")))


def resource(name: str, kind: str, called: str | None = None) -> Any:
    """Return the first resource of this kind (and name) in a file."""
    return next(
        each
        for each in documents(name)
        if each["kind"] == kind and called in (None, each["metadata"]["name"])
    )


def everything() -> Iterator[tuple[str, Any]]:
    """Every resource of every file."""
    for path in FILES:
        for each in documents(path.name):
            yield path.name, each


def config_of(name: str) -> Config:
    """Return the sidecar's configuration of a file, as a pod would read it."""
    text = resource(name, "ConfigMap")["data"]["config.yaml"]
    return parse(text, name, {"HOSTNAME": "sse-sidecar-0", "OPENAI_API_KEY": "sk-test"})


def pod_of(name: str) -> Any:
    """Return the pod's spec of a file's workload."""
    workload = next(each for each in documents(name) if each["kind"] in ("Deployment", "StatefulSet"))
    return workload["spec"]["template"]["spec"]


def container(pod: Any, name: str) -> Any:
    """Return a container of a pod, wherever it stands."""
    return next(each for each in pod.get("initContainers", []) + pod["containers"] if each["name"] == name)


def pre_stop(container: Any) -> int:
    """Return how many seconds a container's preStop hook waits."""
    hook = container["lifecycle"]["preStop"]
    if "sleep" in hook:
        return int(hook["sleep"]["seconds"])
    command = " ".join(hook["exec"]["command"])
    found = re.search(r"sleep (\d+)", command)
    assert found is not None
    return int(found[1])


WORKLOADS = ("sidecar.yaml", "classic.yaml", "nodes.yaml")

#: Where a workload's configuration stands.
CONFIGURED = {"sidecar.yaml": "sidecar.yaml", "classic.yaml": "sidecar.yaml", "nodes.yaml": "nodes.yaml"}


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_would_take_them(version: str) -> None:
    """Strictly: a key that Kubernetes does not know is a fault."""
    seen = set()
    for name, each in everything():
        if each["kind"] in FOREIGN:
            continue
        kubernetes_validate.validate(each, version, strict=True)
        seen.add(name)
    assert seen == {path.name for path in FILES} - {"podmonitor.yaml", "httproute.yaml"}


def test_the_schema_finds_mistakes() -> None:
    """The check that accepts the manifests refuses a misspelt key."""
    broken = resource("sidecar.yaml", "Deployment")
    broken["spec"]["template"]["spec"]["terminationGracePeriod"] = 60
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


def test_what_could_not_be_run_is_marked() -> None:
    """Nobody takes these files for tried ones."""
    assert all("NOT RUN" in path.read_text("utf-8") for path in FILES)


@pytest.mark.parametrize("name", sorted(set(CONFIGURED.values())))
def test_the_sidecar_takes_its_configuration(name: str) -> None:
    """On all interfaces, since probes come from the node; in memory that the container has."""
    config = config_of(name)
    pod = container(pod_of(name), "sse-sidecar")
    ports = {each["name"]: each["containerPort"] for each in pod["ports"]}
    assert config.admin is not None
    assert (config.listen, config.admin.listen) == (f"0.0.0.0:{ports['http']}", f"0.0.0.0:{ports['admin']}")
    limit = int(pod["resources"]["limits"]["memory"].removesuffix("Mi")) << 20
    assert config.store.memory.max_bytes <= limit / 2


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_seconds_add_up(name: str) -> None:
    """preStop, drain and last words fit into the grace; the app is there until the sidecar has ended."""
    pod, drain = pod_of(name), config_of(CONFIGURED[name]).drain
    gone = pre_stop(container(pod, "sse-sidecar")) + drain + LAST_WORDS
    assert gone < pod["terminationGracePeriodSeconds"]
    if name != "nodes.yaml":
        assert gone < pre_stop(container(pod, "app")) < pod["terminationGracePeriodSeconds"]


def test_a_native_sidecar_begins_its_drain_itself() -> None:
    """Kubernetes would signal it when the app is gone: so its own hook does."""
    (sidecar,) = pod_of("sidecar.yaml")["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["lifecycle"]["preStop"]["exec"]["command"][-1].endswith("kill -TERM 1")
    assert "kill" not in str(pod_of("classic.yaml"))


def test_both_variants_are_the_same_sidecar() -> None:
    """But for where it stands and how it is stopped."""
    native, classic = (container(pod_of(name), "sse-sidecar") for name in ("sidecar.yaml", "classic.yaml"))
    differing = {"restartPolicy", "lifecycle"}
    assert {key: native[key] for key in native.keys() - differing} == {
        key: classic[key] for key in classic.keys() - differing
    }


@pytest.mark.parametrize("name", WORKLOADS)
async def test_probes_ask_what_there_is(name: str, start_sidecar: StartSidecar) -> None:
    """Each probe's path answers 200 on the admin listener; liveness is not readiness."""
    sidecar = await start_sidecar("http://127.0.0.1:1")
    probed = container(pod_of(name), "sse-sidecar")
    probes = {kind: probed[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")}
    assert {kind: probe["path"] for kind, probe in probes.items()} == {
        "startup": "/readyz",
        "readiness": "/readyz",
        "liveness": "/healthz",
    }
    for probe in probes.values():
        assert probe["port"] == "admin"
        assert (await ask(sidecar.admin_url, probe["path"])).status == 200


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_sidecar_runs_with_little(name: str) -> None:
    """The image's own user, a read-only file system, no capability, no privilege, no token, no CPU limit."""
    pod = pod_of(name)
    sidecar = container(pod, "sse-sidecar")
    user = re.search(r"^USER (\d+):", (PROJECT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    assert user is not None
    assert sidecar["securityContext"] == {
        "runAsUser": int(user[1]),
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert pod["automountServiceAccountToken"] is False
    assert "cpu" not in sidecar["resources"]["limits"]


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_configuration_is_mounted_where_the_image_looks(name: str) -> None:
    """As a directory, so that a reload can come."""
    pod = pod_of(name)
    (mount,) = container(pod, "sse-sidecar")["volumeMounts"]
    (volume,) = pod["volumes"]
    assert volume["configMap"]["name"] == resource(CONFIGURED[name], "ConfigMap")["metadata"]["name"]
    assert "subPath" not in mount
    assert f'"{mount["mountPath"]}/config.yaml"' in (PROJECT / "Dockerfile").read_text("utf-8")


def test_selectors_and_ports_meet() -> None:
    """Services, budgets, policies and monitors select pods that there are, and ports that these have."""
    labels = resource("sidecar.yaml", "Deployment")["spec"]["template"]["metadata"]["labels"]
    for name, kind, key in (
        ("sidecar.yaml", "PodDisruptionBudget", "selector"),
        ("networkpolicy.yaml", "NetworkPolicy", "podSelector"),
        ("podmonitor.yaml", "PodMonitor", "selector"),
    ):
        assert resource(name, kind)["spec"][key]["matchLabels"] == labels
    service = resource("sidecar.yaml", "Service")
    assert service["spec"]["selector"] == labels
    (backend,) = resource("ingress.yaml", "Ingress")["spec"]["rules"][0]["http"]["paths"]
    assert backend["backend"]["service"]["name"] == service["metadata"]["name"]
    assert resource("autoscaling.yaml", "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == "chat"


def test_the_admin_port_is_for_prometheus_only() -> None:
    """No Service has it, and the policy opens it to one namespace."""
    for _, each in everything():
        if each["kind"] == "Service":
            assert {port["targetPort"] for port in each["spec"]["ports"]} == {"http"}
    rules = resource("networkpolicy.yaml", "NetworkPolicy")["spec"]["ingress"]
    opened = {
        rule["ports"][0]["port"]: rule["from"][0]["namespaceSelector"]["matchLabels"].popitem()[1]
        for rule in rules
    }
    assert opened == {8080: "ingress-nginx", 9090: "monitoring"}


async def test_the_autoscaler_s_metric_exists(start_sidecar: StartSidecar) -> None:
    """Autoscaler, adapter and sidecar mean the same gauge."""
    rule = yaml.safe_load(resource("autoscaling.yaml", "ConfigMap")["data"]["config.yaml"])["rules"][0]
    (metric,) = resource("autoscaling.yaml", "HorizontalPodAutoscaler")["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    assert rule["seriesQuery"].startswith(f"{name}{{")
    sidecar = await start_sidecar("http://127.0.0.1:1")
    text = (await (await ask(sidecar.admin_url, "/metrics")).body()).decode()
    assert f"# TYPE {name} gauge" in text


@pytest.mark.parametrize("name", ["ingress.yaml", "nodes.yaml"])
def test_the_ingress_waits_longer_than_anything_is_silent(name: str) -> None:
    """And it buffers nothing, has no limit of its own on bodies, and sends no POST twice."""
    config = config_of(CONFIGURED.get(name, "sidecar.yaml"))
    said = {
        key.rpartition("/")[2]: value
        for key, value in resource(name, "Ingress")["metadata"]["annotations"].items()
    }
    for route in config.routes:
        assert int(said["proxy-read-timeout"]) > max(route.heartbeat, route.timeouts.first_byte)
    assert said["proxy-buffering"] == said["proxy-request-buffering"] == "off"
    assert said["proxy-body-size"] == "0"
    assert "non_idempotent" not in said["proxy-next-upstream"]
    assert not [key for key in said if "snippet" in key]


def test_every_node_has_its_service_and_its_path() -> None:
    """As many as replicas; a node's ids lead to its pod, by Ingress and by HTTPRoute, and to no other."""
    replicas = resource("nodes.yaml", "StatefulSet")["spec"]["replicas"]
    nodes = [f"sse-sidecar-{number}" for number in range(replicas)]
    paths = resource("nodes.yaml", "Ingress")["spec"]["rules"][0]["http"]["paths"]
    rules = resource("httproute.yaml", "HTTPRoute")["spec"]["rules"]
    for node in nodes:
        selector = resource("nodes.yaml", "Service", node)["spec"]["selector"]
        assert selector == {"statefulset.kubernetes.io/pod-name": node}
        stream = f"{node}-{TAIL}"
        for suffix in ("", "/cancel", "/state"):
            assert by_ingress(paths, f"/_streams/{stream}{suffix}") == node
            assert by_http_route(rules, f"/_streams/{stream}{suffix}", "") == node
        assert by_http_route(rules, "/v1/responses", f"{stream}.17") == node
    for other in (f"/_streams/sse-sidecar-0-1-{TAIL}", f"/_streams/{TAIL}", "/v1/responses"):
        assert by_ingress(paths, other) == by_http_route(rules, other, "") == "sse-sidecar"
    assert config_of("nodes.yaml").node == nodes[0]


def by_ingress(paths: list[Any], target: str) -> str:
    """Return the Service to which ingress-nginx leads a path: of the first expression that matches."""
    found = next(each for each in paths if re.match(each["path"], target))
    return str(found["backend"]["service"]["name"])


def by_http_route(rules: list[Any], target: str, last_event_id: str) -> str:
    """Return the Service to which a gateway leads a request; expressions match the whole of a value."""
    for rule in rules:
        for match in rule.get("matches", [{}]):
            path = match.get("path", {"value": ".*"})["value"]
            wanted = [header["value"] for header in match.get("headers", [])]
            if re.fullmatch(path, target) and all(re.fullmatch(each, last_event_id) for each in wanted):
                return str(rule["backendRefs"][0]["name"])
    raise AssertionError("no rule matches")
