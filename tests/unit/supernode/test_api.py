"""The supernode's HTTP API: its state as JSON, bounded, and a clear answer when the tracker gives none."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.client
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from agent.admin import ControlServer
from agent.values.errors import DarnerError
from supernode.api import application
from supernode.overview import describe
from supernode.tracker.tracker import Tracker
from tests.swarm import free_address, nothing_left_running
from tests.tracker import Lab, in_loop

Ask = Callable[[Callable[[Tracker], dict[str, Any]]], dict[str, Any]]


@contextmanager
def serving(ask: Ask) -> Iterator[Callable[..., tuple[int, Any]]]:
    """A client of an API that asks its tracker like that."""
    app = application(lambda: "", ask, lambda *name: 0)
    where = free_address()

    def request(method: str, path: str, source: str = "127.0.0.1", headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(*where, timeout=20, source_address=(source, 0))
        try:
            connection.request(method, path, headers=dict(headers or {}))
            with connection.getresponse() as answer:
                content = answer.read() or b"null"
                plain = (answer.getheader("Content-Type") or "").startswith("text/plain")
                return answer.status, content.decode() if plain else json.loads(content)
        finally:
            connection.close()

    with nothing_left_running():
        server = ControlServer(app, where)
        server.start()
        yield request
        server.stop()


@contextmanager
def getting(ask: Ask) -> Iterator[Callable[..., tuple[int, dict[str, str], str]]]:
    """The same, for what is no JSON: status, headers by their names in lower case, and body of a GET."""
    where = free_address()

    def get(path: str, source: str = "127.0.0.1", host: str = "localhost") -> tuple[int, dict[str, str], str]:
        connection = http.client.HTTPConnection(*where, timeout=20, source_address=(source, 0))
        try:
            connection.request("GET", path, headers={"Host": host})
            with connection.getresponse() as answer:
                return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read().decode()
        finally:
            connection.close()

    with nothing_left_running():
        server = ControlServer(application(lambda: "", ask, lambda *name: 0), where)
        server.start()
        yield get
        server.stop()


def test_the_state_is_what_the_tracker_says() -> None:
    with serving(lambda question: {"asked": question is describe}) as request:
        assert request("GET", "/api/v1/state") == (200, {"asked": True})


def test_a_stranger_is_not_told_which_nodes_there_are_and_what_they_pull() -> None:
    with serving(lambda question: {"asked": True}) as request:
        status, body = request("GET", "/api/v1/state", source="127.0.0.2")
        assert (status, list(body)) == (403, ["error"])
        assert request("POST", "/api/v1/state", source="127.0.0.2")[0] == 405


def test_a_tracker_that_does_not_answer_is_said_to_be_silent() -> None:
    def silent(question: object) -> dict[str, Any]:
        raise DarnerError("the tracker does not answer")

    with serving(silent) as request:
        assert request("GET", "/api/v1/state") == (503, {"error": "the tracker does not answer"})


@pytest.mark.parametrize(("method", "path"), [("POST", "/api/v1/state"), ("GET", "/api/v1/"), ("GET", "/api/v1/state/x")])
def test_there_is_nothing_else_and_nothing_is_written(method: str, path: str) -> None:
    with serving(lambda question: {}) as request:
        assert request(method, path)[0] in (404, 405)


def test_the_page_is_one_file_that_may_run_and_ask_nothing_from_elsewhere() -> None:
    with getting(lambda question: {}) as get:
        status, headers, body = get("/")
    assert status == 200
    assert headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert (policy["default-src"], policy["connect-src"], policy["frame-ancestors"]) == ("'none'", "'self'", "'none'")
    for kind, tag in (("script-src", "script"), ("style-src", "style")):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", body, re.DOTALL)
        assert policy[kind] == f"'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'"
    assert re.findall(r"(?:src|href)=\"(?!#|data:,)", body) == [], "it has no resource of its own"
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|https?://", body)


@pytest.mark.parametrize("path", ["/", "/api/v1/state"])
def test_neither_page_nor_state_is_shown_to_a_stranger(path: str) -> None:
    with getting(lambda question: {}) as get:
        assert get(path, source="127.0.0.2")[0] == 403


@pytest.mark.parametrize("path", ["/", "/api/v1/state"])
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8080", 200),
        ("127.0.0.1", 200),
        ("[::1]:65003", 200),
        ("10.0.0.7:65003", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example:65003", 403),
    ],
)
def test_a_page_of_the_internet_that_takes_the_address_of_this_machine_reads_nothing(path: str, host: str, status: int) -> None:
    with getting(lambda question: {}) as get:
        assert get(path, host=host)[0] == status


QUARANTINE = "/api/v1/quarantine?node=n1&seconds=3600&reason=its%20disk"


@in_loop
async def test_a_person_on_this_machine_puts_a_node_into_quarantine_and_takes_it_out(lab: Lab) -> None:
    loop = asyncio.get_running_loop()

    def ask(question: Callable[[Tracker], dict[str, Any]]) -> dict[str, Any]:
        async def answered() -> dict[str, Any]:
            return question(lab.tracker)

        return asyncio.run_coroutine_threadsafe(answered(), loop).result(60)

    def talk() -> None:
        with serving(ask) as request:
            words = "n1 is no source for 3600 s, when it comes: it is not connected\n"
            assert request("POST", QUARANTINE) == (200, words)
            status, state = request("GET", "/api/v1/state")
            assert (status, [item["reason"] for item in state["quarantines"]]) == (200, ["its disk"])
            assert request("POST", "/api/v1/release?node=n1") == (200, "n1 may be a source again\n")
            assert request("POST", "/api/v1/release?node=n1") == (200, "n1 was in no quarantine\n")

    await loop.run_in_executor(None, talk)


@pytest.mark.parametrize("path", [QUARANTINE, "/api/v1/release?node=n1"])
def test_nobody_else_says_who_is_a_source(path: str) -> None:
    def asked(question: object) -> dict[str, Any]:
        pytest.fail("the tracker was told")

    with serving(asked) as request:
        assert request("POST", path, source="127.0.0.2")[0] == 403
        for name, value in (("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site")):
            assert request("POST", path, headers={name: value})[0] == 403
        assert request("GET", path)[0] == 405


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/quarantine?node=n1&seconds=3600",
        "/api/v1/quarantine?node=n1&seconds=-1&reason=x",
        "/api/v1/quarantine?node=n1&seconds=nan&reason=x",
        "/api/v1/quarantine?node=n1&seconds=1e9&reason=x",
        "/api/v1/quarantine?node=N%201&seconds=1&reason=x",
        "/api/v1/quarantine?node=n1&seconds=1&reason=a%0Ab",
        "/api/v1/release",
    ],
)
def test_what_is_no_quarantine_is_refused(path: str) -> None:
    with serving(lambda question: {"words": ""}) as request:
        assert request("POST", path)[0] == 422
