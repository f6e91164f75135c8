"""This node's agent as a source: of any file by its socket, and of an artifact's by its registry endpoint."""

from __future__ import annotations

import http.client
import json
import os
import socket
from pathlib import Path
from urllib.parse import quote, urlsplit

from agent.web.endpoint import NOT_LISTED
from cli.get.errors import BrokenOffError, GetError, GetStatus, NotByThisWayError, refused
from cli.get.sources import Incoming, Wanted

SAID_BYTES_MAX = 64 << 10
AGENT_USER = "darner get"


class _Unix(http.client.HTTPConnection):
    """HTTP to a Unix socket."""

    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))


class _Answer:
    """An HTTP answer whose length is known. `start` is where its body begins."""

    def __init__(self, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse, validator: str) -> None:
        """Raises NotByThisWayError for an answer that no agent gives."""
        self.validator = validator
        self._connection, self._answer = connection, answer
        span, _, size = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        try:
            self.start = int(span.partition("-")[0]) if answer.status == 206 else 0
            self.size: int | None = int(size if answer.status == 206 else answer.headers.get("Content-Length", ""))
        except ValueError:
            self.close()
            raise NotByThisWayError("it answers without saying how many bytes come") from None
        self._left = self.size - self.start

    def read_into(self, buffer: memoryview) -> int:
        try:
            count = self._answer.readinto(buffer[: max(1, min(len(buffer), self._left))])
        except TimeoutError:
            raise BrokenOffError("nothing came for too long") from None
        except (OSError, http.client.HTTPException) as error:
            raise BrokenOffError(f"the connection broke off: {error or type(error).__name__}") from None
        if not count and self._left:
            raise BrokenOffError(f"the connection ended {self._left} bytes early")
        self._left -= count
        return count

    def close(self) -> None:
        self._answer.close()
        self._connection.close()

    def sources(self) -> dict[str, int]:
        return {}


def _ask(connection: http.client.HTTPConnection, target: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    """Raises NotByThisWayError when nobody answers."""
    try:
        connection.request("GET", target, headers={"User-Agent": AGENT_USER, "Accept-Encoding": "identity", **headers})
        return connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
        raise NotByThisWayError(reason.lower()) from None


def _said(answer: http.client.HTTPResponse) -> tuple[str, str]:
    """The code and the words of an error."""
    try:
        (error,) = json.loads(answer.read(SAID_BYTES_MAX))["errors"]
        return str(error["code"]), str(error["message"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return "UNKNOWN", f"it answered {answer.status}"


class FromAgent:
    """Through the swarm."""

    def __init__(self, path: Path, seconds: float) -> None:
        self._path, self._seconds = path, seconds

    def open(self, wanted: Wanted, start: int, validator: str) -> Incoming:
        target = f"/v1/file?url={quote(wanted.url, safe='')}" + (f"&digest={wanted.digest}" if wanted.digest else "")
        headers = {"Darner-Headers": json.dumps(wanted.headers)} if wanted.headers else {}
        if start and validator:
            headers |= {"Range": f"bytes={start}-", "If-Range": validator}
        connection = _Unix(self._path, self._seconds)
        try:
            answer = _ask(connection, target, headers)
            if answer.status in (200, 206):
                return _FromAgent(self._path, self._seconds, connection, answer)
        except NotByThisWayError as error:
            raise NotByThisWayError(f"no agent answers at {self._path} ({error})") from None
        code, words = _said(answer)
        connection.close()
        if answer.status == 416 and start:
            return self.open(wanted, 0, "")
        is_servers_own = 400 <= answer.status < 500 and code != NOT_LISTED and answer.status not in (408, 412, 421, 429)
        if is_servers_own:
            raise refused(answer.status, words)
        raise NotByThisWayError(f"the agent cannot get it: {words}")

    def close(self) -> None:
        """Each answer has its own connection."""


class _FromAgent(_Answer):
    def __init__(
        self, path: Path, seconds: float, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse
    ) -> None:
        super().__init__(connection, answer, answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "")
        self._path, self._seconds, self._task = path, seconds, answer.headers.get("Darner-File", "")

    def sources(self) -> dict[str, int]:
        connection = _Unix(self._path, self._seconds)
        try:
            said = json.loads(_ask(connection, f"/v1/file/{self._task}", {}).read(SAID_BYTES_MAX))
            return {str(name): int(count) for name, count in said["sources"].items() if count}
        except (NotByThisWayError, OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
            return {}
        finally:
            connection.close()


class FromRegistry:
    """A blob from the registry endpoint of this node's agent; its URL is that of the endpoint."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def open(self, wanted: Wanted, start: int, validator: str) -> Incoming:
        parts = urlsplit(wanted.url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=self._seconds)
        span = {"Range": f"bytes={start}-"} if start and validator else {}
        try:
            answer = _ask(connection, parts.path, {**wanted.headers, **span})
            if answer.status in (200, 206):
                return _Answer(connection, answer, wanted.digest)
        except NotByThisWayError as error:
            words = f"no agent answers at {parts.netloc} ({error}); oci:// is asked for through this node's agent"
            raise GetError(GetStatus.NETWORK, words) from None
        words = _said(answer)[1]
        connection.close()
        if answer.status == 416 and start:
            return self.open(wanted, 0, "")
        if answer.status < 500 and answer.status != 429:
            raise refused(answer.status, words)
        raise BrokenOffError(words)

    def document(self, url: str, headers: dict[str, str], bytes_max: int) -> bytes:
        opened = self.open(Wanted(url, "", headers), 0, "")
        body = bytearray()
        buffer = memoryview(bytearray(SAID_BYTES_MAX))
        try:
            while count := opened.read_into(buffer):
                body += buffer[:count]
                if len(body) > bytes_max:
                    raise GetError(GetStatus.PROTOCOL, f"the registry sends more than {bytes_max} bytes for a manifest")
        except BrokenOffError as error:
            raise GetError(GetStatus.NETWORK, str(error)) from None
        finally:
            opened.close()
        return bytes(body)

    def close(self) -> None:
        """Each answer has its own connection."""
