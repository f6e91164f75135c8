"""Web servers that are asked for files: which version a URL names now, and the bytes of that version and of no other.

A server is asked as registries are (`agent.origin.redirects`): each hop's address is checked, and the header fields that a user
adds, which may say who asks, go to the first server alone. Which files may be asked for at all is not decided here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from agent.http.client import StalledError, TransferError
from agent.http.ratelimit import Pace
from agent.origin.blobstream import BlobStream, content_range
from agent.origin.destinations import DestinationError
from agent.origin.redirects import Redirects
from agent.origin.reply import Reply
from agent.values.errors import OriginError, RequestError
from agent.values.web_file import WebFile, validator_of

ANSWER_SECONDS_MAX = 20.0
"""For the head of an answer, redirects included."""
HEADER_FIELDS_MAX = 32
HEADER_CHARACTERS_MAX = 8192

_HEAD_REFUSED = (400, 401, 403, 404, 405, 501)
"""What servers answer to HEAD that would answer GET: a signed URL is good for one method alone."""
_OUR_OWN = {"host", "range", "connection", "content-length", "transfer-encoding", "accept-encoding", "te", "upgrade", "expect"}


class ChangedError(OriginError):
    """The server has another version of the file now than the one that is wanted."""

    def __init__(self, file: WebFile) -> None:
        words = f"{file.server}/{file.path} has changed at its server meanwhile; ask for it anew"
        super().__init__(412, words, "CHANGED")


class UnsizedError(OriginError):
    """The file comes without its length, so no part of it can be told from another."""


class WebServers:
    """Every method raises OriginError: with the server's own status, 412 for another version, 502 and 504 for no answer."""

    def __init__(self, redirects: Redirects, paces: Sequence[Pace] = ()) -> None:
        self._redirects = redirects
        self._paces = paces

    def find(self, url: str, headers: Mapping[str, str], digest: str = "") -> WebFile:
        """The version that the server has now. `headers` are for that server alone."""
        try:
            reply = self._ask("HEAD", url, headers)
        except OriginError as error:
            if error.status not in _HEAD_REFUSED:
                raise
            reply = self._ask_first_byte(url, headers)
        with reply:
            size = content_range(reply.headers)[2] if reply.status == 206 else reply.length
            if size is None or size < 0:
                raise UnsizedError(502, f"{_named(url)} comes without its length, which no two nodes can share")
            return WebFile(url, validator_of(reply.headers), size, digest)

    def _ask_first_byte(self, url: str, headers: Mapping[str, str]) -> Reply:
        try:
            return self._ask("GET", url, headers, {"Range": "bytes=0-0"})
        except OriginError as error:
            if error.status != 416:
                raise
            return self._ask("GET", url, headers)  # an empty file has no first byte

    def open(self, file: WebFile, headers: Mapping[str, str], start: int = 0, end: int | None = None) -> BlobStream:
        """The bytes of this version from `start` on; with `end` not those from there on. The caller closes the stream."""
        if start and not file.validator:
            raise OriginError(502, f"{_named(file.url)} has no version by which to go on with it", "CHANGED")
        span = {}
        if start or end is not None:
            span = {"Range": f"bytes={start}-{'' if end is None else end - 1}", "If-Range": file.validator}
        reply = self._ask("GET", file.url, headers, span)
        try:
            size = content_range(reply.headers)[2] if reply.status == 206 else reply.length
            if validator_of(reply.headers) != file.validator or size != file.size:
                raise ChangedError(file)
        except BaseException:
            reply.close()
            raise
        return _FileStream(self, reply, file, headers, start, self._paces, end)

    def open_unsized(self, url: str, headers: Mapping[str, str]) -> Connected:
        """The bytes of a file whose length its server does not say. The caller closes it."""
        return Connected(self._ask("GET", url, headers))

    def document(self, url: str, headers: Mapping[str, str], bytes_max: int) -> tuple[bytes, dict[str, str]]:
        """A small answer, and its header fields, whose names are in lower case."""
        with self._ask("GET", url, headers) as reply:
            try:
                return reply.read(bytes_max), reply.headers
            except TransferError as error:
                raise OriginError(502, f"{_named(url)}: its server did not answer whole: {error}") from None

    def _ask(self, method: str, url: str, headers: Mapping[str, str], span: Mapping[str, str] | None = None) -> Reply:
        until = time.monotonic() + ANSWER_SECONDS_MAX
        lines = {"User-Agent": "darner", "Accept": "*/*", **(span or {})}
        try:
            reply = self._redirects.ask(method, url, lines, None, until, big=method == "GET", own=headers)
            if reply.status in (200, 206 if span else 200):
                return reply
            with reply:
                parts = urlsplit(url)
                raise reply.refusal(f"{parts.scheme}://{parts.netloc}", parts.path, anonymous=False)
        except TransferError as error:
            if isinstance(error, StalledError):
                raise OriginError(504, f"{_named(url)}: its server did not answer in time") from None
            raise OriginError(502, f"{_named(url)}: its server cannot be reached: {error}") from None
        except DestinationError as error:
            raise OriginError(error.status, f"{_named(url)} cannot be asked for: {error}", error.code) from None


class Connected:
    """A body that ends when it ends."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.read_into = reply.connection.read_into
        self.close = reply.close


class _FileStream(BlobStream):
    """Ends only after the server has said once more that this is the version: a file may be overwritten while it is sent."""

    def __init__(
        self,
        servers: WebServers,
        reply: Reply,
        file: WebFile,
        headers: Mapping[str, str],
        start: int,
        paces: Sequence[Pace],
        end: int | None,
    ) -> None:
        self._servers, self._file, self._headers = servers, file, headers
        self._left = file.size  # the bytes before `start` may be read by the constructor, and count
        super().__init__(reply, file.server, start, paces, file.size, end=end)
        self._left = file.size - start

    def read_into(self, buffer: memoryview) -> int:
        count = super().read_into(buffer)
        self._left -= count
        if count and not self._left and self._file.validator:
            now = self._servers.find(self._file.url, self._headers)
            if (now.validator, now.size) != (self._file.validator, self._file.size):
                raise ChangedError(self._file)
        return count


def own_headers(fields: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Header fields that a user adds. Raises RequestError for those that would change what is asked, or are none."""
    headers: dict[str, str] = {}
    for name, value in fields:
        is_token = name.replace("-", "").replace("_", "").isalnum() and name.isascii()
        if not is_token or not all(character == "\t" or " " <= character <= "~" for character in value):
            raise RequestError(400, "UNSUPPORTED", "a header field is none; write NAME: VALUE in printable ASCII")
        if name.lower() in _OUR_OWN or name.lower().startswith(("if-", "proxy-")):
            raise RequestError(400, "UNSUPPORTED", f"the header field {name} is set by Darner itself")
        headers[name] = value
    if len(headers) > HEADER_FIELDS_MAX or sum(len(name) + len(value) for name, value in headers.items()) > HEADER_CHARACTERS_MAX:
        words = f"at most {HEADER_FIELDS_MAX} header fields, of {HEADER_CHARACTERS_MAX} characters in all, are sent"
        raise RequestError(400, "UNSUPPORTED", words)
    return headers


def _named(url: str) -> str:
    """For messages, which go into logs: a query may hold what proves who asks."""
    return url.partition("?")[0]
