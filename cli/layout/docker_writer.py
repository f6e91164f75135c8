"""Docker's archive, written, for `docker load`: one image for one platform.

Its layers are uncompressed and called by the digests that the config names, as skopeo writes them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from cli.errors import CommandError
from cli.layout.docker import SAVED, diff_ids_of
from cli.layout.files import GZIP_MAGIC, kept, unnamed_file
from cli.layout.sinks import Sink
from cli.layout.writer import CHUNK_BYTES, checked

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
GZIP_WINDOW = 16 + zlib.MAX_WBITS
"""For zlib: a gzip header and trailer are there."""


class DockerArchiveWriter:
    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._config_path = ""
        self._diff_ids: list[str] = []
        self._layers: list[str] = []

    def put_config(self, digest: str, size: int, source: BinaryIO, whose: str) -> None:
        """Raises CommandError for what is not that config."""
        config = b"".join(checked(source, digest, size, whose))
        self._diff_ids = diff_ids_of(config)
        self._config_path = f"{digest.removeprefix('sha256:')}.json"
        self._sink.put(self._config_path, size, [config])

    def put_layer(self, digest: str, size: int, source: BinaryIO, whose: str) -> None:
        """The next layer, after the config. Raises CommandError for what is not that layer, or is compressed otherwise."""
        with unnamed_file() as file:
            hasher = hashlib.sha256()
            for chunk in _plain(checked(source, digest, size, whose), whose):
                hasher.update(chunk)
                with kept(whose):
                    file.write(chunk)
            with kept(whose):
                length = file.tell()
                file.seek(0)
            number = len(self._layers)
            if number >= len(self._diff_ids) or self._diff_ids[number] != f"sha256:{hasher.hexdigest()}":
                raise CommandError(f"{whose}: layer {digest} is not what its config names; docker would refuse it")
            path = f"{hasher.hexdigest()}.tar"
            if path not in self._layers:
                self._sink.put(path, length, iter(lambda: file.read(CHUNK_BYTES), b""))
            self._layers.append(path)

    def finish(self, name: str) -> None:
        saved = [{"Config": self._config_path, "RepoTags": [name], "Layers": self._layers}]
        content = json.dumps(saved).encode()
        self._sink.put(SAVED, len(content), [content])
        self._sink.finish()


def _plain(chunks: Iterator[bytes], whose: str) -> Iterator[bytes]:
    """What was compressed by gzip, or not at all. Raises CommandError."""
    first = next(chunks, b"")
    if first.startswith(ZSTD_MAGIC):
        raise CommandError(f"{whose} has layers compressed by zstd, which docker's archive has not; write an OCI layout")
    if not first.startswith(GZIP_MAGIC):
        yield first
        yield from chunks
        return
    unpacker = zlib.decompressobj(GZIP_WINDOW)
    for chunk in itertools.chain([first], chunks):
        while chunk:
            try:
                yield unpacker.decompress(chunk, CHUNK_BYTES)
            except zlib.error:
                raise CommandError(f"a layer of {whose} is no gzip although it begins like one") from None
            chunk = unpacker.unconsumed_tail
            if unpacker.eof and unpacker.unused_data:  # gzip's members follow each other (RFC 1952, section 2.2)
                chunk, unpacker = unpacker.unused_data, zlib.decompressobj(GZIP_WINDOW)
    yield unpacker.flush()
