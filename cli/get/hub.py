"""`hf://[datasets/]OWNER/REPO[@REVISION][/FILE]`: files of a Hugging Face hub, whole repositories or one file.

The hub's listing names the SHA-256 of each large file, so every byte of these is verified. Its endpoints are
`/api/models/OWNER/REPO/tree/REVISION?recursive=true`, a page at a time, and `/OWNER/REPO/resolve/REVISION/FILE`, which redirects
to signed URLs elsewhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urljoin

from cli.errors import WrongUsage
from cli.get.errors import GetError, GetStatus
from cli.get.sources import Wanted

ENDPOINT = "https://huggingface.co"
REVISION = "main"
PAGES_MAX = 1000
PAGE_BYTES_MAX = 16 << 20

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_URL = re.compile(
    rf"hf://(?P<kind>datasets/|models/|)(?P<repository>{_NAME}/{_NAME})(?:@(?P<revision>[A-Za-z0-9._-]+))?(?:/(?P<file>.+))?"
)
_NEXT = re.compile(r'<([^<>]+)>;\s*rel="next"')
_SHA256 = re.compile(r"[0-9a-f]{64}")

Ask = Callable[[str, dict[str, str], int], tuple[bytes, Mapping[str, str]]]
"""The body and the header fields of a small answer: URL, headers, and how many bytes it may have."""


@dataclass(frozen=True)
class HubFiles:
    """What is asked for: a repository, or one file of it."""

    kind: str
    """`models` or `datasets`."""
    repository: str
    revision: str
    file: str
    """Or all, where it is ""."""

    @property
    def name(self) -> str:
        """Of a directory for all of it."""
        return self.repository.rpartition("/")[2]


def parse_hub_url(url: str) -> HubFiles:
    """Raises WrongUsage."""
    match = _URL.fullmatch(url)
    if not match:
        raise WrongUsage(f"{url}: write hf://OWNER/REPO[@REVISION][/FILE], or hf://datasets/OWNER/REPO")
    file = match["file"] or ""
    if file and not is_plain_path(file):
        raise WrongUsage(f"{url}: the file's path is none")
    return HubFiles(match["kind"].rstrip("/") or "models", match["repository"], match["revision"] or REVISION, file)


def files_of(wanted: HubFiles, ask: Ask, endpoint: str, headers: dict[str, str]) -> list[tuple[str, Wanted]]:
    """Each file's path and where it is, with its digest where the hub names one. Raises GetError."""
    root = endpoint.rstrip("/")
    place = f"{root}/{'datasets/' if wanted.kind == 'datasets' else ''}{wanted.repository}/resolve/{wanted.revision}"
    found = []
    for entry in _entries(wanted, ask, root, headers):
        if entry.get("type") != "file" or wanted.file not in ("", entry.get("path")):
            continue
        path, large = entry.get("path"), entry.get("lfs")
        if not isinstance(path, str) or not is_plain_path(path):
            raise GetError(GetStatus.PROTOCOL, f"the hub {root} lists a file by a path that leads elsewhere")
        digest = str(large.get("oid", "")).removeprefix("sha256:") if isinstance(large, dict) else ""
        found.append((path, Wanted(f"{place}/{quote(path)}", f"sha256:{digest}" if _SHA256.fullmatch(digest) else "", headers)))
    if not found:
        what = wanted.file or "a file"
        raise GetError(GetStatus.REFUSED, f"{wanted.repository} at {wanted.revision} does not have {what}, as {root} lists it")
    return found


def _entries(wanted: HubFiles, ask: Ask, root: str, headers: dict[str, str]) -> Iterator[dict[str, object]]:
    url = f"{root}/api/{wanted.kind}/{wanted.repository}/tree/{wanted.revision}?recursive=true"
    for _ in range(PAGES_MAX):
        body, said = ask(url, headers, PAGE_BYTES_MAX)
        try:
            entries = json.loads(body)
        except (ValueError, RecursionError):
            entries = None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise GetError(GetStatus.PROTOCOL, f"the hub {root} answers with something that is no list of files")
        yield from entries
        more = _NEXT.search(said.get("link", ""))
        if not more:
            return
        try:
            url = urljoin(url, more[1])
        except ValueError:
            url = ""
        if not url.startswith(f"{root}/api/"):  # the token is the hub's
            raise GetError(GetStatus.PROTOCOL, f"the hub {root} names a further page that is elsewhere")
    raise GetError(GetStatus.PROTOCOL, f"the hub {root} lists more than {PAGES_MAX} pages")


def is_plain_path(path: str) -> bool:
    """Whether it leads to somewhere below where it begins."""
    return path.isprintable() and "\\" not in path and not any(part in ("", ".", "..") for part in path.split("/"))
