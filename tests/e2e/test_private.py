"""Private images: whoever may pull them at the origin runs them through Darner, and nobody else does."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest

from hack.cluster import Cluster
from hack.cluster.api import Api, Object
from hack.cluster.origin import NAME, PASSWORD, PRIVATE_TLS, USER
from hack.lab.process import wait_until
from tests.e2e.release import Release
from tests.e2e.space import Space, container_images, local, waiting_reasons

REGISTRY = f"{NAME}:{PRIVATE_TLS}"
DERIVED = "darner-private"
FOLLOW_SECONDS_MAX = 15
REFUSAL = re.compile("401|unauthorized|authorization failed|no basic auth", re.IGNORECASE)


def test_a_pod_with_a_pull_secret_runs_from_the_private_registry(darner: Release, space: Space) -> None:
    image = space.push()
    space.pull_secret("private", REGISTRY, USER, PASSWORD)
    pod = space.run("web", image.private, imagePullSecrets=[{"name": "private"}])
    assert container_images(pod) == [local(image.private)]
    assert [secret["name"] for secret in pod["spec"]["imagePullSecrets"]] == ["private", DERIVED]


def test_a_pod_whose_service_account_has_the_secret_runs_from_there_too(darner: Release, space: Space, api: Api) -> None:
    image = space.push()
    space.pull_secret("private", REGISTRY, USER, PASSWORD)
    api.merge("ServiceAccount", space.name, "default", {"imagePullSecrets": [{"name": "private"}]})
    pod = space.run("web", image.private)
    assert container_images(pod) == [local(image.private)]


@pytest.mark.parametrize("node", ["n0", "n1"])
def test_both_containerds_hand_the_derived_secret_to_the_agent(darner: Release, space: Space, node: str) -> None:
    image = space.push()
    space.pull_secret("private", REGISTRY, USER, PASSWORD)
    pod = space.run("web", image.private, node=node, imagePullSecrets=[{"name": "private"}])
    assert container_images(pod) == [local(image.private)]


def test_the_derived_secret_holds_nothing_that_its_original_did_not(darner: Release, space: Space, api: Api) -> None:
    auths = {REGISTRY: {"username": USER, "password": PASSWORD}, "elsewhere.test": {"username": "bob", "password": "other"}}
    space.secret("private", auths)
    space.gated("web", space.push().private, imagePullSecrets=[{"name": "private"}])
    derived = _secret(api, space, DERIVED)
    allowed = [_credentials(entry) for entry in _auths(_secret(api, space, "private")).values()]
    assert all(_credentials(entry) in allowed for entry in _auths(derived).values())
    assert {key.rstrip("/") for key in _auths(derived)} <= {local(f"{host}/").rstrip("/") for host in auths}
    assert derived["type"] == "kubernetes.io/dockerconfigjson"
    assert set(derived["data"]) == {".dockerconfigjson"}
    assert derived["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "darner"


def test_a_changed_secret_is_followed_and_a_deleted_one_takes_its_derived_one_with_it(
    darner: Release, space: Space, api: Api
) -> None:
    image = space.push()
    space.pull_secret("private", REGISTRY, USER, "not yet")
    space.gated("first", image.private, imagePullSecrets=[{"name": "private"}])
    assert _passwords(_secret(api, space, DERIVED)) == {"not yet"}

    config = json.dumps({"auths": {REGISTRY: {"username": USER, "password": PASSWORD}}})
    api.merge("Secret", space.name, "private", {"stringData": {".dockerconfigjson": config}})
    wait_until(lambda: _passwords(_secret(api, space, DERIVED)) == {PASSWORD}, FOLLOW_SECONDS_MAX)
    space.open("first")
    assert container_images(space.wait_running("first")) == [local(image.private)]

    api.delete("Secret", space.name, "private")
    wait_until(lambda: api.get("Secret", space.name, DERIVED) is None, FOLLOW_SECONDS_MAX)


@pytest.mark.unrewrites
@pytest.mark.parametrize("policy", ["IfNotPresent", "Always"])
def test_a_pod_without_the_secret_does_not_run_on_a_node_that_has_the_image(
    darner: Release, space: Space, cluster: Cluster, policy: str
) -> None:
    image = space.push()
    space.pull_secret("private", REGISTRY, USER, PASSWORD)
    space.run("allowed", image.private, node="n1", imagePullSecrets=[{"name": "private"}])
    assert local(image.private).partition(":1")[0] in cluster.run("n1", ["ctr", "--namespace", "k8s.io", "images", "list", "-q"])
    containers = [{"name": "c0", "image": image.private, "imagePullPolicy": policy}]
    space.pod("curious", node="n1", containers=containers)
    space.wait_for("curious", lambda pod: set(waiting_reasons(pod)) & {"ErrImagePull", "ImagePullBackOff"})
    # It is told under the name that its author wrote, once it has that back.
    space.wait_for("curious", lambda pod: container_images(pod) == [image.private])
    wait_until(lambda: _refusals(space, "curious", image.private), FOLLOW_SECONDS_MAX)
    assert not any("running" in status["state"] for status in space.get("curious")["status"]["containerStatuses"])


def _refusals(space: Space, pod: str, image: str) -> list[str]:
    """Events in which the origin's refusal of an image is told."""
    said = [event["message"] for event in space.events(pod) if event["reason"] == "Failed" and image in event["message"]]
    return [message for message in said if REFUSAL.search(message)]


def _secret(api: Api, space: Space, name: str) -> Object:
    found = api.get("Secret", space.name, name)
    assert found is not None, f"there is no Secret {name}"
    return found


def _auths(secret: Object) -> dict[str, Any]:
    auths: dict[str, Any] = json.loads(base64.b64decode(secret["data"][".dockerconfigjson"]))["auths"]
    return auths


def _credentials(entry: Object) -> tuple[str, ...]:
    """User and password, however an entry writes them."""
    if "auth" in entry:
        return tuple(base64.b64decode(entry["auth"]).decode().split(":", 1))
    return entry["username"], entry["password"]


def _passwords(secret: Object) -> set[str]:
    return {_credentials(entry)[1] for entry in _auths(secret).values()}
