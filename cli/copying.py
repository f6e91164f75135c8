"""Images on their way from an agent's registry endpoint into a file."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from agent.values.manifest import Manifest
from agent.values.reference import Reference, parse_digest
from cli.errors import CommandError
from cli.layout.docker_writer import DockerArchiveWriter
from cli.layout.writer import LayoutWriter
from cli.platforms import Platform, chosen
from cli.registry import AgentRegistry


def write_image(
    registry: AgentRegistry, writer: LayoutWriter, name: str, reference: Reference, platforms: Collection[Platform] | None
) -> Manifest:
    """All of what a reference means, under that name, for some platforms or all: an index stays, so its digest does.

    Raises CommandError.
    """
    root = registry.manifest(reference)
    for manifest in _with_platforms(registry, reference, root, platforms):
        if not manifest.is_index:
            for digest, size in _blobs(manifest, name):
                if not writer.has(digest):
                    with registry.blob(reference, digest) as source:
                        writer.put(digest, size, source, name)
        writer.put_manifest(manifest)
    writer.name(name, root)
    return root


def write_docker(
    registry: AgentRegistry, writer: DockerArchiveWriter, name: str, reference: Reference, platform: Platform
) -> Manifest:
    """The image for one platform. Raises CommandError."""
    manifest = one_platform(registry, reference, platform)
    put = writer.put_config  # the config is listed first
    for digest, size in _blobs(manifest, name):
        with registry.blob(reference, digest) as source:
            put(digest, size, source, name)
        put = writer.put_layer
    writer.finish(name)
    return manifest


def one_platform(registry: AgentRegistry, reference: Reference, platform: Platform) -> Manifest:
    """The manifest for a platform, or the only one that there is. Raises CommandError."""
    manifest = registry.manifest(reference)
    while manifest.is_index:
        manifest = registry.manifest(reference, parse_digest(chosen(manifest, [platform])[0]))
    return manifest


def _with_platforms(
    registry: AgentRegistry, reference: Reference, root: Manifest, platforms: Collection[Platform] | None
) -> Iterator[Manifest]:
    yield root
    if root.is_index:
        for digest in chosen(root, platforms):
            yield from _with_platforms(registry, reference, registry.manifest(reference, parse_digest(digest)), platforms)


def _blobs(manifest: Manifest, name: str) -> list[tuple[str, int]]:
    """Raises CommandError for a manifest that does not say what it has."""
    if not manifest.tells_all_sizes:
        raise CommandError(f"{name} has a manifest {manifest.digest} that does not say what it has; nothing can be made of it")
    sizes = manifest.sizes()
    return [(digest, sizes[digest]) for digest in manifest.lists()]
