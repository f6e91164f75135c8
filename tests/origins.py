"""What tests of the origin client share: names that lead to loopback, certificates, and a server that says what it is told to."""

from __future__ import annotations

import contextlib
import secrets
import socket
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.values.address import Address

DAY = timedelta(days=1)


def look_up(**addresses: str) -> Callable[[str, int], list[tuple[Any, ...]]]:
    """A resolver for names whose dots are written as underscores: `look_up(registry_test="127.0.0.1")`."""

    def answer(host: str, port: int) -> list[tuple[Any, ...]]:
        found = addresses.get(host.replace(".", "_"), host if host[0].isdigit() else "")
        if not found:
            raise socket.gaierror(f"{host} is not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found.split()]

    return answer


class Authority:
    """A certificate authority, and the certificates that it issued."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        self._directory = directory
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        own = self._builder(self._name, self._key.public_key(), DAY)
        own = own.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.file = directory / f"{name}.pem"
        self.file.write_bytes(own.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def server(self, name: str, valid_for: timedelta = DAY, clients: Authority | None = None) -> ssl.SSLContext:
        """TLS for a server that proves to be `name`; expired when `valid_for` is negative.

        It asks for a certificate of the authority `clients`.
        """
        certificate, private = self.certificate(name, valid_for)
        path = self._directory / f"{name}-{secrets.token_hex(4)}.pem"
        path.write_bytes(certificate + private)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        if clients:
            context.load_verify_locations(clients.file)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def certificate(self, name: str, valid_for: timedelta = DAY) -> tuple[bytes, bytes]:
        """A certificate and its key, in PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key.public_key(), valid_for)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return certificate.public_bytes(serialization.Encoding.PEM), private

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, valid_for: timedelta) -> x509.CertificateBuilder:
        end = datetime.now(UTC) + valid_for
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(end - 2 * DAY)
            .not_valid_after(end)
        )


class Scripted:
    """A server that reads a request on each connection and answers it with the next of `answers`, the last one again and again.

    An answer is bytes, or a function that is given the socket. Then the connection ends, unless `keep` says that more come on it.
    """

    def __init__(self, *answers: bytes | Callable[[socket.socket], None], keep: bool = False) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._answers = list(answers)
        self._keep = keep
        self._lock = threading.Lock()
        self._server = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, name="scripted server")]
        self._threads[0].start()
        self.address = Address(*self._server.getsockname())

    def __enter__(self) -> Scripted:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._server.accept()
                self.connections += 1
                self._open.append(sock)
                self._threads.append(threading.Thread(target=self._serve, args=(sock,), name="scripted connection"))
                self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            while request := _request(sock):
                with self._lock:
                    self.requests.append(request)
                    answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
                if callable(answer):
                    answer(sock)
                else:
                    sock.sendall(answer)
                if not self._keep:
                    return


def _request(sock: socket.socket) -> bytes:
    request = b""
    while not request.endswith(b"\r\n\r\n"):
        data = sock.recv(1 << 16)
        if not data:
            return b""
        request += data
    return request


def drain(read_into: Callable[[memoryview], int], size: int = 64 << 10) -> bytes:
    """All that `read_into` gives, through one buffer of `size` bytes."""
    buffer, body = memoryview(bytearray(size)), bytearray()
    while count := read_into(buffer):
        body += buffer[:count]
    return bytes(body)


def http(status: int, body: bytes = b"", **headers: str) -> bytes:
    """An answer as it is on the wire, with its Content-Length unless another is given; underscores in names are dashes."""
    lines = {"Content-Length": str(len(body))} | {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
    return f"HTTP/1.1 {status} Whatever\r\n{head}\r\n".encode() + body
