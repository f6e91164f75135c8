"""Who may ask for an admission: whoever reaches the port, or API servers alone, by the certificate that they show.

An API server shows one to webhooks only where its AdmissionConfiguration gives it one, so this is an option. The authority that
signs those certificates may sign others too (that of a whole cluster signs every kubelet's), so names are asked for besides.
"""

from __future__ import annotations

import logging
import ssl
import time
from asyncio import BaseTransport
from collections.abc import Callable
from pathlib import Path

from webhook.errors import CertificateError

log = logging.getLogger(__name__)

COMPLAINT_SECONDS = 10.0
"""Between two lines about callers that are turned away."""


class Clients:
    """The authorities in a PEM file, and the common names that are an API server's."""

    def __init__(self, file: str, names: tuple[str, ...], clock: Callable[[], float] = time.monotonic) -> None:
        self._file = Path(file)
        self._names = frozenset(names)
        self._clock = clock
        self._loaded: str | None = None
        self._said = -COMPLAINT_SECONDS

    def load(self, context: ssl.SSLContext) -> None:
        """From now on handshakes fail without a certificate by one of these authorities. Raises CertificateError.

        To be called again and again: an authority that is new in the file is trusted then, and a file that has become unreadable
        changes nothing. TLS contexts forget no authority: one that has gone from the file is trusted until the process ends.
        """
        try:
            text = self._file.read_text(encoding="ascii", errors="replace")
            if text != self._loaded:
                context.load_verify_locations(cadata=text)
        except (OSError, ValueError) as error:
            words = f"the authorities of API servers in {self._file} cannot be loaded: {error}"
            if self._loaded is None:
                raise CertificateError(words) from None
            log.warning("%s; those of before are trusted on", words)
            return
        self._loaded = text
        context.verify_mode = ssl.CERT_REQUIRED

    def may_ask(self, transport: BaseTransport) -> bool:
        """Whether a caller, whose certificate TLS has found to be good, has an API server's name."""
        shown = transport.get_extra_info("peercert") or {}
        names = {value for part in shown.get("subject", ()) for key, value in part if key == "commonName"}
        if names & self._names:
            return True
        if self._clock() - self._said >= COMPLAINT_SECONDS:
            self._said = self._clock()
            caller = transport.get_extra_info("peername")
            log.warning("%s may not ask for admissions: its certificate is for %s", caller, sorted(names))
        return False
