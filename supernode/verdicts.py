"""Permission, shared by all nodes: what one of them was told by an origin, the others need not ask (docs/decisions/0025).

A case is a repository, a path in it and a credential, known by a keyed hash. Of the nodes that ask about a case one is told to
ask the origin; the others wait for what that one is told, for seconds at the most. Its word is taken for a digest, which says
itself what it names. What a tag means two nodes have to say. A refusal is nobody's but that node's own: the others ask for
themselves. Where there is no credential this supernode asks itself. All but those questions runs in the tracker's loop.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import msgspec

from agent.swarm import messages
from agent.values.errors import DarnerError, OriginError
from agent.values.manifest import Manifest
from supernode.loaded.images import LoadedImages
from supernode.loop import call_in
from supernode.names import check_name
from supernode.session import AgentSession

log = logging.getLogger(__name__)

ASKER_SECONDS_MAX = 2.5
"""A node that was told to ask and has not said by then what it was told: another one is told to, besides."""
VOTE_SECONDS_MIN = 10.0
"""So long one node's word on a tag waits for another's."""
WITNESSES_MIN = 2
VOTES_MAX = 8
"""So many nodes that all say something else are no help: the others ask for themselves."""
BYTES_MAX = 64 << 20
"""Of all cases. Those that were asked about longest ago are forgotten first."""
CASE_BYTES = 2 << 10
"""What a case takes, about, beside a manifest; names in it may be that long."""
TAKER_BYTES = 64
WAITING_MAX = 1 << 16
TAKEN_SECONDS = 600.0
"""Nobody believes an answer for longer (agent.origin.shown, agent.registry.manifests)."""
ORIGIN_THREADS_MAX = 32
REGISTRIES_MIN = 4
"""So many registries that do not answer it takes to keep all threads. What has no thread each node asks for itself."""

Name = tuple[str, str, str, bytes]
"""Registry, repository, path and credential."""
BlobSize = Callable[[str, str, str], int | None]
"""Asks an origin, without a credential. Raises OriginError."""
Vote = tuple[float, messages.Told]
"""When a node said it, and what."""


@dataclass(eq=False, slots=True)
class _Case:
    agreed: Vote | None = None
    votes: dict[str, Vote] = field(default_factory=dict)
    """By the node's name."""
    asker: AgentSession | None = None
    is_asked_here: bool = False
    asked_at: float = 0.0
    waiting: list[tuple[AgentSession, int]] = field(default_factory=list)
    takers: set[int] = field(default_factory=set)
    """The sessions that believe what was agreed: they were told, or have said it."""
    bytes_counted: int = 0

    @property
    def is_open(self) -> bool:
        return self.is_asked_here or self.asker is not None

    @property
    def bytes_kept(self) -> int:
        bodies = sum(len(told.body) for _, told in self.votes.values()) + (len(self.agreed[1].body) if self.agreed else 0)
        return CASE_BYTES + bodies + TAKER_BYTES * len(self.takers)


class Verdicts:
    def __init__(
        self,
        agents: Mapping[int, AgentSession],
        blob_size: BlobSize,
        believed_seconds: Callable[[str, str, str], float],
        loaded: LoadedImages | None = None,
    ) -> None:
        """Made in the tracker's loop. `believed_seconds` is how long an answer about a reference is used."""
        self._agents = agents
        self._loaded = loaded
        self._blob_size = blob_size
        self._believed_seconds = believed_seconds
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(ORIGIN_THREADS_MAX, thread_name_prefix="verdict")
        self._cases: OrderedDict[Name, _Case] = OrderedDict()
        self._open: set[Name] = set()
        self._asked_here: Counter[str] = Counter()
        """Questions in threads now, by registry."""
        self._bytes = 0
        self._waiting = 0

    def stop(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def join(self) -> None:
        """Wait for the threads, whose questions end when the origin client is closed. Called from another thread."""
        self._threads.shutdown()

    # What agents say.

    def ask(self, agent: AgentSession, question: messages.AskVerdict) -> None:
        name = (question.registry, question.repository, question.path, question.who)
        kind, _, reference = question.path.partition("/")
        try:
            check_name(question.registry, question.repository, reference)
            if kind not in (("blobs", "manifests") if question.who else ("blobs",)) or self._waiting >= WAITING_MAX:
                raise DarnerError(f"{WAITING_MAX} agents wait already, or nothing is known of {kind}")
        except DarnerError as error:
            log.debug("%s is not told what others may have: %s", agent.name, error)
            agent.send(messages.Judged(question.request, True))
            return
        if loaded := self._of_loaded(question, kind, reference):
            agent.send(loaded)
            return
        now, believed = time.monotonic(), self._believed_seconds(question.registry, question.repository, reference)
        case = self._cases.setdefault(name, _Case())
        self._cases.move_to_end(name)
        if case.agreed and now - case.agreed[0] < believed:
            self._tell(case, [(agent, question.request)], now)
        elif case.is_open:
            case.waiting.append((agent, question.request))
            self._waiting += 1
        else:
            oldest = now - max(believed, VOTE_SECONDS_MIN)
            case.votes = {node: vote for node, vote in case.votes.items() if vote[0] >= oldest}
            case.waiting.append((agent, question.request))
            self._waiting += 1
            self._begin(name, case, now)
        self._settle(name, case)

    def _of_loaded(self, question: messages.AskVerdict, kind: str, reference: str) -> messages.Judged | None:
        """Everybody may have what an operator has loaded. A manifest is said if it says itself of which type it is."""
        if self._loaded is None:
            return None
        name = question.registry, question.repository, reference
        if kind == "blobs":
            return (
                None if self._loaded.blob_size(*name) is None else messages.Judged(question.request, False, 0.0, is_loaded=True)
            )
        manifest = self._loaded.manifest(*name)
        if manifest is None or Manifest.of("", manifest.body).media_type != manifest.media_type:
            return None
        return messages.Judged(question.request, False, 0.0, manifest.body, is_loaded=True)

    def told(self, agent: AgentSession, told: messages.Told) -> None:
        name, digest = (told.registry, told.repository, told.path, told.who), told.path.partition("manifests/sha256:")[2]
        if told.outcome == messages.ALLOWED and digest and hashlib.sha256(told.body).hexdigest() != digest:
            log.warning("%s says of a manifest what cannot be", agent.name)
            told = msgspec.structs.replace(told, outcome=messages.UNANSWERED)
        if told.outcome == messages.ALLOWED and not told.who:
            return  # what is public this supernode asks itself: a lie would open it to everybody
        if case := self._cases.get(name):
            if case.asker is agent:
                case.asker = None
            if told.outcome == messages.ALLOWED:
                case.takers.add(agent.number)
            self._hear(name, case, agent.name, told)

    def left(self, agent: AgentSession) -> None:
        for name in list(self._open):
            case = self._cases[name]
            case.waiting, before = [entry for entry in case.waiting if entry[0] is not agent], len(case.waiting)
            self._waiting -= before - len(case.waiting)
            if case.asker is agent:
                case.asker = None
                self._begin(name, case, time.monotonic())
            self._settle(name, case)

    def tick(self, now: float) -> None:
        for name in list(self._open):
            case = self._cases[name]
            if case.asker and now - case.asked_at > ASKER_SECONDS_MAX:
                case.asker = None  # what it says after all is heard all the same
                self._begin(name, case, now)
                self._settle(name, case)

    def forget(self, registry: str, repository: str, reference: str) -> int:
        """Drop what a tag means to whoever has a credential, so that origins are asked again. The number of answers dropped."""
        dropped = 0
        for name, case in self._cases.items():
            if name[:3] == (registry, repository, f"manifests/{reference}"):
                dropped += case.agreed is not None or bool(case.votes)
                case.agreed, case.votes = None, {}
        return dropped

    def shown(self, registry: str, repository: str, digest: str) -> None:
        """An origin has begun to send this supernode a blob, without a credential. Called from any thread."""
        told = messages.Told(registry, repository, f"blobs/{digest}", b"", messages.ALLOWED)
        call_in(self._loop, self._heard_here, told)

    # Decisions.

    def _begin(self, name: Name, case: _Case, now: float) -> None:
        """Have the origin asked, if anybody waits."""
        registry, repository, path, who = name
        case.asked_at = now
        if not case.waiting:
            return
        if not who and path.startswith("blobs/"):
            if self._asked_here[registry] >= ORIGIN_THREADS_MAX // REGISTRIES_MIN:
                self._release(case)
                return
            case.is_asked_here = True
            self._asked_here[registry] += 1
            self._threads.submit(self._ask_here, registry, repository, path)
            return
        # A node whose word counts already is of no use; when all have spoken that wait, each asks for itself.
        position = next((n for n, (agent, _) in enumerate(case.waiting) if agent.name not in case.votes), None)
        if position is None:
            self._release(case)
            return
        case.asker, request = case.waiting.pop(position)
        self._waiting -= 1
        at, known = max(case.votes.values(), key=lambda vote: vote[0], default=case.agreed or (now, None))
        age = now - at if known and not case.votes else None
        case.asker.send(messages.Judged(request, True, age, known.body if known else b""))

    def _hear(self, name: Name, case: _Case, node: str, told: messages.Told) -> None:
        now = time.monotonic()
        if told.outcome == messages.ALLOWED:
            case.votes[node] = (now, told)
            least = 1 if name[2].startswith("blobs/") or name[2].startswith("manifests/sha256:") else WITNESSES_MIN
            same = [at for at, vote in case.votes.values() if vote.body == told.body]
            if len(same) >= least:
                if case.agreed and now - case.agreed[0] > TAKEN_SECONDS:
                    case.takers.clear()
                case.agreed, case.votes = (min(same), told), {}
                waiting, case.waiting = case.waiting, []
                self._waiting -= len(waiting)
                case.asker, case.is_asked_here = None, False
                self._tell(case, waiting, now)
            elif len(case.votes) >= VOTES_MAX:
                case.votes = {}
                self._release(case)
            elif not case.is_open:
                self._begin(name, case, now)
        else:
            if told.outcome == messages.REFUSED:
                self._revoke(name, case)
            if not case.is_open:
                self._release(case)
        self._settle(name, case)

    def _revoke(self, name: Name, case: _Case) -> None:
        """What was allowed is over, for those too that were told so."""
        for number in case.takers:
            if taker := self._agents.get(number):
                taker.send(messages.Revoked(*name))
        case.agreed, case.votes = None, {}
        case.takers.clear()

    def _release(self, case: _Case) -> None:
        """Each that waits asks the origin for itself."""
        waiting, case.waiting = case.waiting, []
        self._waiting -= len(waiting)
        now = time.monotonic()
        at, known = case.agreed or (now, None)
        for agent, request in waiting:
            agent.send(messages.Judged(request, True, now - at if known else None, known.body if known else b""))

    def _tell(self, case: _Case, waiting: list[tuple[AgentSession, int]], now: float) -> None:
        assert case.agreed  # noqa: S101 (what is told was agreed)
        at, told = case.agreed
        for agent, request in waiting:
            case.takers.add(agent.number)
            agent.send(messages.Judged(request, False, max(0.0, now - at), told.body))

    # This supernode's own questions.

    def _ask_here(self, registry: str, repository: str, path: str) -> None:
        """In a thread."""
        outcome = messages.UNANSWERED
        try:
            size = self._blob_size(registry, repository, path.removeprefix("blobs/"))
            outcome = messages.REFUSED if size is None else messages.ALLOWED
        except DarnerError as error:
            outcome = messages.REFUSED if isinstance(error, OriginError) and error.answered else outcome
            log.debug("%s/%s is not shown here: %s", registry, repository, error)
        except Exception:
            log.exception("asking for permission failed inside")
        told = messages.Told(registry, repository, path, b"", outcome)
        call_in(self._loop, self._answered_here, told)

    def _answered_here(self, told: messages.Told) -> None:
        self._asked_here[told.registry] -= 1
        if not self._asked_here[told.registry]:
            del self._asked_here[told.registry]
        self._heard_here(told)

    def _heard_here(self, told: messages.Told) -> None:
        name = (told.registry, told.repository, told.path, told.who)
        case = self._cases.setdefault(name, _Case())
        case.is_asked_here = False
        self._hear(name, case, "", told)

    # Bounds.

    def _settle(self, name: Name, case: _Case) -> None:
        """After every change."""
        if case.is_open or case.waiting:
            self._open.add(name)
        else:
            self._open.discard(name)
        self._bytes += case.bytes_kept - case.bytes_counted
        case.bytes_counted = case.bytes_kept
        while self._bytes > BYTES_MAX and (oldest := next((old for old in self._cases if old not in self._open), None)):
            self._bytes -= self._cases.pop(oldest).bytes_counted
