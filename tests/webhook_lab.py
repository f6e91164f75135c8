"""What tests of the webhook share: pods, questions as the API server asks them, and a webhook that runs as a process."""

from __future__ import annotations

import base64
import copy
import http.client
import json
import re
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonpatch

from hack.lab.process import Process
from webhook.admission.policy import Policy
from webhook.admission.review import answer, decide, read
from webhook.gates import Gate
from webhook.pods import ORIGINAL_IMAGES

LOCAL = "127.0.0.1:65001/"


def container(name: str, image: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": image, **more}


def image_volume(name: str, reference: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": {"reference": reference, **more}}


def pod(*containers: dict[str, Any], metadata: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "namespace": "shop", **(metadata or {})},
        "spec": {"containers": list(containers), **spec},
    }


def review(subject: Any, operation: str = "CREATE", namespace: str = "shop", **request: Any) -> dict[str, Any]:
    """An AdmissionReview as API servers of 1.30 and later send it."""
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "name": "web",
            "namespace": namespace,
            "operation": operation,
            "userInfo": {"username": "alice"},
            "object": subject,
            "oldObject": None,
            "dryRun": False,
            "options": {},
            **request,
        },
    }


def respond(document: dict[str, Any], policy: Policy | None = None, gates: Sequence[Gate] = ()) -> dict[str, Any]:
    """The response to a question, by the pure code alone."""
    admission = read(json.dumps(document).encode())
    answered = answer(admission, decide(admission, policy or Policy(), gates))
    assert (answered["apiVersion"], answered["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response: dict[str, Any] = answered["response"]
    assert response["allowed"] is True
    assert response["uid"] == document["request"]["uid"]
    return response


def operations(response: dict[str, Any]) -> list[dict[str, Any]]:
    assert ("patch" in response) == ("patchType" in response)
    return json.loads(base64.b64decode(response["patch"])) if "patch" in response else []


def applied(subject: dict[str, Any], response: dict[str, Any]) -> dict[str, Any]:
    """The pod as the API server goes on with it."""
    result: dict[str, Any] = jsonpatch.apply_patch(copy.deepcopy(subject), operations(response))
    return result


def admitted(subject: dict[str, Any], policy: Policy | None = None, gates: Sequence[Gate] = (), **request: Any) -> dict[str, Any]:
    return applied(subject, respond(review(subject, **request), policy, gates))


def originals(subject: dict[str, Any]) -> dict[str, Any]:
    noted: dict[str, Any] = json.loads(subject["metadata"]["annotations"][ORIGINAL_IMAGES])
    return noted


class RunningWebhook:
    """`python -m webhook` on free ports of loopback. Use it as a context manager."""

    def __init__(self, directory: Path, *flags: str, environment: dict[str, str] | None = None) -> None:
        self.certificates = directory / "certificates"
        argv = [sys.executable, "-W", "error", "-m", "webhook", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]
        if "--certificate-secret" not in flags:
            flags = ("--certificate-dir", str(self.certificates), *flags)
        self.process = Process("webhook", [*argv, *flags], directory, environment)

    def __enter__(self) -> RunningWebhook:
        try:
            self.process.wait_until(lambda: "ready" in self.process.printed())
        except BaseException:
            self.process.kill()
            raise
        self.address, self.http_address = re.findall(r"https?://([^\s/]+)", self.process.printed())
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.running:
            self.process.kill()

    def context(self) -> ssl.SSLContext:
        """Trusts the webhook's own authority, and nobody else."""
        return ssl.create_default_context(cafile=str(self.certificates / "ca.crt"))

    def post(self, body: bytes, path: str = "/mutate", context: ssl.SSLContext | None = None) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPSConnection(self.address, timeout=20, context=context or self.context())
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, json.loads(response.read() or b"{}")
        finally:
            connection.close()

    def ask(self, document: dict[str, Any]) -> dict[str, Any]:
        """The response to a question over HTTPS."""
        status, answered = self.post(json.dumps(document).encode())
        assert status == 200
        response: dict[str, Any] = answered["response"]
        assert (response["uid"], response["allowed"]) == (document["request"]["uid"], True)
        return response

    def get(self, path: str) -> tuple[int, str]:
        """From the listener for health and metrics."""
        connection = http.client.HTTPConnection(self.http_address, timeout=20)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()
