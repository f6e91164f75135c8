"""Pull secrets for tests of the webhook: how to put one into the tests' API server, and what a kubelet finds in it."""

from __future__ import annotations

import base64
import json
from typing import Any

from agent.values.reference import to_local
from hack.lab.apiserver import ApiServer, Document
from hack.secrecy import secret
from tests.kubelet_keyring import auths_of, credentials_for

PASSWORD = secret("s3cret-of-alice", "a password")
LOGIN = base64.b64encode(f"alice:{PASSWORD}".encode()).decode()


def path_of(name: str, namespace: str = "shop") -> str:
    return f"/api/v1/namespaces/{namespace}/secrets/{name}"


def put(api: ApiServer, *locations: str, name: str = "registry", login: str = LOGIN, older: bool = False) -> Document:
    """Makes a pull secret, or changes the one that is there."""
    auths = {location: {"auth": login} for location in locations}
    content: Any = auths if older else {"auths": auths}
    key, kind = (".dockercfg", "kubernetes.io/dockercfg") if older else (".dockerconfigjson", "kubernetes.io/dockerconfigjson")
    before = api.objects.get(path_of(name), {}).get("metadata", {"name": name, "namespace": "shop"})
    data = {key: base64.b64encode(json.dumps(content).encode()).decode()}
    return api.put(path_of(name), {"kind": "Secret", "type": kind, "metadata": dict(before), "data": data})


def derived(api: ApiServer, name: str = "registry") -> Document:
    return api.objects[path_of(f"darner-{name}")]


def found_for(secret: Document, image: str) -> list[str]:
    """The logins with which a kubelet asks the node's agent for an image."""
    return [entry["auth"] for entry in credentials_for(auths_of(secret), to_local(image))]
