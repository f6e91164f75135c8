"""What goes into an archive that is sent to others: objects and values without what may be a secret.

A name that sounds like one is enough; what is left out says so in its place, so that nobody takes it for empty.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import re
import zlib
from collections.abc import Mapping
from typing import Any

from cli.cluster import ClusterAccess
from cli.errors import CommandError, NotThere
from webhook.kube.api import mapping_at, text_at

LEFT_OUT = "<left out: it may be a secret>"
_TELLING = re.compile(
    r"pass(word|wd|phrase)?$|secret$|token$|private.?key|\bkey$|api.?key|credential|auth$|dockerconfig", re.IGNORECASE
)
_IN_VALUES = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----"  # PEM
    r"|(?<=://)[^/\s:@\"]+:[^/\s@\"]+(?=@)"  # user:password of a URL
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"  # a JSON web token
    r"|(?<=[Bb]earer )[\w.~+/=-]{8,}|(?<=[Bb]asic )[\w+/=]{8,}",
    re.DOTALL,
)
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""kubectl's copy of an object, as text: whatever is left out of the object would be in it."""


def without_secrets(value: Any, name: str = "") -> Any:
    if isinstance(value, Mapping):
        kept = {key: item for key, item in value.items() if key not in (_LAST_APPLIED, "managedFields")}
        if "value" in kept and isinstance(kept.get("name"), str) and _telling(kept["name"]):  # a variable of a container
            kept["value"] = LEFT_OUT
        return {key: without_secrets(item, str(key)) for key, item in kept.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(item, name) for item in value]
    if isinstance(value, str):
        return LEFT_OUT if value and _telling(name) else _IN_VALUES.sub(LEFT_OUT, value)
    return value


def _telling(name: str) -> bool:
    return _TELLING.search(name) is not None and not name.endswith("Name")


def release_values(access: ClusterAccess, namespace: str, release: str) -> dict[str, Any]:
    """What the release was installed with, newest revision, from the Secret in which Helm keeps it."""
    found = access.items(f"/api/v1/namespaces/{namespace}/secrets", f"owner=helm,name={release}")
    if not found:
        raise NotThere(f"Helm keeps no release {release} in {namespace}; it was installed in another way")
    newest = max(found, key=lambda item: int(text_at(mapping_at(mapping_at(item, "metadata"), "labels"), "version") or 0))
    try:
        content = base64.b64decode(base64.b64decode(text_at(mapping_at(newest, "data"), "release")))
        document = json.loads(gzip.decompress(content))
    except (ValueError, binascii.Error, OSError, EOFError, zlib.error):
        raise CommandError(f"what Helm keeps of release {release} cannot be read") from None
    chart = mapping_at(mapping_at(document, "chart"), "metadata")
    values = without_secrets(dict(mapping_at(document, "config")))
    return {
        "chart": f"{text_at(chart, 'name')}-{text_at(chart, 'version')}",
        "revision": document.get("version"),
        "values": values,
    }
