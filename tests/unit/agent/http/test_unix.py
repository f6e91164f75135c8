"""A Unix socket is made with the mode that it is to have, and one that a killed process left is in nobody's way."""

from __future__ import annotations

import socket
import stat
from contextlib import closing
from pathlib import Path

import pytest

from agent.http import server
from agent.http.server import Listener
from agent.http.unix import UnixSocket
from agent.values.errors import UsageError


@pytest.mark.parametrize("mode", [0o660, 0o666, 0o600])
def test_the_socket_has_its_mode_and_directory(tmp_path: Path, mode: int) -> None:
    where = UnixSocket(tmp_path / "run" / "agent.sock", mode)
    with closing(where.listen(1)):
        assert stat.S_IMODE(where.path.stat().st_mode) == mode
    where.remove()
    assert not where.path.exists()
    where.remove()


def test_a_socket_that_was_left_is_replaced_and_one_that_is_used_is_not(tmp_path: Path) -> None:
    where = UnixSocket(tmp_path / "agent.sock", 0o600)
    where.listen(1).close()
    with closing(where.listen(1)), pytest.raises(UsageError, match="another process listens there"):
        where.listen(1)


def test_who_listens_there_and_accepts_nobody_is_not_waited_for(tmp_path: Path) -> None:
    where = UnixSocket(tmp_path / "agent.sock", 0o600)
    with closing(where.listen(0)), socket.socket(socket.AF_UNIX) as waiting:
        waiting.connect(str(where.path))
        with pytest.raises(UsageError, match="cannot be made"):
            where.listen(0)


@pytest.mark.parametrize("name", ["file", "directory", "no/" + "a" * 200])
def test_what_cannot_be_a_socket_is_said_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "directory").mkdir()
    with pytest.raises(UsageError) as failed:
        UnixSocket(tmp_path / name, 0o600).listen(1)
    assert "\n" not in str(failed.value)
    assert (tmp_path / "file").read_text() == "kept"


def test_a_relative_path_is_refused() -> None:
    with pytest.raises(UsageError, match="absolute"):
        UnixSocket(Path("agent.sock"), 0o600).listen(1)


def test_a_path_through_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be made"):
        UnixSocket(tmp_path / "file" / "agent.sock", 0o600).listen(1)
    assert socket.AF_UNIX


def test_a_listener_that_stops_removes_its_own_socket_and_no_later_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = UnixSocket(tmp_path / "agent.sock", 0o600)
    listener = Listener(where, lambda _: None, name="test", connections_max=1, per_address_max=1, idle_seconds=1.0)
    listener.start()
    later: list[socket.socket] = []
    shut = server._shut

    def shut_and_started(sock: socket.socket) -> None:
        shut(sock)
        if not later:
            later.append(where.listen(1))

    monkeypatch.setattr(server, "_shut", shut_and_started)
    listener.stop()
    assert where.path.exists()
    later[0].close()
