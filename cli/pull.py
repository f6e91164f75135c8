"""`darner pull IMAGE -o DIR|FILE.tar`: an image in a file, through this node's agent, and so from the swarm."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated

import typer

from agent.config import address
from agent.values.manifest import Manifest
from agent.values.reference import LOCAL_REGISTRY, Reference, parse_digest
from cli.authfile import auths_of_file
from cli.copying import one_platform, write_docker, write_image
from cli.errors import CommandError, ExitCode, WrongUsage
from cli.layout.docker_writer import DockerArchiveWriter
from cli.layout.images import name_typed
from cli.layout.sinks import STANDARD_OUTPUT, Sink, sink_at
from cli.layout.writer import LayoutWriter
from cli.output import print_line
from cli.platforms import ALL, of_this_machine, platform_of
from cli.registry import AgentRegistry

CONNECT_SECONDS_MAX = 5.0


class ImageFormat(StrEnum):
    OCI = "oci"
    DOCKER = "docker"


def pull(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="As a pod names it.")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="DIR|FILE.tar|-", help="Where it is written; - as a tar.")],
    image_format: Annotated[
        ImageFormat, typer.Option("--format", help="An OCI layout, or the archive that `docker load` reads.")
    ] = ImageFormat.OCI,
    platform: Annotated[
        str, typer.Option(metavar="OS/ARCH[/VARIANT]|all", help="Of an image for several (default: this machine's).")
    ] = "",
    authfile: Annotated[
        str, typer.Option(metavar="FILE", help="Credentials, as `docker login` writes them (default: where that does).")
    ] = "",
    agent: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where the agent serves pulls.", envvar="DARNER_AGENT")
    ] = LOCAL_REGISTRY,
) -> int:
    """Write an image into a file, through the agent of this node."""
    name = name_typed(image)
    try:
        where = address(agent)
    except ValueError:
        raise WrongUsage(f"--agent {agent!a} is no address; write HOST:PORT, such as {LOCAL_REGISTRY}") from None

    @contextmanager
    def connected() -> Iterator[socket.socket]:
        try:
            connection = socket.create_connection(where, CONNECT_SECONDS_MAX)
        except OSError as error:
            words = f"no agent serves pulls at {agent}: {error.strerror or error}; type it on a node, where one is ready"
            raise CommandError(words) from None
        with connection:
            yield connection

    registry = AgentRegistry(connected, f"the agent at {agent}", auths_of_file(authfile, os.environ))
    with sink_at(output) as sink:
        manifest = _write(registry, sink, name, image_format, platform)
    if output != STANDARD_OUTPUT:
        print_line(f"{name} {manifest.digest} is in {output}")
    return ExitCode.FINE


def _write(registry: AgentRegistry, sink: Sink, name: str, image_format: ImageFormat, platform: str) -> Manifest:
    """What the name means in the file. Raises CommandError."""
    reference = Reference.parse(name)
    wanted = None if platform == ALL else platform_of(platform) if platform else of_this_machine()
    if image_format is ImageFormat.DOCKER:
        if wanted is None:
            raise WrongUsage("docker's archive has one platform; name it, or leave --format out")
        return write_docker(registry, DockerArchiveWriter(sink), name, reference, wanted)
    layout = LayoutWriter(sink)
    if wanted and not reference.digest:  # a name with a digest goes on to mean that
        chosen = one_platform(registry, reference, wanted).digest
        reference = Reference(reference.registry, reference.repository, None, parse_digest(chosen))
    manifest = write_image(registry, layout, name, reference, [wanted] if wanted else None)
    layout.finish()
    return manifest
