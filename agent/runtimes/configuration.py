"""Keeps the runtime's configuration as the settings say for as long as the agent serves pulls, and takes its own back at the end.

It is written when the registry endpoint listens, and looked at now and then: an administrator's file may have come, a directory
been made anew. An orderly stop removes everything of ours before the endpoint closes, so neither an update nor an uninstallation
leaves anything that names an agent which is not there. After a crash the files stay: runtimes go on to the registry, and the next
agent takes the files up. A directory that cannot be written to is no reason not to serve: pulls go past the agent then.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Protocol

from agent.runtimes.certs_d import ALL
from agent.values.address import Address
from agent.values.reference import component_of, parse_registry

log = logging.getLogger(__name__)

LOOK_SECONDS = 60.0


class RuntimePlace(Protocol):
    """Where one kind of runtime is configured."""

    def write(self, registries: Sequence[str], agent: Address) -> list[str]: ...

    def remove(self) -> None: ...


class RuntimeConfiguration:
    """One thread of its own; `start` and `stop` are called by another one."""

    def __init__(self, places: Sequence[RuntimePlace], registries: Sequence[str]) -> None:
        self._places = places
        self._registries = registries
        self._stopping = threading.Event()
        self._writing = threading.Lock()
        self._said: dict[RuntimePlace, str] = {}
        """What was logged last of each place."""

    def start(self, agent: Address) -> None:
        """Runtimes are told of the agent at this address from here on."""
        if self._places:
            self._look(agent)
            threading.Thread(target=self._run, args=[agent], name="runtime configuration", daemon=True).start()

    def stop(self) -> None:
        """New pulls go past the agent from here on; those that have begun go on."""
        self._stopping.set()
        with self._writing:
            for place in self._places:
                try:
                    place.remove()
                except OSError as error:
                    log.warning("what was written for the runtime cannot be removed: %s", error)

    def _run(self, agent: Address) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            self._look(agent)

    def _look(self, agent: Address) -> None:
        with self._writing:
            if self._stopping.is_set():
                return
            for place in self._places:
                try:
                    foreign = place.write(self._registries, agent)
                    said = f"an administrator's own files stay, for {', '.join(foreign)}" if foreign else ""
                except OSError as error:
                    said = f"the runtime cannot be told of this agent, so its pulls go past it: {error}"
                if said and said != self._said.get(place):
                    log.warning("%s", said)
                self._said[place] = said


def mirrored(value: str) -> str:
    """A registry that the agent is to be the mirror of, or `_default` for all. Raises ValueError."""
    if value == ALL:
        return ALL
    registry = parse_registry(value)
    component_of(registry)
    return registry
