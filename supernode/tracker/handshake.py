"""The supernode's end of the handshake: its certificate, and one agent's connection until that agent has shown the swarm's key.

`agent.swarm.tls` says what is sent. Until the proof is there, little is kept for a connection, and nothing that it says is read.
"""

from __future__ import annotations

import asyncio
import hmac
import os
from collections.abc import Iterable
from typing import Any

from agent.http.certificate import Certificate
from agent.http.sealed import Tls
from agent.swarm.tickets import SwarmKey
from agent.swarm.tls import (
    AGENT,
    ANSWER_BYTES,
    CHALLENGE_BYTES,
    PROOF_BYTES,
    SUPERNODE,
    WEBHOOK,
    ProofError,
    proof,
)

UNPROVEN_BYTES_MAX = 16 << 10
"""Of an agent that has not shown the key yet: its half of TLS 1.3 and its answer are 2 KiB."""


class Certified:
    """A supernode's certificate, and the keys that vouch for it."""

    def __init__(self, swarm_key: SwarmKey, certificate: Certificate | None = None) -> None:
        """With a certificate of its own, if there is none yet."""
        self.swarm_key = swarm_key
        certificate = certificate or Certificate.make()
        self.fingerprint, self.context = certificate.fingerprint, certificate.context


class SealedTransport(asyncio.WriteTransport):
    """An agent's connection inside TLS, as its session writes to it."""

    def __init__(self, transport: asyncio.Transport, identity: Certified) -> None:
        super().__init__()
        self._transport = transport
        self._identity = identity
        self._tls = Tls(identity.context, server=True)
        self._challenge = b""
        self._answer = bytearray()
        self._bytes = 0
        self.proven = False
        self.role = b""
        """As which the other end has shown the key: an agent, or a webhook."""

    def opened(self, data: memoryview) -> bytes:
        """What the agent says in `data`, once it has shown the key; b"" before. Raises ProofError and ssl.SSLError."""
        if not self.proven:
            self._bytes += len(data)
            if self._bytes > UNPROVEN_BYTES_MAX:
                raise ProofError("it says much and shows no swarm key")
        said, pending = self._tls.feed(data), self._tls.pending()
        if pending:
            self._transport.write(pending)
        if self.proven:
            return said
        self._answer += said
        if self._tls.shaken and not self._challenge:
            self._challenge = os.urandom(CHALLENGE_BYTES)
            self.write(self._challenge)
        if len(self._answer) < ANSWER_BYTES:
            return b""
        self._check(bytes(self._answer[:ANSWER_BYTES]))
        return bytes(self._answer[ANSWER_BYTES:])

    def _check(self, answer: bytes) -> None:
        theirs, shown = answer[:CHALLENGE_BYTES], answer[CHALLENGE_BYTES:]
        proofs = [shown[start : start + PROOF_BYTES] for start in range(0, len(shown), PROOF_BYTES)]
        for key in self._identity.swarm_key.all():
            for role in (AGENT, WEBHOOK):
                wanted = proof(key, role, self._challenge, theirs, self._identity.fingerprint)
                if any(hmac.compare_digest(wanted, given) for given in proofs):
                    self.proven, self.role = True, role
                    self.write(proof(key, SUPERNODE, self._challenge, theirs, self._identity.fingerprint))
                    return
        self.write(os.urandom(PROOF_BYTES))  # by which the agent knows what is wrong, and not only that something is
        raise ProofError("it has another swarm key, or none: compare the two files")

    # As a session uses it.

    def write(self, data: Any) -> None:
        self._transport.write(self._tls.seal(bytes(data)))

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.write(b"".join(list_of_data))

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()
