"""A file of a web server as what a download is of: where its bytes are from, and whether other nodes take part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.download.download import BlobOrigin
from agent.origin.blobstream import BlobStream
from agent.origin.client import Origin
from agent.values.web_file import WebFile


@dataclass(frozen=True)
class FileOrigin(BlobOrigin):
    """`digest` is the file's task, or another name of its own where the file is this node's alone."""

    wanted: WebFile = field(kw_only=True)
    headers: Mapping[str, str] = field(kw_only=True, default_factory=dict)
    """Of the user's, which leave this node for the file's own server alone."""
    public: bool = field(kw_only=True)

    @classmethod
    def of(cls, file: WebFile, headers: Mapping[str, str], own_name: str = "") -> FileOrigin:
        """With `own_name`, which looks like a task, the file is this node's alone."""
        return cls(file.server, file.path, own_name or file.task, None, wanted=file, headers=headers, public=not own_name)

    @property
    def file(self) -> WebFile:
        return self.wanted

    @property
    def shared(self) -> bool:
        return self.public

    def open(self, origin: Origin, start: int, end: int | None) -> BlobStream:
        return origin.web.open(self.wanted, self.headers, start, end)
