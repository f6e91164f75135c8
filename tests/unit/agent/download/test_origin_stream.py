"""The origin's stream of a download, where the node itself has nothing left to begin it with."""

from __future__ import annotations

import threading
from typing import NoReturn

import pytest

from agent.download import events
from agent.download.origin_stream import OriginStream


def test_a_stream_for_which_no_thread_is_left_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def nobody(*_: object) -> NoReturn:
        raise AssertionError("nothing is asked or received")

    heard: list[events.Event] = []
    stream = OriginStream(nobody, nobody, heard.append, first=0, end=None, shares=False)
    monkeypatch.setattr(threading.Thread, "start", exhausted)
    stream.begin("origin")
    assert [isinstance(event, events.OriginEnded) and event.error is not None for event in heard] == [True]
