"""`darner get URL`: wget by way of the swarm."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

import typer

from agent.config import rate
from agent.http.ratelimit import Pace
from agent.origin.web import own_headers
from agent.values.errors import RequestError
from agent.values.reference import LOCAL_REGISTRY
from agent.values.web_file import parse_contents, parse_url
from cli.errors import WrongUsage
from cli.get.agent import FromAgent, FromRegistry
from cli.get.artifact import files_of_artifact
from cli.get.errors import GetError, GetStatus
from cli.get.hub import ENDPOINT, files_of, parse_hub_url
from cli.get.progress import Shown
from cli.get.server import FromServer
from cli.get.sources import FileSource, Wanted
from cli.get.target import FileTarget, StreamTarget, Target
from cli.get.transfer import transfer
from cli.session import seconds

SOCKET = "/run/darner/agent.sock"
STANDARD_OUTPUT = "-"
NAME_BYTES_MAX = 240
"""Of a name that is made of a URL: a file system takes 255, and FILE.part.of is a name too."""


def get(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL", help="https://..., hf://[datasets/]OWNER/REPO[@REVISION][/FILE], or oci://REGISTRY/REPOSITORY:TAG."
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", "-O", metavar="FILE|DIR|-", help="Where to write (default: by the URL, here); - is standard output."
        ),
    ] = "",
    digest: Annotated[str, typer.Option(metavar="sha256:HEX", help="That the file must have.")] = "",
    header: Annotated[
        list[str] | None, typer.Option(metavar="NAME: VALUE", help="For the file's server alone, such as a credential.")
    ] = None,
    limit_rate: Annotated[str, typer.Option(metavar="RATE", help="Bytes a second at most, such as 10Mi.")] = "",
    timeout: Annotated[str, typer.Option(metavar="TIME", help="How long nothing may come from the agent.")] = "60s",
    socket: Annotated[
        str, typer.Option(envvar="DARNER_SOCKET", metavar="FILE", help="Of this node's agent; empty: the server itself is asked.")
    ] = SOCKET,
    endpoint: Annotated[str, typer.Option(envvar="HF_ENDPOINT", metavar="URL", help="Of the hub that hf:// means.")] = ENDPOINT,
    token: Annotated[str, typer.Option(envvar="HF_TOKEN", metavar="TOKEN", help="For that hub.", show_default=False)] = "",
    registry: Annotated[
        str, typer.Option(envvar="DARNER_REGISTRY_LISTEN", metavar="HOST:PORT", help="Registry endpoint of this node's agent.")
    ] = LOCAL_REGISTRY,
    ca_certificate: Annotated[str, typer.Option(metavar="FILE", help="One more authority, where no agent is asked.")] = "",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
) -> int:
    """Download a file by way of the swarm: from other nodes, and from its server once.

    Without an agent that may ask that server, the server itself is asked, and that is said. What is interrupted goes on where it
    ended, if the server has the same version still. The exit codes are wget's.
    """
    headers = _headers(header or [])
    direct = FromServer((ca_certificate,) if ca_certificate else ())
    patience = seconds(timeout, "--timeout")
    to_registry = FromRegistry(patience)
    sources: list[FileSource] = [FromAgent(Path(socket), patience)] if socket else []
    sources.append(direct)
    try:
        if url.startswith("hf://"):
            hub = parse_hub_url(url)
            files = files_of(hub, direct.document, _checked(endpoint), _with_token(headers, token))
            many = not hub.file
            root = Path(output or hub.name) if many else Path(".")
        elif url.startswith("oci://"):
            files = files_of_artifact(url, to_registry.document, registry, headers)
            sources, many, root = [to_registry], True, Path(output or ".")
        else:
            files, many, root = [("", Wanted(_checked(url), _contents(digest), headers))], False, Path(".")
        if many and (digest or output == STANDARD_OUTPUT):
            raise WrongUsage(f"{url} names several files: --output is their directory, and each has a digest of its own")
        for path, wanted in files:
            target = _target(wanted, output, root / path if many else None)
            _get(sources, wanted, target, quiet, _pace(limit_rate))
    finally:
        direct.close()
    return 0


def _get(sources: list[FileSource], wanted: Wanted, target: Target, quiet: bool, pace: Pace | None) -> None:
    shown = Shown(target.path.name, is_quiet=quiet)
    if target.is_here():
        shown.note(f"{target.path} is here already")
        return
    with target, shown.showing():
        transfer(sources, wanted, target, shown, pace)


def _target(wanted: Wanted, output: str, path: Path | None) -> Target:
    if path is None and output == STANDARD_OUTPUT:
        return StreamTarget(STANDARD_OUTPUT, wanted.digest)
    try:
        if path is None:
            name = _name_in(wanted.url)
            path = Path(output or name)
            path = path / name if path.is_dir() else path
        if path.exists() and not path.is_file():  # a pipe or a device takes no other name
            return StreamTarget(str(path), wanted.digest)
    except OSError as error:
        raise GetError(GetStatus.FILE, f"{path} cannot be written: {error.strerror}") from None
    return FileTarget(path, wanted.url, wanted.digest)


def _name_in(url: str) -> str:
    name = unquote(urlsplit(url).path.rpartition("/")[2])
    name = name if name and "/" not in name and name not in (".", "..") and name.isprintable() else "index.html"
    return name.encode()[:NAME_BYTES_MAX].decode(errors="ignore")


def _checked(url: str) -> str:
    try:
        return parse_url(url)
    except RequestError as error:
        raise WrongUsage(str(error)) from None


def _contents(digest: str) -> str:
    try:
        return parse_contents(digest) if digest else ""
    except RequestError as error:
        raise WrongUsage(f"--digest: {error}") from None


def _with_token(headers: dict[str, str], token: str) -> dict[str, str]:
    return ({"Authorization": f"Bearer {token}"} if token else {}) | headers


def _headers(lines: list[str]) -> dict[str, str]:
    fields = [(name.strip(), value.strip()) for name, colon, value in (line.partition(":") for line in lines) if colon]
    if len(fields) < len(lines):
        raise WrongUsage("--header: write 'NAME: VALUE'")
    try:
        return own_headers(fields)
    except RequestError as error:
        raise WrongUsage(f"--header: {error}") from None


def _pace(limit_rate: str) -> Pace | None:
    try:
        return Pace.of(rate("1")(limit_rate))
    except ValueError as error:
        raise WrongUsage(f"--limit-rate: {error}") from None
