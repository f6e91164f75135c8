"""`darner local`: what the process of this container answers, and what is said when it does not."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from agent.admin import ControlServer, application
from agent.values.address import Address
from agent.values.errors import DarnerError, UsageError
from cli import local
from tests.swarm import free_address, wait_until


@pytest.fixture
def process() -> Iterator[Address]:
    server = ControlServer(application(lambda: "the cat sleeps"), Address("127.0.0.1", 0))
    server.start()
    wait_until(lambda: server.surface.started)
    yield server.surface.address
    server.stop()


def asked(*argv: str, **environment: str) -> bytes:
    output = io.BytesIO()
    assert local.run(argv, environment, output) == 0
    return output.getvalue()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_the_process_of_this_container_is_asked_where_its_setting_says(process: Address, host: str) -> None:
    assert asked("GET", "/healthz", DARNER_HTTP_LISTEN=f"{host}:{process.port}") == b"ok\n"


def test_any_answer_but_200_is_an_error_with_its_words(process: Address) -> None:
    with pytest.raises(DarnerError, match="answered 503: the cat sleeps"):
        asked("GET", "/readyz", DARNER_HTTP_LISTEN=str(process))
    with pytest.raises(DarnerError, match="answered 404"):
        asked("POST", "/nothing", DARNER_HTTP_LISTEN=str(process))


def test_nobody_there_is_said_in_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARNER_HTTP_LISTEN", str(free_address()))
    assert local.main(["GET", "/healthz"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("darner local: nobody answers at 127.0.0.1:")
    assert said.count("\n") == 1


@pytest.mark.parametrize("argv", [["DELETE", "/x"], ["GET"], []])
def test_what_cannot_be_asked_is_wrong_usage(argv: list[str]) -> None:
    with pytest.raises(UsageError):
        asked(*argv)
    with pytest.raises(UsageError):
        asked("GET", "/", DARNER_HTTP_LISTEN="here")
