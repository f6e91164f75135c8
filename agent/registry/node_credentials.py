"""With which credentials a request is answered: the client's own, or none, and then those of the node.

A request without a credential goes to the origin without one first, so that no program runs for public images and the cluster
asks once. Where the origin refuses that, the node's credential providers are asked and what they say is tried in turn, as the
kubelet would without Darner. When nothing helps, the client hears the refusal of the request without a credential: its own one
may help, and it sends that when it is challenged.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from agent.http.server import Exchange
from agent.origin.credential_provider import CredentialProviders
from agent.registry.target import Resource
from agent.values.credential import Credential
from agent.values.errors import OriginError

PRIVATE_MAX = 4096
"""Repositories that are remembered to want the node's credential: each blob of an image would be refused once otherwise."""

Answer = Callable[[Credential | None], None]
Ask = Callable[[Exchange, str, Callable[[], list[Credential]]], list[Credential]]
"""Has a question answered on behalf of a client that waits for what a registry says."""


class NodeCredentials:
    def __init__(self, providers: CredentialProviders, ask: Ask) -> None:
        self._providers = providers
        self._ask = ask
        self._lock = threading.Lock()
        self._private: OrderedDict[str, None] = OrderedDict()

    def answer(self, exchange: Exchange, resource: Resource, answer: Answer) -> None:
        """A request without a credential. Raises what `answer` raises.

        `answer` is called with none and with one of the node's after the other until one is not refused.
        """
        image = f"{resource.registry}/{resource.repository}"
        if not self._providers.serve(image):
            answer(None)
            return
        known = image in self._private
        if known and self._with_the_nodes(exchange, resource, image, answer):
            return
        try:
            answer(None)
            with self._lock:
                self._private.pop(image, None)
        except OriginError as error:
            if known or not _refused(exchange, error) or not self._with_the_nodes(exchange, resource, image, answer):
                raise

    def _with_the_nodes(self, exchange: Exchange, resource: Resource, image: str, answer: Answer) -> bool:
        """Whether the origin took one of the node's credentials."""
        for credential in self._ask(exchange, resource.registry, lambda: self._providers.credentials(image)):
            with self._lock:  # before the client has its answer, and asks for what comes next
                self._private[image] = None
                self._private.move_to_end(image)
                while len(self._private) > PRIVATE_MAX:
                    self._private.popitem(last=False)
            try:
                answer(credential)
                return True
            except OriginError as error:
                if not _refused(exchange, error):
                    raise
        with self._lock:
            self._private.pop(image, None)
        return False


def _refused(exchange: Exchange, error: OriginError) -> bool:
    return error.status in (401, 403) and not exchange.answered
