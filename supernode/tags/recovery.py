"""Tags that this supernode has lost, learned again from the agents while their origin is away.

All agents are asked for the digest that the origin last said to a client without a credential. The digest that most of them say
counts, and of several that as many say the youngest. The manifest then comes from one of those agents, and has to have that
digest. A lone agent is believed as well: its word is served as an old answer, and only while the origin cannot be asked. All of
this runs in the tracker's loop.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from agent.swarm import messages
from agent.values.manifest import MANIFEST_BYTES_MAX, Manifest

log = logging.getLogger(__name__)

ANSWER_SECONDS_MAX = 1.0
"""For each question. The agents that asked have waited for the origin before."""
DIGESTS_MAX = 3
WITNESSES_MAX = 3
"""Of the digests that are named most, so many are tried, and so many agents are asked for the manifest of each."""

Name = tuple[str, str, str]
"""Registry, repository, and tag or digest."""


class ConnectedAgent(Protocol):
    """What is needed here of an agent's session (`supernode.tracker.session`). One agent is one object."""

    @property
    def name(self) -> str:
        """The node's."""

    def send(self, *said: messages.Message) -> None:
        """Say something to the agent, soon and without waiting."""


@dataclass
class _Question:
    agents: set[ConnectedAgent]
    """Agents that have not answered yet."""
    answers: list[tuple[ConnectedAgent, messages.Recalled]] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)


class TagRecovery:
    def __init__(self, agents: Callable[[], Iterable[ConnectedAgent]]) -> None:
        self._agents = agents
        self._questions: dict[int, _Question] = {}
        self._numbers = itertools.count(1)

    async def recall(self, name: Name) -> tuple[Manifest, float] | None:
        """The manifest that a name meant when the origin was last asked, and how many seconds ago that was."""
        said = await self._ask(list(self._agents()), name, body=False)
        votes: dict[bytes, list[tuple[float, ConnectedAgent]]] = {}
        for agent, answer in said:
            if answer.digest is not None:
                votes.setdefault(answer.digest, []).append((answer.age_seconds, agent))
        by_votes = sorted(votes.items(), key=lambda item: (-len(item[1]), min(age for age, _ in item[1])))
        for digest, witnesses in by_votes[:DIGESTS_MAX]:
            witnesses.sort(key=lambda vote: vote[0])
            manifest = await self._manifest(f"sha256:{digest.hex()}", [agent for _, agent in witnesses[:WITNESSES_MAX]], name)
            if manifest:
                log.info("%s/%s:%s is what %d agents say it was", *name, len(witnesses))
                return manifest, witnesses[0][0]
        return None

    async def _manifest(self, digest: str, witnesses: list[ConnectedAgent], name: Name) -> Manifest | None:
        for agent, answer in await self._ask(witnesses, name, body=True):
            manifest = Manifest.of(answer.media_type, answer.body)
            if manifest.digest == digest and len(answer.body) <= MANIFEST_BYTES_MAX:
                return manifest
            log.warning("%s does not give the manifest that it named", agent.name)
        return None

    def heard(self, agent: ConnectedAgent, answer: messages.Recalled) -> None:
        """An agent's answer. One that comes late, twice or unasked says nothing."""
        question = self._questions.get(answer.request)
        if question is None or agent not in question.agents:
            return
        question.agents.discard(agent)
        question.answers.append((agent, answer))
        if not question.agents:
            question.done.set()

    async def _ask(
        self, agents: list[ConnectedAgent], name: Name, *, body: bool
    ) -> list[tuple[ConnectedAgent, messages.Recalled]]:
        """The answers that came in time."""
        number = next(self._numbers)
        question = self._questions[number] = _Question(set(agents))
        try:
            for agent in agents:
                agent.send(messages.Recall(number, *name, body))
            if agents:
                await asyncio.wait_for(question.done.wait(), ANSWER_SECONDS_MAX)
        except TimeoutError:
            log.debug("%d agents did not say what they know", len(question.agents))
        finally:
            del self._questions[number]
        return question.answers
