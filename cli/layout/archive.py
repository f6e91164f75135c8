"""An archive of images of whichever form it is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from cli.layout.docker import SAVED, read_saved
from cli.layout.files import BadArchive, opened
from cli.layout.images import ImageArchive
from cli.layout.oci import INDEX, read_layout


@contextlib.contextmanager
def archive_at(where: str) -> Iterator[ImageArchive]:
    """`where` is a directory, a tar, or `-` for standard input. Raises CommandError."""
    with opened(where) as files:
        if files.size(INDEX) is not None:
            yield read_layout(files)
        elif files.size(SAVED) is not None:
            yield read_saved(files)
        else:
            raise BadArchive(f"{files.name} is neither an OCI layout (no {INDEX}) nor what docker saves (no {SAVED})")
