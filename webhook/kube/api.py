"""The API server as everybody else here knows it: the names of objects, objects as plain JSON, and two ways to ask.

Pure. `webhook.kube.client` is the one implementation that speaks to a cluster; tests have others. Objects come from anybody who
may write to the cluster, so a field is read by `mapping_at` and `text_at`, which take nothing for granted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec

Object = Mapping[str, Any]
"""As the API server writes it in JSON."""

PAGE_ITEMS = 500
"""Objects in one page of a list."""
METADATA = "application/json;as=PartialObjectMetadata{list};g=meta.k8s.io;v=v1"
"""The objects without what is in them (Kubernetes API concepts, "Fetching metadata only")."""


class ObjectName(NamedTuple):
    """A namespaced object of the cluster."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def object_name(value: str) -> ObjectName | None:
    """`NAMESPACE/NAME`, or nothing. Raises ValueError."""
    if not value:
        return None
    match = re.fullmatch(r"([a-z0-9-]{1,63})/([a-z0-9.-]{1,253})", value)
    if not match:
        raise ValueError(f"{value!r} names no object; write NAMESPACE/NAME, such as darner-system/darner-webhook")
    return ObjectName(match[1], match[2])


class ApiAnswer(NamedTuple):
    status: int
    document: dict[str, Any]
    """Empty where the body was no JSON object."""


class Api(Protocol):
    """The API server of a cluster."""

    def ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | list[dict[str, Any]] | None = None,
        query: Mapping[str, str] | None = None,
        timeout: tuple[float, float] = ...,
        accept: str = ...,
    ) -> ApiAnswer:
        """One request; a list as the body of a PATCH is a JSON Patch. `timeout` is in seconds: to connect, and between two bytes.

        Every answer is the caller's to judge, a refusal too. Raises Unreachable when there is none.
        """

    def watch(self, path: str, query: Mapping[str, str], timeout: tuple[float, float], accept: str) -> Iterator[dict[str, Any]]:
        """The events of a watch until the API server ends it. Raises Unreachable when it breaks, or is silent for too long."""


def items_of(document: Object) -> list[Object] | None:
    """The items of a list as the API server writes it; None: it is no list."""
    items = document.get("items")
    if items is None and "items" in document:
        return []  # as it writes an empty list of metadata alone
    return items if isinstance(items, list) else None


_DECODER = msgspec.json.Decoder()


def parsed(content: bytes) -> Any:
    """The value that a JSON text spells, as `json.loads` reads it, in half the time. Raises ValueError or RecursionError.

    Python's own parser has a second look at what msgspec refuses: it takes more, such as half a surrogate pair in a pod's texts.
    """
    try:
        return _DECODER.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return json.loads(content)


def mapping_at(holder: Any, key: str) -> Mapping[str, Any]:
    """The mapping under the key, empty for anything else: what is malformed is the API server's to refuse, not ours.

    An object of JSON is a dict; to ask each whether it is any kind of mapping took a tenth of an admission.
    """
    value = holder.get(key) if isinstance(holder, dict) else None
    return value if isinstance(value, dict) else {}


def mappings_at(holder: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """The mappings in the list under the key; none for anything else."""
    items = holder.get(key)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def text_at(holder: Mapping[str, Any], key: str) -> str:
    """The text under the key, empty for anything else."""
    value = holder.get(key)
    return value if isinstance(value, str) else ""
