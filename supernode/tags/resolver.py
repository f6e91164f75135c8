"""What a name means, for agents that ask: one question to the origin for all who ask the same at the same time.

`agent.registry.manifests` knows which manifest that is, and how long its knowledge is believed; it is asked in threads, of which
a question takes one, however many agents wait for it. The agents may know what neither the origin nor this supernode can say
(`supernode.tags.recovery`). All but those threads runs in the tracker's event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from msgspec.structs import replace

from agent.registry.manifests import Manifests
from agent.swarm import messages
from agent.values.errors import DarnerError, OriginError
from supernode.names import check_name
from supernode.session import AgentSession
from supernode.tags.recovery import Name, TagRecovery

log = logging.getLogger(__name__)

RESOLVERS_MAX = 64
"""A registry that does not answer keeps one for as long as the origin client waits."""
QUESTIONS_MAX = 4096

Resolution = messages.Resolved | messages.Unresolved


class TagResolver:
    def __init__(self, manifests: Manifests, agents: Mapping[int, AgentSession], witnesses_min: int) -> None:
        """Made in the tracker's event loop. `agents` are those that are connected now; see `TagRecovery` for the witnesses."""
        self._manifests = manifests
        self._loop = asyncio.get_running_loop()
        self._recovery = TagRecovery(agents, witnesses_min)
        self._recalling: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(RESOLVERS_MAX, thread_name_prefix="resolve")
        self._asked: dict[Name, list[tuple[AgentSession, int]]] = {}
        """The agents that wait for the answer, and the numbers of their requests."""

    def stop(self) -> None:
        for task in self._recalling:
            task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def join(self) -> None:
        """Wait for the threads, whose questions end when the origin client is closed. Called from another thread."""
        self._threads.shutdown()

    def ask(self, agent: AgentSession, message: messages.Resolve) -> None:
        name = (message.registry, message.repository, message.reference)
        waiting = self._asked.get(name)
        try:
            check_name(*name)
            if waiting is None and len(self._asked) >= QUESTIONS_MAX:
                raise OriginError(503, f"{QUESTIONS_MAX} names are asked for already", "TOOMANYREQUESTS")
        except DarnerError as error:
            agent.send(_refusal(error, message.request))
            return
        if waiting is not None:
            waiting.append((agent, message.request))
        else:
            self._asked[name] = [(agent, message.request)]
            self._threads.submit(self._resolve, name)

    def recalled(self, agent: AgentSession, answer: messages.Recalled) -> None:
        """An agent says what it knows of a name."""
        self._recovery.heard(agent, answer)

    def _resolve(self, name: Name) -> None:
        """In a thread."""
        answer: Resolution
        then = self._answered
        try:
            manifest = self._manifests.resolve(*name)
            answer = messages.Resolved(0, manifest.media_type, manifest.body, manifest.stale)
        except DarnerError as error:
            answer = _refusal(error)
            if isinstance(error, OriginError) and not error.answered:
                then = self._begin_recall
        except Exception as error:
            log.exception("resolving a name failed inside")
            answer = _refusal(OriginError(502, f"the supernode failed inside: {type(error).__name__}"))
        try:
            self._loop.call_soon_threadsafe(then, name, answer)
        except RuntimeError:
            return  # the loop has ended: the process is stopping

    def _begin_recall(self, name: Name, answer: Resolution) -> None:
        task = self._loop.create_task(self._recall(name, answer))
        self._recalling.add(task)
        task.add_done_callback(self._recalling.discard)

    async def _recall(self, name: Name, answer: Resolution) -> None:
        try:
            known = await self._recovery.recall(name)
            if known:
                manifest, age = known
                self._threads.submit(self._manifests.remember, *name, None, manifest, age)
                answer = messages.Resolved(0, manifest.media_type, manifest.body, True)
        finally:
            self._answered(name, answer)

    def _answered(self, name: Name, answer: Resolution) -> None:
        for agent, request in self._asked.pop(name):
            agent.send(replace(answer, request=request))


def _refusal(error: DarnerError, request: int = 0) -> messages.Unresolved:
    retry_after = error.retry_after if isinstance(error, OriginError) else 0
    return messages.Unresolved(request, error.status, error.code, str(error)[: messages.MESSAGE_TEXT_MAX], retry_after)
