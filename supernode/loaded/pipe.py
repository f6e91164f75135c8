"""`darner loaded`: leads standard input and output to the socket of the supernode in whose container it is typed.

`darner load` runs it by `kubectl exec`'s way, and speaks through it (`supernode.loaded.conversation`). It ends when either side
does.
"""

from __future__ import annotations

import os
import select
import socket
import sys
from collections.abc import Mapping, Sequence

from agent.config import Parser
from agent.values.errors import DarnerError
from supernode.loaded.place import socket_path, store_of

PROGRAM = "darner loaded"
CHUNK_BYTES = 1 << 16


def run(argv: Sequence[str], environment: Mapping[str, str], source: int, sink: int) -> int:
    """`source` and `sink` are descriptors. Raises DarnerError."""
    Parser(prog=PROGRAM, allow_abbrev=False, description="Lead to the supernode of this container.").parse_args(list(argv))
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with connection:
        try:
            with socket_path(store_of(environment)) as path:
                connection.connect(path)
        except OSError as error:
            raise DarnerError(f"{PROGRAM}: the supernode does not answer: {error.strerror}; try again when it is ready") from None
        _carry(connection, source, sink)
    return 0


def _carry(connection: socket.socket, source: int, sink: int) -> None:
    """What the supernode says last is passed on, also when it wants to hear no more."""
    sources: list[socket.socket | int] = [connection, source]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if connection in ready:
            try:
                data = connection.recv(CHUNK_BYTES)
            except ConnectionError:
                return
            if not data:
                return
            while data:
                data = data[os.write(sink, data) :]
        elif source in ready:
            data = os.read(source, CHUNK_BYTES)
            try:
                if data:
                    connection.sendall(data)
                    continue
                connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it has said why, which is read next
            sources = [connection]


def main(argv: Sequence[str]) -> int:
    try:
        return run(argv, os.environ, sys.stdin.fileno(), sys.stdout.fileno())
    except DarnerError as error:
        sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
