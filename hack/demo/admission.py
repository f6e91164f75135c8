"""Sends a pod to the webhook as the API server does: an AdmissionReview over HTTPS, with the webhook's CA verified.

Applies the JSON Patch of the answer, so that the image names that come back are those that a kubelet would be given.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import uuid
from pathlib import Path
from typing import Any

import jsonpatch

TIMEOUT_SECONDS = 3
"""What the chart tells the API server to wait."""


class AdmissionError(Exception):
    """The webhook did not rewrite the pod: one line that says why."""


def pod_of(image: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "demo", "namespace": "demo"},
        "spec": {"containers": [{"name": "app", "image": image}]},
    }


def admit(pod: dict[str, Any], address: str, certificate_authority: Path) -> dict[str, Any]:
    """The pod as the webhook at `address` (HOST:PORT) lets it through. Raises AdmissionError."""
    uid = str(uuid.uuid4())
    review = {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": uid,
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "demo",
            "operation": "CREATE",
            "dryRun": False,
            "object": pod,
        },
    }
    connection = http.client.HTTPSConnection(
        address, timeout=TIMEOUT_SECONDS, context=ssl.create_default_context(cafile=str(certificate_authority))
    )
    try:
        connection.request("POST", "/mutate", json.dumps(review), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise AdmissionError(f"the webhook at {address} did not answer: {error}") from None
    finally:
        connection.close()
    if answer.status != 200:
        raise AdmissionError(f"the webhook answered {answer.status}: {body[:200].decode(errors='replace')}")
    return patched(pod, json.loads(body)["response"], uid)


def patched(pod: dict[str, Any], response: dict[str, Any], uid: str) -> dict[str, Any]:
    if not response["allowed"] or response["uid"] != uid:
        raise AdmissionError(f"the webhook answered {json.dumps(response)}")
    if "patch" not in response:
        raise AdmissionError(f"the webhook left the pod as it is: {'; '.join(response.get('warnings', ())) or 'it says no more'}")
    admitted: dict[str, Any] = jsonpatch.apply_patch(pod, json.loads(base64.b64decode(response["patch"])))
    return admitted
