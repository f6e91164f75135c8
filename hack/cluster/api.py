"""The API server, as its administrator asks it: JSON over HTTPS, one request at a time, for whoever asks often.

kubectl does more and costs a tenth of a second of processor time a call; what a test looks at again and again is looked at here.
"""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from hack.cluster.layout import ClusterError

TIMEOUT_SECONDS = 20

Object = dict[str, Any]

_PLURALS = {
    "ConfigMap": "api/v1/configmaps",
    "DaemonSet": "apis/apps/v1/daemonsets",
    "Deployment": "apis/apps/v1/deployments",
    "Job": "apis/batch/v1/jobs",
    "Namespace": "api/v1/namespaces",
    "Node": "api/v1/nodes",
    "Pod": "api/v1/pods",
    "Secret": "api/v1/secrets",
    "ServiceAccount": "api/v1/serviceaccounts",
    "StatefulSet": "apis/apps/v1/statefulsets",
}


class RefusedError(ClusterError):
    """The API server's own words, and its status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Api:
    """As its administrator, or with the rights of the user or account that it acts as."""

    def __init__(self, kubeconfig: Path, acts_as: str = "") -> None:
        config = json.loads(kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        self._server: str = cluster["server"]
        self._token: str = config["users"][0]["user"]["token"]
        self._acts_as = {"Impersonate-User": acts_as} if acts_as else {}
        self._trust = ssl.create_default_context(cafile=cluster["certificate-authority"])

    def text(
        self, method: str, path: str, body: Object | list[Object] | None = None, media_type: str = "application/json"
    ) -> str:
        """The body of an answer. Raises RefusedError unless the API server agrees, and ClusterError if it does not answer."""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": media_type, **self._acts_as}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._server}/{path.lstrip('/')}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=self._trust) as answer:
                return str(answer.read().decode(errors="replace"))
        except urllib.error.HTTPError as error:
            with error:
                raise RefusedError(error.code, error.read().decode(errors="replace")) from None
        except OSError as error:
            raise ClusterError(f"{method} {path}: {error}") from None

    def json(
        self, method: str, path: str, body: Object | list[Object] | None = None, media_type: str = "application/json"
    ) -> Object:
        found: Object = json.loads(self.text(method, path, body, media_type))
        return found

    def create(self, item: Object) -> Object:
        """Puts an object where its kind and its namespace say; as it then is, after admission."""
        return self.json("POST", _path(item["kind"], item["metadata"].get("namespace")), item)

    def get(self, kind: str, namespace: str | None, name: str) -> Object | None:
        """The object, or None if there is none. An object of the whole cluster is in no namespace."""
        try:
            return self.json("GET", f"{_path(kind, namespace)}/{name}")
        except RefusedError as refused:
            if refused.status == 404:
                return None
            raise

    def all(self, kind: str, namespace: str | None, labels: str = "") -> list[Object]:
        items: list[Object] = self.json("GET", f"{_path(kind, namespace)}?labelSelector={labels}")["items"]
        return items

    def merge(self, kind: str, namespace: str | None, name: str, change: Object) -> Object:
        return self.json("PATCH", f"{_path(kind, namespace)}/{name}", change, "application/merge-patch+json")

    def delete(self, kind: str, namespace: str | None, name: str, grace_seconds: int | None = None) -> None:
        """It may take its time to go."""
        options = "" if grace_seconds is None else f"?gracePeriodSeconds={grace_seconds}"
        self.text("DELETE", f"{_path(kind, namespace)}/{name}{options}")

    def events(self, namespace: str) -> list[Object]:
        """The oldest first."""
        items: list[Object] = self.json("GET", f"api/v1/namespaces/{namespace}/events")["items"]
        return sorted(items, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime")))

    def log(self, namespace: str, pod: str, lines: int, previous: bool = False) -> str:
        """The end of what a pod's container has written; of the one before it, that has ended, if `previous`."""
        return self.text(
            "GET", f"api/v1/namespaces/{namespace}/pods/{pod}/log?tailLines={lines}&previous={str(previous).lower()}"
        )

    def proxied(self, namespace: str, pod: str, port: int, path: str) -> str:
        """What a pod answers over HTTP, fetched by the API server, which can reach it."""
        return self.text("GET", f"api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/{path.lstrip('/')}")


def _path(kind: str, namespace: str | None) -> str:
    group, _, plural = _PLURALS[kind].rpartition("/")
    return f"{group}/namespaces/{namespace}/{plural}" if namespace else f"{group}/{plural}"
