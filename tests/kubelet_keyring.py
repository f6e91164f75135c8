"""How a kubelet finds credentials for an image, so that tests need not believe the code that writes them.

A transcription of kubernetes/pkg/credentialprovider/keyring.go (1.36): `BasicDockerKeyring.Add`, `Lookup` and `URLsMatch`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from agent.values.reference import Reference

DEFAULT_REGISTRY = "index.docker.io"


def auths_of(secret: Mapping[str, Any]) -> dict[str, Any]:
    kind, data = secret["type"], secret["data"]
    if kind == "kubernetes.io/dockerconfigjson":
        auths: dict[str, Any] = json.loads(base64.b64decode(data[".dockerconfigjson"]))["auths"]
        return auths
    return dict(json.loads(base64.b64decode(data[".dockercfg"])))


def credentials_for(auths: Mapping[str, Any], image: str) -> list[Any]:
    """In the order in which they are tried, but for those under one key."""
    reference = Reference.parse(image)
    name = f"{reference.registry}/{reference.repository}"
    by_key: dict[str, list[Any]] = {}
    for location, entry in auths.items():
        by_key.setdefault(_key(location), []).append(entry)
    found = [entry for key in sorted(by_key, reverse=True) if _matches(key, name) for entry in by_key[key]]
    if not found and reference.registry == "docker.io":
        found = by_key.get(DEFAULT_REGISTRY, [])
    return found


def _key(location: str) -> str:
    parsed = urlsplit(location if location.startswith(("http://", "https://")) else f"https://{location}")
    path = parsed.path
    if path.startswith(("/v2/", "/v1/")):
        path = path[3:]
    host = parsed.netloc.rpartition("@")[2]
    return host + path if path not in ("", "/") else host


def _matches(glob: str, target: str) -> bool:
    (host, path), (name, repository) = (re.fullmatch(r"([^/]*)(.*)", text).groups() for text in (glob, target))
    (host, _, port), (name, _, number) = host.partition(":"), name.partition(":")
    parts, names = host.split("."), name.split(".")
    if port != number or len(parts) != len(names) or not repository.startswith(path):
        return False
    return all(re.fullmatch(re.escape(part).replace(r"\*", ".*"), given) for part, given in zip(parts, names, strict=True))
