"""Names of images: the one place that knows how they are spelled, and how the name of an image becomes a name on this node.

The grammar is that of the distribution reference specification (github.com/distribution/reference, with its rules for
docker.io, index.docker.io and library/). `to_local` and `from_local` are one inverse pair: what the webhook writes into a
pod is what the agent reads from a pull. Pure: nothing here resolves a name, adds a default tag or speaks to anybody.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NewType

from agent.values.errors import DarnerError

LOCAL_REGISTRY = "127.0.0.1:65001"
"""Where every node's agent listens. Never `localhost`, which may resolve to ::1, where no runtime accepts plain HTTP unasked."""

DOCKER_HUB = "docker.io"
REPOSITORY_LENGTH_MAX = 255
"""Characters of a repository, without its registry: RepositoryNameTotalLengthMax of distribution/reference since 0.6."""
LOCAL_NAME_LENGTH_MAX = 255
"""Characters of a local name, with its registry. Older clients, such as containerd 1.6, count that as well (OCI distribution
specification 1.1, "Pulling manifests"), and no pod may get a name that its node's runtime refuses."""
TAG_LENGTH_MAX = 128

Digest = NewType("Digest", str)
"""`sha256:` and 64 lower-case hexadecimal digits; made by `parse_digest` alone, so it is safe as a key and as a file name."""

# Explicit ASCII sets instead of \w and \d, which would let other scripts' letters and digits through.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = rf"{_LABEL}(?:\.{_LABEL})*"
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"

_REGISTRY = re.compile(rf"(?:{_HOST}|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?")
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{TAG_LENGTH_MAX - 1}}}")
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
_SHA512 = re.compile(r"sha512:[0-9a-f]{128}")
_IDENTIFIER = re.compile(r"(?:sha256:)?[0-9a-f]{64}")
_COMPONENT = re.compile(rf"(?P<host>{_HOST})(?:_(?P<port>[0-9]{{1,5}}))?")


class InvalidReference(DarnerError, ValueError):  # noqa: N818 (the field's word; "Error" would say nothing more)
    """The caller's fault: a text that names no image, or none that a local name can express."""

    code = "NAME_INVALID"
    status = 400


class InvalidDigest(InvalidReference):
    """The caller's fault: a digest that is not `sha256:` and 64 lower-case hexadecimal digits."""

    code = "DIGEST_INVALID"


class UnsupportedDigest(InvalidDigest):
    """A well-formed sha512 digest. Nothing is verified by another algorithm than sha256, so it is not served."""

    code = "UNSUPPORTED"


def parse_digest(text: str) -> Digest:
    """The digest that the whole of `text` spells. Raises InvalidDigest, or UnsupportedDigest for sha512."""
    if _SHA256.fullmatch(text):
        return Digest(text)
    if _SHA512.fullmatch(text):
        raise UnsupportedDigest(f"{_shown(text)}: sha512 is not supported; name the image by its sha256 digest or by a tag")
    raise InvalidDigest(f"{_shown(text)} is not a digest; write sha256: and 64 lower-case hexadecimal digits")


def raw_digest(digest: str) -> bytes:
    """A sha256 digest as it travels in messages: its 32 bytes."""
    return bytes.fromhex(digest.removeprefix("sha256:"))


def parse_tag(text: str) -> str:
    """`text`, if the whole of it is a tag."""
    if _TAG.fullmatch(text):
        return text
    raise InvalidReference(
        f"{_shown(text)} is not a tag; write up to {TAG_LENGTH_MAX} letters, digits, '_', '.' or '-', beginning with none of '.-'"
    )


def parse_registry(text: str) -> str:
    """A registry's `host[:port]` in lower case, `index.docker.io` as `docker.io`."""
    if not _REGISTRY.fullmatch(text):
        raise InvalidReference(f"{_shown(text)} is not a registry; write a host name or an address, and a port if it needs one")
    registry = text.lower()
    return DOCKER_HUB if registry == "index.docker.io" else registry


@dataclass(frozen=True, order=True)
class Reference:
    """The name of an image, normalised: two texts that name the same image are equal here."""

    registry: str
    """`host[:port]`, lower case."""
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Reads a name as a pod's author writes it: `nginx`, `a/b:1`, `host:5000/a@sha256:...`. Raises InvalidReference only."""
        if _IDENTIFIER.fullmatch(text):
            # Runtimes look such a text up among the images that they hold; as a name it would be another image.
            raise InvalidReference(f"{_shown(text)} is the identifier of an image on a node; for a digest write NAME@sha256:...")
        name, at, digest_text = text.partition("@")
        host, repository_text = _split_registry(name)
        repository_text, colon, tag_text = repository_text.partition(":")
        tag = parse_tag(tag_text) if colon else None
        digest = parse_digest(digest_text) if at else None
        registry, repository = _normalised(host, repository_text)
        return cls(registry, repository, tag, digest)

    def __str__(self) -> str:
        # A bare word is a host to the grammar only when it has an upper-case letter; `foo/a` would be a repository of docker.io.
        bare = not re.search(r"[.:]", self.registry) and self.registry != "localhost"
        registry = self.registry.upper() if bare else self.registry
        return f"{registry}/{self.repository}{self._suffix()}"

    @property
    def local(self) -> str:
        """The name under which this node's agent serves the image. Raises InvalidReference if there is none."""
        if self.registry == LOCAL_REGISTRY:
            origin_of(self.repository)
            return str(self)
        name = f"{LOCAL_REGISTRY}/{component_of(self.registry)}/{self.repository}"
        if len(name) > LOCAL_NAME_LENGTH_MAX:
            raise InvalidReference(
                f"{_shown(str(self))} has no local name, which would be over {LOCAL_NAME_LENGTH_MAX} characters"
            )
        return name + self._suffix()

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def is_local(text: str) -> bool:
    """Whether the text is a name at this node's agent, well-formed or not; rewriting it once more could only do harm."""
    return text.startswith(LOCAL_REGISTRY + "/")


def to_local(text: str) -> str:
    """`nginx` -> `127.0.0.1:65001/docker.io/library/nginx`; a local name stays. Raises InvalidReference if there is none."""
    return Reference.parse(text).local


def from_local(text: str) -> str:
    """The canonical name of the image that a local name stands for: the inverse of `to_local`."""
    local = Reference.parse(text)
    if local.registry != LOCAL_REGISTRY:
        raise InvalidReference(f"{_shown(text)} is not a local name; those begin with {LOCAL_REGISTRY}/")
    registry, repository = origin_of(local.repository)
    return str(Reference(registry, repository, local.tag, local.digest))


def origin_of(local_repository: str) -> tuple[str, str]:
    """The registry and the repository that a repository at the agent stands for: `host_5000/a/b` -> `host:5000`, `a/b`."""
    component, slash, repository = local_repository.partition("/")
    if not slash:
        raise InvalidReference(
            f"{_shown(local_repository)} names no registry; write REGISTRY/REPOSITORY, such as docker.io/library/nginx"
        )
    if len(local_repository) > REPOSITORY_LENGTH_MAX:
        raise _too_long(local_repository)
    return _normalised(registry_of(component), repository)


def component_of(registry: str) -> str:
    """How a registry is written as a path component: `reg.example.com:5000` -> `reg.example.com_5000` (no host has a `_`)."""
    component = registry.lower().replace(":", "_")
    registry_of(component)
    return component


def registry_of(component: str) -> str:
    """The registry that a path component stands for: the inverse of `component_of`."""
    match = _COMPONENT.fullmatch(component)
    if not match or component != component.lower():
        raise InvalidReference(
            f"{_shown(component)} is no registry in a local name; use a host name or IPv4 address, with a port host_5000"
        )
    host, port = match["host"], match["port"]
    if port is None and not re.search(r"[a-z.]", host):
        raise InvalidReference(f"{_shown(component)} is a number, not a registry; write a host name before the repository")
    if port is not None and not 1 <= int(port) <= 65535:
        raise InvalidReference(f"{_shown(component)}: {port} is not a TCP port")
    return parse_registry(host if port is None else f"{host}:{port}")


def _split_registry(name: str) -> tuple[str, str]:
    """The first component is a host if it has a dot, a colon or an upper-case letter, or is localhost (`splitDockerDomain`)."""
    first, slash, rest = name.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first or first != first.lower()):
        return first, rest
    return DOCKER_HUB, name


def _normalised(host: str, repository: str) -> tuple[str, str]:
    """Registry and repository after the rules of docker.io, each checked as a whole."""
    registry = parse_registry(host)
    if registry == DOCKER_HUB and repository and "/" not in repository:
        repository = f"library/{repository}"
    if not _REPOSITORY.fullmatch(repository):
        raise InvalidReference(
            f"{_shown(repository)} is not a repository; write lower-case letters and digits, joined by '/', '.', '_', '__' or '-'"
        )
    if len(repository) > REPOSITORY_LENGTH_MAX:
        raise _too_long(repository)
    return registry, repository


def _too_long(repository: str) -> InvalidReference:
    return InvalidReference(f"{_shown(repository)} is too long: a repository has at most {REPOSITORY_LENGTH_MAX} characters")


def _shown(text: str) -> str:
    """The text as messages and logs may carry it: control characters escaped, cut to a length that fits a line."""
    return ascii(text if len(text) <= 100 else text[:97] + "...")
