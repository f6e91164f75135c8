"""`darner save NAMESPACE|IMAGE... -o FILE.tar`: what a cluster runs, in a file that `darner load` puts into another one.

An image of a namespace is saved as its pods name it, with the digest that runs. The bytes come from one agent, by a port-forward,
and it gets them as for a pull. Pull secrets are read where the person may read them; a file of credentials does as well.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import typer

from agent.config import address
from agent.origin.credential_config import Auths
from agent.values.reference import LOCAL_REGISTRY, InvalidReference, Reference, parse_digest
from cli.authfile import auths_of_file, auths_of_secret
from cli.copying import write_image
from cli.errors import CommandError, ExitCode, NotAllowed, NotThere, WrongUsage
from cli.labels import labels_of
from cli.layout.images import full_name
from cli.layout.sinks import STANDARD_OUTPUT, sink_at
from cli.layout.writer import LayoutWriter
from cli.output import print_line, printable
from cli.platforms import ALL, Platform, platform_of
from cli.pods import name_of
from cli.registry import AgentRegistry, Connect
from cli.release import Installation
from cli.session import Session
from webhook.kube.api import Object, mapping_at, mappings_at, text_at
from webhook.pods import EVERY_KIND, places, pull_secrets
from webhook.pullsecrets.dockerconfig import PREFIX

NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
REGISTRY_PORT = address(LOCAL_REGISTRY).port
STATUSES = {
    "initContainers": "initContainerStatuses",
    "containers": "containerStatuses",
    "ephemeralContainers": "ephemeralContainerStatuses",
}


@dataclass(frozen=True)
class RunningImage:
    """An image by the name that pods have it by."""

    name: str
    """In full."""
    digest: str = ""
    """That runs; "" where nobody says."""

    @property
    def reference(self) -> Reference:
        named = Reference.parse(self.name)
        digest = parse_digest(self.digest) if self.digest else named.digest
        return Reference(named.registry, named.repository, None if digest else named.tag, digest)


def save(
    session: Session,
    what: Annotated[
        list[str], typer.Argument(metavar="NAMESPACE|IMAGE...", help="All that a namespace runs, or images by name.")
    ],
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE.tar|DIR|-", help="Where it is written; - as a tar.")],
    platform: Annotated[
        str, typer.Option(metavar="OS/ARCH[/VARIANT]|all", help="Of images for several (default: those of the cluster's nodes).")
    ] = "",
    authfile: Annotated[
        str, typer.Option(metavar="FILE", help="Credentials, as `docker login` writes them (default: where that does).")
    ] = "",
) -> int:
    """Write what a cluster runs into a file, for `darner load` in another one."""
    images, auths = _wanted(session, what)
    if not images:
        raise NotThere(f"nothing runs in {', '.join(what)} that could be saved")
    platforms = _platforms(session, platform)
    agent, connect = _agent(session.installation)
    registry = AgentRegistry(connect, f"the agent {agent}", (*auths_of_file(authfile, os.environ), *auths))
    with sink_at(output) as sink:
        layout = LayoutWriter(sink)
        for image in images:
            manifest = write_image(registry, layout, image.name, image.reference, platforms)
            if output != STANDARD_OUTPUT:
                print_line(f"{image.name} {manifest.digest}")
        layout.finish()
    return ExitCode.FINE


def _wanted(session: Session, what: Iterable[str]) -> tuple[list[RunningImage], list[Auths]]:
    """The images, each name once, and the credentials of the pods that run them. Raises CommandError."""
    images: dict[str, RunningImage] = {}
    auths: list[Auths] = []
    for word in what:
        if _is_namespace(session, word):
            pods = session.access.items(f"/api/v1/namespaces/{word}/pods")
            for image in running_images(pods):
                if images.setdefault(image.name, image) != image:
                    words = f"two images of the name {image.name} run; {images[image.name].digest} is saved"
                    print(printable(words), file=sys.stderr)  # noqa: T201
            auths += _pull_secrets(session, word, pods)
        else:
            try:
                name = full_name(word)
            except InvalidReference as error:
                raise WrongUsage(f"{error}; nor is it a namespace of this cluster") from None
            images.setdefault(name, RunningImage(name))
    return list(images.values()), auths


def _is_namespace(session: Session, word: str) -> bool:
    """Of one that the person may not look at itself, also if she may list its pods, for that is all that is needed."""
    if not NAMESPACE.fullmatch(word):
        return False
    path = f"/api/v1/namespaces/{word}"
    status = session.access.ask("GET", path).status
    return status == 200 or (status == 403 and session.access.ask("GET", f"{path}/pods", query={"limit": "1"}).status == 200)


def running_images(pods: Iterable[Object]) -> list[RunningImage]:
    """Of pods, those of the youngest first, by the names that their authors wrote. What is no image's name is left out."""
    found = []
    for pod in sorted(pods, key=lambda pod: text_at(mapping_at(pod, "metadata"), "creationTimestamp"), reverse=True):
        digests = _digests(pod)
        for place in places(pod, EVERY_KIND):
            try:
                name = full_name(place.image or "")
                digest = digests.get((place.kind, place.name), "")
                found.append(RunningImage(name, parse_digest(digest) if digest else ""))
            except InvalidReference:
                continue
    return list(dict.fromkeys(found))


def _digests(pod: Object) -> dict[tuple[str, str], str]:
    """What runs, by the kind and the name of the container. A runtime that has an image from no registry names none."""
    found = {}
    for kind, statuses in STATUSES.items():
        for status in mappings_at(mapping_at(pod, "status"), statuses):
            _, at, digest = text_at(status, "imageID").partition("@")
            if at:
                found[kind, text_at(status, "name")] = digest
    return found


def _pull_secrets(session: Session, namespace: str, pods: Iterable[Object]) -> Iterator[Auths]:
    """As far as the person may read them; those that Darner derived have nothing new."""
    for name in dict.fromkeys(name for pod in pods for name in pull_secrets(pod) if not name.startswith(PREFIX)):
        try:
            yield auths_of_secret(session.access.get(f"/api/v1/namespaces/{namespace}/secrets/{name}"))
        except (NotAllowed, NotThere):
            continue


def _platforms(session: Session, text: str) -> Collection[Platform] | None:
    """Those of the cluster's nodes unless others were asked for; None for all."""
    if text:
        return None if text == ALL else [platform_of(text)]
    try:
        nodes = session.access.items("/api/v1/nodes")
    except CommandError as error:
        raise CommandError(f"{error}; name the platform by --platform") from None
    found = {
        Platform(labels_of(node).get("kubernetes.io/os", ""), labels_of(node).get("kubernetes.io/arch", "")) for node in nodes
    }
    return found or None


def _agent(installation: Installation) -> tuple[str, Connect]:
    """One that is ready, and a way to its registry endpoint, which is on its node's loopback. Raises NotThere."""
    pods = installation.ready_pods("agent")
    if not pods:
        raise NotThere("no agent is ready from which images could be had; `darner status` says why")
    name = name_of(pods[0])
    return name, lambda: _forwarded(installation, name)


@contextmanager
def _forwarded(installation: Installation, pod: str) -> Iterator[socket.socket]:
    with installation.access.forward(installation.namespace, pod, REGISTRY_PORT) as forward:
        yield forward.socket
