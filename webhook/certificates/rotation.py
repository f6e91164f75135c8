"""The rotation of the serving certificate: looks at it again and again, and swaps it under the running listener.

One step reads the store, writes what `webhook.certificates.authority` finds due, tells the cluster whom to trust, and loads what
is served into the TLS context. Handshakes under way keep what they began with; the next one gets the new certificate.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from collections.abc import Callable

from agent.values.errors import DarnerError
from webhook.certificates.authority import (
    SERVING_FILE,
    SERVING_KEY_FILE,
    Bundle,
    Lifetimes,
    advanced,
    parse,
)
from webhook.certificates.clients import Clients
from webhook.certificates.stores import Files, KeyStore, settle
from webhook.errors import CertificateError
from webhook.metrics import CERTIFICATE_EXPIRY, CERTIFICATE_FAILURES

log = logging.getLogger(__name__)

UNTRUSTED_SECONDS = 1.0
"""Between two attempts while the cluster does not trust us yet: until then pods are admitted without us."""

Publish = Callable[[bytes], None]


class Rotation:
    """The one owner of the TLS context. `publish` makes the cluster trust these authorities, or raises DarnerError."""

    def __init__(
        self,
        store: KeyStore,
        names: tuple[str, ...],
        lifetimes: Lifetimes,
        publish: Publish | None = None,
        clock: Callable[[], float] = time.time,
        clients: Clients | None = None,
    ) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._store = store
        self._names = names
        self._lifetimes = lifetimes
        self._publish = publish
        self._clock = clock
        self._clients = clients
        self._served: Bundle | None = None
        self._trusted = publish is None

    async def step(self) -> None:
        """Brings store, trust and listener to what is due now. Raises DarnerError and leaves what is served as it is."""
        if self._clients:
            self._clients.load(self.context)
        bundle = await asyncio.to_thread(self._settled)
        if self._served is None or _pair(bundle.files) != _pair(self._served.files):
            # Here and not in the thread: no handshake of this loop may see the certificate of one pair with the key of another.
            _load(self.context, bundle.files)
            log.info("serving certificate valid until %s", bundle.serving.not_valid_after_utc.isoformat())
        self._served = bundle
        CERTIFICATE_EXPIRY.set(bundle.serving.not_valid_after_utc.timestamp())
        if self._publish and bundle.trust:
            await asyncio.to_thread(self._publish, bundle.trust)
        self._trusted = True

    async def run(self, interval_seconds: float) -> None:
        """Steps until it is cancelled; what fails is tried again at the next step."""
        while True:
            await asyncio.sleep(interval_seconds if self._trusted else min(interval_seconds, UNTRUSTED_SECONDS))
            try:
                await self.step()
            except DarnerError as error:
                CERTIFICATE_FAILURES.inc()
                log.warning("the certificate could not be kept, and is looked at again: %s", error)

    def unready(self) -> str | None:
        """Why API servers cannot ask us now; None if they can."""
        if self._served is None:
            return "there is no certificate yet"
        if not self._served.serves(self._clock()):
            return "the certificate has expired"
        return None if self._trusted else "the cluster does not trust the certificate yet"

    @property
    def serving(self) -> bool:
        return self._served is not None

    def _settled(self) -> Bundle:
        files = settle(self._store, lambda stored: advanced(stored, self._names, self._lifetimes, self._clock()))
        bundle = parse(files)
        if bundle is None:
            raise CertificateError(f"{self._store} holds no certificate and key that belong together")
        return bundle


def _pair(files: Files) -> tuple[bytes, bytes]:
    return files[SERVING_FILE], files[SERVING_KEY_FILE]


def _load(context: ssl.SSLContext, files: Files) -> None:
    """The ssl module reads certificates from files alone; this one is in memory, so that no key comes to lie on a disk."""
    descriptor = os.memfd_create("certificate")
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(b"\n".join(_pair(files)))
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    except (OSError, ssl.SSLError) as error:
        raise CertificateError(f"the certificate cannot be loaded: {error}") from None
    finally:
        os.close(descriptor)
