"""A program: prints a new key, and a certificate for it that is signed by nobody else, in PEM. `agent.http.certificate` runs it.

It has a process of its own, and imports nothing of the agent's, so that it also runs where only libraries are installed.
"""

from __future__ import annotations

import datetime
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

_NO_CLOCK = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC), datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC)
"""A certificate that lives as long as its process says nothing about time, so that no node's clock matters."""


def main() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "darner")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), *_NO_CLOCK)
    certificate = builder.sign(key, hashes.SHA256())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate.public_bytes(Encoding.PEM)
    sys.stdout.buffer.write(pem)


if __name__ == "__main__":
    main()
