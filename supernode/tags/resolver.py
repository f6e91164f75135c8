"""What a name means, for agents that ask: one question to the origin for all who ask the same at the same time.

`agent.registry.manifests` knows which manifest that is, and how long its knowledge is believed; it is asked in threads, of which
a question takes one, however many agents wait for it. The agents may know what neither the origin nor this supernode can say
(`supernode.tags.recovery`). All but those threads runs in the tracker's event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping

from msgspec.structs import replace

from agent.origin.shares import SharedThreads, Shares
from agent.registry.manifests import Manifests
from agent.swarm import messages
from agent.values.errors import DarnerError, OriginError
from agent.values.manifest import Manifest
from supernode.loop import call_in
from supernode.names import check_name
from supernode.session import AgentSession
from supernode.tags.handout import HandOut
from supernode.tags.recovery import Name, TagRecovery

log = logging.getLogger(__name__)

RESOLVERS_MAX = 256
"""A registry that does not answer keeps one for as long as the origin client waits. Each registry and each node has its share."""
QUESTIONS_MAX = 4096
QUESTIONS_PER_AGENT_MAX = 256
RECALLS_MAX = 16
"""Each of which asks all agents, and may bring a few manifests of 4 MiB."""
RECALL_SECONDS = 10.0
"""The agents are asked when a registry has been silent for so long, beside the question, which may last: an agent has to ask the
registry itself after that, and all of it has to end before its runtime gives up (see agent.registry.endpoint)."""
LONG_BYTES = 256 << 10
"""Manifests from this length on are handed out a few at a time."""

Resolution = messages.Resolved | messages.Unresolved
Loaded = Callable[[str, str, str], Manifest | None]


class TagResolver:
    def __init__(
        self, manifests: Manifests, agents: Mapping[int, AgentSession], witnesses_min: int, loaded: Loaded = lambda *_: None
    ) -> None:
        """Made in the tracker's event loop. `agents` are those that are connected now; see `TagRecovery` for the witnesses.

        `loaded` tells what a name means that an operator has loaded, whatever its registry says.
        """
        self._manifests = manifests
        self._loaded = loaded
        self._loop = asyncio.get_running_loop()
        self._recovery = TagRecovery(agents, witnesses_min)
        self._recalling: set[asyncio.Task[None]] = set()
        self._recalls = Shares(RECALLS_MAX)
        self._threads = SharedThreads(RESOLVERS_MAX, "resolve", prompt=manifests.prompt)
        self._hand_out = HandOut()
        self._asked: dict[Name, list[tuple[AgentSession, int]]] = {}
        """The agents that wait for the answer, and the numbers of their requests."""
        self._waits: Counter[AgentSession] = Counter()
        """How many answers each of them waits for."""
        self._silent: dict[Name, asyncio.TimerHandle] = {}
        """For the names that registries are being asked for, when the agents are asked too."""

    def stop(self) -> None:
        for task in self._recalling:
            task.cancel()
        self._hand_out.stop()
        self._threads.stop()

    def join(self) -> None:
        """Wait for the threads, whose questions end when the origin client is closed. Called from another thread."""
        self._threads.join()

    def ask(self, agent: AgentSession, message: messages.Resolve) -> None:
        name = (message.registry, message.repository, message.reference)
        waiting = self._asked.get(name)
        try:
            check_name(*name)
            if waiting is None and len(self._asked) >= QUESTIONS_MAX:
                raise OriginError(503, f"{QUESTIONS_MAX} names are asked for already", "TOOMANYREQUESTS")
            if self._waits[agent] >= QUESTIONS_PER_AGENT_MAX:
                raise OriginError(503, f"this node asks for {QUESTIONS_PER_AGENT_MAX} names already", "TOOMANYREQUESTS")
        except DarnerError as error:
            agent.send(_refusal(error, message.request))
            return
        if loaded := self._loaded(*name):  # which waits behind no registry that does not answer
            self._say(agent, message.request, _resolved(loaded))
            return
        self._waits[agent] += 1
        if waiting is not None:
            waiting.append((agent, message.request))
            return
        self._asked[name] = [(agent, message.request)]
        try:
            self._threads.submit(message.registry, agent.name, lambda _: self._resolve(name))
        except RuntimeError:
            self._answered(name, _refusal(OriginError(503, "no thread is left to ask the registry with", "TOOMANYREQUESTS")))

    def recalled(self, agent: AgentSession, answer: messages.Recalled) -> None:
        """An agent says what it knows of a name."""
        self._recovery.heard(agent, answer)

    def _resolve(self, name: Name) -> None:
        """In a thread."""
        answer: Resolution
        then: Callable[[Name, Resolution], None] = self._answered
        call_in(self._loop, self._begun, name)
        try:
            answer = _resolved(self._manifests.resolve(*name))
        except DarnerError as error:
            answer = _refusal(error)
            if isinstance(error, OriginError) and error.failed_there:
                then = self._begin_recall
        except Exception as error:
            log.exception("resolving a name failed inside")
            answer = _refusal(OriginError(502, f"the supernode failed inside: {type(error).__name__}"))
        call_in(self._loop, then, name, answer)

    def _begun(self, name: Name) -> None:
        """The registry is being asked."""
        if name in self._asked and name not in self._silent:
            self._silent[name] = self._loop.call_later(RECALL_SECONDS, self._begin_recall, name, None)

    def _begin_recall(self, name: Name, answer: Resolution | None) -> None:
        """`answer` is what is said when no agent knows better; without one, the registry is still being asked."""
        place = self._recalls.take(name[0])
        if place is None:  # too many names are asked for everywhere: the agents ask the registry themselves
            self._answered(name, answer)
            return
        task = self._loop.create_task(self._recall(name, answer))
        task.add_done_callback(lambda _: place.give_back())
        self._recalling.add(task)
        task.add_done_callback(self._recalling.discard)

    async def _recall(self, name: Name, answer: Resolution | None) -> None:
        try:
            known = await self._recovery.recall(name)
            if known:
                manifest, age = known
                self._threads.submit(name[0], "", lambda _: self._manifests.remember_recalled(*name, manifest, age))
                answer = messages.Resolved(0, manifest.media_type, manifest.body, True)
        finally:
            self._answered(name, answer)

    def _answered(self, name: Name, answer: Resolution | None) -> None:
        if answer is None:
            return
        if timer := self._silent.pop(name, None):
            timer.cancel()
        for agent, request in self._asked.pop(name, ()):
            self._waits[agent] -= 1
            if not self._waits[agent]:
                del self._waits[agent]
            self._say(agent, request, answer)

    def _say(self, agent: AgentSession, request: int, answer: Resolution) -> None:
        if isinstance(answer, messages.Resolved) and len(answer.body) >= LONG_BYTES:
            self._hand_out.send(agent, request, answer)
        else:
            agent.send(replace(answer, request=request))


def _resolved(manifest: Manifest) -> messages.Resolved:
    return messages.Resolved(0, manifest.media_type, manifest.body, manifest.stale)


def _refusal(error: DarnerError, request: int = 0) -> messages.Unresolved:
    retry_after = error.retry_after if isinstance(error, OriginError) else 0
    return messages.Unresolved(request, error.status, error.code, str(error)[: messages.MESSAGE_TEXT_MAX], retry_after)
