"""An answer's frame: its head, and that the body has the length which the head announces.

Heads that `agent.http.plain` has read are answered by it, all others by h11. Neither sees the body's bytes: they are counted
only.
"""

from __future__ import annotations

from typing import Protocol

import h11

from agent.http.plain import answer_head


class Framing(Protocol):
    """Keeps an answer within the length that its head announces."""

    def head(self, status: int, headers: dict[str, str]) -> bytes: ...

    def count(self, length: int) -> None:
        """So many bytes of the body were sent."""

    def end(self) -> None:
        """That was all of it."""

    def fail(self) -> None:
        """No more of it will come."""

    @property
    def reusable(self) -> bool: ...


class PlainFraming:
    """For a request that `agent.http.plain` has read."""

    def __init__(self) -> None:
        self._left = 0
        self.reusable = False

    def head(self, status: int, headers: dict[str, str]) -> bytes:
        self._left = int(headers["Content-Length"])
        return answer_head(status, headers)

    def count(self, length: int) -> None:
        self._left -= length
        if self._left < 0:
            raise ValueError("an answer is longer than it announced")

    def end(self) -> None:
        if self._left:
            raise ValueError("an answer is shorter than it announced")
        self.reusable = True

    def fail(self) -> None:
        self.reusable = False


class H11Framing:
    def __init__(self, protocol: h11.Connection) -> None:
        self._protocol = protocol

    def head(self, status: int, headers: dict[str, str]) -> bytes:
        lines = list(headers.items())
        if self._protocol.their_state is h11.SEND_BODY:  # nothing here reads what clients send
            lines.append(("Connection", "close"))
        return self._protocol.send(h11.Response(status_code=status, headers=lines)) or b""

    def count(self, length: int) -> None:
        self._protocol.send_with_data_passthrough(h11.Data(data=_Counted(length)))  # type: ignore[arg-type]

    def end(self) -> None:
        self._protocol.send(h11.EndOfMessage())  # of a body with a length, which takes no bytes

    def fail(self) -> None:
        self._protocol.send_failed()

    @property
    def reusable(self) -> bool:
        return self._protocol.our_state is h11.DONE and self._protocol.their_state is h11.DONE


class _Counted:
    """Stands for bytes that went past h11, so that it counts them (h11's own advice on sendfile)."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length
