"""Makes a derived pull secret be what it should be: reads the original, and creates or updates the one that is derived from it.

Blocking, from any thread, and safe to do twice at once: the API server's resource versions decide whose write counts. What
belongs into a derived secret is `webhook.pullsecrets.dockerconfig`'s; no message from here carries anything that is in a Secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from webhook.errors import NotDerived, Obstacle, Unreachable
from webhook.kube.api import Api, ApiAnswer, mapping_at
from webhook.metrics import DERIVED_FAILURES, DERIVED_WRITES
from webhook.pullsecrets.dockerconfig import (
    REGISTRIES_MAX,
    Original,
    derive,
    derived_from,
    derived_name,
    original_of,
    registries_of,
    registries_with_credentials,
    version_of,
)

TIMEOUT_SECONDS = (1.0, 2.0)
"""To connect, and between two bytes. An admission waits for less, and what comes too late for it serves the next one."""
ATTEMPTS_MAX = 4
"""Each lost one means that another replica has just written the same."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


for _obstacle in Obstacle:
    DERIVED_FAILURES.labels(_obstacle)
for _how in ("created", "updated"):
    DERIVED_WRITES.labels(_how)


@dataclass(frozen=True)
class Derived:
    """The certain knowledge about an original at some moment."""

    covered: frozenset[str] = frozenset()
    """Registries whose credentials are in the derived secret."""
    without: frozenset[str] = frozenset()
    """Registries for which the original holds nothing, or does not exist."""
    versions: tuple[str, ...] = ()
    """The versions of the original and of the derived secret, as far as there are such."""
    missing: bool = False
    """There is no original, and there may be one in a moment."""


class PullSecretWriter:
    def __init__(self, api: Api, release: str = "") -> None:
        self._api = api
        self._release = release

    def settle(self, namespace: str, name: str, registries: Iterable[str]) -> Derived:
        """Derives what the original holds for these registries, besides those that are derived already. Raises NotDerived."""
        asked = frozenset(registries)
        if not _NAMESPACE.fullmatch(namespace) or not _NAME.fullmatch(name):
            return Derived(without=asked)  # No Secret has such a name, so the kubelet will find none either.
        for _ in range(ATTEMPTS_MAX):
            settled = self._attempt(namespace, name, asked)
            if settled:
                return settled
        raise NotDerived(
            Obstacle.CONFLICT, f"the Secret {derived_name(name)} was changed by others {ATTEMPTS_MAX} times in a row"
        )

    def _attempt(self, namespace: str, name: str, asked: frozenset[str]) -> Derived | None:
        """One try; None: somebody else has written meanwhile."""
        secret = self._read(namespace, name)
        original = original_of(secret) if secret else None
        if original is None:
            if secret is None:
                return Derived(without=asked, missing=True)
            return Derived(without=asked, versions=(version_of(mapping_at(secret, "metadata")),))
        found = self._read(namespace, derived_name(name))
        metadata = mapping_at(found, "metadata")
        if found and derived_from(metadata) != name:
            held = registries_with_credentials(original, asked)
            if not held:
                return Derived(without=asked, versions=(original.version, version_of(metadata)))
            raise NotDerived(
                Obstacle.FOREIGN, f"there is a Secret {derived_name(name)} that is not Darner's, and it is left as it is"
            )
        registries = registries_with_credentials(original, asked) | registries_of(metadata)
        versions: tuple[str, ...] = (original.version,)
        if registries:
            if len(registries) > REGISTRIES_MAX:
                raise NotDerived(
                    Obstacle.TOO_MANY, f"pods have asked for more than {REGISTRIES_MAX} registries with one pull secret"
                )
            written = self._written(original, registries, found)
            if written is None:
                return None
            versions = (original.version, version_of(mapping_at(written, "metadata")))
        covered = registries_with_credentials(original, registries)
        return Derived(covered, (asked | registries) - covered, versions)

    def _written(self, original: Original, registries: frozenset[str], found: dict[str, Any] | None) -> dict[str, Any] | None:
        """The derived secret as it then is; None: it was not written, because somebody else was first."""
        wanted = derive(original, registries, found, self._release)
        if found and all(found.get(part) == wanted[part] for part in ("type", "metadata", "data")):
            return found
        collection = f"/api/v1/namespaces/{original.namespace}/secrets"
        if found is None:
            answered = self._ask("POST", collection, wanted)
        else:
            answered = self._ask("PUT", f"{collection}/{derived_name(original.name)}", wanted)
        if answered.status in (409, 404):
            return None
        if answered.status not in (200, 201):
            raise self._refused(answered, derived_name(original.name))
        DERIVED_WRITES.labels("updated" if found else "created").inc()
        return answered.document

    def _read(self, namespace: str, name: str) -> dict[str, Any] | None:
        answered = self._ask("GET", f"/api/v1/namespaces/{namespace}/secrets/{name}")
        if answered.status == 404:
            return None
        if answered.status != 200:
            raise self._refused(answered, name)
        return answered.document

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> ApiAnswer:
        try:
            return self._api.ask(method, path, body, timeout=TIMEOUT_SECONDS)
        except Unreachable:
            raise NotDerived(Obstacle.UNREACHABLE, "the API server did not answer about its Secrets") from None

    @staticmethod
    def _refused(answered: ApiAnswer, name: str) -> NotDerived:
        return NotDerived(Obstacle.REFUSED, f"the API server answered {answered.status} about the Secret {name}")
