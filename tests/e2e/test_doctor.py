"""`darner doctor` in the real cluster: one thing at a time goes wrong, is told with its remedy, and is put right again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.cluster import Cluster
from hack.cluster.api import Api
from hack.lab.process import wait_until
from tests.e2e.release import NAMESPACE, Release
from tests.e2e.space import Space, container_images, local
from tests.e2e.test_policy import applied, recommended
from tests.e2e.trouble import control_plane_cut_off, labelled, port_taken, without_dns

PROGRAM = Path(sys.executable).with_name("darner")
SECONDS_MAX = 120
TOLD_SECONDS_MAX = 60

Findings = list[dict[str, str]]


class Doctor:
    def __init__(self, cluster: Cluster) -> None:
        self.kubeconfig = cluster.layout.kubeconfig

    def run(self, *arguments: str, kubeconfig: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [PROGRAM, *arguments, "--kubeconfig", kubeconfig or self.kubeconfig]
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)

    def found(self, *arguments: str) -> tuple[int, Findings]:
        """The exit code, and what was found."""
        done = self.run("doctor", "--output", "json", *arguments)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)["findings"]

    def problem(self, symptom: str, *arguments: str) -> dict[str, str]:
        """The problem with this page, as soon as it is told."""
        seen: Findings = []

        def told() -> bool:
            status, findings = self.found(*arguments)
            seen[:] = [item for item in findings if item["severity"] == "problem" and item["page"].endswith(f"#{symptom}")]
            return bool(seen) and status == 1

        wait_until(told, TOLD_SECONDS_MAX)
        assert seen[0]["remedy"]
        return seen[0]


@pytest.fixture(scope="module")
def doctor(cluster: Cluster) -> Doctor:
    return Doctor(cluster)


@pytest.fixture
def first_image(darner: Release) -> Iterator[str]:
    """Of the webhook, which is given another one by a test."""
    name = "darner-webhook"
    deployment = darner.api.get("Deployment", NAMESPACE, name)
    assert deployment is not None
    image: str = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    yield image
    darner.cluster.kubectl("set", "image", f"deployment/{name}", f"webhook={image}", "--namespace", NAMESPACE)
    darner.wait_ready()


def test_all_is_well_and_the_second_node_has_its_bytes_from_the_first(darner: Release, space: Space, doctor: Doctor) -> None:
    image = space.push(layers=(3_000_000, 2_000_000))
    status, findings = doctor.found("--pull", image.name, "--pull-in", space.name)
    # How much disk a machine has that plays several nodes is its own affair.
    assert [item for item in findings if item["severity"] != "fine" and item["check"] != "disks"] == []
    assert status == 0
    told = [item["what"] for item in findings if item["check"] == "pull"]
    assert len(told) == 3
    assert "from other nodes" in told[-1]
    assert space.pods() == [], "the pods that pulled are gone"

    pod = space.run("web", image.name, node="n1")
    assert container_images(pod) == [local(image.name)]
    explained = json.loads(doctor.run("explain", "pod", f"{space.name}/web", "--output", "json").stdout)
    (story,) = explained["images"]
    assert (story["original"], story["rewritten"]) == (image.name, True)
    assert "Pulled" in {event["reason"] for event in explained["events"]}
    foreseen = json.loads(doctor.run("explain", "image", image.name, "-n", space.name, "--output", "json").stdout)
    assert (foreseen["local"], foreseen["rewritten"]) == (local(image.name), True)


def test_before_the_installation_the_cluster_is_looked_at(darner: Release, doctor: Doctor) -> None:
    status, findings = doctor.found("--pre", "--namespace", "not-there-yet")
    assert status == 0
    told = "\n".join(item["what"] for item in findings)
    assert "containerd 1.6" in told
    assert "pods of the agent are admitted in not-there-yet, once it is there" in told


def test_a_namespace_whose_pod_security_refuses_agents(darner: Release, cluster: Cluster, doctor: Doctor) -> None:
    with labelled(cluster, NAMESPACE, "pod-security.kubernetes.io/enforce", "baseline"):
        found = doctor.problem("pod-security-refuses")
    assert "enforces baseline" in found["what"]
    assert "enforce=privileged" in found["remedy"]


def test_an_image_that_cannot_be_pulled(darner: Release, cluster: Cluster, doctor: Doctor, first_image: str) -> None:
    missing = "registry.test/darner/not-there:1"
    cluster.kubectl("set", "image", "deployment/darner-webhook", f"webhook={missing}", "--namespace", NAMESPACE)
    found = doctor.problem("darners-image-is-not-pulled")
    assert missing in found["what"]


def test_a_port_that_somebody_else_has(darner: Release, cluster: Cluster, doctor: Doctor) -> None:
    try:
        with port_taken(cluster, "n1"):
            darner.api.delete("Pod", NAMESPACE, darner.agents()["n1"]["metadata"]["name"])
            found = doctor.problem("a-port-is-taken")
            assert "on n1 cannot listen on 127.0.0.1:65001" in found["what"]
    finally:
        darner.api.delete("Pod", NAMESPACE, darner.agents()["n1"]["metadata"]["name"])  # and with it the kubelet's patience
        darner.wait_ready()


def test_a_control_plane_that_a_packet_filter_cuts_off_from_the_webhook(
    darner: Release, space: Space, cluster: Cluster, doctor: Doctor
) -> None:
    pods = darner.pods("webhook")
    ports = {item["name"]: item["containerPort"] for item in pods[0]["spec"]["containers"][0]["ports"]}
    with control_plane_cut_off(cluster, [pod["status"]["podIP"] for pod in pods], ports["https"]):
        found = doctor.problem("the-control-plane-does-not-reach-the-webhook")
    assert f"TCP port {ports['https']}" in found["remedy"]
    wait_until(lambda: not _problems(doctor), TOLD_SECONDS_MAX)


def test_a_cluster_without_dns(darner: Release, cluster: Cluster, api: Api, doctor: Doctor) -> None:
    with without_dns(cluster, api):
        found = doctor.problem("supernodes-are-not-found")
    assert "darner-supernode-0" in found["what"]
    assert "CoreDNS" in found["remedy"]


def test_a_policy_that_refuses_rewritten_names(darner: Release, space: Space, api: Api, doctor: Doctor) -> None:
    image = space.push()
    space.gated("web", image.name)
    policy, binding = recommended()
    expression = "object.spec.containers.all(c, !c.image.startsWith('127.0.0.1:65001/'))"
    policy["spec"] |= {"variables": [], "validations": [{"expression": expression}]}
    with applied(api, space, policy, binding):
        found = doctor.problem("a-policy-refuses-rewritten-pods")
    assert f"in {space.name} a rewritten pod with {image.name} is refused" in found["what"]


@pytest.mark.unrewrites
def test_a_private_image_for_which_nobody_gave_a_secret(darner: Release, space: Space, doctor: Doctor) -> None:
    space.pod("web", space.push().private)
    found = doctor.problem("a-registry-refuses-a-pull")
    assert f"registry.test:444 refuses {space.name}/web, which bring no pull secret" in found["what"]


@pytest.mark.parametrize("wrong", ["no such file", "no such server", "no such user"])
def test_a_wrong_kubeconfig_is_one_line_that_says_what_to_do(
    cluster: Cluster, doctor: Doctor, tmp_path: Path, wrong: str
) -> None:
    config: dict[str, Any] = yaml.safe_load(cluster.layout.kubeconfig.read_text())
    path = tmp_path / "kubeconfig"
    if wrong != "no such file":
        if wrong == "no such server":
            config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
        else:
            config["users"][0]["user"] = {"token": "not a token"}
        path.write_text(yaml.safe_dump(config))
    done = doctor.run("doctor", kubeconfig=path)
    assert done.returncode == 3
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr


def _problems(doctor: Doctor) -> Findings:
    return [item for item in doctor.found()[1] if item["severity"] == "problem"]
