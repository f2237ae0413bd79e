"""The CloudFormation template: clean under cfn-lint, and of one mind with the sidecar that it starts.

There is no AWS here. What can be known without it is: that the template is well formed, that the sidecar
takes the configuration in it, and that its times are in the order that docs/deploy.md explains.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from cfnlint.decode import decode  # type: ignore[import-untyped]  # ships no types

from proxy.config import Config, parse
from tests.support.command import PROJECT
from tests.support.nginx import FOLDER
from tests.support.process import run

TEMPLATE = FOLDER / "alb.yaml"

#: The command, beside the interpreter that runs the tests.
LINTER = Path(sys.executable).with_name("cfn-lint")

#: Seconds that the sidecar takes at most after its ``drain``; docs/operations.md tells them.
LAST_WORDS = 3

#: The most that Fargate waits after SIGTERM, and that an ALB's idle timeout can be, in seconds.
FARGATE_STOP, ALB_IDLE = 120, 4000


@pytest.fixture(scope="module")
def template() -> Any:
    """The template, functions as mappings (``{"Ref": …}``)."""
    document, problems = decode(str(TEMPLATE))
    assert not problems
    return document


def properties(template: Any, name: str) -> Any:
    """Return a resource's properties."""
    return template["Resources"][name]["Properties"]


def attributes(template: Any, name: str, kind: str) -> dict[str, Any]:
    """Return the attributes of a balancer or a target group by key."""
    return {each["Key"]: each["Value"] for each in properties(template, name)[kind]}


def container(template: Any, name: str) -> Any:
    """Return a container's definition."""
    containers = properties(template, "Task")["ContainerDefinitions"]
    return next(each for each in containers if each["Name"] == name)


@pytest.fixture
def configuration(template: Any) -> str:
    """The sidecar's configuration as the first container gets it, with the defaults of the template."""
    values = {name: str(each.get("Default", "")) for name, each in template["Parameters"].items()}
    values |= {"VpcCidr": "10.0.0.0/16", "DomainName": "streams.example.com"}
    (variable,) = container(template, "configuration")["Environment"]
    assert variable["Name"] == "CONFIGURATION"
    text = variable["Value"]["Fn::Sub"]
    return re.sub(r"\$\{(!?)(\w+)\}", lambda at: f"${{{at[2]}}}" if at[1] else values[at[2]], text)


@pytest.fixture
def config(configuration: str) -> Config:
    """The same as the sidecar reads it."""
    return parse(configuration, "alb.yaml", {"OPENAI_API_KEY": "sk-test"})


async def test_cfn_lint_has_nothing_to_say() -> None:
    """No error and no warning, and no rule is switched off."""
    status, said = await run(LINTER, "--format", "json", TEMPLATE, cwd=PROJECT)
    assert (status, json.loads(said)) == (0, [])
    assert "cfn-lint:" not in TEMPLATE.read_text("utf-8")
    assert "ignore_checks" not in TEMPLATE.read_text("utf-8")


async def test_cfn_lint_finds_mistakes(tmp_path: Path) -> None:
    """The check that accepts the template refuses a broken one."""
    broken = tmp_path / "alb.yaml"
    broken.write_text(TEMPLATE.read_text("utf-8").replace("TargetType: ip", "TargetType: podman"), "utf-8")
    status, said = await run(LINTER, broken, cwd=PROJECT)
    assert status != 0
    assert "podman" in said


async def test_the_configuration_reaches_the_file(
    template: Any, configuration: str, config: Config, tmp_path: Path
) -> None:
    """The command of the first container writes it whole: quotes, per cents, references and all."""
    first = container(template, "configuration")
    (command,) = first["Command"]
    assert first["EntryPoint"] == ["sh", "-c"]
    here = command.replace("/etc/sse-sidecar", str(tmp_path))
    process = await asyncio.create_subprocess_exec("sh", "-c", here, env={"CONFIGURATION": configuration})
    assert await process.wait() == 0
    written = (tmp_path / "config.yaml").read_text("utf-8")
    assert parse(written, "config.yaml", {"OPENAI_API_KEY": "sk-test"}) == config
    assert "${OPENAI_API_KEY}" in written


def test_the_sidecar_s_secret_is_in_its_environment_only(template: Any) -> None:
    """The container that writes the file does not know the key."""
    names = {
        name: [secret["Name"] for secret in container(template, name).get("Secrets", [])]
        for name in ("configuration", "sse-sidecar", "app")
    }
    assert names == {"configuration": [], "sse-sidecar": ["OPENAI_API_KEY"], "app": []}


def test_the_balancer_waits_longer_than_anything_is_silent(template: Any, config: Config) -> None:
    """Its idle timeout is above the heartbeat, and above the wait for the provider's headers."""
    idle = int(attributes(template, "Balancer", "LoadBalancerAttributes")["idle_timeout.timeout_seconds"])
    for route in config.routes:
        assert route.heartbeat < idle
        assert route.timeouts.first_byte < idle
    assert idle <= ALB_IDLE


def test_the_balancer_lets_go_of_a_connection_first(template: Any, config: Config) -> None:
    """A POST on a connection that the sidecar is just closing would be a 502."""
    idle = int(attributes(template, "Balancer", "LoadBalancerAttributes")["idle_timeout.timeout_seconds"])
    assert idle < config.keepalive


def test_the_drain_is_the_same_on_both_sides(template: Any, config: Config) -> None:
    """Deregistration delay and `drain` are one parameter; the containers may take longer than it."""
    delay = attributes(template, "Sidecars", "TargetGroupAttributes")["deregistration_delay.timeout_seconds"]
    assert delay == {"Ref": "DrainSeconds"}
    drain = template["Parameters"]["DrainSeconds"]
    assert config.drain == drain["Default"]
    for name in ("sse-sidecar", "app"):
        assert drain["MaxValue"] + LAST_WORDS < container(template, name)["StopTimeout"] <= FARGATE_STOP


def test_the_app_outlives_the_sidecar(template: Any) -> None:
    """Containers stop in the reverse of their dependencies."""
    dependencies = {
        each["ContainerName"]: each["Condition"] for each in container(template, "sse-sidecar")["DependsOn"]
    }
    assert dependencies == {"configuration": "SUCCESS", "app": "START"}


def test_requests_and_health_checks_have_their_own_ports(template: Any, config: Config) -> None:
    """The target group forwards to the data plane, and asks the admin listener for readiness."""
    group = properties(template, "Sidecars")
    assert config.admin is not None
    assert config.listen == f"0.0.0.0:{group['Port']}"
    assert config.admin.listen == f"0.0.0.0:{group['HealthCheckPort']}"
    assert group["HealthCheckPath"] == "/readyz"
    (balanced,) = properties(template, "Service")["LoadBalancers"]
    assert balanced["ContainerPort"] == group["Port"]
    assert group["HealthCheckTimeoutSeconds"] < group["HealthCheckIntervalSeconds"]


def test_only_the_balancer_reaches_the_tasks(template: Any, config: Config) -> None:
    """No address may come in, only the balancer's group, and to these two ports; the world has 80 and 443."""
    resources = template["Resources"].values()
    rules = [each["Properties"] for each in resources if each["Type"] == "AWS::EC2::SecurityGroupIngress"]
    assert config.admin is not None
    ports = {int(address.rpartition(":")[2]) for address in (config.listen, config.admin.listen)}
    assert {(rule["FromPort"], rule["ToPort"]) for rule in rules} == {(port, port) for port in ports}
    assert all(rule["GroupId"] == {"Ref": "TaskGroup"} for rule in rules)
    assert all(rule["SourceSecurityGroupId"] == {"Ref": "BalancerGroup"} for rule in rules)
    assert "SecurityGroupIngress" not in properties(template, "TaskGroup")
    world = properties(template, "BalancerGroup")["SecurityGroupIngress"]
    assert sorted(rule["FromPort"] for rule in world) == [80, 443]
    egress = [each["Properties"] for each in resources if each["Type"] == "AWS::EC2::SecurityGroupEgress"]
    assert {rule["FromPort"] for rule in egress} == ports


def test_only_the_balancer_is_believed(template: Any, config: Config) -> None:
    """X-Forwarded-For counts from the VPC; the key-spending route is guarded by the public name."""
    assert list(map(str, config.trusted_peers)) == ["10.0.0.0/16"]
    guarded = next(route for route in config.routes if route.name == "openai")
    assert guarded.hosts == ("streams.example.com",)


def test_the_health_check_is_the_image_s(template: Any) -> None:
    """ECS ignores the Dockerfile's HEALTHCHECK, so the task says the same."""
    dockerfile = (PROJECT / "Dockerfile").read_text("utf-8")
    command = container(template, "sse-sidecar")["HealthCheck"]["Command"]
    flat = re.sub(r"\s+", "", command[-1])
    assert command[:3] == ["CMD", "python", "-c"]
    assert flat in re.sub(r"\s+", "", dockerfile)


def test_the_sidecar_runs_with_little(template: Any) -> None:
    """A read-only file system, no capability, the image's own user; only the first container is root."""
    sidecar = container(template, "sse-sidecar")
    assert sidecar["ReadonlyRootFilesystem"] is True
    assert sidecar["LinuxParameters"]["Capabilities"]["Drop"] == ["ALL"]
    assert "User" not in sidecar
    assert container(template, "configuration")["Essential"] is False
