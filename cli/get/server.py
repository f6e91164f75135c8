"""A file's own server as a source, which is asked as agents ask servers (`agent.origin.web`)."""

from __future__ import annotations

import os
from typing import Protocol
from urllib.parse import urlsplit

from agent.origin.client import Origin
from agent.origin.proxies import Proxies
from agent.origin.web import ChangedError, UnsizedError, WebServers
from agent.values.errors import DarnerError, OriginError, RequestError
from agent.values.web_file import WebFile
from cli.get.errors import BrokenOffError, GetError, GetStatus, refused
from cli.get.sources import Incoming, Wanted

VERSIONS_MAX = 2
"""So often a server may say another version than it then sends."""


class FromServer:
    """Straight from the server, as wget would."""

    def __init__(self, ca_files: tuple[str, ...] = ()) -> None:
        self._ca_files = ca_files
        self._origins: dict[str, Origin] = {}

    def open(self, wanted: Wanted, start: int, validator: str) -> Incoming:
        try:
            return self._opened(self._origin(wanted.url).web, wanted, start, validator)
        except RequestError as error:
            raise GetError(GetStatus.USAGE, str(error)) from None
        except OriginError as error:
            raise _meant(error) from None

    def _opened(self, web: WebServers, wanted: Wanted, start: int, validator: str) -> Incoming:
        for _ in range(VERSIONS_MAX):
            try:
                file = web.find(wanted.url, wanted.headers, wanted.digest)
                begin = start if validator and file.validator == validator and start < file.size else 0
                return _FromServer(web.open(file, wanted.headers, begin), file, begin)
            except ChangedError:
                continue
            except UnsizedError:
                break
        # Its answers say no length, or each of them another version, as those of mirrors behind one name: one answer is the file.
        return _FromServer(web.open_unsized(wanted.url, wanted.headers), WebFile(wanted.url, "", 0), 0, is_sized=False)

    def _origin(self, url: str) -> Origin:
        """A person may ask whom she likes: only redirects lead no further than registries' do."""
        parts = urlsplit(url)
        server = parts.netloc if parts.scheme == "http" else f"https://{parts.netloc}"
        if server not in self._origins:
            self._origins[server] = Origin([server], self._ca_files, proxies=Proxies(os.environ))
        return self._origins[server]

    def document(self, url: str, headers: dict[str, str], bytes_max: int) -> tuple[bytes, dict[str, str]]:
        """A small answer that is no file, and its header fields. Raises GetError."""
        try:
            return self._origin(url).web.document(url, headers, bytes_max)
        except OriginError as error:
            raise _final(error) from None

    def close(self) -> None:
        for origin in self._origins.values():
            origin.close()


class _ServersBytes(Protocol):
    def read_into(self, buffer: memoryview) -> int: ...

    def close(self) -> None: ...


class _FromServer:
    def __init__(self, stream: _ServersBytes, file: WebFile, start: int, *, is_sized: bool = True) -> None:
        self.start, self.size, self.validator = start, file.size if is_sized else None, file.validator
        self._stream = stream
        self._came = 0

    def read_into(self, buffer: memoryview) -> int:
        try:
            count = self._stream.read_into(buffer)
        except OriginError as error:
            raise _meant(error) from None
        except DarnerError as error:
            raise BrokenOffError(str(error)) from None
        self._came += count
        return count

    def close(self) -> None:
        self._stream.close()

    def sources(self) -> dict[str, int]:
        return {"origin": self._came}


def _meant(error: OriginError) -> CommandErrors:
    """What may go better at another try is told from what will not."""
    if error.status in (408, 412, 429, 502, 504) and "certificate of" not in str(error):
        return BrokenOffError(str(error))
    return _final(error)


def _final(error: OriginError) -> GetError:
    words = str(error)
    if "certificate of" in words:
        return GetError(GetStatus.CERTIFICATE, words)
    if error.answered and error.status != 421:
        return refused(error.status, words)
    return GetError(GetStatus.REFUSED if " answered " in words else GetStatus.NETWORK, words)


CommandErrors = GetError | BrokenOffError
