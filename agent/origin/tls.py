"""TLS to registries: whose certificates are believed, and which certificate is shown to whom.

Every server has to prove its name by an authority of the system or of `--ca-files`. A registry may have authorities and a client
certificate of its own, in a directory with the names that a Secret of Kubernetes has (`ca.crt`, `tls.crt`, `tls.key`): they are
for that server alone, whatever leads there. All of these files are read anew when they change. Verification is never switched
off.
"""

from __future__ import annotations

import logging
import os
import re
import ssl
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from agent.files import Reread
from agent.origin.destinations import HTTPS_PORT, server_of
from agent.values.errors import UsageError
from agent.values.reference import parse_registry

log = logging.getLogger(__name__)

FILES = ("ca.crt", "tls.crt", "tls.key")


class TlsFiles(NamedTuple):
    registry: str
    directory: Path

    def __str__(self) -> str:
        return f"--registry-tls {self.registry}={self.directory}"


def tls_files(value: str) -> TlsFiles:
    """`REGISTRY=DIRECTORY`."""
    found = re.fullmatch(r"([^\s=,/]+)=(/[^=,]+)", value)
    if not found:
        raise ValueError(f"{value!r} is not understood; write REGISTRY=DIRECTORY, such as reg.example.com=/etc/darner/reg")
    return TlsFiles(parse_registry(found[1]), Path(found[2]))


class RegistryTls:
    """Contexts by server. Raises UsageError when it is made, with one line, for files that cannot be used."""

    def __init__(self, ca_files: Iterable[str] = (), own: Iterable[TlsFiles] = ()) -> None:
        self._ca_files = tuple(ca_files)
        self._usual = self._context("--ca-files", self._believing)
        self._own = {
            _server(files.registry): self._context(
                str(files), partial(self._of, files), *(files.directory / name for name in FILES)
            )
            for files in own
        }

    def context(self, host: str, port: int) -> ssl.SSLContext:
        """What a connection to this server is made with. Files that became unusable leave it as it was, and the log says so."""
        return self._own.get((host, port), self._usual)()

    def _context(self, what: str, make: Callable[[], ssl.SSLContext], *own: Path) -> Callable[[], ssl.SSLContext]:
        """One that is made again when a file changes that it is made from: those for all, or its own."""

        def read(last: ssl.SSLContext | None) -> ssl.SSLContext:
            try:
                made = make()
            except UsageError as error:
                if last is None:
                    raise
                log.error("%s; it stays as it was", error)
                return last
            if last is not None:
                log.info("%s: read anew", what)
            return made

        context = Reread(read, *self._ca_files, *own)
        context()
        return context

    def _of(self, files: TlsFiles) -> ssl.SSLContext:
        context = self._believing()
        authorities, certificate, key = (files.directory / name for name in FILES)
        if not any(map(os.path.exists, (authorities, certificate, key))):
            raise UsageError(f"{files}: nothing is found there; put ca.crt there, or tls.crt and tls.key, or all three")
        if os.path.exists(authorities):
            _load(context, authorities, f"{files}: ca.crt")
        if os.path.exists(certificate) or os.path.exists(key):
            try:
                context.load_cert_chain(certificate, key, password=lambda: b"")
            except FileNotFoundError:
                missing = key if os.path.exists(certificate) else certificate
                raise UsageError(f"{files}: {missing.name} is missing; tls.crt and tls.key go together") from None
            except (OSError, ValueError) as error:
                what = "a certificate and its own key in PEM, the key not encrypted"
                raise UsageError(f"{files}: tls.crt and tls.key cannot be used, put there {what}: {_why(error)}") from None
        return context

    def _believing(self) -> ssl.SSLContext:
        """What every server is asked with that has nothing of its own."""
        context = ssl.create_default_context()
        for path in self._ca_files:
            _load(context, Path(path), f"--ca-files: {path}")
        return context


def _load(context: ssl.SSLContext, path: Path, what: str) -> None:
    try:
        context.load_verify_locations(path)
    except OSError as error:
        raise UsageError(f"{what} cannot be used, put certificates in PEM there: {_why(error)}") from None


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return {"KEY_VALUES_MISMATCH": "the key is another one's"}.get(error.reason or "", error.reason or "no PEM")
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _server(registry: str) -> tuple[str, int]:
    parts = urlsplit(f"//{server_of(registry)}")
    return parts.hostname or "", parts.port or HTTPS_PORT
