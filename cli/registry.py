"""An agent's registry endpoint as a command asks it: manifests and blobs by the names that pods have.

The agent is this machine's, or another node's by a port-forward. It answers what the registry allows, so credentials are sent as
a runtime sends them: when it was asked without any and said no. What comes back is checked by its reader, against its digest.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO

from agent.origin.credential_config import Auths, in_order
from agent.values.credential import Credential
from agent.values.manifest import MANIFEST_BYTES_MAX, Manifest
from agent.values.reference import InvalidReference, Reference
from cli.errors import CommandError, NotAllowed, NotThere, TimedOut, WrongUsage

SECONDS_MAX = 120.0
"""Between two bytes: the agent ends what takes longer to begin by itself."""
TRIES_MAX = 3
"""Of what has not come in time: the agent goes on with it, and the next try finds what has come."""
ERROR_BYTES_MAX = 64 << 10
WORDS_MAX = 500
REFUSED = (401, 403)

Connect = Callable[[], AbstractContextManager[socket.socket]]


class AgentRegistry:
    def __init__(self, connect: Connect, who: str, auths: tuple[Auths, ...] = ()) -> None:
        """`who` is the agent in words. `auths` are credentials by the images that they are for."""
        self._connect, self._who, self._auths = connect, who, auths
        self._opened: dict[str, Credential | None] = {}
        """By registry and repository, the credential that was good."""

    def manifest(self, reference: Reference, digest: str = "") -> Manifest:
        """What the reference means, or another manifest of its repository. Raises CommandError."""
        wanted = digest or reference.digest or reference.tag or "latest"
        with self._answer(reference, f"manifests/{wanted}") as answer:
            body = answer.read(MANIFEST_BYTES_MAX + 1)
            manifest = Manifest.of(answer.headers.get("content-type", ""), body)
        if len(body) > MANIFEST_BYTES_MAX or (":" in wanted and manifest.digest != wanted):
            raise CommandError(f"{self._who} sent something else than the manifest {wanted} of {reference}; try again")
        return manifest

    @contextlib.contextmanager
    def blob(self, reference: Reference, digest: str) -> Iterator[BinaryIO]:
        """Its bytes, as they come; whether they are right is not known before the end. Raises CommandError."""
        with self._answer(reference, f"blobs/{digest}") as answer:
            yield answer

    @contextlib.contextmanager
    def _answer(self, reference: Reference, path: str) -> Iterator[http.client.HTTPResponse]:
        try:
            with self._asked(reference, path) as answer:
                yield answer
        except TimeoutError:
            raise TimedOut(f"{self._who} sent nothing of {reference} for {SECONDS_MAX:.0f} s; try again") from None
        except (ConnectionError, http.client.HTTPException) as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise CommandError(f"{self._who} broke off in {reference}: {said}; its log says why") from None

    @contextlib.contextmanager
    def _asked(self, reference: Reference, path: str) -> Iterator[http.client.HTTPResponse]:
        image = f"{reference.registry}/{reference.repository}"
        credentials = [self._opened[image]] if image in self._opened else [None, *in_order(image, self._auths)]
        status, said = 0, ""
        for credential in credentials:
            with self._request(f"{repository_path(reference)}/{path}", credential) as answer:
                if answer.status == 200:
                    self._opened[image] = credential
                    yield answer
                    return
                status, said = answer.status, _words(answer)
                if status not in REFUSED:
                    break
        if status in REFUSED:
            how = "no credential that is here is good for it" if len(credentials) > 1 else "there is no credential for it here"
            raise NotAllowed(f"{reference.registry} does not give {reference} ({said}): {how}; name a file of them by --authfile")
        if status == 404:
            raise NotThere(f"{reference} is not there: {said}")
        raise CommandError(f"{self._who} does not give {reference}: {said}")

    @contextlib.contextmanager
    def _request(self, target: str, credential: Credential | None) -> Iterator[http.client.HTTPResponse]:
        headers = {"Connection": "close"} | ({"Authorization": credential.header} if credential else {})
        for left in reversed(range(TRIES_MAX)):
            with self._connect() as sock:
                connection = http.client.HTTPConnection("127.0.0.1")
                connection.sock = sock
                sock.settimeout(SECONDS_MAX)
                connection.request("GET", target, headers=headers)
                with connection.getresponse() as answer:
                    if answer.status != 504 or not left:
                        yield answer
                        return


def repository_path(reference: Reference) -> str:
    """Under which an agent has what belongs to the repository. Raises WrongUsage."""
    try:
        local = Reference(reference.registry, reference.repository).local
    except InvalidReference as error:
        raise WrongUsage(str(error)) from None
    return f"/v2/{local.partition('/')[2]}"


def _words(answer: http.client.HTTPResponse) -> str:
    """What the agent says, in one line."""
    body = answer.read(ERROR_BYTES_MAX).decode(errors="replace")
    with contextlib.suppress(ValueError, LookupError, TypeError):
        body = json.loads(body)["errors"][0]["message"]
    return " ".join(str(body).split())[:WORDS_MAX] or f"it answered {answer.status}"
