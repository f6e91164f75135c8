"""`darner explain`, from a cluster's objects to what is printed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.values.reference import to_local
from cli.doctor.gather import CONFIGURATIONS
from cli.errors import WrongUsage
from cli.explain import command
from cli.labels import COMPONENT
from cli.output import OutputFormat
from cli.release import INSTANCE
from cli.session import Session
from tests.unit.cli.doctor.conftest import NAMESPACE, TableCluster
from tests.unit.cli.doctor.test_gather import CONFIGURATION, TOLD, pod, workload
from webhook.pods import ORIGINAL_IMAGES

IMAGE = "reg.test/app:1"
PULL = {
    "image": "reg.test/app",
    "digest": "sha256:" + 64 * "a",
    "bytes": 1000,
    "seconds": 1.5,
    "firstByteSeconds": 0.1,
    "secondsAgo": 7,
    "sources": {"peer": 600, "origin": 400},
    "error": None,
}


def released(component: str) -> dict[str, Any]:
    found = workload(component)
    found["metadata"] |= {"namespace": NAMESPACE, "labels": {COMPONENT: component, INSTANCE: "darner"}}
    return found


@pytest.fixture
def cluster() -> TableCluster:
    webhook = released("webhook")
    webhook["spec"]["template"]["spec"]["containers"] = [{"env": [{"name": "DARNER_EXCLUDE_IMAGES", "value": "quay.io/*"}]}]
    noted = {ORIGINAL_IMAGES: json.dumps({"containers": {"app": IMAGE}})}
    spec = {
        "nodeName": "n0",
        "containers": [{"name": "app", "image": to_local(IMAGE)}, {"name": "tools", "image": "quay.io/tools:1"}],
        "imagePullSecrets": [{"name": "mine"}, {"name": "darner-mine"}],
    }
    event = {"reason": "Pulled", "message": "Successfully pulled", "lastTimestamp": "2026-01-01T00:00:00Z"}
    return TableCluster(
        lists={
            "/apis/apps/v1/daemonsets": [released("agent")],
            "/apis/apps/v1/deployments": [webhook],
            CONFIGURATIONS: [CONFIGURATION],
            f"/api/v1/namespaces/{NAMESPACE}/pods": [pod("darner-agent-a", "agent")],
            "/api/v1/namespaces/shop/events": [event],
        },
        objects={
            "/api/v1/namespaces/shop/pods/web": {"metadata": {"annotations": noted}, "spec": spec},
            "/api/v1/namespaces/shop": {"metadata": {"name": "shop", "labels": {"darner.dev/inject": "enabled"}}},
            "/api/v1/namespaces/other": {"metadata": {"name": "other"}},
        },
        probe={**TOLD, "state": {"pulls": [PULL]}},
    )


def session(cluster: TableCluster, namespace: str = "", output: OutputFormat = OutputFormat.JSON) -> Session:
    made = Session(namespace=namespace, output=output)
    made.__dict__["access"] = cluster.access
    return made


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_a_pod_is_explained_with_names_secrets_sources_and_events(
    cluster: TableCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.pod(session(cluster), "shop/web") == 0
    document = told(capsys)
    assert [(item["original"], item["rewritten"], item["why"]) for item in document["images"]] == [
        (IMAGE, True, ""),
        ("quay.io/tools:1", False, "quay.io/tools is excluded"),
    ]
    assert document["secrets"] == ["mine", "darner-mine (for the agent, from mine)"]
    (pull,) = document["pulls"]
    assert (pull["node"], pull["sources"]["peer"], pull["seconds"]) == ("n0", 600, 1.5)
    assert document["events"] == [{"when": "2026-01-01T00:00:00Z", "reason": "Pulled", "message": "Successfully pulled"}]
    assert document["unasked"] == []


def test_a_person_reads_the_same(cluster: TableCluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.pod(session(cluster, output=OutputFormat.TABLE), "shop/web") == 0
    shown = capsys.readouterr().out
    for words in ("pod shop/web on n0", f"rewritten to {to_local(IMAGE)}", "kept because quay.io/tools is excluded", "peer 60 %"):
        assert words in shown


def test_an_agent_that_tells_of_no_pulls_is_said_to_be_one(cluster: TableCluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.probe = {**TOLD, "state": None}
    command.pod(session(cluster), "shop/web")
    assert told(capsys)["unasked"] == ["n0: this version of the agent does not tell"]


@pytest.mark.parametrize(
    ("image", "namespace", "rewritten", "why"),
    [
        (IMAGE, "", True, ""),
        (IMAGE, "other", False, "the namespace has not opted in: its labels do not meet darner.dev/inject in (enabled)"),
        ("quay.io/tools:1", "", False, "quay.io/tools is excluded by webhook.images or registries.allow"),
        (IMAGE, "shop", False, "the webhook did not answer; darner doctor says why"),
    ],
)
def test_what_would_become_of_an_image(
    cluster: TableCluster, capsys: pytest.CaptureFixture[str], image: str, namespace: str, rewritten: bool, why: str
) -> None:
    assert command.image(session(cluster, namespace), image) == 0
    document = told(capsys)
    assert (document["rewritten"], document["why"]) == (rewritten, why)
    assert document["local"] == to_local(image)


@pytest.mark.parametrize("name", ["web", "shop/", "a/b/c", "Shop/web"])
def test_what_names_no_pod_is_wrong_usage(cluster: TableCluster, name: str) -> None:
    with pytest.raises(WrongUsage, match="write NAMESPACE/NAME"):
        command.pod(session(cluster), name)


def test_what_names_no_image_is_wrong_usage(cluster: TableCluster) -> None:
    with pytest.raises(WrongUsage):
        command.image(session(cluster), "no name !")


def test_without_an_installation_names_are_explained_all_the_same(
    cluster: TableCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.lists = {"/api/v1/namespaces/shop/events": []}
    assert command.pod(session(cluster), "shop/web") == 0
    assert told(capsys)["images"][1]["why"] == "no webhook of Darner is known here"
