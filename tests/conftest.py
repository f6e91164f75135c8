"""No secret is in anything that is told: what this process logs, what the processes of labs print, and their metrics and states.

Secrets are noted where the product takes them up, and where tests and labs make them (`hack.secrecy`). All of the product logs at
its lowest level meanwhile; a test's own `caplog` hears what it would hear otherwise.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Generator
from typing import Any

import hypothesis
import pytest
from prometheus_client import generate_latest

from agent import app  # noqa: F401 (with it this process shows an agent's metrics)
from agent.origin.proxies import Proxy
from agent.swarm import tickets
from agent.swarm.tickets import SwarmKey
from agent.values.credential import Credential
from hack import secrecy
from hack.lab.process import Process

_RANDOM = ("tests/fuzz/", "tests/property/")
"""Where credentials are made at random, as in every property's examples, and some of them are words of every log: sixteen bytes
of zero are half of the digest that is all zeros."""
_leaks = pytest.StashKey[list[str]]()
_random = False


class _Told(logging.Handler):
    """Everything that is logged in this process, with its traceback."""

    def emit(self, record: logging.LogRecord) -> None:
        if not _random:
            secrecy.heard("the log", self.format(record))


hypothesis.settings.register_profile("no clock", deadline=None)
"""An example takes as long as the machine lets it: how much else runs there is nothing that a test is about."""


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.load_profile("no clock")
    config.stash[_leaks] = []
    logging.getLogger().addHandler(_Told())
    for package in ("agent", "supernode", "webhook", "cli"):
        logging.getLogger(package).setLevel(logging.DEBUG)
    _note(Credential, "__init__", lambda given, _: secrecy.secret(given[0].password, "a password"))
    _note(SwarmKey, "_parsed", lambda _, keys: [secrecy.secret(key, "a swarm key") for key in keys])
    _note(tickets, "_mac", lambda _, mac: secrecy.secret(mac, "a ticket"))
    _note(Proxy, "__init__", lambda given, _: secrecy.secret(given[0].authorization, "what a proxy is shown"))
    Process.heard = staticmethod(secrecy.heard)  # type: ignore[method-assign]


def pytest_sessionstart(session: pytest.Session) -> None:
    logging_plugin: Any = session.config.pluginmanager.get_plugin("logging-plugin")
    logging_plugin.caplog_handler.setLevel(logging.WARNING)


def _note(owner: Any, name: str, note: Callable[[tuple[Any, ...], Any], object]) -> None:
    """Tell `note` the arguments and the result of a function whenever it is called."""
    function = getattr(owner, name)

    @functools.wraps(function)
    def noting(*given: Any, **named: Any) -> Any:
        result = function(*given, **named)
        if not _random:
            note(given, result)
        return result

    setattr(owner, name, noting)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    global _random
    _random = item.nodeid.startswith(_RANDOM) or getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
    result = yield
    item.config.stash[_leaks] += [f"{item.nodeid}: {leak}" for leak in secrecy.leaks()]
    return result


def pytest_sessionfinish(session: pytest.Session) -> None:
    secrecy.heard("the metrics of this process", generate_latest().decode())
    leaks = session.config.stash[_leaks]
    leaks += secrecy.leaks()
    if hasattr(session.config, "workeroutput"):  # one of several processes (xdist), which tells the one that started it
        session.config.workeroutput["leaks"] = leaks
    if leaks and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    node.config.stash[_leaks] += getattr(node, "workeroutput", {}).get("leaks", [])


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if config.stash[_leaks]:
        terminalreporter.section("secrets that were told")
        terminalreporter.write_line("\n".join(config.stash[_leaks]))
