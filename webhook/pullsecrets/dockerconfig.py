"""Derived pull secrets: which of a Secret's credentials the node's agent needs, and under which keys the kubelet finds them.

Pure: Secrets as the API server sends them go in and come out. A derived secret holds entries of its original and nothing else,
those alone whose registry a pod has asked for, each under the name that the registry has at the agent. How a key is read is the
kubelet's (kubernetes/pkg/credentialprovider/keyring.go, docs "Interpretation of config.json"), so that a credential reaches the
registries that it would reach without us, and no other. No value of a Secret is in the repr of anything here.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from typing import Any

from agent.values.reference import DOCKER_HUB, LOCAL_REGISTRY, InvalidReference, component_of
from webhook.errors import NotDerived, Obstacle
from webhook.kube.api import mapping_at, text_at
from webhook.pods import RELEASE

PREFIX = "darner-"
DERIVED_FROM = "darner.dev/derived-from"
REGISTRIES = "darner.dev/registries"
"""Annotation: the registries that the derived secret is for, as a JSON list; those that a pod with the original has asked for."""
ORIGINAL_VERSION = "darner.dev/original-version"
MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "darner"

DOCKER_CONFIG_JSON = "kubernetes.io/dockerconfigjson"
DOCKER_CONFIG = "kubernetes.io/dockercfg"
CONFIG_KEYS = {DOCKER_CONFIG_JSON: ".dockerconfigjson", DOCKER_CONFIG: ".dockercfg"}

NAME_LENGTH_MAX = 253
LABEL_LENGTH_MAX = 63
REGISTRIES_MAX = 64
"""Per derived secret: an original with a wildcard could otherwise be made to grow without end by pods that name hosts."""

DERIVED_BYTES_MAX = 1 << 20
"""What Kubernetes lets a Secret hold (core/v1, MaxSecretSize)."""

HUB_INDEX = "index.docker.io"
SPELLINGS = ("", "https://", "http://")
"""To the kubelet these are one key, which is how several credentials for one place find room in one JSON object."""

_HOST_PATTERN = re.compile(r"[a-z0-9.*_-]+")

Entry = Mapping[str, Any]
Secret = Mapping[str, Any]
_Ranked = tuple[int, str, Entry]
"""An entry with its place in the kubelet's order, and the path of its location."""


@dataclass(frozen=True)
class Location:
    """Where a credential belongs: a host, which may be a pattern, with its port, and the beginning of a path."""

    host: str
    path: str
    """Empty, or from its first slash on."""


class Places:
    """The entries of a Docker configuration by where they belong: looked through once, however many registries are asked about.

    Authors of pods choose the Secrets that are read here, of up to 1 MiB, and the registries that are looked for in them. So no
    key is read twice, hosts are found by their name, and each pattern is compared once with each registry.
    """

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        located = sorted(((_location(key), entry) for key, entry in entries.items()), key=lambda item: _order(item[0]))
        self._hosts: defaultdict[str, list[_Ranked]] = defaultdict(list)
        self._patterns: defaultdict[tuple[str, int], list[tuple[list[str], _Ranked]]] = defaultdict(list)
        self._found: dict[str, Sequence[tuple[str, Entry]]] = {}
        # The kubelet tries the most specific location first, which is the last in order.
        for rank, (location, entry) in enumerate(reversed(located)):
            host, _, port = location.host.partition(":")
            # Brackets and question marks are patterns to Go, but no host of a URL that it reads can have them.
            if not _HOST_PATTERN.fullmatch(host):
                continue
            if "*" in host:
                parts = host.split(".")
                self._patterns[port, len(parts)].append((parts, (rank, location.path, entry)))
            else:
                self._hosts[location.host].append((rank, location.path, entry))

    def local_entries(self, registry: str) -> Sequence[tuple[str, Entry]]:
        """The entries for a registry, under their keys at the agent."""
        if registry not in self._found:
            self._found[registry] = tuple(self._look_up(registry))
        return self._found[registry]

    def _look_up(self, registry: str) -> Iterator[tuple[str, Entry]]:
        try:
            component = component_of(registry)
        except InvalidReference:
            return
        if component in ("v1", "v2"):
            return  # The kubelet takes these for no path, and the credential would be for everything at the agent.
        found = self._matching(registry)
        if registry == DOCKER_HUB and not any(path == "" for _, path, _ in found):
            found += [item for item in reversed(self._hosts.get(HUB_INDEX, [])) if item[1] == ""]
        used: dict[str, int] = {}
        for _, path, entry in found:
            # Without the slash the credential would be for every registry whose name only begins like this one.
            key = f"{LOCAL_REGISTRY}/{component}{path or '/'}"
            count = used[key] = used.get(key, 0) + 1
            if count <= len(SPELLINGS):
                yield SPELLINGS[count - 1] + key, entry

    def _matching(self, registry: str) -> list[_Ranked]:
        """As the kubelet compares: the port as it is, and the host part by part, of which each may have stars."""
        name, _, port = registry.partition(":")
        names = name.split(".")
        found = list(self._hosts.get(registry, ()))
        for parts, item in self._patterns.get((port, len(names)), ()):
            if all(map(_fits, names, parts)):
                found.append(item)
        return sorted(found, key=itemgetter(0))


@dataclass(frozen=True)
class Original:
    """A pull secret that somebody made."""

    namespace: str
    name: str
    uid: str
    version: str
    """Another one for every change, and for every Secret of this name."""
    entries: Mapping[str, Entry] = field(repr=False)

    @cached_property
    def places(self) -> Places:
        return Places(self.entries)


def original_of(secret: Secret) -> Original | None:
    """The pull secret, as the kubelet would use it; None if it would not, or if it is one of ours."""
    metadata = mapping_at(secret, "metadata")
    name, namespace, uid = (text_at(metadata, key) for key in ("name", "namespace", "uid"))
    entries = _entries(text_at(secret, "type"), mapping_at(secret, "data"))
    if entries is None or derived_from(metadata) is not None:
        return None
    return Original(namespace, name, uid, version_of(metadata), entries)


def version_of(metadata: Mapping[str, Any]) -> str:
    return f"{text_at(metadata, 'uid')}/{text_at(metadata, 'resourceVersion')}"


def derived_name(name: str) -> str:
    """`registry` -> `darner-registry`; a name that would be too long is cut, and kept apart from others by a hash."""
    return PREFIX + _shortened(name, NAME_LENGTH_MAX - len(PREFIX))


def originals_among(names: Iterable[str]) -> tuple[str, ...]:
    """A pod's pull secrets without those that it has been given by us."""
    given = tuple(names)
    derived = {derived_name(name) for name in given}
    return tuple(name for name in given if name not in derived)


def registries_with_credentials(original: Original, registries: Iterable[str]) -> frozenset[str]:
    """The registries among these for which the original holds anything that an agent can be sent."""
    return frozenset(registry for registry in registries if original.places.local_entries(registry))


def derive(original: Original, registries: Iterable[str], found: Secret | None = None, release: str = "") -> dict[str, Any]:
    """The derived secret for these registries; with one that was found, that one as it should be.

    It belongs to the release that made it first: another one uses it as well, and does not take it away. Raises NotDerived.
    """
    wanted = sorted(set(registries))
    auths: dict[str, Entry] = {}
    size = 0
    for registry in wanted:
        for key, entry in original.places.local_entries(registry):
            auths[key] = entry
            size += len(key) + len(json.dumps(entry))
            if size > DERIVED_BYTES_MAX:  # found out while it grows: of a wildcard, each registry has its own copies
                words = f"for {len(wanted)} registries it would have more than {DERIVED_BYTES_MAX >> 20} MiB"
                raise NotDerived(Obstacle.TOO_LARGE, f"the Secret {derived_name(original.name)} cannot be made: {words}")
    content = json.dumps({"auths": auths}, sort_keys=True, separators=(",", ":"))
    metadata = dict(mapping_at(found, "metadata")) or {"name": derived_name(original.name), "namespace": original.namespace}
    metadata |= {
        "labels": {
            **({RELEASE: release} if release else {}),
            **mapping_at(metadata, "labels"),
            MANAGED_BY: MANAGER,
            DERIVED_FROM: _shortened(original.name, LABEL_LENGTH_MAX),
        },
        "annotations": {
            **mapping_at(metadata, "annotations"),
            REGISTRIES: json.dumps(wanted, separators=(",", ":")),
            ORIGINAL_VERSION: original.version,
        },
        # Deleted with its original, by the cluster's own garbage collector.
        "ownerReferences": [{"apiVersion": "v1", "kind": "Secret", "name": original.name, "uid": original.uid}],
    }
    data = {CONFIG_KEYS[DOCKER_CONFIG_JSON]: base64.b64encode(content.encode()).decode()}
    return {"apiVersion": "v1", "kind": "Secret", "type": DOCKER_CONFIG_JSON, "metadata": metadata, "data": data}


def derived_from(metadata: Mapping[str, Any]) -> str | None:
    """The name of the original, of a Secret that we made; None for every other."""
    owners = metadata.get("ownerReferences")
    owner = owners[0] if isinstance(owners, list) and len(owners) == 1 and isinstance(owners[0], Mapping) else {}
    original, labels = text_at(owner, "name"), mapping_at(metadata, "labels")
    expected = (MANAGER, _shortened(original, LABEL_LENGTH_MAX), "Secret", derived_name(original))
    known = (labels.get(MANAGED_BY), labels.get(DERIVED_FROM), text_at(owner, "kind"), text_at(metadata, "name"))
    return original if original and known == expected else None


def owner_uid(metadata: Mapping[str, Any]) -> str:
    """The uid of a derived secret's original."""
    return text_at(metadata["ownerReferences"][0], "uid")


def registries_of(metadata: Mapping[str, Any]) -> frozenset[str]:
    """The registries that a derived secret is for."""
    try:
        listed = json.loads(text_at(mapping_at(metadata, "annotations"), REGISTRIES))
    except (ValueError, RecursionError):
        return frozenset()
    return frozenset(item for item in listed if isinstance(item, str)) if isinstance(listed, list) else frozenset()


def original_version_of(metadata: Mapping[str, Any]) -> str:
    """The version of the original that a derived secret was made from."""
    return text_at(mapping_at(metadata, "annotations"), ORIGINAL_VERSION)


def _entries(kind: str, data: Mapping[str, Any]) -> Mapping[str, Entry] | None:
    try:
        config = json.loads(base64.b64decode(text_at(data, CONFIG_KEYS.get(kind, "")), validate=True))
    except (ValueError, RecursionError):
        return None
    entries = config.get("auths") if kind == DOCKER_CONFIG_JSON and isinstance(config, dict) else config
    # One entry that is none, and the kubelet reads nothing of the Secret.
    return entries if isinstance(entries, dict) and all(isinstance(entry, dict) for entry in entries.values()) else None


def _location(key: str) -> Location:
    """A key of a Docker configuration: with or without scheme; `/v1/` and `/v2/` stand for no path."""
    text = key.removeprefix("https://") if key.startswith("https://") else key.removeprefix("http://")
    authority, slash, path = re.split(r"[?#]", text, maxsplit=1)[0].partition("/")
    host, path = authority.rpartition("@")[2].lower(), slash + path
    if path.startswith(("/v1/", "/v2/")) or (host == HUB_INDEX and path in ("/v1", "/v2")):
        path = path[len("/v1") :]
    return Location(host, "" if path == "/" else path)


def _fits(name: str, pattern: str) -> bool:
    """Whether a part of a host is what a pattern with stars says: one pass, without a regular expression made for it."""
    head, *rest = pattern.split("*")
    if not rest:
        return name == pattern
    *middle, tail = rest
    at, end = len(head), len(name) - len(tail)
    if at > end or not name.startswith(head) or not name.endswith(tail):
        return False
    for piece in middle:
        at = name.find(piece, at, end)
        if at < 0:
            return False
        at += len(piece)
    return True


def _order(location: Location) -> str:
    return location.host + location.path


def _shortened(name: str, length: int) -> str:
    if len(name) <= length:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:10]
    return f"{name[: length - len(digest) - 1].rstrip('.-')}-{digest}"
