"""The identity of nodes: a credential provider (credentialprovider.kubelet.k8s.io/v1), as clouds put one on theirs.

It knows the private registry's password for one part of that registry, which nodes may pull from by being nodes. Kubelets have it
from the start; whoever installs Darner can give it to the agents.
"""

from __future__ import annotations

import json
from pathlib import Path

from hack.cluster.origin import NAME, PASSWORD, PRIVATE_TLS, USER

CONFIG, PROGRAMS = "/etc/kubernetes/credential-provider.json", "/opt/credential-providers"
"""Where a node has them."""
REPOSITORIES = "by-identity"
"""How the repositories begin that nodes may pull from."""
_PROGRAM = "node-identity"
_REGISTRY = f"{NAME}:{PRIVATE_TLS}"
_API_VERSION = "credentialprovider.kubelet.k8s.io/v1"


def install(etc: Path, opt: Path) -> None:
    """On a node's disk."""
    provider = {
        "name": _PROGRAM,
        "apiVersion": _API_VERSION,
        "matchImages": [f"{_REGISTRY}/{REPOSITORIES}"],
        "defaultCacheDuration": "10m",
    }
    config = {"apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig", "providers": [provider]}
    (etc / Path(CONFIG).relative_to("/etc")).write_text(json.dumps(config))
    program = opt / Path(PROGRAMS).relative_to("/opt") / _PROGRAM
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\ncat >/dev/null\necho '{json.dumps(_ANSWER)}'\n")
    program.chmod(0o755)


_ANSWER = {
    "kind": "CredentialProviderResponse",
    "apiVersion": _API_VERSION,
    "cacheKeyType": "Registry",
    "auth": {_REGISTRY: {"username": USER, "password": PASSWORD}},
}
