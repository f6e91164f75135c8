"""The cluster's API: Secrets as stores, the caBundle of our own webhook configuration, and any object as plain JSON.

The only module that imports the kubernetes client, and imported only when a setting names an object of the cluster. It
translates the client's errors into ours, and does not decide what is in a Secret or whom to trust.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlencode

from kubernetes import client, config
from urllib3 import BaseHTTPResponse, Timeout
from urllib3.exceptions import HTTPError

from webhook.certificates.stores import Files, Stored, StoreError, Unreachable
from webhook.settings import ObjectName

TIMEOUT_SECONDS = (3.0, 5.0)
"""To connect, and between two bytes of an answer."""
RETRIES = 1
CONNECTIONS_KEPT_MAX = 16
ANSWER_BYTES_MAX = 32 << 20
LABELS = {"app.kubernetes.io/name": "darner", "app.kubernetes.io/managed-by": "darner-webhook"}


class Answer(NamedTuple):
    status: int
    document: dict[str, Any]


class Cluster:
    """That of $KUBECONFIG or, without it, the one that this process runs in."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        configuration = client.Configuration()
        try:
            # Not load_config, which chooses by itself but prints to standard output, where others wait for our ready line.
            if environment.get("KUBECONFIG"):
                config.load_kube_config(  # type: ignore[no-untyped-call]
                    environment["KUBECONFIG"], client_configuration=configuration, persist_config=False
                )
            else:
                config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
                configuration.proxy = None  # those of the environment are for the world outside
        except config.ConfigException as error:
            raise StoreError(f"there is no cluster to keep a Secret in: {error}; run it in a pod, or set KUBECONFIG") from None
        configuration.retries = RETRIES
        configuration.connection_pool_maxsize = CONNECTIONS_KEPT_MAX
        self._configuration = configuration
        self._api = api = client.ApiClient(configuration)
        self.core = client.CoreV1Api(api)
        self._admission = client.AdmissionregistrationV1Api(api)

    def secret(self, name: ObjectName) -> SecretStore:
        return SecretStore(self.core, name)

    def ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | list[dict[str, Any]] | None = None,
        query: Mapping[str, str] | None = None,
        timeout: tuple[float, float] = TIMEOUT_SECONDS,
        accept: str = "application/json",
    ) -> Answer:
        """One request. Every answer is the caller's to judge, a refusal too; raises Unreachable when there is none.

        As plain JSON, because the client's typed models know no metadata without its object, and take a hundred times as long.
        """
        with _translated(path):
            response = self._sent(method, path, body, query or {}, timeout, accept)
            try:
                content = response.read(ANSWER_BYTES_MAX + 1)
                response.drain_conn()
            finally:
                response.release_conn()
            if len(content) > ANSWER_BYTES_MAX:
                raise Unreachable(f"the API server's answer about {path} has more than {ANSWER_BYTES_MAX >> 20} MiB")
            return Answer(response.status, _document(content))

    def watch(self, path: str, query: Mapping[str, str], timeout: tuple[float, float], accept: str) -> Iterator[dict[str, Any]]:
        """The events of a watch until the API server ends it. Raises Unreachable when it breaks, or is silent for too long."""
        with _translated(path):
            response = self._sent("GET", path, None, query, timeout, accept)
            try:
                if response.status != 200:
                    content = response.read(ANSWER_BYTES_MAX)
                    yield {"type": "ERROR", "object": {**_document(content), "code": response.status}}
                    return
                rest = b""
                for chunk in response.stream(1 << 16):
                    *lines, rest = (rest + chunk).split(b"\n")
                    if len(rest) > ANSWER_BYTES_MAX:
                        raise Unreachable(f"an event about {path} has more than {ANSWER_BYTES_MAX >> 20} MiB")
                    yield from map(_document, lines)
            finally:
                response.close()

    def _sent(
        self, method: str, path: str, body: Any, query: Mapping[str, str], timeout: tuple[float, float], accept: str
    ) -> BaseHTTPResponse:
        # By this name the cluster's audit log, and the managed fields of what is written, know us.
        headers = {"Accept": accept, "User-Agent": LABELS["app.kubernetes.io/managed-by"]}
        tokens: Mapping[str, Any] = self._configuration.auth_settings()
        headers |= {token["key"]: token["value"] for token in tokens.values()}
        if body is not None:
            patch = "application/json-patch+json" if isinstance(body, list) else "application/merge-patch+json"
            headers["Content-Type"] = patch if method == "PATCH" else "application/json"
        url = self._configuration.host + path + (f"?{urlencode(query)}" if query else "")
        sent: BaseHTTPResponse = self._api.rest_client.pool_manager.request(
            method,
            url,
            body=None if body is None else json.dumps(body).encode(),
            headers=headers,
            timeout=Timeout(connect=timeout[0], read=timeout[1]),
            preload_content=False,
            redirect=False,
        )
        return sent

    def trust(self, configuration: str, authorities: bytes) -> None:
        """Makes API servers trust these authorities, in PEM, for every webhook of the MutatingWebhookConfiguration."""
        wanted = base64.b64encode(authorities).decode()
        with _translated(f"the MutatingWebhookConfiguration {configuration}"):
            found = self._admission.read_mutating_webhook_configuration(configuration, _request_timeout=TIMEOUT_SECONDS)
            operations: list[dict[str, Any]] = []
            for index, webhook in enumerate(found.webhooks or ()):
                if webhook.client_config.ca_bundle != wanted:
                    operations += [
                        {"op": "test", "path": f"/webhooks/{index}/name", "value": webhook.name},
                        {"op": "add", "path": f"/webhooks/{index}/clientConfig/caBundle", "value": wanted},
                    ]
            if operations:
                self._admission.patch_mutating_webhook_configuration(configuration, operations, _request_timeout=TIMEOUT_SECONDS)


class SecretStore:
    """A Secret. Its resourceVersion decides which of several writers was first."""

    def __init__(self, core: client.CoreV1Api, name: ObjectName) -> None:
        self._core = core
        self._name = name

    def __str__(self) -> str:
        return f"the Secret {self._name}"

    def read(self) -> Stored | None:
        with _translated(str(self)):
            secret = self._found()
        return Stored(_files(secret), _version(secret)) if secret else None

    def write(self, files: Files, version: str | None) -> bool:
        data: dict[str, bytes | str] = {name: base64.b64encode(content).decode() for name, content in files.items()}
        with _translated(str(self)):
            try:
                if version is None:
                    metadata = client.V1ObjectMeta(name=self._name.name, namespace=self._name.namespace, labels=LABELS)
                    secret = client.V1Secret(metadata=metadata, type="Opaque", data=data)
                    self._core.create_namespaced_secret(self._name.namespace, secret, _request_timeout=TIMEOUT_SECONDS)
                    return True
                # The rest of the object is kept as it is: its type cannot change, and its labels are whoever's put them there.
                found = self._found()
                if found is None or _version(found) != version:
                    return False
                found.data = data
                self._core.replace_namespaced_secret(
                    self._name.name, self._name.namespace, found, _request_timeout=TIMEOUT_SECONDS
                )
            except client.ApiException as error:
                # Another writer was first, or it was deleted meanwhile and the next attempt makes it.
                if error.status == 409 or (error.status == 404 and version is not None):
                    return False
                raise
        return True

    def _found(self) -> client.V1Secret | None:
        try:
            return self._core.read_namespaced_secret(self._name.name, self._name.namespace, _request_timeout=TIMEOUT_SECONDS)
        except client.ApiException as error:
            if error.status == 404:
                return None
            raise


def _files(secret: client.V1Secret) -> Files:
    return {name: base64.b64decode(text) for name, text in (secret.data or {}).items()}


def _version(secret: client.V1Secret) -> str:
    return (secret.metadata and secret.metadata.resource_version) or ""


def _document(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    # What is no JSON object came from a proxy or a load balancer; its status is what counts then.
    return document if isinstance(document, dict) else {}


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except client.ApiException as error:
        raise Unreachable(f"the API server answered {error.status} {error.reason} about {what}") from None
    except (HTTPError, OSError) as error:
        raise Unreachable(f"the API server did not answer about {what}: {error}") from None
