"""Whom API servers trust: the caBundle in every webhook of our own MutatingWebhookConfiguration."""

from __future__ import annotations

import base64
from typing import Any

from webhook.errors import Unreachable
from webhook.kube.api import Api, ApiAnswer, mapping_at, mappings_at, text_at

CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"


def trust(api: Api, configuration: str, authorities: bytes) -> None:
    """Makes API servers trust these authorities, in PEM. Writes only what differs; raises Unreachable."""
    path, wanted = f"{CONFIGURATIONS}/{configuration}", base64.b64encode(authorities).decode()
    found = _good(api.ask("GET", path), configuration)
    operations: list[dict[str, Any]] = []
    for index, webhook in enumerate(mappings_at(found.document, "webhooks")):
        if mapping_at(webhook, "clientConfig").get("caBundle") != wanted:
            operations += [
                {"op": "test", "path": f"/webhooks/{index}/name", "value": text_at(webhook, "name")},
                {"op": "add", "path": f"/webhooks/{index}/clientConfig/caBundle", "value": wanted},
            ]
    if operations:
        _good(api.ask("PATCH", path, operations), configuration)


def _good(answered: ApiAnswer, configuration: str) -> ApiAnswer:
    if answered.status != 200:
        words = f"the API server answered {answered.status} {text_at(answered.document, 'reason')}".rstrip()
        raise Unreachable(f"{words} about the MutatingWebhookConfiguration {configuration}")
    return answered
