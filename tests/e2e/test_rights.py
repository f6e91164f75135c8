"""What the webhook's account may do in a cluster, asked as that account: its rights, and the policies that hold it to them."""

from __future__ import annotations

import base64
import json

import pytest

from hack.cluster import Cluster
from hack.cluster.api import Api, Object, RefusedError
from hack.lab.process import wait_until
from tests.e2e.release import NAMESPACE, Release
from tests.e2e.space import Space, pod_spec

POLICY_SECONDS_MAX = 30
"""An API server looks at new policies every few seconds."""
DOCKER = "kubernetes.io/dockerconfigjson"
OURS = {"app.kubernetes.io/managed-by": "darner"}


@pytest.fixture
def webhook(cluster: Cluster, darner: Release, space: Space) -> Api:
    """The API server, asked as the webhook's account, once it goes by the policies."""
    account = darner.pods("webhook")[0]["spec"]["serviceAccountName"]
    api = Api(cluster.layout.kubeconfig, acts_as=f"system:serviceaccount:{NAMESPACE}:{account}")
    wait_until(
        lambda: refused(api, "POST", f"api/v1/namespaces/{space.name}/secrets?dryRun=All", secret(space, "dry")),
        POLICY_SECONDS_MAX,
    )
    return api


def secret(space: Space, name: str, kind: str = "Opaque", labels: dict[str, str] | None = None) -> Object:
    data = {".dockerconfigjson": base64.b64encode(json.dumps({"auths": {}}).encode()).decode()}
    metadata = {"name": name, "namespace": space.name, "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": metadata, "data": data}


def refused(
    api: Api, method: str, path: str, body: Object | list[Object] | None = None, media_type: str = "application/json"
) -> str:
    """The policy's words; "" when the API server agrees. Rights alone refuse nothing that is asked here."""
    try:
        api.json(method, path, body, media_type)
    except RefusedError as error:
        if error.status == 422 and "Darner's webhook" in str(error):
            return str(error)
        raise
    return ""


def test_the_account_writes_derived_pull_secrets_and_no_other_secret(webhook: Api, api: Api, space: Space) -> None:
    secrets = f"api/v1/namespaces/{space.name}/secrets"
    api.create(secret(space, "theirs"))
    api.create(secret(space, "darner-of-a-user", DOCKER))
    for name, kind, labels in (
        ("other", DOCKER, OURS),
        ("darner-other", "Opaque", OURS),
        ("darner-other", DOCKER, {}),
    ):
        assert refused(webhook, "POST", secrets, secret(space, name, kind, labels)), name
    for name, kind in (("theirs", "Opaque"), ("darner-of-a-user", DOCKER)):
        assert refused(webhook, "PUT", f"{secrets}/{name}", secret(space, name, kind, OURS)), name
        assert refused(webhook, "DELETE", f"{secrets}/{name}"), name
    derived = secret(space, "darner-derived", DOCKER, OURS)
    assert not refused(webhook, "POST", secrets, derived)
    assert not refused(webhook, "PUT", f"{secrets}/darner-derived", derived)
    assert refused(webhook, "DELETE", f"{secrets}/darner-derived")


def test_the_account_changes_local_names_and_its_own_notes_of_a_pod_and_nothing_else(
    webhook: Api, api: Api, space: Space
) -> None:
    """Pods of this test are bound to no node that there is: nothing else changes them meanwhile."""
    theirs, ours = "registry.test/app:1", "127.0.0.1:65001/registry.test/app:1"
    spec = {**pod_spec(theirs), "nodeName": "nowhere"}
    spec["containers"] = [{"name": "theirs", "image": theirs}, {"name": "ours", "image": ours}]
    labels = {"team": "a", "darner.dev/inject": "disabled"}
    metadata: Object = {"name": "pod", "namespace": space.name, "labels": labels, "finalizers": ["test.darner.dev/kept"]}
    api.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    path = f"api/v1/namespaces/{space.name}/pods/pod"

    def patched(*operations: tuple[str, str, object]) -> str:
        body = [{"op": op, "path": where, "value": value} for op, where, value in operations]
        return refused(webhook, "PATCH", path, body, "application/json-patch+json")

    try:
        assert patched(("replace", "/spec/containers/0/image", "evil.test/app:1"))
        assert patched(("replace", "/metadata/labels/team", "b"))
        assert patched(("add", "/metadata/annotations", {"other": "1"}))
        assert patched(("replace", "/metadata/finalizers", []))
        assert patched(("add", "/spec/activeDeadlineSeconds", 1))
        assert patched(("add", "/spec/tolerations/-", {"key": "any", "operator": "Exists"}))
        assert not patched(
            ("replace", "/spec/containers/1/image", theirs), ("add", "/metadata/annotations", {"darner.dev/decision": "x"})
        )
    finally:
        api.merge("Pod", space.name, "pod", {"metadata": {"finalizers": None}})
        api.delete("Pod", space.name, "pod", grace_seconds=0)


def test_the_account_changes_whom_api_servers_trust_and_nothing_else_of_its_configuration(webhook: Api) -> None:
    path = f"apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/darner-webhook.{NAMESPACE}"
    (before,) = webhook.json("GET", path)["webhooks"]

    def patched(where: str, value: object) -> str:
        operations: list[Object] = [{"op": "add", "path": where, "value": value}]
        return refused(webhook, "PATCH", path, operations, "application/json-patch+json")

    for where, value in (
        ("/webhooks/0/rules/0/resources", ["*"]),
        ("/webhooks/0/rules/-", {**before["rules"][0], "resources": ["services"]}),
        ("/webhooks/-", {**before, "name": "another.darner.dev"}),
        ("/webhooks/0/namespaceSelector", {}),
        ("/webhooks/0/objectSelector", {}),
        ("/webhooks/0/failurePolicy", "Fail"),
        ("/webhooks/0/clientConfig/service/name", "another"),
        ("/metadata/labels/another", "label"),
    ):
        assert patched(where, value), where
    assert not patched("/webhooks/0/clientConfig/caBundle", before["clientConfig"]["caBundle"])


POSES = """
import pathlib, socket, sys
from agent.config import address
from agent.swarm import messages
from agent.swarm.channel import Frames, frame, supernode_message
from agent.swarm.tickets import SwarmKey
from agent.http.sealed import client_context
from agent.swarm.tls import SealedSocket
node, where = sys.argv[1], address(sys.argv[2])
token = pathlib.Path("/var/run/secrets/darner/token").read_text().strip()
with socket.create_connection(where, 10) as sock:
    sealed = SealedSocket(sock, client_context())
    sealed.prove(SwarmKey("/etc/darner/swarm/key").all())
    sealed.sendall(frame(messages.Hello(messages.VERSION, node, "", "127.0.0.1", 1, 0, [], token)))
    inbox = Frames()
    body = next(body for _ in iter(int, 1) for body in inbox.feed(sealed.recv(1 << 16)))
    print(supernode_message(body))
"""
"""What somebody could do who has taken over the agent of one node."""


def test_the_agent_of_one_node_cannot_pose_as_another_node_on_the_channel(cluster: Cluster, darner: Release) -> None:
    (node, agent), *_ = sorted(darner.agents().items())
    supernode = f"[{darner.pods('supernode')[0]['status']['podIP']}]:65004"
    command = ("exec", "--namespace", NAMESPACE, agent["metadata"]["name"], "--", "python", "-c", POSES)
    assert "its token is of another node than the one that it names" in cluster.kubectl(*command, "another-node", supernode)
    assert "Refused" not in cluster.kubectl(*command, node, supernode), "as itself it is welcome"
