"""TLS between an agent and a supernode, and how each shows the other that it has the swarm's key.

TLS 1.3 (RFC 8446), with a certificate that a supernode makes as it starts and that no authority vouches for. The swarm's key
does. Inside TLS the supernode sends a challenge of 32 random bytes. The agent answers with a challenge of its own and, for each
of its keys, an HMAC-SHA-256 (RFC 2104) over its role, both challenges and the certificate's fingerprint; the supernode answers
with the same for its own role. Nobody in between can pass these on, since each end names the certificate that it sees itself.
Only then does the agent say who it is. Nothing of it depends on a clock.
"""

from __future__ import annotations

import hmac
import os
import secrets
import socket
import ssl
import threading
from collections.abc import Iterable

from agent.http.sealed import RECORD_BYTES, Tls, fingerprint_of
from agent.swarm.tickets import KEYS_MAX
from agent.values.errors import DarnerError

AGENT, SUPERNODE, WEBHOOK = b"agent", b"supernode", b"webhook"
"""Roles, which are under the proof: whoever shows the key as a webhook is no agent, and is not heard as one."""
CHALLENGE_BYTES = PROOF_BYTES = 32
ANSWER_BYTES = CHALLENGE_BYTES + KEYS_MAX * PROOF_BYTES
"""What an agent sends: its challenge, and a proof for each key; random bytes for a key that it does not have."""


class ProofError(DarnerError):
    """The other end does not have the swarm's key."""


def proof(key: bytes, role: bytes, theirs: bytes, ours: bytes, fingerprint: bytes) -> bytes:
    """That this end has the key: for the supernode's challenge, then the agent's, and the certificate that is in use."""
    return hmac.digest(key, b"darner channel\0" + role + b"\0" + theirs + ours + fingerprint, "sha256")


def answer(keys: Iterable[bytes], theirs: bytes, ours: bytes, fingerprint: bytes, role: bytes = AGENT) -> bytes:
    """What an agent, or a webhook, answers to the supernode's challenge."""
    proofs = b"".join(proof(key, role, theirs, ours, fingerprint) for key in keys)
    return ours + proofs + secrets.token_bytes(KEYS_MAX * PROOF_BYTES - len(proofs))


class SealedSocket:
    """A connected socket inside TLS, with the few methods of a socket that a channel needs.

    One thread receives while others send, which `ssl.SSLSocket` does not allow: its two directions share state without a lock.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        """Agrees with the other end on keys. Raises ProofError when it speaks no TLS, and OSError."""
        self._sock = sock
        self._tls = Tls(context, server=False)
        self._turn = threading.Lock()
        """Of what TLS knows."""
        self._sending = threading.Lock()
        """Held longer: what is sealed first is sent first."""
        self._early = bytearray()
        """What has come and nobody has received yet."""
        self.settimeout, self.shutdown = sock.settimeout, sock.shutdown
        try:
            self._take(b"")
            while not self._tls.shaken:
                self._take(self._came())
        except ssl.SSLError as error:
            raise ProofError(f"it speaks no TLS as this agent does, so it has no swarm key: {error.reason}") from None

    def prove(self, keys: tuple[bytes, ...], role: bytes = AGENT) -> None:
        """Show the supernode one of the keys, and have it show the same one. Raises ProofError and OSError."""
        fingerprint = fingerprint_of(self._tls.certificate())
        theirs, ours = self._exactly(CHALLENGE_BYTES), os.urandom(CHALLENGE_BYTES)
        self.sendall(answer(keys, theirs, ours, fingerprint, role))
        shown = self._exactly(PROOF_BYTES)
        if not any(hmac.compare_digest(shown, proof(key, SUPERNODE, theirs, ours, fingerprint)) for key in keys):
            raise ProofError("it has another swarm key, or is none: compare the two files")

    def recv(self, count: int) -> bytes:
        """Some bytes, about `count` at the most; b"" at the end of the connection."""
        while not self._early:
            data = self._sock.recv(count)
            if not data:
                return b""
            self._take(data)
        said, self._early = bytes(self._early), bytearray()
        return said

    def sendall(self, data: bytes) -> None:
        with self._sending:
            with self._turn:
                sealed = self._tls.seal(data)
            self._sock.sendall(sealed)

    def _take(self, data: bytes) -> None:
        """Keep what the other end says in `data`, and send what TLS itself has to say to that."""
        with self._turn:
            self._early += self._tls.feed(data)
            pending = self._tls.pending()
        if pending:
            with self._sending:
                self._sock.sendall(pending)

    def _came(self) -> bytes:
        data = self._sock.recv(RECORD_BYTES)
        if not data:
            raise OSError("it closed the connection before it proved to have the swarm's key")
        return data

    def _exactly(self, count: int) -> bytes:
        while len(self._early) < count:
            self._take(self._came())
        said, self._early = bytes(self._early[:count]), self._early[count:]
        return said
