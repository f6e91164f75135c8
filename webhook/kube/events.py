"""Events of the cluster: what people see who ask why their pod is as it is.

An event is a courtesy: when it cannot be written, what it tells about has happened all the same, so a failure is logged and
nothing else. What is told is its caller's business.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from webhook.errors import Unreachable
from webhook.kube.api import Api, mapping_at, text_at

log = logging.getLogger(__name__)

MESSAGE_LENGTH_MAX = 1024
"""The API server's own (core/v1, Event; validation of events.k8s.io)."""
NAME_LENGTH_MAX = 253
TIMEOUT_SECONDS = (1.0, 2.0)
SOURCE = "darner-webhook"
REVERTED = "DarnerReverted"
NOT_REVERTED = "DarnerCannotRevert"
LEFT_ALONE = "DarnerLeftAlone"


def event(
    subject: Mapping[str, Any], reason: str, message: str, instance: str, now: datetime, container: str = ""
) -> dict[str, Any]:
    """A warning about an object, as core/v1 has it."""
    metadata = mapping_at(subject, "metadata")
    namespace, name = text_at(metadata, "namespace") or "default", text_at(metadata, "name")
    stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    involved = {
        "apiVersion": text_at(subject, "apiVersion"),
        "kind": text_at(subject, "kind"),
        "namespace": namespace,
        "name": name,
        "uid": text_at(metadata, "uid"),
    }
    suffix = "." + uuid.uuid4().hex[:16]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name[: NAME_LENGTH_MAX - len(suffix)] + suffix, "namespace": namespace},
        "involvedObject": involved | ({"fieldPath": container} if container else {}),
        "reason": reason,
        "message": message if len(message) <= MESSAGE_LENGTH_MAX else message[: MESSAGE_LENGTH_MAX - 4] + " ...",
        "type": "Warning",
        "source": {"component": SOURCE},
        "reportingComponent": SOURCE,
        "reportingInstance": instance[:128],
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "count": 1,
    }


class Events:
    def __init__(self, api: Api, instance: str) -> None:
        self._api = api
        self._instance = instance

    def warn(self, subject: Mapping[str, Any], reason: str, message: str, container: str = "") -> None:
        document = event(subject, reason, message, self._instance, datetime.now(UTC), container)
        namespace = document["metadata"]["namespace"]
        try:
            answered = self._api.ask("POST", f"/api/v1/namespaces/{namespace}/events", document, timeout=TIMEOUT_SECONDS)
        except Unreachable as error:
            log.warning("an event was not written: %s", error)
            return
        if answered.status not in (200, 201):
            log.warning("an event in namespace %s was not written: the API server answered %s", namespace, answered.status)
