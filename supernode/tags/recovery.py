"""Tags that this supernode has lost, learned again from the agents while their origin is away.

All agents are asked for the digest that the origin last said to a client without a credential. The digest that most of them say
counts, and of several that as many say the youngest. The manifest then comes from one of those agents, and has to have that
digest. What a tag meant two agents have to say, unless the operator believes one: who decides it alone decides what runs. It is
served as an old answer, and only while the origin cannot be asked. All of this runs in the tracker's loop.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections.abc import Mapping

from agent.swarm import messages
from agent.values.manifest import MANIFEST_BYTES_MAX, Manifest
from supernode.session import AgentSession

log = logging.getLogger(__name__)

ANSWER_SECONDS_MAX = 1.0
"""For each question. The agents that asked have waited for the origin before."""
DIGESTS_MAX = 3
WITNESSES_MAX = 3
"""Of the digests that are named most, so many are tried, and so many agents are asked for the manifest of each."""

Name = tuple[str, str, str]
"""Registry, repository, and tag or digest."""


class TagRecovery:
    def __init__(self, agents: Mapping[int, AgentSession], witnesses_min: int) -> None:
        """`witnesses_min` agents have to say the same of a tag; a digest proves itself."""
        self._agents = agents
        self._witnesses_min = witnesses_min
        self._questions: dict[int, dict[AgentSession, asyncio.Future[messages.Recalled]]] = {}
        """By number, the answers of the agents that were asked."""
        self._numbers = itertools.count(1)

    async def recall(self, name: Name) -> tuple[Manifest, float] | None:
        """The manifest that a name meant when the origin was last asked, and how many seconds ago that was."""
        said = await self._ask(list(self._agents.values()), name, body=False)
        votes: dict[bytes, list[tuple[float, AgentSession]]] = {}
        refused = min((answer.age_seconds for _, answer in said if answer.refused), default=math.inf)
        for agent, answer in said:
            if answer.digest is not None and answer.age_seconds < refused:  # what was allowed before a refusal is over
                votes.setdefault(answer.digest, []).append((answer.age_seconds, agent))
        least = 1 if name[2].startswith("sha256:") else self._witnesses_min
        enough = [item for item in votes.items() if len(item[1]) >= least]
        by_votes = sorted(enough, key=lambda item: (-len(item[1]), min(age for age, _ in item[1])))
        for digest, witnesses in by_votes[:DIGESTS_MAX]:
            witnesses.sort(key=lambda vote: vote[0])
            manifest = await self._manifest(f"sha256:{digest.hex()}", [agent for _, agent in witnesses[:WITNESSES_MAX]], name)
            if manifest:
                log.info("%s/%s:%s is what %d agents say it was", *name, len(witnesses))
                return manifest, witnesses[0][0]
        return None

    async def _manifest(self, digest: str, witnesses: list[AgentSession], name: Name) -> Manifest | None:
        for agent, answer in await self._ask(witnesses, name, body=True):
            manifest = Manifest.of(answer.media_type, answer.body)
            if manifest.digest == digest and len(answer.body) <= MANIFEST_BYTES_MAX:
                return manifest
            log.warning("%s does not give the manifest that it named", agent.name)
        return None

    def heard(self, agent: AgentSession, answer: messages.Recalled) -> None:
        """An agent's answer. One that comes late, twice or unasked says nothing."""
        said = self._questions.get(answer.request, {}).get(agent)
        if said and not said.done():
            said.set_result(answer)

    async def _ask(self, agents: list[AgentSession], name: Name, *, body: bool) -> list[tuple[AgentSession, messages.Recalled]]:
        """The answers that came in time."""
        number, loop = next(self._numbers), asyncio.get_running_loop()
        question = self._questions[number] = {agent: loop.create_future() for agent in agents}
        try:
            for agent in agents:
                agent.send(messages.Recall(number, *name, body))
            if agents:
                await asyncio.wait(question.values(), timeout=ANSWER_SECONDS_MAX)
        finally:
            del self._questions[number]
        answers = [(agent, said.result()) for agent, said in question.items() if said.done()]
        log.debug("%d of %d agents said what they know", len(answers), len(agents))
        return answers
