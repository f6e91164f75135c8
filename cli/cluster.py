"""The cluster as commands ask it: objects, what a command in a pod prints, what a port of a pod answers.

Everything goes through the API server with the rights of whoever types, so Kubernetes' RBAC is the only one. This module, and
the files beside it that it is made of, are the only ones of the command line that know the kubernetes client.
"""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Mapping
from typing import Any

from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
    SSLError,
)

from agent.values.errors import DarnerError
from cli.errors import ClusterUnreachable, CommandError, NotAllowed, NotThere, TimedOut
from cli.kubeconfig import target
from cli.streams import Dialogue, Executed, Forward, Streams
from webhook.errors import Unreachable
from webhook.kube.api import PAGE_ITEMS, ApiAnswer, Object, items_of, mapping_at, text_at
from webhook.kube.client import Cluster

USER_AGENT = "darner-cli"
TIMEOUT_SECONDS = (5.0, 30.0)
"""To connect, and between two bytes of an answer."""
EXEC_SECONDS_MAX = 30.0
ANSWER_SECONDS_MAX = 15.0
ANSWER_BYTES_MAX = 64 << 20


class ClusterAccess:
    """One cluster, with the rights that a kubeconfig gives."""

    def __init__(self, kubeconfig: str = "", context: str = "", environment: Mapping[str, str] | None = None) -> None:
        """Raises ClusterUnreachable where no cluster is named; nobody is asked yet."""
        found = target(kubeconfig, context, os.environ if environment is None else environment)
        self.namespace = found.namespace
        self.server: str = found.configuration.host
        self._cluster = Cluster({}, found.configuration, USER_AGENT)
        self._streams = Streams(found.configuration)

    def ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | list[dict[str, Any]] | None = None,
        query: Mapping[str, str] | None = None,
        timeout: tuple[float, float] = TIMEOUT_SECONDS,
    ) -> ApiAnswer:
        """One request, and any answer but 401. Raises ClusterUnreachable."""
        try:
            answer = self._cluster.ask(method, path, body, query, timeout)
        except Unreachable as error:
            raise ClusterUnreachable(f"the cluster at {self.server} does not answer: {_why(error)}") from None
        except (DarnerError, ValueError, TypeError) as error:
            raise ClusterUnreachable(f"the cluster at {self.server} cannot be asked: {_one_line(error)}") from None
        if answer.status == 401:
            words = "does not accept these credentials (401): they are expired or wrong; log in anew, or choose another --context"
            raise ClusterUnreachable(f"the cluster at {self.server} {words}")
        return answer

    def get(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """An object, or a page of a list. Raises NotThere, NotAllowed and their like."""
        answer = self.ask("GET", path, query=query)
        if answer.status == 200:
            return answer.document
        raise refusal(answer, path)

    def items(self, path: str, selector: str = "", fields: str = "") -> list[Object]:
        """A whole list, page by page."""
        query = {"limit": str(PAGE_ITEMS)}
        query |= {"labelSelector": selector} if selector else {}
        query |= {"fieldSelector": fields} if fields else {}
        found: list[Object] = []
        while True:
            document = self.get(path, query)
            found += items_of(document) or []
            token = text_at(mapping_at(document, "metadata"), "continue")
            if not token:
                return found
            query["continue"] = token

    def text(self, path: str, query: Mapping[str, str] | None = None) -> str:
        """What is no object: logs of a pod."""
        try:
            status, content = self._cluster.content("GET", path, None, query, TIMEOUT_SECONDS, "*/*")
        except Unreachable as error:
            raise ClusterUnreachable(f"the cluster at {self.server} does not answer: {_why(error)}") from None
        if status == 200:
            return content.decode(errors="replace")
        raise refusal(ApiAnswer(status, document_or_nothing(content)), path)

    def execute(
        self, namespace: str, pod: str, command: list[str], container: str = "", seconds: float = EXEC_SECONDS_MAX
    ) -> Executed:
        """Runs a command in a pod to its end; any exit status is the caller's to judge.

        Raises NotAllowed, NotThere, TimedOut, and CommandError where the pod goes away meanwhile.
        """
        return self._streams.execute(namespace, pod, command, container, seconds)

    def dialogue(self, namespace: str, pod: str, command: list[str], container: str = "") -> Dialogue:
        """Runs a command in a pod, to be spoken with. Raises as `execute`."""
        return self._streams.dialogue(namespace, pod, command, container)

    def forward(self, namespace: str, pod: str, port: int) -> Forward:
        """A connection to a port that the pod has on its own loopback. Raises as `execute`."""
        return self._streams.forward(namespace, pod, port)

    def fetch(self, namespace: str, pod: str, port: int, path: str) -> bytes:
        """GET from a port of the pod, as a process of the pod's own machine would. Raises as `execute`."""
        with self.forward(namespace, pod, port) as forward:
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.sock = forward.socket
            forward.socket.settimeout(ANSWER_SECONDS_MAX)
            try:
                connection.request("GET", path, headers={"Connection": "close"})
                answer = connection.getresponse()
                content = answer.read(ANSWER_BYTES_MAX)
            except TimeoutError:
                raise TimedOut(f"pod {namespace}/{pod} did not answer on port {port} within {ANSWER_SECONDS_MAX:.0f} s") from None
            except (OSError, http.client.HTTPException) as error:
                said = forward.error or _one_line(error)
                raise CommandError(f"pod {namespace}/{pod} does not answer on port {port}: {said}") from None
        if answer.status != 200:
            said = _one_line(content[:300].decode(errors="replace"))
            raise CommandError(f"pod {namespace}/{pod} answered {answer.status} to {path}: {said}")
        return content

    def fetch_json(self, namespace: str, pod: str, port: int, path: str) -> dict[str, Any]:
        return document_of(self.fetch(namespace, pod, port, path), f"pod {namespace}/{pod}")


def document_or_nothing(content: bytes | str) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def document_of(content: bytes | str, whose: str) -> dict[str, Any]:
    """Raises CommandError."""
    document = document_or_nothing(content)
    if not document:
        raise CommandError(f"the answer of {whose} is no JSON object; is it another version of Darner?")
    return document


def refusal(answer: ApiAnswer, path: str) -> CommandError:
    """The API server's own words about what it did not do."""
    said = _one_line(text_at(answer.document, "message")) or f"it answered {answer.status} about {path}"
    if answer.status == 403:
        return NotAllowed(f"Kubernetes does not allow it: {said}")
    if answer.status == 404:
        return NotThere(f"the cluster does not have it: {said}")
    return CommandError(f"the API server refuses: {said}")


def _why(error: Unreachable) -> str:
    """In a few words, from the error that the HTTP client raised."""
    cause: BaseException | None = error.__context__
    if isinstance(cause, MaxRetryError):
        cause = cause.reason
    if isinstance(cause, NameResolutionError):
        return "nobody knows the name of its host; check the server in the kubeconfig"
    if isinstance(cause, ConnectTimeoutError) and not isinstance(cause, NewConnectionError):
        return f"no connection within {TIMEOUT_SECONDS[0]:.0f} s; check the network, and the server in the kubeconfig"
    if isinstance(cause, ReadTimeoutError):
        return f"silent for {TIMEOUT_SECONDS[1]:.0f} s; try again"
    if isinstance(cause, SSLError):
        return f"no TLS with it: {_one_line(cause)}; check the authority and the client certificate in the kubeconfig"
    if isinstance(cause, HTTPError | OSError):
        said = _one_line(cause).rpartition(": ")[2]
        return f"{said}; check that it runs, and the server in the kubeconfig"
    return _one_line(error)


def _one_line(words: object) -> str:
    return " ".join(str(words).split())
