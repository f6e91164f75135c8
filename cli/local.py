"""`darner local METHOD PATH`: asks the process in whose container it is typed, as only a process of the same machine may.

Commands outside run it by `kubectl exec`'s way: it knows from the container's settings where that process listens. So whoever may
exec into Darner's pods may do what the process lets its own machine do, and nobody else.
"""

from __future__ import annotations

import http.client
import os
import sys
from collections.abc import Mapping, Sequence
from typing import BinaryIO

from agent.config import Parser, address, is_wildcard
from agent.values.address import Address
from agent.values.errors import DarnerError, UsageError

PROGRAM = "darner local"
HTTP_LISTEN = "DARNER_HTTP_LISTEN"
"""The setting of the process in whose container the command is typed."""
HTTP_PORT = 65003
ANSWER_SECONDS_MAX = 10.0
ANSWER_BYTES_MAX = 64 << 20


def of_this_container(environment: Mapping[str, str]) -> Address:
    """Where its process answers. Raises ValueError for a setting that is no address."""
    where = address(environment.get(HTTP_LISTEN) or f"127.0.0.1:{HTTP_PORT}")
    if is_wildcard(where):
        return Address("::1" if ":" in where.host else "127.0.0.1", where.port)
    return where


def run(argv: Sequence[str], environment: Mapping[str, str], output: BinaryIO) -> int:
    """Writes the answer. Raises UsageError, and DarnerError for any status but 200."""
    parser = Parser(prog=PROGRAM, allow_abbrev=False, description="Ask the process of this container.")
    parser.add_argument("method", choices=("GET", "POST"))
    parser.add_argument("path", help="with its query, such as /api/v1/state")
    options = parser.parse_args(list(argv))
    try:
        where = of_this_container(environment)
    except ValueError as error:
        raise UsageError(f"{PROGRAM}: {error}") from None
    status, content = _asked(where, options.method, options.path)
    if status != 200:
        said = " ".join(content[:1000].decode(errors="replace").split())
        raise DarnerError(f"{PROGRAM}: {where} answered {status}: {said}")
    output.write(content)
    output.flush()
    return 0


def _asked(where: Address, method: str, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(where.host, where.port, timeout=ANSWER_SECONDS_MAX)
    try:
        connection.request(method, path)
        with connection.getresponse() as answer:
            return answer.status, answer.read(ANSWER_BYTES_MAX)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DarnerError(f"{PROGRAM}: nobody answers at {where}: {error}") from None
    finally:
        connection.close()


def main(argv: Sequence[str]) -> int:
    try:
        return run(argv, os.environ, sys.stdout.buffer)
    except DarnerError as error:
        sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
