"""The certificate of a process that others reach by TLS without an authority: made as the process starts, and gone with it.

Whoever connects knows its fingerprint from elsewhere, or has it proven under the swarm's key (`agent.swarm.tls`). Another process
makes it (`agent.http.selfsigned`): the library that does so takes 14 MiB, which an agent would keep on every node.
"""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from agent.http.sealed import fingerprint_of
from agent.values.errors import UsageError

MAKING_SECONDS_MAX = 60.0
"""It takes 0.1 s of a processor, which a node that has just started may not have."""
_MAKER = Path(__file__).with_name("selfsigned.py")
_BEGIN = b"-----BEGIN CERTIFICATE"


@dataclass(frozen=True)
class Certificate:
    context: ssl.SSLContext
    """For the server's end of TLS 1.3."""
    fingerprint: bytes

    @classmethod
    def make(cls) -> Certificate:
        """Raises UsageError with one line: without a certificate no process of the swarm begins."""
        try:
            made = subprocess.run(  # noqa: S603 (our own program)
                [sys.executable, "-I", str(_MAKER)], capture_output=True, check=True, timeout=MAKING_SECONDS_MAX
            ).stdout
        except subprocess.CalledProcessError as error:
            last = error.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise UsageError(f"no certificate for the piece server can be made: {last}") from None
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UsageError(f"no certificate for the piece server can be made: {error}") from None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0  # connections are kept, and one that comes back begins anew
        file = os.memfd_create("certificate", os.MFD_CLOEXEC)  # ssl reads files alone, and this key belongs on no disk
        try:
            os.write(file, made)
            context.load_cert_chain(f"/proc/self/fd/{file}")
        finally:
            os.close(file)
        return cls(context, fingerprint_of(ssl.PEM_cert_to_DER_cert(made[made.index(_BEGIN) :].decode("ascii"))))
