"""The cluster's API server, asked over HTTPS: any object as plain JSON, and watches.

The only module of the webhook that imports the kubernetes client, for what that does best: to find the cluster, from within a
pod or by a kubeconfig, and to keep its credentials and connections. It is imported only when a setting names an object of the
cluster, translates the client's errors into ours, and does not decide what is in an object or whom to trust.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

from kubernetes import client, config
from urllib3 import BaseHTTPResponse, Timeout
from urllib3.exceptions import HTTPError

from agent.values.errors import UsageError
from webhook.errors import Unreachable
from webhook.kube.api import ApiAnswer, parsed

TIMEOUT_SECONDS = (3.0, 5.0)
"""To connect, and between two bytes of an answer."""
RETRIES = 1
CONNECTIONS_KEPT_MAX = 16
ANSWER_BYTES_MAX = 32 << 20
USER_AGENT = "darner-webhook"
"""By this name the cluster's audit log, and the managed fields of what is written, know us."""


class Cluster:
    """That of $KUBECONFIG or, without it, the one that this process runs in; or the one that `configuration` says."""

    def __init__(
        self, environment: Mapping[str, str], configuration: client.Configuration | None = None, user_agent: str = USER_AGENT
    ) -> None:
        configuration = configuration or _found(environment)
        configuration.retries = RETRIES
        configuration.connection_pool_maxsize = CONNECTIONS_KEPT_MAX
        self._configuration = configuration
        self._user_agent = user_agent
        self._api = client.ApiClient(configuration)

    def ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | list[dict[str, Any]] | None = None,
        query: Mapping[str, str] | None = None,
        timeout: tuple[float, float] = TIMEOUT_SECONDS,
        accept: str = "application/json",
    ) -> ApiAnswer:
        """See `webhook.kube.api.Api`.

        As plain JSON, because the client's typed models know no metadata without its object, and take a hundred times as long.
        """
        status, content = self.content(method, path, body, query, timeout, accept)
        return ApiAnswer(status, _document(content))

    def content(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | list[dict[str, Any]] | None = None,
        query: Mapping[str, str] | None = None,
        timeout: tuple[float, float] = TIMEOUT_SECONDS,
        accept: str = "application/json",
    ) -> tuple[int, bytes]:
        """As `ask`, for what is no object, such as a log: the status, and the answer as it is."""
        with _translated(path):
            response = self._sent(method, path, body, query or {}, timeout, accept)
            try:
                content = response.read(ANSWER_BYTES_MAX + 1)
                response.drain_conn()
            finally:
                response.release_conn()
            if len(content) > ANSWER_BYTES_MAX:
                raise Unreachable(f"the API server's answer about {path} has more than {ANSWER_BYTES_MAX >> 20} MiB")
            return response.status, content

    def watch(self, path: str, query: Mapping[str, str], timeout: tuple[float, float], accept: str) -> Iterator[dict[str, Any]]:
        """See `webhook.kube.api.Api`. A refusal comes as an event of the type ERROR, as one in the middle of a watch does."""
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
        headers = {"Accept": accept, "User-Agent": self._user_agent}
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


def _found(environment: Mapping[str, str]) -> client.Configuration:
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
        raise UsageError(f"there is no cluster to keep a Secret in: {error}; run it in a pod, or set KUBECONFIG") from None
    return configuration


def _document(content: bytes) -> dict[str, Any]:
    try:
        document = parsed(content)
    except (ValueError, RecursionError):
        document = None
    # What is no JSON object came from a proxy or a load balancer; its status is what counts then.
    return document if isinstance(document, dict) else {}


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except (HTTPError, OSError) as error:
        raise Unreachable(f"the API server did not answer about {what}: {error}") from None
