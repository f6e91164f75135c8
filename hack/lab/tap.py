"""Hears what the programs of a host say to one port of its loopback, without standing in between.

A packet socket with a filter for the direction towards the port: heads of requests, TLS greetings and the ends of connections,
not the answers. IPv4 only, and a request is heard only where its head begins a segment, as with any client that does not
pipeline. Takes root.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import threading
from dataclasses import dataclass, field
from types import TracebackType

from hack.lab.network import Host

_ETH_P_ALL = 0x0003
_SO_ATTACH_FILTER = 26
_PACKET_OUTGOING = 4  # loopback shows each packet as it leaves and as it arrives; one of them is enough
_FIN, _RESET = 0x01, 0x04
_BUFFER_BYTES = 8 << 20
_POLL_SECONDS = 0.1


@dataclass
class Heard:
    """One request, until its connection was ended by the one who asked."""

    connection: int
    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    ended: bool = False


@dataclass
class Tap:
    """Use as a context manager around what is to be heard."""

    host: Host
    port: int
    requests: list[Heard] = field(default_factory=list)
    tls_greetings: int = 0
    resets: int = 0
    open_at_once_max: int = 0
    """The most requests with a Range that were open at one time."""

    def __enter__(self) -> Tap:
        with self.host.inside():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            program = _towards(self.port)
            code = ctypes.create_string_buffer(b"".join(program))
            self._socket.setsockopt(
                socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(code))
            )
            self._socket.bind(("lo", _ETH_P_ALL))
        self._socket.settimeout(_POLL_SECONDS)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._hear, name="tap")
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()
        self._socket.close()

    def _hear(self) -> None:
        while True:
            try:
                packet, (_, _, direction, *_) = self._socket.recvfrom(1 << 16)
            except TimeoutError:
                if self._done.is_set():
                    return
                continue
            if direction != _PACKET_OUTGOING:
                self._segment(packet[14:])

    def _segment(self, packet: bytes) -> None:
        segment = packet[4 * (packet[0] & 0x0F) : struct.unpack_from("!H", packet, 2)[0]]
        connection, flags, said = struct.unpack_from("!H", segment)[0], segment[13], segment[4 * (segment[12] >> 4) :]
        if said.startswith(b"\x16\x03"):  # a TLS record that holds a handshake (RFC 8446, section 5.1)
            self.tls_greetings += 1
        elif said.startswith((b"GET ", b"HEAD ")):
            first, *lines = said.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
            method, path, _ = first.split(" ", 2)
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            self._end(connection)  # the next request on a connection says that the one before is over
            self.requests.append(Heard(connection, method, path, headers))
            waiting = sum(1 for heard in self.requests if not heard.ended and "range" in heard.headers)
            self.open_at_once_max = max(self.open_at_once_max, waiting)
        if flags & (_FIN | _RESET):
            self.resets += bool(flags & _RESET)
            self._end(connection)

    def _end(self, connection: int) -> None:
        for heard in self.requests:
            if heard.connection == connection:
                heard.ended = True


def _towards(port: int) -> list[bytes]:
    """A classic BPF program (bpf(4)): TCP over IPv4 to this port, behind the Ethernet header that loopback has too."""
    load_half, load_byte, load_header, load_behind = 0x28, 0x30, 0xB1, 0x48
    equal, give = 0x15, 0x06
    return [
        struct.pack("@HBBI", *instruction)
        for instruction in (
            (load_half, 0, 0, 12),
            (equal, 0, 6, 0x0800),
            (load_byte, 0, 0, 23),
            (equal, 0, 4, socket.IPPROTO_TCP),
            (load_header, 0, 0, 14),
            (load_behind, 0, 0, 16),
            (equal, 0, 1, port),
            (give, 0, 0, 0xFFFF),
            (give, 0, 0, 0),
        )
    ]
