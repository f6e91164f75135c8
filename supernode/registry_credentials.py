"""The operator's own credentials for registries, with which the supernode may fetch blobs that are not everybody's.

They come from a file as `docker login` writes it, such as a mounted Secret of the type kubernetes.io/dockerconfigjson, and are
read anew when it changes. They go to the registries that it names, never to a node, and are no word on what a reader may have:
agents ask that as ever (docs/decisions/0025).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from agent.files import Reread
from agent.origin.credential_config import Auths, in_order
from agent.values.credential import Credential, from_base64
from agent.values.errors import OriginError

log = logging.getLogger(__name__)

FILE_BYTES_MAX = 1 << 20
"""As much as a Secret holds."""
WHO_ASKS = (401, 403)
"""Answers that another credential may mend."""

T = TypeVar("T")


class _Entry(msgspec.Struct):
    auth: str = ""
    username: str = ""
    password: str = ""


class _DockerConfig(msgspec.Struct):
    auths: dict[str, _Entry]


class RegistryCredentials:
    """Those of a file; none of no file."""

    def __init__(self, path: str = "") -> None:
        self._path = Path(path)
        self._auths = Reread(self._read, path) if path else dict

    def ask(self, registry: str, repository: str, question: Callable[[Credential | None], T]) -> tuple[T, bool]:
        """The answer that everybody gets or, where the registry refuses that, the one to the operator's credentials.

        And whether it took one of these. Raises what `question` raises; of several refusals the first, which is everybody's.
        """
        try:
            return question(None), False
        except OriginError as refused:
            if refused.status not in WHO_ASKS:
                raise
            for credential in in_order(f"{registry}/{repository}", [self._auths()]):
                try:
                    return question(credential), True
                except OriginError as error:
                    if error.status not in WHO_ASKS:
                        raise
            raise

    def _read(self, last: Auths | None) -> Auths:
        """A file that cannot be used leaves the credentials as they were: pulls go on without the supernode's own."""
        try:
            with self._path.open("rb") as file:
                return parse(file.read(FILE_BYTES_MAX + 1))
        except OSError as error:
            log.error("--registry-credentials %s cannot be read: %s", self._path, error.strerror)
        except ValueError as error:
            log.error("--registry-credentials %s is not used: %s", self._path, error)
        return last or {}


def parse(text: bytes) -> Auths:
    """The credentials of a docker config by the images that they are for. Raises ValueError, in words without any of them."""
    if len(text) > FILE_BYTES_MAX:
        raise ValueError(f"it is longer than {FILE_BYTES_MAX} bytes")
    try:
        config = msgspec.json.decode(text, type=_DockerConfig)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ValueError('it is no docker config; write {"auths": {REGISTRY: {"username": ..., "password": ...}}}') from None
    return {key: credential for key, entry in config.auths.items() if (credential := _credential(key, entry))}


def _credential(key: str, entry: _Entry) -> Credential | None:
    """`auth` counts more than the other two, as for a kubelet. None where nothing is given."""
    if not entry.auth:
        return Credential(entry.username, entry.password) if entry.username or entry.password else None
    try:
        return from_base64(entry.auth)
    except ValueError:
        raise ValueError(f"its auth for {key!a} is not the base64 of USERNAME:PASSWORD") from None
