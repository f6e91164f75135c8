"""`darner forget IMAGE...`: what a tag meant is forgotten, so that the next pull asks its registry at once.

The command tells an agent, a supernode or both, over HTTP (`agent.admin.forget_route`). They listen to their own machine alone,
so it is typed where they run: `kubectl exec` into their pods. Blobs and manifests stay, and so does every image on a node.
"""

from __future__ import annotations

import http.client
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TextIO
from urllib.parse import urlencode

from agent.config import Parser, reachable
from agent.values.address import Address
from agent.values.errors import DarnerError, UsageError
from agent.values.reference import Reference, from_local, is_local
from cli.local import of_this_container

PROGRAM = "darner forget"
ANSWER_SECONDS_MAX = 10.0
ANSWER_BYTES_MAX = 4096
PARTLY_STATUS = 2
"""Somebody could not be told; the lines say who. 1: nobody was, as for a wrong flag."""


def read(argv: Sequence[str], environment: Mapping[str, str]) -> tuple[list[Reference], list[Address]]:
    """The images, and whom to tell. Raises UsageError, and InvalidReference for what names no image."""
    parser = Parser(prog=PROGRAM, allow_abbrev=False, description="Have the registry asked anew what a tag means.")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="as a pod names it; without a tag, :latest")
    for process in ("agent", "supernode"):
        words = f"where the {process} answers to health checks, on this machine; without either, the process of this container"
        parser.add_argument(f"--{process}", metavar="HOST:PORT", action="append", default=[], help=words)
    options = parser.parse_args(list(argv))
    images = [Reference.parse(from_local(text) if is_local(text) else text) for text in options.images]
    for image in images:
        if image.digest:
            raise UsageError(f"{PROGRAM}: {image} has a digest, which always means the same; name a tag")
    try:
        addresses = [reachable(text) for text in (*options.agent, *options.supernode)]
        return images, addresses or [of_this_container(environment)]
    except ValueError as error:
        raise UsageError(f"{PROGRAM}: {error}") from None


def told(images: Sequence[Reference], addresses: Sequence[Address]) -> Iterator[tuple[str, bool]]:
    """Each of the addresses is told of each image: a line, and whether it is done."""
    for where in addresses:
        for image in images:
            try:
                status, words = _tell(where, image)
            except (OSError, http.client.HTTPException) as error:
                yield f"{where}: {image}: nobody answers there: {error}", False
                continue
            yield f"{where}: {words if status in (200, 400, 403) else f'{image}: answered {status}'}", status == 200


def _tell(where: Address, image: Reference) -> tuple[int, str]:
    connection = http.client.HTTPConnection(where.host, where.port, timeout=ANSWER_SECONDS_MAX)
    try:
        connection.request("POST", f"/api/v1/forget?{urlencode({'image': str(image)})}")
        with connection.getresponse() as answer:
            return answer.status, ascii(answer.read(ANSWER_BYTES_MAX).decode(errors="replace").strip())[1:-1]
    finally:
        connection.close()


def run(argv: Sequence[str], environment: Mapping[str, str], output: TextIO) -> int:
    status = 0
    for line, done in told(*read(argv, environment)):
        output.write(line + "\n")
        status = status if done else PARTLY_STATUS
    return status


def main(argv: Sequence[str]) -> int:
    try:
        return run(argv, os.environ, sys.stdout)
    except DarnerError as error:
        said = str(error)
        sys.stderr.write(f"{said if said.startswith(PROGRAM) else f'{PROGRAM}: {said}'}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
